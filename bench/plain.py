"""The same jobs without the product: the client library alone, and plain DuckDB on the same inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.duckdb_queries import bars_query, connection, silver_query, write
from bench.messages import SyntheticPoll
from crypto_assets.contracts.messages import (
    HEADER_CADENCE,
    HEADER_POLL_ID,
    HEADER_SCHEMA_VERSION,
    HEADER_SOURCE,
    SCHEMA_VERSION,
)
from crypto_assets.contracts.slices import Slice
from crypto_assets.log.kafka.publisher import number_text
from crypto_assets.settings import Settings

BATCH = 10_000


def produce(
    config: Mapping[str, Any], topic: str, polls: Sequence[SyntheticPoll], source: str, cadence_s: float
) -> tuple[int, float]:
    """Send messages without checking any; their number and the mean bytes of a value."""
    from confluent_kafka import Producer

    producer = Producer(
        {**config, "acks": "all", "enable.idempotence": True, "compression.type": "snappy", "linger.ms": 5,
         "partitioner": "murmur2_random", "queue.buffering.max.messages": 1_000_000}
    )  # fmt: skip
    lost: list[object] = []

    def delivered(error: object, _message: object) -> None:
        if error is not None:
            lost.append(error)

    sent = size = 0
    for poll in polls:
        stamp = round(poll.arrival.timestamp() * 1000)
        headers: list[tuple[str, str | bytes | None]] = [
            (HEADER_SCHEMA_VERSION, SCHEMA_VERSION.encode()),
            (HEADER_SOURCE, source.encode()),
            (HEADER_POLL_ID, poll.poll_id.encode()),
            (HEADER_CADENCE, number_text(cadence_s).encode()),
        ]
        for message in poll.messages:
            value = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
            while True:
                try:
                    producer.produce(
                        topic, value, message["coin_id"].encode(), headers=headers, timestamp=stamp,
                        on_delivery=delivered,
                    )  # fmt: skip
                    break
                except BufferError:
                    producer.poll(0.1)
            sent, size = sent + 1, size + len(value)
        producer.poll(0)
    left = producer.flush(120)
    if left or lost:
        raise AssertionError(f"{left + len(lost):,} of {sent:,} messages were not confirmed: {lost[:3]}")
    return sent, size / sent


def consume(config: Mapping[str, Any], topic: str) -> int:
    """Read a whole topic and throw every record away; the number of records."""
    from confluent_kafka import Consumer, TopicPartition

    from crypto_assets.log.kafka.reading import end_offsets

    ends = end_offsets(config, topic)
    consumer = Consumer(
        {**config, "group.id": "bench", "enable.auto.commit": False, "fetch.queue.backoff.ms": 5,
         "queued.min.messages": 1_000_000}
    )  # fmt: skip
    consumer.assign([TopicPartition(topic, p, low) for p, (low, _) in ends.items()])
    wanted, seen = sum(high - low for low, high in ends.values()), 0
    try:
        while seen < wanted:
            seen += len(consumer.consume(min(BATCH, wanted - seen), 1.0))
    finally:
        consumer.close()
    return seen


def records(settings: Settings, topic: str) -> pa.Table:
    """All records of a topic in memory."""
    from crypto_assets.log.kafka.client import client_config
    from crypto_assets.log.kafka.reading import end_offsets, read_ranges
    from crypto_assets.storage.base import OffsetRange

    config = client_config(settings)
    ranges = [OffsetRange(p, low, high) for p, (low, high) in end_offsets(config, topic).items() if low < high]
    return pa.concat_tables(list(read_ranges(config, topic, ranges)))


def bronze(records: pa.Table, target: Path) -> int:
    """Records as they are with arrival and event hour, written to Parquet."""
    found = connection()
    found.register("records", records)
    return write(
        found,
        """SELECT partition, "offset", kafka_timestamp, message_key, decode(value) AS raw_json, headers,
             date_trunc('hour', make_timestamp(epoch_us(kafka_timestamp))) AS arrival_hour,
             date_trunc('hour', CAST(json_extract_string(decode(value), '$.last_updated_at') AS TIMESTAMP))
               AS event_hour
           FROM records""",
        target,
    )


def silver(files: Sequence[str], target: Path, span: Slice) -> int:
    """Typed quotes, the first of every coin and time."""
    start, end = (f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (span.start, span.end))
    return write(connection(), silver_query(start, end), target, [list(files)])


def bars(files: Sequence[str], target: Path) -> int:
    """OHLC, mean and deviation of five minutes."""
    return write(connection(), bars_query(), target, [list(files)])
