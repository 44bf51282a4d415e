"""The streaming drill: a live producer, `crypto-assets stream` as a process that is killed ten times, batch beside it.

Records are produced evenly at a rate with their true times, so that a record's latency to Gold follows from the time
of the commit that covers it. At the end every table must equal those that the batch steps make of the same log in a
second lake, and `crypto-assets verify` must pass.

Half of the load comes before the kills and half after them; each kill strikes a few seconds after a commit, and the
next one waits until the stream has caught up (or for `RECOVERY_S`), with the load going on. The rate is only a promise
of the producer: where two cores cannot carry producer, broker and engine together, the lag grows, and the report shows
it, with the processor time that each of them took.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.feed import Fed, Feed
from bench.homes import temporary_home
from bench.report import Measure, Part
from crypto_assets.cli import output
from crypto_assets.contracts.slices import HOUR, floor_hour, hour_key

if TYPE_CHECKING:
    from crypto_assets.engine.base import Engine
    from crypto_assets.log.kafka.broker import EmbeddedBroker
    from crypto_assets.settings import Settings

NAME = "streaming"
RECOVERY_S = 30.0
"""Seconds after a kill that do not count for the latency."""
TABLES = (
    "bronze.raw_prices",
    "silver.prices",
    "silver.quarantine",
    "gold.bars_1m",
    "gold.bars_5m",
    "gold.bars_1h",
    "gold.latest_prices",
)
NOT_BUSINESS = {"bronze_ingested_at", "refreshed_at", "batch_id", "seq", "range_start", "range_end", "covered_offsets"}
"""Columns that say when or by which commit, not what."""
Latencies = dict[tuple[str, int, str], float]
CODE = "import sys; from crypto_assets.cli.main import app; sys.argv[0] = 'crypto-assets'; app()"


class Stream:
    """`crypto-assets stream` as a separate process."""

    def __init__(self, settings: Settings, target: str, log: Path, interval_s: float) -> None:
        environment = {
            **os.environ,
            "CRYPTO_ASSETS_TARGET": target,
            "CRYPTO_ASSETS_SPARK_MASTER": "local[2]",
            "CRYPTO_ASSETS_SOURCE": "simulator",
            "CRYPTO_ASSETS_PARTITIONS_START": settings.partitions_start.isoformat(),
            "KAFKA_BOOTSTRAP_SERVERS": str(settings.kafka_bootstrap_servers),
        }
        self.log, self.cpu_s = log, 0.0
        self._log = log.open("ab")
        arguments = ["stream", "--home", str(settings.home), "--interval", str(interval_s), "--json"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )

    def kill(self) -> None:
        """SIGKILL to the process alone: a JVM of it finds out by itself, in the middle of whatever it does."""
        self.cpu_s = cpu_seconds(self.process.pid)
        self.process.kill()
        self.process.communicate()
        self._log.close()

    def stop(self) -> dict[str, Any]:
        """SIGTERM; the summary."""
        self.cpu_s = cpu_seconds(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=300)
        self._log.close()
        if self.process.returncode:
            raise AssertionError(f"the stream ended with code {self.process.returncode}; see {self._log.name}")
        return json.loads(out)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and of those that it started, so far."""
    import psutil

    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(each.cpu_times()[:4])
    return total


@dataclass
class Drill:
    """What happened.

    Args:
        first: Unix time at which the load began: after the first commit of the stream, which has started then.
        kills: Unix times of the kills.
        restarts: Seconds from each kill to the next commit of the newest quotes.
        caught_up: Seconds from each kill until no more waited than usually; absent when it took too long.
        load_s: Seconds of load.
        lag: (Unix time, records not yet in Gold), once a second.
        drained_s: Seconds from the end of the load until everything was in Gold.
        fed: What the producer did.
        broker_cpu_s: Processor time of the broker.
        engine_cpu_s: Processor time of all processes of the stream, their starts included.
    """

    first: float = 0.0
    kills: list[float] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    caught_up: list[float] = field(default_factory=list)
    load_s: float = 0.0
    lag: list[tuple[float, int]] = field(default_factory=list)
    drained_s: float = 0.0
    fed: Fed = field(default_factory=lambda: Fed(0, 0.0, [], 0.0))
    broker_cpu_s: float = 0.0
    engine_cpu_s: float = 0.0

    def per_thousand(self, cpu_s: float) -> str:
        """Processor seconds per 1,000 records."""
        return f"{cpu_s / max(1, self.fed.sent) * 1000:.3f}"


def run(
    *, seconds: int, rate: int, kills: int, targets: Sequence[str] = ("local", "spark"), interval: float = 1.0
) -> Part:
    """Drill every target.

    Args:
        seconds: Seconds of load without kills; the kills come after half of them and are followed by the other half.
        rate: Records a second.
        kills: SIGKILLs of the stream.
        targets: Engines.
        interval: `--interval` of the stream.

    Raises:
        AssertionError: A table differs from the batch's, verify fails, or records were not delivered.
    """
    measures: list[Measure] = []
    costs: dict[str, dict[str, float]] = {}
    facts: dict[str, dict[str, str]] = {}
    for target in targets:
        load = os.getloadavg()[0]
        today = datetime.now(UTC).date() - timedelta(days=1)
        with temporary_home(today, target="local") as (settings, broker):
            drill, visible = _drill(settings, broker, target, seconds, rate, kills, interval)
            after = os.getloadavg()[0]
            differences = _compare(settings, target)
            verified = _verify(settings, target)
        measures += _measures(target, drill, visible)
        costs[f"streaming, {target}"] = _costs(drill, visible)
        facts[target] = {
            **_facts(drill),
            "equal to batch": "no" if differences else "yes",
            "verify": f"code {verified}" if verified else "passed",
            "machine load before, after": f"{load:.1f}, {after:.1f}",
        }
        output.say(f"{target}: {facts[target]}", style="dim")
        assert not differences, f"{target}: {'; '.join(differences)}"
        assert verified == 0, f"{target}: crypto-assets verify ended with code {verified}"
    part = Part(f"Streaming at {rate:,} records/s, ten coins, {kills} SIGKILLs", measures, costs=costs)
    names = list(next(iter(facts.values())))
    part.tables["Drill"] = [{"what": n, **{target: found[n] for target, found in facts.items()}} for n in names]
    part.notes = [
        f"not in the latency: records made in the {RECOVERY_S:.0f} s after a kill",
        "nor those that were on their way when a kill struck",
        "equal to batch: all columns but those that say when or by which commit, exact; doubles within 1e-9",
        "sustained: records by the time until all were in Gold, starts and restarts included",
        "processor time: of the stream with all its starts, of its last process without its end",
    ]
    return part


def _measures(target: str, drill: Drill, visible: Latencies) -> list[Measure]:
    shown = [("newest quotes", "latest", 50), ("newest quotes", "latest", 99)]
    shown += [("bars_1m", "bars_1m", 50), ("bars_1m", "bars_1m", 99), ("bars_1h", "bars_1h", 99)]
    return [
        *[
            Measure(f"{target}: produce to {name}, p{q}{group}", visible[table, q, group], "s")
            for name, table, q in shown
            for group in ("", " before the first kill")
            if (table, q, group) in visible
        ],
        Measure(f"{target}: sustained", drill.fed.sent / (drill.load_s + drill.drained_s), "records/s"),
    ]


def _costs(drill: Drill, visible: Latencies) -> dict[str, float]:
    quantiles = {f"p{q} s": visible["latest", q, ""] for q in (50, 99) if ("latest", q, "") in visible}
    restarts = {"kill to commit, s": statistics.median(drill.restarts)} if drill.restarts else {}
    return {"processor": drill.engine_cpu_s / max(1, drill.fed.sent), **quantiles, **restarts}


def _facts(drill: Drill) -> dict[str, str]:
    return {
        "records": f"{drill.fed.sent:,}",
        "seconds of load": f"{drill.load_s:.0f}",
        "kills": str(len(drill.kills)),
        "seconds to the first commit after a kill, median and longest": _middle_and_most(drill.restarts),
        f"kills of which the stream had caught up within {RECOVERY_S:.0f} s": str(len(drill.caught_up)),
        "seconds until then, median and longest": _middle_and_most(drill.caught_up),
        "most records behind": f"{max((n for _, n in drill.lag), default=0):,}",
        "seconds to the last record after the load": f"{drill.drained_s:.1f}",
        "producer late by at most (s)": f"{drill.fed.late_s:.1f}",
        "processor s per 1,000 records, producer": drill.per_thousand(drill.fed.cpu_s),
        "processor s per 1,000 records, broker": drill.per_thousand(drill.broker_cpu_s),
        "processor s per 1,000 records, stream": drill.per_thousand(drill.engine_cpu_s),
    }


def _middle_and_most(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f}, {max(values):.1f}" if values else "-"


def _drill(
    settings: Settings, broker: EmbeddedBroker, target: str, seconds: int, rate: int, kills: int, interval: float
) -> tuple[Drill, Latencies]:
    """Load, kills, the end of the load, the end of the stream."""
    from crypto_assets.engine.engines import make_engine
    from crypto_assets.home import open_home
    from crypto_assets.log.kafka.topic import require_topics

    open_home(settings)
    require_topics(settings, datetime.now(UTC))
    watcher, log = make_engine(settings), settings.home / "stream.log"
    drill, chance = Drill(), random.Random(7)
    broker_pid = broker.status().pid or 0
    broker_before, stream = cpu_seconds(broker_pid), Stream(settings, target, log, interval)
    feed = Feed(settings, 100)
    try:
        _await(lambda: _covered(watcher)[1] > 0, 180, "the first commit", stream)
        few, began, feed = feed.stop(), time.time(), Feed(settings, rate)
        drill.first = time.time()
        _watch(drill, watcher, settings, drill.first + seconds / 2)
        usual = max(rate * interval, 1.5 * statistics.median(n for _, n in drill.lag))
        for _ in range(kills):
            _watch(drill, watcher, settings, time.time() + chance.uniform(0.2, 4))
            stream.kill()
            drill.kills.append(time.time())
            drill.engine_cpu_s += stream.cpu_s
            stream = Stream(settings, target, log, interval)
            before = _covered(watcher)[0]
            _await(lambda before=before: _covered(watcher)[0] > before, 240, "a commit after a kill", stream)
            drill.restarts.append(time.time() - drill.kills[-1])
            if _watch(drill, watcher, settings, drill.kills[-1] + RECOVERY_S, usual):
                drill.caught_up.append(time.time() - drill.kills[-1])
        # What was missed is caught up before the second half begins to count.
        _watch(drill, watcher, settings, max([drill.first, *drill.kills]) + (RECOVERY_S if kills else 0))
        _watch(drill, watcher, settings, time.time() + seconds / 2)
        drill.fed = feed.stop()
        drill.load_s, total = time.time() - began, drill.fed.sent + few.sent
        _await(lambda: _covered(watcher)[1] >= total, 1800, "the rest of the records", stream)
        drill.drained_s = time.time() - began - drill.load_s
        summary = stream.stop()
    except BaseException:
        feed.kill()
        if stream.process.poll() is None:
            stream.kill()
        raise
    assert not drill.fed.errors, f"records were not delivered: {drill.fed.errors[:3]}"
    drill.engine_cpu_s += stream.cpu_s
    drill.broker_cpu_s = cpu_seconds(broker_pid) - broker_before
    output.say(f"{target}: {summary}", style="dim")
    return drill, _latencies(watcher, drill)


def _await(found: Any, timeout_s: float, what: str, stream: Stream | None = None) -> None:
    deadline = time.time() + timeout_s
    while not found():
        if stream is not None and stream.process.poll() is not None:
            said = stream.log.read_text(encoding="utf-8")[-3000:]
            raise AssertionError(f"the stream ended by itself with code {stream.process.returncode}: {said}")
        if time.time() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.25)


def _covered(engine: Engine) -> tuple[int, int]:
    """Version of the newest quotes, and records that they cover."""
    table = "gold.latest_prices"
    version = engine.store.version(table)
    if version is None:
        return -1, 0
    return version, sum(_offsets(engine, version).values())


def _offsets(engine: Engine, version: int) -> dict[int, int]:
    rows = engine.store.read_arrow("gold.latest_prices", columns=["covered_offsets"], version=version).to_pylist()
    return {int(p): end for p, end in json.loads(rows[0]["covered_offsets"]).items()} if rows else {}


def _watch(drill: Drill, engine: Engine, settings: Settings, until: float, enough: float = -1) -> bool:
    """Note the lag once a second until a time, or until it is small enough; whether it became so."""
    from crypto_assets.log.kafka.reading import end_offsets

    while (left := until - time.time()) > 0:
        time.sleep(min(1.0, left))
        held = sum(end for _, end in end_offsets(settings, settings.prices_topic).values())
        drill.lag.append((time.time(), max(0, held - _covered(engine)[1])))
        if drill.lag[-1][1] <= enough:
            return True
    return False


# --- what came of it ----------------------------------------------------------------------------------------------


def _latencies(engine: Engine, drill: Drill) -> Latencies:
    """By table, percentile and group of records, seconds from a record's creation to the commit that shows it.

    Of all records but those in which a kill has a part, and of those made before the first kill, in the second half of
    that time: the stream has caught up with its start then. What no record counts for is absent.
    """
    import numpy as np

    rows = engine.store.read_arrow("bronze.raw_prices", columns=["partition", "offset", "kafka_timestamp"])
    partition, offset = (rows.column(n).to_numpy() for n in ("partition", "offset"))
    made = rows.column("kafka_timestamp").to_numpy().astype("datetime64[us]").astype(np.int64) / 1e6
    found: Latencies = {}
    for name in ("latest", "bars_1m", "bars_1h"):
        shown = _shown(engine, name)
        at = np.array([moment for moment, _ in shown])
        visible = np.full(len(made), np.inf)
        for number in np.unique(partition).tolist():
            ends = np.array([reached.get(number, 0) for _, reached in shown])
            mine = partition == number
            first = np.searchsorted(ends, offset[mine], side="right")
            visible[mine] = np.append(at, np.inf)[first]
        counted = (made >= drill.first) & np.isfinite(visible)
        for kill in drill.kills:
            counted &= (visible < kill) | (made > kill + RECOVERY_S)
        groups = {"": counted}
        if drill.kills:
            before = counted & (made > (drill.first + drill.kills[0]) / 2) & (made < drill.kills[0])
            groups[" before the first kill"] = before
        for group, of_it in groups.items():
            seconds = np.sort((visible - made)[of_it])
            for q in (50, 99) if len(seconds) else ():
                found[name, q, group] = float(seconds[min(len(seconds) - 1, len(seconds) * q // 100)])
    return found


def _shown(engine: Engine, name: str) -> list[tuple[float, dict[int, int]]]:
    """(Unix time at which a commit could be read, end offsets) of the commits of a Gold table, ends never falling."""
    from crypto_assets.storage import delta_files

    table = "gold.latest_prices" if name == "latest" else f"gold.{name}"
    folder = Path(delta_files.table_path(engine.lake, table)) / "_delta_log"  # type: ignore[attr-defined]
    shown: list[tuple[float, dict[int, int]]] = []
    reached: dict[int, int] = {}
    for commit in engine.store.commits_after(table, -1, 1_000_000):
        if name == "latest":
            ends = _offsets(engine, commit.version) if commit.version else {}
        else:
            ends = {int(p): e for p, e in json.loads(commit.metadata.get("covered_offsets", "{}")).items()}
        reached = {p: max(reached.get(p, 0), ends.get(p, 0)) for p in {*reached, *ends}}
        shown.append(((folder / f"{commit.version:020d}.json").stat().st_mtime, dict(reached)))
    return shown


def _compare(settings: Settings, target: str) -> list[str]:
    """Make the same hours by the batch steps in a second lake; what differs."""
    from crypto_assets.assets import bars, bronze, latest, silver
    from crypto_assets.engine.engines import make_engine
    from crypto_assets.engine.inputs import StepInputBuilder

    streamed = make_engine(settings)
    other = settings.model_copy(update={"lake_uri": str(settings.home / "batch-lake")})
    engine, builder = make_engine(other), StepInputBuilder(other)
    hours = streamed.store.read_arrow("bronze.raw_prices", columns=["arrival_hour"]).column(0).unique().to_pylist()
    first = floor_hour(min(hours))
    events = streamed.store.read_arrow("silver.prices", columns=["hour"]).column(0).unique().to_pylist()
    arrived = [hour_key(h) for h in sorted(hours)]
    touched = sorted({*arrived, *(hour_key(h) for h in events if h >= first - HOUR)})
    inputs = builder.build(now=datetime.now(UTC), run_id="batch", keys=arrived, reads_log="prices")
    bronze.work(engine, arrived, inputs)
    silver.work(engine, touched, inputs)
    silver.work_quarantine(engine, arrived, inputs)
    bars.work(engine, touched, inputs)
    latest.work(engine, [None], inputs)
    return [f"{t} of {target}: {d}" for t in TABLES if (d := _difference(streamed, engine, t))]


def _difference(one: Engine, other: Engine, table: str) -> str:
    """How two tables differ in business columns; empty when they do not."""
    from crypto_assets.contracts.tables import TABLES as CONTRACTS

    contract = CONTRACTS[table]
    names = [c for c in contract.column_names if c not in NOT_BUSINESS]
    order = [(k, "ascending") for k in contract.key if k in names]
    mine, theirs = (e.store.read_arrow(table, columns=names).sort_by(order) for e in (one, other))
    if mine.num_rows != theirs.num_rows:
        return f"{mine.num_rows:,} rows streamed, {theirs.num_rows:,} by batch"
    differing = []
    for name in names:
        left, right = mine.column(name), theirs.column(name)
        if contract.column(name).type == "double":
            pairs = zip(left.to_pylist(), right.to_pylist(), strict=True)
            wrong = [
                (a, b) for a, b in pairs if (a is None) != (b is None) or (a is not None and abs(a - b) > 1e-9 * abs(b))
            ]
            if wrong:
                differing.append(f"{name} ({len(wrong):,} rows, first {wrong[0]})")
        elif not left.combine_chunks().equals(right.combine_chunks()):
            differing.append(name)
    return f"columns {', '.join(differing)} differ" if differing else ""


def _verify(settings: Settings, target: str) -> int:
    """Exit code of `crypto-assets verify`."""
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": str(settings.kafka_bootstrap_servers)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, "verify", "--home", str(settings.home)],
        env={**environment, "CRYPTO_ASSETS_TARGET": target},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        output.say(done.stdout[-3000:] + done.stderr[-1000:])
    return done.returncode
