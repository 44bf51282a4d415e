"""`parity`: runs the same partitions on two engines, in separate homes, and compares them row by row.

Belongs here: making the two lakes from one log, and the report. Does not belong here: the comparison
(`cli.lake_difference`).

Each engine runs in a separate process, because PySpark supports one kind of session per process. Both read
the log of the home that was named, and both get the same time, so that only the engine differs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from crypto_assets.assets.card import assets_of
from crypto_assets.cli import output
from crypto_assets.cli.instance import open_instance
from crypto_assets.cli.lake_difference import compare
from crypto_assets.cli.processes import owned_children
from crypto_assets.cli.runs import run_job
from crypto_assets.cli.up import running_broker
from crypto_assets.contracts.slices import DAY, Slice, day_key, floor_day, hour_keys, key_slice
from crypto_assets.engine.base import StepFailed, StepInputs
from crypto_assets.engine.inputs import StepInputBuilder
from crypto_assets.errors import UsageError
from crypto_assets.home import existing_home, open_home
from crypto_assets.log.kafka.client import client_config
from crypto_assets.settings import Settings, child_environment, prepare_embedded_engine
from crypto_assets.wiring import build_definitions

ENGINES = ("local", "spark")


@dataclass(frozen=True)
class FixedClock:
    """Step inputs whose time is given: two engines that are asked one after the other must not differ by that."""

    builder: StepInputBuilder
    now: datetime

    @property
    def banner(self) -> str:
        """The data mode's sentence."""
        return self.builder.banner

    def build(self, *, now: datetime, **given: Any) -> StepInputs:  # noqa: ARG002 - that is the point
        """As `StepInputBuilder.build`, at the fixed time."""
        return self.builder.build(now=self.now, **given)


def span_of(text: str) -> Slice:
    """The hours `A..B` (both included) or one hour.

    Raises:
        UsageError: Not hourly partition keys, or in the wrong order.
    """
    first, _, last = text.partition("..")
    try:
        return Slice(key_slice(first, "hour").start, key_slice(last or first, "hour").end)
    except ValueError as error:
        raise UsageError(f"--hours {text}: {error}") from None


def days_within(span: Slice) -> list[str]:
    """Keys of the days that lie in a span as a whole."""
    first = floor_day(span.start) if floor_day(span.start) == span.start else floor_day(span.start) + DAY
    count = max(0, int((span.end - first) / DAY))
    return [day_key(first + i * DAY) for i in range(count)]


def run(settings: Settings, hours: str, engines: Sequence[str], *, keep: Path | None, as_json: bool) -> int:
    """Materialize the hours (and the days within) on two engines and compare; 0 when nothing differs.

    Args:
        settings: Settings of the home whose log is read.
        hours: `A..B`, hourly partition keys.
        engines: Two targets.
        keep: Folder in which the two homes are made and left; None = temporary.
        as_json: Print JSON.

    Raises:
        ValueError: Not two engines that can be compared, or `hours` cannot be read.
        HomeError: There is no such home.
    """
    if len(engines) != 2:
        raise UsageError(f"two engines are compared, not {len(engines)}: --engines local,spark")
    if unknown := sorted(set(engines) - set(ENGINES)):
        raise UsageError(
            f"{', '.join(unknown)}: the engines to compare are {' and '.join(ENGINES)}, whose tables are folders; "
            "what a workspace writes is compared by its own checks and content hashes (data versions)"
        )
    span = span_of(hours)
    home = existing_home(settings)
    folder = keep or Path(tempfile.mkdtemp(prefix="crypto-assets-parity-"))
    now = datetime.now(UTC)
    try:
        with owned_children(), running_broker(settings):
            servers = str(client_config(settings)["bootstrap.servers"]) if settings.transport == "kafka" else None
            for engine in engines:
                if not as_json:
                    output.say(
                        f"{engine}: {len(hour_keys(span))} hours, {len(days_within(span))} days ...", style="dim"
                    )
                spec = {
                    "source": home.source,
                    "home_path": str(folder / engine),
                    "lake_uri": str(folder / engine / "lake"),
                    "target": engine,
                    "partitions_start": home.partitions_start.isoformat(),
                    "transport": settings.transport,
                    "landing_path": str(settings.landing) if settings.transport == "landing" else None,
                    "kafka_bootstrap_servers": servers,
                    "kafka_topic": settings.prices_topic,
                    "kafka_polls_topic": settings.polls_topic,
                }
                _materialize_apart(spec, span, now, home.coins_file)
        return _report(folder, engines, as_json=as_json)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _materialize_apart(spec: dict[str, Any], span: Slice, now: datetime, coins: Path) -> None:
    home = Path(spec["home_path"])
    home.mkdir(parents=True, exist_ok=True)
    if coins.exists():
        shutil.copy(coins, home / coins.name)
    given = json.dumps(
        {"settings": spec, "start": span.start.isoformat(), "end": span.end.isoformat(), "now": now.isoformat()}
    )
    with (home / "parity.log").open("wb") as log:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "crypto_assets.cli.parity", given],
            env=child_environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        lines = (home / "parity.log").read_text(encoding="utf-8", errors="replace").splitlines()
        raise StepFailed(f"{spec['target']}: could not materialize everything:\n" + "\n".join(lines[-12:]))


def materialize(spec: dict[str, Any]) -> int:
    """Work of one engine's process; 0 if every step succeeded."""
    prepare_embedded_engine()
    chosen = {k: v for k, v in spec["settings"].items() if v is not None}
    chosen["partitions_start"] = date.fromisoformat(chosen["partitions_start"])
    # Two engines that registered models in one place outside would read each other's.
    settings = Settings(**chosen).model_copy(update={"mlflow_tracking_uri": None, "mlflow_registry_uri": None})
    start, end, now = (datetime.fromisoformat(spec[name]) for name in ("start", "end", "now"))
    clock = FixedClock(StepInputBuilder(settings), now)
    defs = build_definitions(settings, {"step_inputs": dg.ResourceDefinition.hardcoded_resource(clock)})
    instance = open_instance(open_home(settings))
    failed: list[str] = []
    seconds: dict[str, float] = {}
    span = Slice(start, end)
    run_job(defs, instance, "refresh", hour_keys(span), failed, seconds)
    if days := days_within(span):
        run_job(defs, instance, "daily", days, failed, seconds)
    for asset in assets_of("slot"):
        run_job(defs, instance, asset, [], failed, seconds)
    for line in failed:
        output.fail(line)
    return 1 if failed else 0


def _report(folder: Path, engines: Sequence[str], *, as_json: bool) -> int:
    one, two = (folder / engine / "lake" for engine in engines)
    found = compare(one, two)
    wrong = sum(d.differences for d in found)
    if not any(sum(d.rows) for d in found):
        raise UsageError(
            "nothing was compared: neither engine wrote a row for these hours, which the log does not hold"
        )
    rows = [
        {
            "table": d.table,
            f"rows {engines[0]}": d.rows[0],
            f"rows {engines[1]}": d.rows[1],
            "differences": d.differences,
            "in": ", ".join(f"{column} ({count:,})" for column, count in d.cells.items()) or d.note,
        }
        for d in found
    ]
    if as_json:
        output.as_json({"ok": not wrong, "tables": rows, "examples": [e for d in found for e in d.examples]})
    else:
        output.table(f"{engines[0]} and {engines[1]}", rows)
        for d in found:
            for example in d.examples:
                output.fail(f"{d.table}: {example}")
        output.say("no difference" if not wrong else f"{wrong:,} differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    from crypto_assets.faults import program

    program(lambda: materialize(json.loads(sys.argv[1])))
