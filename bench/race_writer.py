"""One of several writers that race on one lake, as a process that may be killed at any moment.

Reads requests from standard input, one a line, and does each: the steps of Bronze or Silver on some hours, or an insert
of forecasts. Says on standard output where in a write it is, a JSON object a line; ends when standard input ends.

Does not belong here: killing, judging (`bench.races`).
"""

from __future__ import annotations

import json
import logging
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import floor_hour, key_slice
from crypto_assets.contracts.tables import TABLES

if TYPE_CHECKING:
    import pyarrow as pa

    from crypto_assets.engine.base import Engine
    from crypto_assets.settings import Settings

FORECASTS = "gold.price_predictions"
FORECASTS_LAKE = "forecasts"
"""Folder of the home for the forecasts: made up as they are, they would break the laws of the lake."""


@dataclass(frozen=True)
class Request:
    """What a writer shall do.

    Args:
        what: `bronze`, `silver` or `forecasts`.
        keys: Hours.
        run_id: Recorded in its commits.
        upto: Forecasts: slots from the first hour's start on.
    """

    what: str
    keys: Sequence[str]
    run_id: str
    upto: int = 0


def settings_of(given: dict[str, Any]) -> Settings:
    """Settings from their JSON."""
    from crypto_assets.settings import Settings

    first = date.fromisoformat(given["partitions_start"])
    return Settings(_env_file=None, **{**given, "partitions_start": first})  # type: ignore[call-arg]


def forecasts(start: datetime, upto: int, price: float) -> pa.Table:
    """One forecast a slot of 5 minutes; the price tells who inserted it."""
    import pyarrow as pa

    rows = []
    for slot in range(upto):
        end = start + timedelta(minutes=5 * (slot + 1))
        hour = floor_hour(end - timedelta(minutes=5))
        rows.append(
            {
                "coin_id": "bitcoin", "window_end": end, "horizon": "5m", "target_at": end + timedelta(minutes=5),
                "price": price, "predicted_return": 0.0, "predicted_price": price, "lower_90": price,
                "upper_90": price, "model_name": "price_5m", "model_version": "1", "mode": "live",
                "predicted_at": end, "day": hour.date(), "hour": hour,
            }
        )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=arrow_schema(TABLES[FORECASTS]))


def say(**what: object) -> None:
    """One line to the parent."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Telling(logging.Handler):
    """Says why an attempt started over."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        kind = "conflict"
        if "was used by another" in text or "was replaced by another" in text:
            kind = "skipped"
        elif "no longer as it was read" in text:
            kind = "condition"
        say(lost=kind, why=text[:200])


def announcing(engine: Engine) -> None:
    """Make an engine's store say where in a write it is."""
    store: Any = engine.store

    def told(build: Callable[..., Any], name: str) -> Callable[..., Any]:
        def building(*seen: Any) -> Any:
            say(at=f"{name}: reading")
            made = build(*seen)
            say(at=f"{name}: writing" if made is not None else f"{name}: nothing to write")
            return made

        return building

    def wrapped(write: Callable[..., Any], name: str) -> Callable[..., Any]:
        def writing(*given: Any, **named: Any) -> Any:
            arguments = list(given)
            say(at=f"{name}: begun")
            if name == "append_together":
                arguments[1] = [replace(one, build=told(one.build, name)) for one in arguments[1]]
            elif name == "replace_slice":
                arguments[2] = told(arguments[2], name)
            else:
                say(at=f"{name}: writing")
            done = write(*arguments, **named)
            committed = [one.committed for one in done] if isinstance(done, list) else [done.committed]
            say(at=f"{name}: done", committed=any(committed))
            return done

        return writing

    for name in ("append_together", "replace_slice", "merge"):
        setattr(store, name, wrapped(getattr(store, name), name))


def perform(settings: Settings, engine: Engine, forecasting: Engine, asked: Request) -> None:
    """Do one request."""
    from crypto_assets.assets import bronze, silver
    from crypto_assets.engine.inputs import StepInputBuilder

    if asked.what == "forecasts":
        start = key_slice(asked.keys[0], "hour").start
        rows = forecasts(start, asked.upto, random.Random(asked.run_id).uniform(1, 100))
        forecasting.store.merge(FORECASTS, rows, mode="insert_if_absent", commit_metadata={"run_id": asked.run_id})
        return
    reads = "prices" if asked.what == "bronze" else None
    inputs = StepInputBuilder(settings).build(
        now=datetime.now(UTC), run_id=asked.run_id, keys=asked.keys, reads_log=reads
    )
    (bronze.work if asked.what == "bronze" else silver.work)(engine, asked.keys, inputs)


def requests() -> Iterator[Request]:
    """Requests until the input ends."""
    for line in sys.stdin:
        yield Request(**json.loads(line))


def main(given: str) -> None:
    """Work until the input ends."""
    from crypto_assets.engine.engines import make_engine

    settings = settings_of(json.loads(given))
    engine = make_engine(settings)
    forecasting = make_engine(settings.model_copy(update={"lake_uri": str(settings.home / FORECASTS_LAKE)}))
    announcing(engine)
    announcing(forecasting)
    log = logging.getLogger("crypto_assets.storage.attempts")
    log.setLevel(logging.INFO)
    log.addHandler(Telling())
    engine.spark.range(1).count()  # start it before it is timed or killed at work
    say(at="ready")
    for asked in requests():
        perform(settings, engine, forecasting, asked)
        say(at="idle")


if __name__ == "__main__":
    main(sys.argv[1])
