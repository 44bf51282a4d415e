"""Bodies of gold/bars_1m, bars_5m, bars_1h and bars_1d: from Silver to bars.

Belongs here: reading Silver and the lake's coverage, writing bars. Does not belong here: how a bar is computed
(`transforms.bars`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from crypto_assets.assets.card import Reads, Step
from crypto_assets.assets.log_slices.coverage import covered_until
from crypto_assets.assets.publishing import publish
from crypto_assets.contracts.slices import Slice, key_slice
from crypto_assets.contracts.tables import BARS_1D, BARS_1H, BARS_1M, BARS_5M, SILVER_PRICES, TABLES
from crypto_assets.engine.base import CheckOutcome, Engine, Result, StepInputs, TableResult
from crypto_assets.transforms.bars import COMPLETE_TENTHS, Width, bars

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

HOURLY: dict[str, Width] = {"gold.bars_1m": "1m", "gold.bars_5m": "5m", "gold.bars_1h": "1h"}
DAILY = "gold.bars_1d"
COMPLETE = "complete_windows"


@Step(
    "gold_bars",
    [BARS_1M, BARS_5M, BARS_1H],
    reads=[Reads("silver/prices")],
    moved_by="refresh",
    role="transform",
    subset=True,
    restated=True,
)
def work(
    engine: Engine, partition_keys: Sequence[str], inputs: StepInputs, tables: Sequence[str] = tuple(HOURLY)
) -> Result:
    """Write hours of the one-minute, five-minute and one-hour bars, or of some of them.

    Args:
        engine: Engine whose store is read and written.
        partition_keys: Hours, in any order.
        inputs: `now`, `run_id`, `rebuild`, `as_of`.
        tables: Tables to write, of `HOURLY`.

    Raises:
        SliceRefused: An hour is older than Silver's retention less one day.
        AuditFailed: A blocking rule failed; nothing of that slice was committed.
    """
    return Result({name: _publish(engine, name, HOURLY[name], partition_keys, inputs) for name in tables})


@Step(
    "gold_bars_1d",
    [BARS_1D],
    reads=[Reads("gold/bars_1h"), Reads("silver/prices")],
    moved_by="daily",
    role="transform",
    restated=True,
)
def work_day(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Write days of `gold.bars_1d` from the day's samples: a deviation cannot be derived from hourly bars.

    Raises:
        SliceRefused: A day is older than Silver's retention less one day.
        AuditFailed: A blocking rule failed; nothing of that slice was committed.
    """
    done = _publish(engine, DAILY, "1d", partition_keys, inputs)
    for key, partition in done.partitions.items():
        day = key_slice(str(key), "day")
        red = next((c for c in partition.checks if c.name == COMPLETE and not c.passed), None)
        if red is not None and not _samples_before(engine, day.start) and (begun := _complete_since(engine, day)):
            message = f"the first day of the home: complete since its first sample at {begun:%H:%M}Z"
            kept = {name: red.metadata[name] for name in ("rows", "blocking") if name in red.metadata}
            green = CheckOutcome(COMPLETE, True, message, red.severity, {**kept, "violations": 0})
            partition.checks = [green if c is red else c for c in partition.checks]
    return Result({DAILY: done})


def _samples_before(engine: Engine, moment: datetime) -> bool:
    where = f"hour < '{moment:%Y-%m-%dT%H:%M:%SZ}'"
    return engine.store.read_arrow(SILVER_PRICES.full_name, columns=["hour"], where=where).num_rows > 0


def _complete_since(engine: Engine, day: Slice) -> datetime | None:
    """Time of a day's first sample if every closed bar after it has its share of samples; else None."""
    columns = ["first_event_at", "sample_count", "expected_count", "is_closed", "is_complete"]
    rows = engine.store.read_arrow(DAILY, day, columns=columns).to_pylist()
    begun = min((r["first_event_at"] for r in rows), default=None)
    if begun is None:
        return None
    share = (day.end - begun) / (day.end - day.start)
    short = [
        r
        for r in rows
        if r["is_closed"]
        and not r["is_complete"]
        and (r["expected_count"] is None or r["sample_count"] * 10 < r["expected_count"] * share * COMPLETE_TENTHS)
    ]
    return None if short else begun


def _publish(engine: Engine, name: str, width: Width, keys: Sequence[str], inputs: StepInputs) -> TableResult:
    def build(slice_: Slice) -> DataFrame:
        from pyspark.sql import functions as F

        # Coverage first, so that what is read afterwards reaches at least as far.
        as_of = covered_until(engine, inputs.as_of)
        silver = engine.store.read(SILVER_PRICES.full_name, slice_)
        if inputs.as_of is not None:
            silver = silver.where(F.col("available_at") <= F.lit(inputs.as_of))
        return bars(silver, width, as_of)

    def not_yet(key: str) -> str | None:
        end = key_slice(key, "day").end
        return None if _samples_before(engine, end) else "the home's first sample is later than this day"

    return publish(
        engine,
        TABLES[name],
        keys,
        inputs,
        build,
        input_retention_days=SILVER_PRICES.retention_days,
        why_empty="Silver holds no sample of this partition; see the checks of silver/prices and bronze/raw_prices",
        not_yet=not_yet if width == "1d" else lambda _key: None,
    )
