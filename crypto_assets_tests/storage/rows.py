"""Rows of a few real contracts for tests of the stores."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import HOUR, Slice
from crypto_assets.contracts.tables import TABLES
from crypto_assets.storage.base import AppendBatch, OffsetRange, StoredRanges

METRICS, BRONZE, ALERTS, DIM_COIN = "ops.pipeline_metrics", "bronze.raw_prices", "ops.alerts", "gold.dim_coin"
PREDICTIONS, ANOMALIES = "gold.price_predictions", "gold.anomalies"
FIVE = datetime(2024, 1, 1, 5, tzinfo=UTC)
NOW = FIVE + timedelta(days=1)
TOPIC_ID = "topic-id-1"


def hour(start: datetime = FIVE, hours: int = 1) -> Slice:
    return Slice(start, start + hours * HOUR)


def table(name: str, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows by the contract's schema; absent nullable columns are null."""
    schema = arrow_schema(TABLES[name])
    return pa.Table.from_pylist([{f: r.get(f) for f in schema.names} for r in rows], schema=schema)


def metrics(start: datetime, values: Sequence[float], prefix: str = "m") -> pa.Table:
    return table(
        METRICS,
        [
            {
                "metric": f"{prefix}{i}",
                "value": v,
                "unit": "u",
                "measured_over": 1,
                "day": start.date(),
                "hour": start,
            }
            for i, v in enumerate(values)
        ],
    )


def alert(name: str, state: str = "firing", attempts: int = 0) -> dict[str, Any]:
    return {
        "alert_id": name,
        "cause": "c",
        "state": state,
        "severity": "warn",
        "summary": "s",
        "at": FIVE,
        "attempts": attempts,
    }


def coin(name: str, aliases: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "coin_key": f"{name}-1",
        "coin_id": name,
        "symbol": name[:3].upper(),
        "name": name,
        "aliases": list(aliases),
        "valid_from": FIVE,
        "is_current": True,
        "is_active": True,
    }


def forecast(at: datetime, price: float = 1.0) -> dict[str, Any]:
    return {
        "coin_id": "bitcoin",
        "window_end": at,
        "horizon": "5m",
        "target_at": at + timedelta(minutes=5),
        "price": price,
        "predicted_return": 0.0,
        "predicted_price": price,
        "lower_90": price,
        "upper_90": price,
        "model_name": "m",
        "model_version": "1",
        "mode": "live",
        "predicted_at": at,
        "day": date(at.year, at.month, at.day),
        "hour": at,
    }


def records(piece: OffsetRange, at: datetime = FIVE, topic_id: str = TOPIC_ID) -> pa.Table:
    """One record for every offset of a range, without what the store fills in."""
    offsets = range(piece.start, piece.end)
    rows = [
        {
            "topic": "t",
            "topic_id": topic_id,
            "partition": piece.partition,
            "offset": o,
            "kafka_timestamp": at,
            "message_key": "k",
            "raw_json": "{}",
            "headers": "{}",
            "arrival_hour": at,
            "event_hour": at,
            "kind": "record",
            "range_start": piece.start,
            "range_end": piece.end,
            "bronze_ingested_at": at,
        }
        for o in offsets
    ]
    schema = arrow_schema(TABLES[BRONZE], [n for n in TABLES[BRONZE].column_names if n not in ("seq", "batch_id")])
    return pa.Table.from_pylist(rows, schema=schema)


def up_to(end: int, partition: int = 0, at: datetime = FIVE, topic_id: str = TOPIC_ID):
    """A builder that appends what is missing up to an offset."""

    def build(stored: StoredRanges) -> AppendBatch | None:
        start = stored.ends.get(partition, stored.previous_ends.get(partition, 0))
        if start >= end:
            return None
        piece = OffsetRange(partition, start, end)
        return AppendBatch(records(piece, at, topic_id), (piece,), {"touched_hours": "[]"})

    return build


def overtaken_once(store: Any, end: int, calls: list[dict[int, int]]):
    """A builder up to an offset, beside which another writer stores up to 4 at the first call; notes its ranges."""

    def build(stored: StoredRanges) -> AppendBatch | None:
        calls.append(dict(stored.ends))
        if len(calls) == 1:
            store.append_once(BRONZE, hour(), app_id(), up_to(4))
        return up_to(end)(stored)

    return build


def app_id(at: datetime = FIVE, topic_id: str = TOPIC_ID) -> str:
    return f"bronze/{topic_id}/{at:%Y-%m-%d-%H:%M}"
