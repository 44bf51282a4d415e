"""Exact offset ranges of a topic by Spark's own Kafka source.

Belongs here: options of the source, and its rows in the columns that `log.kafka.reading.read_ranges` gives. Does not
belong here: sessions (`engine.spark`), bounds (`log.kafka.offsets`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.arrow import compute
from crypto_assets.log.errors import LogTrimmed, LogUnavailable
from crypto_assets.log.kafka.records import headers_json, texts_of
from crypto_assets.storage.base import OffsetRange

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

CHUNK_OFFSETS = 200_000
"""Offsets that are brought to the driver at once; bounds its memory (about 100 MB)."""

_LOST = ("KAFKA_DATA_LOSS", "OffsetOutOfRange", "Some data may have been lost", "offset was changed from")


def source_options(client: Mapping[str, Any], *, shaded: bool = False) -> dict[str, str]:
    """Options of Spark's Kafka source from librdkafka's.

    Args:
        client: As `log.kafka.client.client_config` gives them; the result holds the password too: never show it.
        shaded: Whether the Kafka classes have Databricks' package prefix `kafkashaded`.
    """
    options = {
        "kafka.bootstrap.servers": str(client["bootstrap.servers"]),
        "kafka.isolation.level": "read_committed",
        "failOnDataLoss": "true",
        "includeHeaders": "true",
    }
    if protocol := client.get("security.protocol"):
        options["kafka.security.protocol"] = str(protocol)
    if authorities := client.get("ssl.ca.location"):
        options["kafka.ssl.truststore.type"] = "PEM"
        options["kafka.ssl.truststore.certificates"] = Path(str(authorities)).read_text(encoding="utf-8")
    if mechanism := client.get("sasl.mechanism"):
        prefix = "kafkashaded." if shaded else ""
        module = "plain.PlainLoginModule" if mechanism == "PLAIN" else "scram.ScramLoginModule"
        user, password = (_jaas(str(client[name])) for name in ("sasl.username", "sasl.password"))
        options["kafka.sasl.mechanism"] = str(mechanism)
        options["kafka.sasl.jaas.config"] = (
            f"{prefix}org.apache.kafka.common.security.{module} required username={user} password={password};"
        )
    return options


def _jaas(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def read_ranges(
    spark: SparkSession,
    options: Mapping[str, str],
    topic: str,
    ranges: Sequence[OffsetRange],
    *,
    chunk_offsets: int = CHUNK_OFFSETS,
) -> Iterator[pa.Table]:
    """Read exact offset ranges in chunks; the same columns and texts as `log.kafka.reading.read_ranges`.

    Args:
        spark: Session with the Kafka source.
        options: From `source_options`.
        topic: The topic.
        ranges: At most one a partition.
        chunk_offsets: Offsets after which a chunk ends.

    Raises:
        LogTrimmed: Records of a range are no longer retained.
        LogUnavailable: The broker cannot be reached, or refused an answer.
    """
    for pieces in chunks(ranges, chunk_offsets):
        rows = _read(spark, options, topic, pieces)
        if rows.num_rows:
            yield rows


def chunks(ranges: Sequence[OffsetRange], chunk_offsets: int) -> Iterator[list[OffsetRange]]:
    """Ranges cut so that no chunk has more offsets, in order."""
    chunk: list[OffsetRange] = []
    room = chunk_offsets
    for piece in ranges:
        start = piece.start
        while start < piece.end:
            end = min(piece.end, start + room)
            chunk.append(OffsetRange(piece.partition, start, end))
            room -= end - start
            start = end
            if not room:
                yield chunk
                chunk, room = [], chunk_offsets
    if chunk:
        yield chunk


def _read(spark: SparkSession, options: Mapping[str, str], topic: str, pieces: Sequence[OffsetRange]) -> pa.Table:
    frame = (
        spark.read.format("kafka")
        .options(**options)
        .option("assign", json.dumps({topic: [p.partition for p in pieces]}))
        .option("startingOffsets", json.dumps({topic: {str(p.partition): p.start for p in pieces}}))
        .option("endingOffsets", json.dumps({topic: {str(p.partition): p.end for p in pieces}}))
        .load()
        .select("partition", "offset", "timestamp", "key", "value", "headers")
    )
    try:
        found = frame.toArrow()
    except Exception as error:
        text = str(error)
        if any(mark in text for mark in _LOST):
            listed = "; ".join(f"partition {p.partition}: within [{p.start}, {p.end})" for p in pieces)
            raise LogTrimmed(topic, listed) from error
        if "kafka" in text.lower():
            why = f"{type(error).__name__}: {text.splitlines()[0][:300]}"
            raise LogUnavailable(
                f"Spark could not read topic {topic} from {options['kafka.bootstrap.servers']}: {why}"
            ) from error
        raise
    return log_columns(found)


def log_columns(found: pa.Table) -> pa.Table:
    """Rows of the source as `log.kafka.reading.read_ranges` gives them, in order of partition and offset.

    Args:
        found: The columns partition, offset, timestamp, key, value and headers of the source.
    """
    import pyarrow as pa

    found = found.sort_by([("partition", "ascending"), ("offset", "ascending")])
    return pa.table(
        {
            "partition": found.column("partition").cast(pa.int32()),
            "offset": found.column("offset").cast(pa.int64()),
            "kafka_timestamp": found.column("timestamp").cast(pa.timestamp("us", "UTC")),
            "message_key": texts_of(found.column("key").to_pylist()),
            "value": found.column("value").cast(pa.binary()),
            "headers": _header_texts(found.column("headers").combine_chunks()),
        }
    )


def _header_texts(headers: pa.Array) -> pa.Array:
    """`headers_json` of every row (a list of key and value), made once for all rows with equal headers."""
    import numpy as np
    import pyarrow as pa

    pc = compute()
    lengths = pc.fill_null(pc.list_value_length(headers), 0).to_numpy(zero_copy_only=False)
    flat = headers.flatten()
    keys, values = (
        pc.dictionary_encode(pc.struct_field(flat, name), null_encoding="encode") for name in ("key", "value")
    )
    count = max(1, len(values.dictionary))
    pairs = keys.indices.to_numpy().astype(np.int64) * count + values.indices.to_numpy()

    def pair(code: int) -> tuple[str, bytes | None]:
        return keys.dictionary[code // count].as_py(), values.dictionary[code % count].as_py()

    starts, texts = np.cumsum(lengths) - lengths, np.empty(len(lengths), object)
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        distinct, which = np.unique(pairs[starts[rows][:, None] + np.arange(length)], axis=0, return_inverse=True)
        made = [headers_json(pair(code) for code in row) for row in distinct.tolist()]
        texts[rows] = np.array(made, object)[which.reshape(-1)]
    return pa.array(texts, pa.string())
