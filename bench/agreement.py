"""Mutated records through Silver's parser and through the audit's, value by value."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bench.mutations import mutated
from bench.report import Measure, Part
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.messages import NUMERIC
from crypto_assets.contracts.slices import floor_hour
from crypto_assets.contracts.tables import QUARANTINE, RAW_PRICES
from crypto_assets.market.coins import DEFAULT_COINS
from crypto_assets.verify.laws.records import EVIDENT, load_records

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NAME = "agreement"
SEED = 20240501
BATCH = 10_000
START = datetime(2024, 1, 1, tzinfo=UTC)
EVENT = datetime(2024, 5, 1, 10, 0, 30, 123_000, UTC)
ARRIVED = EVENT + timedelta(minutes=20)
HEADERS = (
    {"schema_version": "1", "source": "replay", "poll_id": "p", "cadence_s": "60"},
    {"schema_version": "1", "source": "replay", "poll_id": "p", "cadence_s": "2.5"},
    {"schema_version": "1", "source": "replay", "cadence_s": "1e1"},
    {"schema_version": "1", "source": "replay", "cadence_s": "-1"},
    {"schema_version": "2", "source": "replay"},
    {"schema_version": "1", "source": ""},
    {"schema_version": ["1", "1"], "source": "replay"},
)
VALUES = ("symbol", "name", *NUMERIC, "last_updated_at", "ingestion_timestamp", "source", "poll_id", "cadence_s")
_PAYLOAD = '{"id":"bitcoin","name":"Bit\\"coin","roi":{"times":1.5},"last_updated":"2024-05-01T10:00:30.123Z"}'
MESSAGES: tuple[dict[str, Any], ...] = (
    {
        "coin_id": "bitcoin", "symbol": "BTC", "name": "Bitcoin", "price_usd": "61234.5",
        "market_cap_usd": "1200000000000", "volume_24h_usd": "25000000000.25",
        "change_1h_pct": "0.12345", "change_24h_pct": "-1.2", "change_7d_pct": None,
        "last_updated_at": "2024-05-01T10:00:30.123Z", "ingestion_timestamp": "2024-05-01T10:00:31.000Z",
        "source_payload": _PAYLOAD,
    },
    {
        "coin_id": "ethereum", "symbol": "eth", "price_usd": "3012.000000000000000001", "market_cap_usd": None,
        "volume_24h_usd": None, "change_24h_pct": None, "change_7d_pct": "3",
        "last_updated_at": "2024-05-01T09:59:59.999Z", "ingestion_timestamp": "2024-05-01T10:00:00.500Z",
    },
)  # fmt: skip


def bronze(values: Sequence[bytes]) -> pa.Table:
    """The records as rows of `bronze.raw_prices`, in the order given; nearly all with the same headers."""
    from crypto_assets.transforms.bronze import event_hour

    texts = [_decoded(value) for value in values]
    count = len(values)
    arrived = pa.array([ARRIVED] * count, pa.timestamp("us", "UTC"))
    columns: dict[str, Any] = {
        "topic": ["topic"] * count,
        "topic_id": ["incarnation"] * count,
        "partition": [0] * count,
        "offset": list(range(count)),
        "kafka_timestamp": arrived,
        "raw_json": texts,
        "raw_bytes": [value if text is None else None for value, text in zip(values, texts, strict=True)],
        "headers": [json.dumps(HEADERS[i % 97 if i % 97 < len(HEADERS) else 0]) for i in range(count)],
        "arrival_hour": [floor_hour(ARRIVED)] * count,
        "event_hour": event_hour(pa.array(texts, pa.string()), arrived, START),
        "kind": ["record"] * count,
        "range_start": [0] * count,
        "range_end": [count] * count,
        "seq": [1] * count,
        "batch_id": ["batch"] * count,
        "bronze_ingested_at": arrived,
    }
    schema = arrow_schema(RAW_PRICES)
    return pa.table([pa.array(columns.get(f.name, [None] * count), f.type) for f in schema], schema=schema)


def disagreements(spark: SparkSession, values: Sequence[bytes]) -> Iterator[str]:
    """What Silver's parser and the audit make of each record, where it is not the same."""
    rows = bronze(values)
    silver, audited = _by_silver(spark, rows), _by_audit(rows)
    for offset, value in enumerate(values):
        one, other = silver[offset], audited[offset]
        sound = not set(one["reasons"]) & set(EVIDENT)
        # Of an event before the first partition Bronze holds no hour, which the audit takes for a fault of the record.
        if sound != other["well_formed"] and not (sound and "too_late" in one["reasons"]):
            yield f"Silver: {one['detail'] or 'valid'}; audit: well formed {other['well_formed']}: {value[:300]!r}"
        elif sound and other["well_formed"]:
            differ = [f"{n}: {one[n]!r} and {other[n]!r}" for n in VALUES if one[n] != other[n]]
            if differ:
                yield f"{', '.join(differ)}: {value[:300]!r}"


def _by_silver(spark: SparkSession, rows: pa.Table) -> dict[int, dict[str, Any]]:
    from crypto_assets.engine.sail import frame
    from crypto_assets.transforms.parse import parse_bronze

    parsed = parse_bronze(frame(spark, rows), DEFAULT_COINS, START).toArrow()
    return {row["offset"]: row for row in parsed.select(["offset", "reasons", "detail", *VALUES]).to_pylist()}


def _by_audit(rows: pa.Table) -> dict[int, dict[str, Any]]:
    from crypto_assets.verify.delta import fresh_connection

    with fresh_connection() as connection:
        for name, table in (("bronze.raw_prices", rows), ("silver.quarantine", arrow_schema(QUARANTINE).empty_table())):
            connection.register("given", table)
            connection.execute(f'CREATE TABLE "{name}" AS FROM given')
        connection.execute("CREATE TABLE audit_aliases (old_id VARCHAR, until TIMESTAMPTZ, coin_id VARCHAR)")
        load_records(connection)
        columns = ", ".join(['"offset"', "well_formed", *VALUES])
        found = connection.execute(f"SELECT {columns} FROM audit_records").to_arrow_table().to_pylist()
    return {row["offset"]: row for row in found}


def _decoded(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def run(records: int) -> Part:
    """Compare so many mutated records, `BATCH` at a time; one that is read differently fails the part.

    Raises:
        AssertionError: Silver and the audit differ on a record; the first ten are named.
    """
    from crypto_assets.engine.sail import SailEngine

    spark, began, differ = SailEngine("unused").spark, time.monotonic(), []
    for number in range(-(-records // BATCH)):
        values = list(mutated(MESSAGES, min(BATCH, records - number * BATCH), seed=SEED + number))
        differ += disagreements(spark, values)
    if differ:
        raise AssertionError(f"{len(differ)} of {records:,} records are read differently:\n" + "\n".join(differ[:10]))
    part = Part(NAME)
    part.measures.append(Measure("records read alike", records, "records"))
    part.notes.append(f"Silver and the audit agree on {records:,} mutated records ({time.monotonic() - began:.0f} s)")
    return part
