"""Records and rows a second from Kafka to bars, the peak of memory meanwhile, and plain DuckDB beside it.

Every stage is the product's own step with the inputs that a run would build; only Dagster is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from bench.homes import temporary_home
from bench.memory import PeakMemory
from bench.messages import SyntheticPoll, polls
from bench.report import Measure, Part, formatted, middle, spread
from bench.spent import spent
from bench.targets import OVER_REFERENCE
from crypto_assets.cli import output
from crypto_assets.contracts.slices import HOUR, Slice, floor_day, hour_keys

if TYPE_CHECKING:
    from crypto_assets.log.kafka.broker import EmbeddedBroker
    from crypto_assets.settings import Settings

NAME = "throughput"
MEMORY_TARGET_GB = 2.0
FLUSH_EVERY = 1000
BARS = "gold.bars_5m"
REFERENCES = {"Bronze": "Consume only", "Silver": "DuckDB Silver", "Bars": "DuckDB Bars"}
COMPARED = {
    "Produce": "produce, checked and confirmed",
    "Bronze": "Kafka to Bronze",
    "Silver": "Bronze to Silver",
    "Bars": "Silver to bars_5m",
}


@dataclass
class Timings:
    """Seconds of every try, by stage, those of processor time, and rows that each stage wrote."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    memory: PeakMemory | None = None
    peaks: dict[str, int] = field(default_factory=dict)

    def add(self, stage: str, work: Callable[[], int]) -> None:
        """Time one try of a stage; `work` returns its rows."""
        output.say(f"{stage} ...", style="dim")
        if self.memory:
            self.memory.lately()
        with spent() as taken:
            rows = work()
        self.seconds.setdefault(stage, []).append(taken.wall)
        self.cpu.setdefault(stage, []).append(taken.processor)
        if self.memory:
            self.peaks[stage] = max(self.peaks.get(stage, 0), self.memory.lately())
        if self.rows.setdefault(stage, rows) != rows:
            raise AssertionError(f"{stage}: {rows:,} rows, but {self.rows[stage]:,} in an earlier try")

    def rate(self, stage: str, records: int) -> float:
        """Records a second by the median try."""
        return records / middle(self.seconds[stage])


def run(*, messages: int, hours: int, repeats: int) -> Part:
    """Measure all stages.

    Args:
        messages: Messages to produce; a multiple of ten.
        hours: Hours over which they are spread.
        repeats: Tries of every stage but producing; each on an empty lake.
    """
    end = floor_day(datetime.now(UTC))
    span = Slice(end - hours * HOUR, end)
    timings = Timings()
    with temporary_home(floor_day(span.start).date()) as (settings, broker):
        size = produce(settings, timings, messages, span)
        lakes = [settings.home / f"lake-{i}" for i in range(repeats)]
        with PeakMemory(broker.status().pid) as memory:
            timings.memory = memory
            for lake in lakes:
                stages(settings.model_copy(update={"lake_uri": str(lake)}), timings, span)
        timings.memory = None
        expected = {"Bronze": messages, "Silver": messages}
        for stage, rows in expected.items():
            if timings.rows[stage] != rows:
                raise AssertionError(f"{stage} holds {timings.rows[stage]:,} rows of {rows:,}")
        _references(settings, broker, lakes[-1], timings, span, repeats)
    return _part(timings, memory, messages, hours, size)


def produce(settings: Settings, timings: Timings, messages: int, span: Slice) -> float:
    """Fill the topic: a tenth with the product's publisher, the rest with the client alone; mean bytes of a value."""
    from bench import plain
    from crypto_assets.log.kafka.client import client_config
    from crypto_assets.log.kafka.topic import require_topics

    require_topics(settings, datetime.now(UTC))
    made = list(polls(messages, span))
    cadence = (span.end - span.start) / len(made) / timedelta(seconds=1)
    checked = len(made) // 10
    timings.add("Produce", lambda: _publish(settings, made[:checked], cadence))
    config, topic = client_config(settings), settings.prices_topic
    size = 0.0

    def load() -> int:
        nonlocal size
        sent, size = plain.produce(config, topic, made[checked:], settings.source, cadence)
        return sent

    timings.add("Produce only", load)
    return size


def _publish(settings: Settings, made: Sequence[SyntheticPoll], cadence_s: float) -> int:
    """Publish polls as a producer that catches up does: checked, confirmed; the number of messages."""
    from crypto_assets.log.kafka.client import client_config
    from crypto_assets.log.kafka.publisher import Publisher

    with Publisher(
        client_config(settings),
        prices_topic=settings.prices_topic,
        polls_topic=settings.polls_topic,
        source=settings.source,
        virtual=True,
    ) as publisher:
        sent = 0
        for poll in made:
            publisher.enqueue_prices(poll.messages, poll_id=poll.poll_id, cadence_s=cadence_s, arrival=poll.arrival)
            if poll.number % FLUSH_EVERY == 0:
                sent += publisher.flush()
        return sent + publisher.flush()


def stages(settings: Settings, timings: Timings, span: Slice) -> None:
    """All stages once, on an empty lake."""
    from crypto_assets.assets import bars, bronze, silver
    from crypto_assets.engine.engines import make_engine
    from crypto_assets.engine.inputs import StepInputBuilder

    keys, builder = hour_keys(span), StepInputBuilder(settings)
    engine = make_engine(settings)

    def ingest() -> int:
        inputs = builder.build(now=datetime.now(UTC), run_id="bench", keys=keys, reads_log="prices")
        return _rows(bronze.work(engine, keys, inputs), "bronze.raw_prices")

    def clean() -> int:
        return _rows(silver.work(engine, keys, builder.build(now=datetime.now(UTC), run_id="bench")), "silver.prices")

    def aggregate() -> int:
        inputs = builder.build(now=datetime.now(UTC), run_id="bench")
        return _rows(bars.work(engine, keys, inputs, tables=(BARS,)), BARS)

    timings.add("Bronze", ingest)
    timings.add("Start of the engine", lambda: len(engine.spark.sql("SELECT 1").collect()))
    timings.add("Silver", clean)
    timings.add("Bars", aggregate)


def _rows(result: object, table: str) -> int:
    """Rows that a step reports, all of whose checks must be green."""
    found = result.tables[table].partitions  # type: ignore[attr-defined]
    red = [f"{key} {c.name}: {c.description}" for key, p in found.items() for c in p.checks if not c.passed]
    if red:
        raise AssertionError(f"{table}: {'; '.join(red[:5])}")
    return sum(p.rows for p in found.values())


def _references(
    settings: Settings, broker: EmbeddedBroker, lake: Path, timings: Timings, span: Slice, repeats: int
) -> None:
    """The same jobs with the client library alone and with plain DuckDB."""
    from bench import plain

    config = {"bootstrap.servers": broker.bootstrap_servers, "log_level": 0}
    work = settings.home / "reference"
    work.mkdir()
    for _ in range(repeats):
        timings.add("Consume only", lambda: plain.consume(config, settings.prices_topic))
    records = plain.records(settings, settings.prices_topic)
    bronze, silver = (table_files(lake, name) for name in ("bronze.raw_prices", "silver.prices"))
    for i in range(repeats):
        timings.add("DuckDB Bronze", lambda i=i: plain.bronze(records, work / f"bronze-{i}.parquet"))
        timings.add("DuckDB Silver", lambda i=i: plain.silver(bronze, work / f"silver-{i}.parquet", span))
        timings.add("DuckDB Bars", lambda i=i: plain.bars(silver, work / f"bars-{i}.parquet"))
    for stage in ("Bronze", "Silver", "Bars"):
        if timings.rows[stage] != timings.rows[f"DuckDB {stage}"]:
            ours, theirs = timings.rows[stage], timings.rows[f"DuckDB {stage}"]
            raise AssertionError(f"{stage}: {ours:,} rows here, {theirs:,} in DuckDB: not the same job")


def table_files(lake: Path, table: str) -> list[str]:
    """Parquet files of a table's present version."""
    from deltalake import DeltaTable

    return DeltaTable(lake / table.replace(".", "/")).file_uris()


def _part(timings: Timings, memory: PeakMemory, messages: int, hours: int, size: float) -> Part:
    def rate(name: str, stage: str, reference: str, unit: str = "rows/s") -> Measure:
        read = messages if unit == "rows/s" else timings.rows[stage]
        alone = messages if unit == "rows/s" else timings.rows[reference]
        return Measure(
            name,
            timings.rate(stage, read),
            unit,
            more_is_better=True,
            reference=timings.rate(reference, alone),
            note=spread(timings.seconds[stage]),
        )

    def over(stage: str) -> Measure:
        own, alone = (middle(timings.cpu[s]) / messages * 1e6 for s in (stage, REFERENCES[stage]))
        name = f"{COMPARED[stage]} : {REFERENCES[stage]}, processor time"
        note = f"{formatted(own)} and {formatted(alone)} µs a row read"
        return Measure(name, own / alone, "x", OVER_REFERENCE[stage], note=note)

    part = Part(
        f"Throughput: {messages:,} messages of {size:.0f} bytes, ten coins, {hours} hours",
        [
            rate("produce, checked and confirmed", "Produce", "Produce only", "messages/s"),
            rate("Kafka to Bronze", "Bronze", "DuckDB Bronze"),
            rate("Bronze to Silver", "Silver", "DuckDB Silver"),
            rate("Silver to bars_5m", "Bars", "DuckDB Bars"),
            *(over(stage) for stage in REFERENCES),
            Measure(
                "peak memory, process with engine",
                memory.own / 1e9,
                "GB",
                MEMORY_TARGET_GB,
                note=f"{formatted(memory.before / 1e9)} GB before the first stage",
            ),
            Measure("peak memory, broker (JVM)", memory.broker / 1e9, "GB"),
            Measure("start of the engine", timings.seconds["Start of the engine"][0], "s", note="first use only"),
        ],
    )
    part.tables["Seconds of every try"] = [
        {
            "stage": stage,
            "rows": timings.rows[stage],
            "CPU seconds": middle(timings.cpu[stage]),
            "peak GB": timings.peaks[stage] / 1e9 if stage in timings.peaks else None,
            "seconds": ", ".join(map(formatted, tries)),
        }
        for stage, tries in timings.seconds.items()
        if stage != "Start of the engine"
    ]
    consumed = timings.rate("Consume only", messages)
    part.costs = {
        name: {
            "wall": middle(timings.seconds[stage]),
            "processor": middle(timings.cpu[stage]),
            **({"memory": timings.peaks[stage]} if stage in timings.peaks else {}),
        }
        for stage, name in COMPARED.items()
    } | {"all stages": {"memory": memory.own}}
    part.notes = [
        "every stage includes checks, audit and an exact Delta commit; the reference only writes Parquet files",
        "the reference of Bronze begins with the records in memory",
        f"the client library alone, throwing every record away, reads {consumed:,.0f} messages/s",
    ]
    return part
