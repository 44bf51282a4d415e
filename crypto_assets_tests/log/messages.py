"""Small builders shared by the tests of the log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from crypto_assets.log.kafka.reading import read_ranges
from crypto_assets.storage.base import OffsetRange

T0 = datetime(2024, 1, 31, 10, tzinfo=UTC)


def price(coin_id: str = "bitcoin", at: str = "2024-01-31T10:00:00.000Z", **changes: Any) -> dict[str, Any]:
    return {
        "coin_id": coin_id,
        "symbol": coin_id[:3],
        "name": None,
        "price_usd": "43000.5",
        "market_cap_usd": None,
        "volume_24h_usd": "12",
        "change_1h_pct": None,
        "change_24h_pct": "-1.25",
        "change_7d_pct": None,
        "last_updated_at": at,
        "ingestion_timestamp": at,
        "source_payload": None,
    } | changes


def poll(poll_id: str = "p1", at: str = "2024-01-31T10:00:00.000Z") -> dict[str, Any]:
    return {
        "poll_id": poll_id,
        "started_at": at,
        "finished_at": at,
        "source": "replay",
        "outcome": "ok",
        "http_status": 200,
        "detail": None,
        "coins_asked": 1,
        "coins_returned": 1,
        "coins_unchanged": 0,
        "coins_missing": [],
        "coins_absent": [],
        "problems": [],
        "nulled": [],
        "quote_age_s": None,
        "age_s": None,
        "latency_ms": 1.5,
        "cadence_s": 60,
        "credits_used": 1,
        "credits_left": None,
        "delivered": 1,
    }


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def send(config: dict, topic: str, records: Iterable[tuple[int, datetime, str]], **options: Any) -> None:
    """Produce (partition, time, text) records with a plain client and wait for them."""
    failed: list[str] = []
    producer = Producer({**config, **options})
    for partition, moment, text in records:
        producer.produce(
            topic,
            value=text.encode(),
            key=text.encode(),
            partition=partition,
            timestamp=ms(moment),
            on_delivery=lambda error, _m: failed.append(str(error)) if error else None,
        )
        producer.poll(0)
    assert producer.flush(30) == 0
    assert not failed


def texts(config: dict, topic: str, ranges: Sequence[OffsetRange], **options: Any) -> list[tuple[int, int, str]]:
    """(partition, offset, value) of ranges, sorted."""
    rows = []
    for table in read_ranges(config, topic, ranges, **options):
        rows += zip(
            table.column("partition").to_pylist(),
            table.column("offset").to_pylist(),
            [v.decode() for v in table.column("value").to_pylist()],
            strict=True,
        )
    return sorted(rows)


def everything(config: dict, topic: str, partitions: int = 3) -> list[tuple[int, int, dict, dict, int]]:
    """Every record by an independent reader: (partition, offset, value, headers, timestamp ms)."""
    consumer = Consumer({**config, "group.id": "test", "auto.offset.reset": "earliest", "enable.auto.commit": False})
    rows: list[tuple[int, int, dict, dict, int]] = []
    try:
        ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in range(partitions)}
        wanted = sum(ends.values())
        consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
        while len(rows) < wanted:
            message = consumer.poll(10)
            assert message is not None
            assert message.error() is None
            headers = {name: value.decode() for name, value in message.headers() or []}
            rows.append(
                (message.partition(), message.offset(), json.loads(message.value()), headers, message.timestamp()[1])
            )
    finally:
        consumer.close()
    return sorted(rows, key=lambda row: row[:2])
