"""The streaming drill: a live producer, `crypto-assets stream` as a process that is killed ten times, batch beside it.

Records are produced evenly at a rate with their true times, so that a record's way to Gold can be told from the time
of the commit that covers it. At the end every table must equal those that the batch steps make of the same log in a
second lake, and `crypto-assets verify` must pass. The latency leaves out the 30 s after each kill.

The rate is only promised to the producer: where two cores cannot carry producer, broker and engine together, the lag
grows, and the report shows it.
"""

from __future__ import annotations

import bisect
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.homes import temporary_home
from bench.report import Measure, Part
from crypto_assets.cli import output
from crypto_assets.contracts.slices import HOUR, floor_hour, hour_key

if TYPE_CHECKING:
    from crypto_assets.compute.base import Engine
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
CODE = "import sys; from crypto_assets.cli.main import app; sys.argv[0] = 'crypto-assets'; app()"


@dataclass
class Feed(threading.Thread):
    """Produces quotes of ten coins at a steady rate until told to stop.

    Args:
        settings: Settings of the home.
        rate: Records a second.
    """

    settings: Settings
    rate: int
    sent: int = 0
    behind_s: float = 0.0
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.enough = threading.Event()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Ten times a second a tenth of the rate; quotes of a coin are distinct milliseconds apart."""
        from confluent_kafka import Producer

        from bench.messages import COINS
        from crypto_assets.kafka.client import client_config

        client = Producer({**client_config(self.settings), "acks": "all", "linger.ms": 20, "compression.type": "lz4"})
        headers: list[tuple[str, str | bytes | None]] = [
            ("schema_version", b"1"),
            ("source", b"simulator"),
            ("cadence_s", b"1.0"),
            ("poll_id", b"drill"),
        ]
        chance = random.Random(5)
        keys = [(c.coin_id.encode(), _template(c)) for c in COINS]
        per_tick = max(1, self.rate // 10)

        def confirmed(error: object, _message: object) -> None:
            if error is not None:
                self.errors.append(str(error))

        began, ticks = time.time(), 0
        while not self.enough.is_set():
            due = began + ticks / 10
            wait = due - time.time()
            if wait > 0:
                time.sleep(wait)
            self.behind_s = max(self.behind_s, -wait)
            for i in range(per_tick):
                coin, template = keys[(self.sent + i) % len(keys)]
                # a tick of 100 ms holds per_tick / 10 quotes of each coin
                event_ms = int(due * 1000) + (i // len(keys)) * 100 * len(keys) // max(per_tick, len(keys))
                stamp = datetime.fromtimestamp(event_ms / 1000, UTC)
                value = template % (chance.uniform(90, 110), _rfc3339(stamp), _rfc3339(stamp))
                client.produce(
                    self.settings.prices_topic, value.encode(), coin, headers=headers, on_delivery=confirmed,
                    timestamp=int(time.time() * 1000),
                )  # fmt: skip
            self.sent += per_tick
            ticks += 1
            client.poll(0)
        left = client.flush(60)
        if left:
            self.errors.append(f"{left} records were not delivered")


def _template(coin: Any) -> str:
    return (
        f'{{"coin_id":"{coin.coin_id}","symbol":"{coin.symbol}","name":"{coin.name}","price_usd":"%.4f",'
        '"market_cap_usd":"1000000.00","volume_24h_usd":"5000.00","change_1h_pct":"0.1","change_24h_pct":"0.2",'
        '"change_7d_pct":"0.3","last_updated_at":"%s","ingestion_timestamp":"%s"}'
    )


def _rfc3339(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


class Stream:
    """`crypto-assets stream` as a process of its own."""

    def __init__(self, settings: Settings, target: str, log: Path, interval_s: float) -> None:
        environment = {
            **os.environ,
            "CRYPTO_ASSETS_TARGET": target,
            "CRYPTO_ASSETS_SPARK_MASTER": "local[2]",
            "CRYPTO_ASSETS_SOURCE": "simulator",
            "CRYPTO_ASSETS_PARTITIONS_START": settings.partitions_start.isoformat(),
            "KAFKA_BOOTSTRAP_SERVERS": str(settings.kafka_bootstrap_servers),
        }
        self.log = log
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
        self.process.kill()
        self.process.communicate()
        self._log.close()

    def stop(self) -> dict[str, Any]:
        """SIGTERM; the summary."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=300)
        self._log.close()
        if self.process.returncode:
            raise AssertionError(f"the stream ended with code {self.process.returncode}; see {self._log.name}")
        return json.loads(out)


@dataclass
class Drill:
    """What happened.

    Args:
        first: Unix time of the first commit that shows records: the stream has started.
        kills: Unix times of the kills.
        restarts: Seconds from each kill to the next commit of the newest quotes.
        load_s: Seconds of load.
        lag: (Unix time, records not yet in Gold), once a second.
    """

    first: float = 0.0
    kills: list[float] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    load_s: float = 0.0
    lag: list[tuple[float, int]] = field(default_factory=list)
    drained_s: float = 0.0
    sent: int = 0
    behind_s: float = 0.0


def run(
    *, seconds: int, rate: int, kills: int, targets: Sequence[str] = ("local", "spark"), interval: float = 2.0
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
    rows: list[dict[str, Any]] = []
    for target in targets:
        load = os.getloadavg()[0]
        today = datetime.now(UTC).date() - timedelta(days=1)
        with temporary_home(today, target="local") as (settings, _):
            drill, visible = _drill(settings, target, seconds, rate, kills, interval)
            differences = _compare(settings, target)
            verified = _verify(settings, target)
        assert not differences, f"{target}: {'; '.join(differences)}"
        assert verified == 0, f"{target}: crypto-assets verify ended with code {verified}"
        measures += [
            Measure(f"{target}: produce to newest quotes, p50", visible["latest"][0], "s"),
            Measure(f"{target}: produce to newest quotes, p99", visible["latest"][1], "s", note=visible["note"]),
            Measure(f"{target}: produce to bars_1m, p99", visible["bars_1m"][1], "s"),
            Measure(f"{target}: produce to bars_1h, p99", visible["bars_1h"][1], "s"),
            Measure(
                f"{target}: records a second, sustained", drill.sent / (drill.load_s + drill.drained_s), "records/s"
            ),
        ]
        rows.append(
            {
                "engine": target,
                "records": drill.sent,
                "load (s)": round(drill.load_s),
                "kills": len(drill.kills),
                "longest restart (s)": round(max(drill.restarts, default=0.0), 1),
                "most lag (records)": max((n for _, n in drill.lag), default=0),
                "caught up after the load (s)": round(drill.drained_s, 1),
                "producer late by (s)": round(drill.behind_s, 1),
                "equal to batch": "yes",
                "verify": "passed",
                "machine load before / after": f"{load:.1f} / {os.getloadavg()[0]:.1f}",
            }
        )
    part = Part(f"Streaming at {rate:,} records/s, ten coins, {kills} SIGKILLs", measures)
    part.tables["Drill"] = rows
    part.notes = [
        f"not in the latency: records of before the first commit, of {RECOVERY_S / 3:.0f} s before and "
        + f"{RECOVERY_S:.0f} s after each kill",
        "equal to batch: all columns but those that say when or by which commit, exact; doubles within 1e-9",
        "sustained: records by the time until all were in Gold, restarts included",
    ]
    return part


def _drill(
    settings: Settings, target: str, seconds: int, rate: int, kills: int, interval: float
) -> tuple[Drill, dict[str, Any]]:
    """Load, kills, the end of the load, the end of the stream."""
    from crypto_assets.compute.engines import make_engine
    from crypto_assets.home import open_home
    from crypto_assets.kafka.topic import require_topics

    open_home(settings)
    require_topics(settings, datetime.now(UTC))
    watcher = make_engine(settings)
    log = settings.home / "stream.log"
    drill, chance = Drill(), random.Random(7)
    stream, feed = Stream(settings, target, log, interval), Feed(settings, rate)
    began = time.time()
    feed.start()
    try:
        _await(lambda: _covered(watcher)[1] > 0, 180, "the first commit", stream)
        drill.first = time.time()
        _watch(drill, watcher, feed, drill.first + seconds / 2)
        for _ in range(kills):
            _watch(drill, watcher, feed, time.time() + chance.uniform(0.2, 4))
            stream.kill()
            drill.kills.append(time.time())
            stream = Stream(settings, target, log, interval)
            before = _covered(watcher)[0]
            _await(lambda before=before: _covered(watcher)[0] > before, 240, "a commit after a kill", stream)
            drill.restarts.append(time.time() - drill.kills[-1])
        # What was missed is caught up before the second half begins to count.
        _watch(drill, watcher, feed, time.time() + (RECOVERY_S if kills else 0) + seconds / 2)
        feed.enough.set()
        feed.join(90)
        drill.load_s = time.time() - began
        _await(lambda: _covered(watcher)[1] >= feed.sent, 600, "the rest of the records", stream)
        drill.drained_s = time.time() - began - drill.load_s
        summary = stream.stop()
    except BaseException:
        feed.enough.set()
        if stream.process.poll() is None:
            stream.kill()
        raise
    assert not feed.errors, f"records were not delivered: {feed.errors[:3]}"
    drill.sent, drill.behind_s = feed.sent, feed.behind_s
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


def _watch(drill: Drill, engine: Engine, feed: Feed, until: float) -> None:
    """Note the lag once a second until a time."""
    while (left := until - time.time()) > 0:
        time.sleep(min(1.0, left))
        drill.lag.append((time.time(), feed.sent - _covered(engine)[1]))


# --- what came of it ----------------------------------------------------------------------------------------------


def _latencies(engine: Engine, drill: Drill) -> dict[str, Any]:
    """p50 and p99 of seconds from a record's creation to the commits that show it, without the time after kills."""
    rows = engine.store.read_arrow("bronze.raw_prices", columns=["partition", "offset", "kafka_timestamp"]).to_pandas()
    rows["made"] = rows["kafka_timestamp"].astype("int64") / 1e6
    if rows["kafka_timestamp"].dtype.unit == "ns":
        rows["made"] /= 1e3
    counted = rows["made"] >= drill.first
    for kill in drill.kills:
        counted &= (rows["made"] < kill - RECOVERY_S / 3) | (rows["made"] > kill + RECOVERY_S)
    kept = rows[counted]
    found: dict[str, Any] = {"note": f"{len(kept):,} of {len(rows):,} records counted"}
    for name in ("latest", "bars_1m", "bars_1h"):
        shown = _shown(engine, name)
        seconds: list[float] = []
        for partition, mine in kept.groupby("partition"):
            ends = [s[1].get(int(partition), 0) for s in shown]
            for offset, made in zip(mine["offset"], mine["made"], strict=True):
                at = bisect.bisect_right(ends, offset)
                if at < len(shown):
                    seconds.append(shown[at][0] - made)
        seconds.sort()
        assert seconds, f"no record of {name} counts"
        found[name] = tuple(seconds[min(len(seconds) - 1, int(len(seconds) * q))] for q in (0.5, 0.99))
    return found


def _shown(engine: Engine, name: str) -> list[tuple[float, dict[int, int]]]:
    """(Unix time, end offsets) of the commits of a Gold table, ends never falling."""
    table = "gold.latest_prices" if name == "latest" else f"gold.{name}"
    shown: list[tuple[float, dict[int, int]]] = []
    reached: dict[int, int] = {}
    for commit in engine.store.commits_after(table, -1, 1_000_000):
        if name == "latest":
            ends = _offsets(engine, commit.version) if commit.version else {}
        else:
            ends = {int(p): e for p, e in json.loads(commit.metadata.get("covered_offsets", "{}")).items()}
        reached = {p: max(reached.get(p, 0), ends.get(p, 0)) for p in {*reached, *ends}}
        shown.append((commit.at.timestamp(), dict(reached)))
    return shown


def _compare(settings: Settings, target: str) -> list[str]:
    """Make the same hours by the batch steps in a second lake; what differs."""
    from crypto_assets.compute.engines import make_engine
    from crypto_assets.compute.inputs import StepInputBuilder
    from crypto_assets.steps import bars, bronze, latest, silver

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
