"""The same jobs without the product: the client library alone, and plain DuckDB on the same inputs.

The queries are tuned as their users would tune them. Two types cost DuckDB 1.5 most of a query and are avoided: casting
text to a decimal of more than 18 digits takes 6 µs a value, fifty times a narrower one, so that `exact` casts narrow
and widens, with equal results; and a time with a zone goes through ICU, while all of these are UTC.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

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
    connection = _connection()
    connection.register("records", records)
    return _copy(
        connection,
        """SELECT partition, "offset", kafka_timestamp, message_key, decode(value) AS raw_json, headers,
             date_trunc('hour', make_timestamp(epoch_us(kafka_timestamp))) AS arrival_hour,
             date_trunc('hour', CAST(json_extract_string(decode(value), '$.last_updated_at') AS TIMESTAMP))
               AS event_hour
           FROM records""",
        target,
    )


def silver(files: Sequence[str], target: Path, span: Slice) -> int:
    """Typed quotes, the first of every coin and time."""
    fields = ("coin_id", "symbol", "name", "last_updated_at", "ingestion_timestamp", *_NUMBERS)
    shape = json.dumps(dict.fromkeys(fields, "VARCHAR"))
    headers = json.dumps(dict.fromkeys(("source", "poll_id", "cadence_s"), "VARCHAR"))
    numbers = ", ".join(f"exact(v.{n}) AS {n}" for n in _NUMBERS)
    # Every record is parsed once, and no rule is applied but these: the least that the job can be.
    query = f"""
      WITH texts AS (
        SELECT from_json(raw_json, '{shape}') AS v, from_json(headers, '{headers}') AS h, kafka_timestamp, partition,
          "offset", topic_id
        FROM read_parquet(?) WHERE kind = 'record'),
      typed AS (
        SELECT v.coin_id AS coin_id, upper(v.symbol) AS symbol, v.name AS name, {numbers}, h.source AS source,
          h.poll_id AS poll_id, TRY_CAST(h.cadence_s AS DOUBLE) AS cadence_s, topic_id, partition, "offset",
          TRY_CAST(v.last_updated_at AS TIMESTAMP) AS last_updated_at,
          TRY_CAST(v.ingestion_timestamp AS TIMESTAMP) AS ingestion_timestamp, kafka_timestamp AS available_at
        FROM texts)
      SELECT *, date_trunc('hour', last_updated_at) AS hour FROM typed
      WHERE price_usd > 0
        AND last_updated_at >= '{span.start:%Y-%m-%d %H:%M:%S}' AND last_updated_at < '{span.end:%Y-%m-%d %H:%M:%S}'
      QUALIFY row_number() OVER (
        PARTITION BY coin_id, last_updated_at ORDER BY available_at, topic_id, partition, "offset") = 1"""
    return _copy(_connection(), query, target, [list(files)])


def bars(files: Sequence[str], target: Path) -> int:
    """OHLC, mean and deviation of five minutes."""
    query = """
      SELECT coin_id, make_timestamp(epoch_us(last_updated_at) // 300000000 * 300000000) AS window_start,
        arg_min(price_usd, last_updated_at) AS open, max(price_usd) AS high, min(price_usd) AS low,
        arg_max(price_usd, last_updated_at) AS close, avg(price_usd) AS price_avg,
        stddev_samp(CAST(price_usd AS DOUBLE)) AS price_vol, arg_max(volume_24h_usd, last_updated_at) AS volume,
        arg_max(market_cap_usd, last_updated_at) AS market_cap, arg_max(cadence_s, last_updated_at) AS cadence_s,
        count(*) AS sample_count, min(last_updated_at) AS first_event_at, max(last_updated_at) AS last_event_at,
        max(available_at) AS available_at
      FROM read_parquet(?) GROUP BY ALL"""
    return _copy(_connection(), query, target, [list(files)])


_NUMBERS = ("price_usd", "market_cap_usd", "volume_24h_usd", "change_1h_pct", "change_24h_pct", "change_7d_pct")


_EXACT = """coalesce(
  CASE WHEN instr(text, '.') = 0 OR length(text) - instr(text, '.') <= 5 THEN TRY_CAST(text AS DECIMAL(18,5))
  END::DECIMAL(38,18),
  CASE WHEN length(text) - instr(text, '.') <= 8 THEN TRY_CAST(text AS DECIMAL(18,8)) END::DECIMAL(38,18),
  TRY_CAST(text AS DECIMAL(38,18)))"""
"""A decimal of 18 places from text: through 18 digits where those hold it exactly, by the slow cast otherwise."""


def _connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute(f"CREATE MACRO exact(text) AS {_EXACT}")
    return connection


def _copy(connection: duckdb.DuckDBPyConnection, query: str, target: Path, given: list[Any] | None = None) -> int:
    """Write a query's rows to Parquet; their number."""
    connection.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet)", given or [])
    found = connection.fetchone()
    connection.close()
    assert found is not None
    return int(found[0])
