"""Rereads Kafka topics for the audit into DuckDB, by a separate consumer.

Belongs here: one pass over what a topic retains. Does not belong here: `crypto_assets.log.kafka`, whose reading the
audit checks, or any law.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from crypto_assets.errors import ReportedError
from crypto_assets.verify.delta import insert

if TYPE_CHECKING:
    import duckdb
    from confluent_kafka import Consumer

TIMEOUT_S = 20.0
WAIT_S = 0.1
PATIENCE_S = 30.0
"""Seconds without a record after which the read is aborted."""

CHUNK = 20_000


Row = tuple[int, int, int, str | None, str | None, str]
"""Partition, offset, milliseconds since 1970, MD5 of the value, key, headers."""


class UnreadableTopicError(ReportedError):
    """The topic could not be read to its end; the message names topic and broker."""


def load_topic(connection: duckdb.DuckDBPyConnection, short: str, config: Mapping[str, Any], topic: str) -> int:
    """Read all retained records of a topic, up to its present ends.

    Creates the tables `topic_<short>` (partition, offset, stamped, digest = MD5 of the value, message_key, headers),
    `topic_<short>_bounds` (partition, low, high) and `topic_<short>_id` (topic_id, topic).

    Args:
        connection: The audit's DuckDB.
        short: Suffix of the tables.
        config: Client options: broker address and authentication.
        topic: Topic name.

    Returns:
        Number of records.

    Raises:
        UnreadableTopicError: The topic does not exist, an answer holds an error, or its end is not reached.
    """
    from confluent_kafka import Consumer, TopicPartition

    common = {k: v for k, v in config.items() if not k.startswith(("group.", "enable.", "auto.", "isolation."))}
    topic_id, partitions = _describe(common, topic)
    consumer = Consumer(
        common
        | {
            "group.id": "crypto-assets-verify",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
        }
    )
    try:
        bounds = {p: _watermarks(consumer, topic, p) for p in partitions}
        _make_tables(connection, short, topic, topic_id, bounds)
        consumer.assign([TopicPartition(topic, p, low) for p, (low, high) in bounds.items() if low < high])
        return _read_all(connection, short, consumer, topic, bounds)
    finally:
        consumer.close()


def _describe(config: Mapping[str, Any], topic: str) -> tuple[str, list[int]]:
    from confluent_kafka import KafkaException, TopicCollection
    from confluent_kafka.admin import AdminClient

    admin = AdminClient(dict(config))  # named, because a garbage-collected client ends the calls in progress
    try:
        answer = admin.describe_topics(TopicCollection([topic]), request_timeout=TIMEOUT_S)
        described = answer[topic].result(TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        raise UnreadableTopicError(f"topic {topic} cannot be described: {error}") from error
    # librdkafka writes the id in plain base64; Kafka's own tools, and the tables, in the URL-safe alphabet.
    return str(described.topic_id).translate(str.maketrans("+/", "-_")), sorted(p.id for p in described.partitions)


def _watermarks(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    from confluent_kafka import KafkaException, TopicPartition

    try:
        answer = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT_S)
    except KafkaException as error:
        raise UnreadableTopicError(f"{topic} partition {partition} has no readable bounds: {error}") from error
    if answer is None:
        raise UnreadableTopicError(f"{topic} partition {partition}: no answer about its bounds in {TIMEOUT_S:g} s")
    return answer


def _make_tables(
    connection: duckdb.DuckDBPyConnection, short: str, topic: str, topic_id: str, bounds: Mapping[int, tuple[int, int]]
) -> None:
    connection.execute(
        f"CREATE OR REPLACE TABLE topic_{short} "
        '("partition" INTEGER, "offset" BIGINT, stamped TIMESTAMPTZ, digest VARCHAR, message_key VARCHAR,'
        " headers VARCHAR)"
    )
    connection.execute(f'CREATE OR REPLACE TABLE topic_{short}_bounds ("partition" INTEGER, low BIGINT, high BIGINT)')
    for partition, (low, high) in bounds.items():
        connection.execute(f"INSERT INTO topic_{short}_bounds VALUES (?, ?, ?)", [partition, low, high])  # noqa: S608
    connection.execute(
        f"CREATE OR REPLACE TABLE topic_{short}_id AS SELECT ?::VARCHAR AS topic_id, ?::VARCHAR AS topic",
        [topic_id, topic],
    )


def _read_all(
    connection: duckdb.DuckDBPyConnection,
    short: str,
    consumer: Consumer,
    topic: str,
    bounds: Mapping[int, tuple[int, int]],
) -> int:
    from confluent_kafka import KafkaError

    open_partitions = {p for p, (low, high) in bounds.items() if low < high}
    rows: list[Row] = []
    total, silent = 0, 0
    while open_partitions:
        # The call waits for a full chunk or the time-out, so the time-out is short.
        messages = consumer.consume(CHUNK, timeout=WAIT_S)
        silent = 0 if messages else silent + 1
        if silent * WAIT_S > PATIENCE_S:
            raise UnreadableTopicError(f"{topic}: nothing more came from partitions {sorted(open_partitions)}")
        for message in messages:
            partition, offset, error = message.partition(), message.offset(), message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                raise UnreadableTopicError(f"{topic} partition {partition}: {error}")
            if partition is None or offset is None:
                continue
            high = bounds[partition][1]
            if error is None and offset < high:
                value = message.value()
                digest = None if value is None else hashlib.md5(value, usedforsecurity=False).hexdigest()  # type: ignore[arg-type]
                key, headers = _text(message.key()), _headers(tuple(message.headers() or ()))
                rows.append((partition, offset, message.timestamp()[1], digest, key, headers))
            if offset >= high - (error is None):
                open_partitions.discard(partition)
        if len(rows) >= CHUNK or not open_partitions:
            total += len(rows)
            _store(connection, short, rows)
            rows = []
    return total


def _text(value: str | bytes | None) -> str | None:
    """Bytes as UTF-8 text, or as prefixed base64."""
    if value is None or isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()


@lru_cache(maxsize=10_000)
def _headers(headers: tuple[tuple[str, bytes | None], ...]) -> str:
    """Headers as a JSON object with sorted names; a repeated name has the list of its values."""
    values: dict[str, list[str | None]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(_text(value))
    shown = {name: found if len(found) > 1 else found[0] for name, found in values.items()}
    return json.dumps(shown, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _store(connection: duckdb.DuckDBPyConnection, short: str, rows: list[Row]) -> None:
    import pyarrow as pa

    text = pa.string()
    types = {"partition": pa.int32(), "offset": pa.int64(), "stamped": pa.timestamp("ms", "UTC"), "digest": text}
    insert(connection, f"topic_{short}", rows, {**types, "message_key": text, "headers": text})
