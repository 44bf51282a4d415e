"""A home on the session's broker, records put into its topic, and the same log worked by the batch steps."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from crypto_assets.assets import bars, bronze, latest, silver
from crypto_assets.contracts.slices import DAY, HOUR, floor_day, floor_hour, hour_key
from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.base import Engine
from crypto_assets.engine.inputs import StepInputBuilder
from crypto_assets.settings import Settings
from crypto_assets_tests.builders import message
from crypto_assets_tests.home_fixtures import VOLATILE
from crypto_assets_tests.kafka_fixtures import RunningBroker

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
COINS = ("bitcoin", "ethereum", "litecoin")
COMPARED = (
    "bronze.raw_prices",
    "silver.prices",
    "silver.quarantine",
    "gold.bars_1m",
    "gold.bars_5m",
    "gold.bars_1h",
    "gold.bars_1d",
    "gold.latest_prices",
)
HOW_IT_WAS_CUT = {"range_start", "range_end"}
"""Columns of Bronze that tell which commit brought a record: a stream makes more commits than a batch."""


def today_at(hour: int) -> datetime:
    """An hour of the day before yesterday: past, and within every retention."""
    return floor_day(datetime.now(UTC)) - 2 * DAY + hour * HOUR


def home_settings(path: Path, broker: RunningBroker, topic_factory: Any, **changed: Any) -> Settings:
    name = uuid.uuid4().hex[:8]
    plain = {
        "source": "replay",
        "home_path": path,
        "kafka_bootstrap_servers": broker.bootstrap_servers,
        "kafka_topic": topic_factory(name=f"prices-{name}"),
        "kafka_polls_topic": topic_factory(name=f"polls-{name}"),
        "partitions_start": today_at(0).date(),
    }
    return Settings(_env_file=None, **{**plain, **changed})  # type: ignore[call-arg]


def quote(coin: str, event: datetime, price: str, **changed: Any) -> bytes:
    return json.dumps(message(coin, event, price, **changed)).encode()


def walk(begin: datetime, end: datetime, every: timedelta, latency: timedelta = 2 * SECOND) -> list[tuple]:
    """(coin, arrival, value) of a quote per coin and moment, by arrival."""
    made, number, moment = [], 0, begin
    while moment < end:
        for coin in COINS:
            number += 1
            price = f"{100 + (number * 7919) % 1000 / 10}"
            made.append((coin, moment + latency, quote(coin, moment, price)))
        moment += every
    return made


def publish(settings: Settings, records: Iterable[tuple[str, datetime, bytes | None]], **partition: int) -> None:
    """Publish (coin, arrival, value) in order, keyed as the producer keys them, and wait for every confirmation."""
    from confluent_kafka import Producer

    failures: list[object] = []
    client = Producer(
        {"bootstrap.servers": settings.kafka_bootstrap_servers, "acks": "all", "linger.ms": 5, "log_level": 0}
    )
    headers = [("schema_version", b"1"), ("source", b"replay"), ("cadence_s", b"1.0"), ("poll_id", b"p-1")]
    for coin, arrival, value in records:
        client.produce(
            settings.prices_topic,
            key=coin.encode(),
            value=value,
            timestamp=int(arrival.timestamp() * 1000),
            headers=headers,
            on_delivery=lambda error, _m: failures.append(error) if error else None,
            **partition,
        )
        client.poll(0)
    assert client.flush(60) == 0
    assert not failures, failures


def batch(settings: Settings, engine: Engine, keys: Sequence[str], now: datetime | None = None) -> None:
    """What the refresh job does with hours, and the daily job with the days that they end."""
    builder = StepInputBuilder(settings)
    now = now or datetime.now(UTC)
    inputs = builder.build(now=now, run_id="batch", keys=list(keys), reads_log="prices")
    bronze.work(engine, keys, inputs)
    for work in (silver.work, silver.work_quarantine, bars.work):
        work(engine, keys, inputs)
    latest.work(engine, [None], inputs)


def rows(engine: Engine, table: str) -> list[tuple]:
    """All rows without what says when or by which write, sorted."""
    left_out = VOLATILE - {"age_s"} | (HOW_IT_WAS_CUT if table.startswith("bronze") else set())
    names = [c for c in TABLES[table].column_names if c not in left_out]
    found = engine.store.read_arrow(table, columns=names)
    columns = [found.column(n).to_pylist() for n in names]
    if "covered_offsets" in names:
        at = names.index("covered_offsets")
        columns[at] = [tuple(sorted(json.loads(text).items())) for text in columns[at]]
    return sorted(zip(*columns, strict=True), key=repr)


def assert_equal(one: Engine, other: Engine, tables: Sequence[str] = COMPARED) -> None:
    """Every table holds the same rows; the first differences are shown."""
    for table in tables:
        mine, theirs = rows(one, table), rows(other, table)
        only = sorted(set(map(repr, mine)) - set(map(repr, theirs)))[:2]
        missing = sorted(set(map(repr, theirs)) - set(map(repr, mine)))[:2]
        assert (len(mine), only, missing) == (len(theirs), [], []), (
            f"{table}: {len(mine)} {only} {len(theirs)} {missing}"
        )


def keys_of(engine: Engine) -> list[str]:
    """Arrival hours that Bronze holds."""
    found = engine.store.read_arrow("bronze.raw_prices", columns=["arrival_hour"]).column(0).unique().to_pylist()
    return sorted(hour_key(floor_hour(h)) for h in found)
