"""Records for tests of the steps that read the log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from confluent_kafka import Producer

from crypto_assets.contracts.slices import hour_key, key_slice
from crypto_assets.engine.base import StepInputs
from crypto_assets.log.kafka import reading
from crypto_assets_tests.kafka_fixtures import RunningBroker

START = datetime(2024, 1, 1, tzinfo=UTC)
TEN = datetime(2024, 1, 5, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def price(event: datetime, coin: str = "bitcoin", **changes: Any) -> bytes:
    record = {
        "coin_id": coin,
        "symbol": "BTC",
        "price_usd": "6783.12",
        "market_cap_usd": None,
        "volume_24h_usd": None,
        "change_24h_pct": None,
        "change_7d_pct": None,
        "last_updated_at": stamp(event),
        "ingestion_timestamp": stamp(event),
    }
    return json.dumps(record | changes).encode()


def publish(broker: RunningBroker, topic: str, records: Iterable[tuple[int, datetime, bytes | None]]) -> None:
    """Publish (partition, record time, value) in order and wait for every confirmation."""
    failures: list[object] = []
    producer = Producer({**broker.config, "acks": "all", "linger.ms": 5, "queue.buffering.max.messages": 1_000_000})
    for partition, at, value in records:
        producer.produce(
            topic,
            key=b"k",
            value=value,
            partition=partition,
            timestamp=int(at.timestamp() * 1000),
            headers=[("schema_version", b"1")],
            on_delivery=lambda error, _m: failures.append(error) if error else None,
        )
        producer.poll(0)
    producer.flush(60)
    assert not failures, failures


def inputs(broker: RunningBroker, topic: str, keys: Iterable[str], **changes: Any) -> StepInputs:
    """Inputs of a step with the bounds of these hours as the log gives them now."""
    bounds = reading.bounds(broker.config, topic, [key_slice(k, "hour").start for k in keys])
    values: Mapping[str, Any] = {
        "now": TEN + timedelta(hours=5),
        "run_id": "test-run",
        "source": "replay",
        "partitions_start": START,
        "bounds": bounds,
    }
    return StepInputs(**{**values, **changes})


def key(moment: datetime) -> str:
    return hour_key(moment)
