"""Builders of rows that tests share: records of Bronze, history replies, Silver, and how they get into a lake.

A record is described by what a test wants to say of it; everything else has one plain value. No expectation is here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from crypto_assets.checks.rules import FILLED_BY_STORE
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.messages import SCHEMA_VERSION
from crypto_assets.contracts.slices import HOUR, Slice, floor_day, floor_hour, hour_key
from crypto_assets.contracts.tables import MARKET_HISTORY, RAW_PRICES, SILVER_PRICES
from crypto_assets.engine.base import StepInputs
from crypto_assets.market.coins import Alias, Coin, CoinRegistry
from crypto_assets.storage.base import AppendBatch, OffsetRange
from crypto_assets.transforms.bronze import event_hour

if TYPE_CHECKING:
    from crypto_assets.log.kafka.publisher import Publisher
    from crypto_assets.storage.store import DeltaStore

TOPIC, TOPIC_ID = "crypto-prices-replay", "incarnation-1"
START = datetime(2024, 1, 1, tzinfo=UTC)
"""First partition of the lakes built here."""

COINS = CoinRegistry(
    (
        Coin("bitcoin", "BTC", "Bitcoin"),
        Coin("ethereum", "ETH", "Ethereum"),
        Coin("polygon-ecosystem-token", "POL", "POL", (Alias("matic-network", date(2024, 9, 4), "MATIC"),)),
    )
)


def at(text: str) -> datetime:
    """A UTC time from ISO text without zone, such as `2024-05-01 10:00:30`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def rfc3339(moment: datetime) -> str:
    """The text that our producer writes."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def message(
    coin_id: str = "bitcoin", event: datetime | str = START, price: str = "100.5", **changed: Any
) -> dict[str, Any]:
    """A message of version 1; `changed` replaces fields, a value of `...` (Ellipsis) removes one."""
    made = {
        "coin_id": coin_id,
        "symbol": {"bitcoin": "btc", "ethereum": "eth"}.get(coin_id, coin_id[:3]),
        "name": coin_id.title(),
        "price_usd": price,
        "market_cap_usd": "1000000",
        "volume_24h_usd": "5000",
        "change_1h_pct": "0.1",
        "change_24h_pct": "-1.2",
        "change_7d_pct": None,
        "last_updated_at": event if isinstance(event, str) else rfc3339(event),
        "ingestion_timestamp": rfc3339(START),
        **changed,
    }
    return {name: value for name, value in made.items() if value is not ...}


@dataclass(frozen=True)
class Record:
    """One Kafka record: when it arrived, its value (a message, text, bytes or None) and its headers."""

    arrival: datetime
    value: Mapping[str, Any] | str | bytes | None
    cadence_s: float | str | None = 10
    headers: Mapping[str, str] = field(default_factory=dict)
    partition: int = 0
    offset: int | None = None
    topic_id: str = TOPIC_ID
    kind: str = "record"

    @property
    def text(self) -> str | None:
        if self.value is None or isinstance(self.value, bytes):
            return None
        return self.value if isinstance(self.value, str) else json.dumps(self.value)

    def all_headers(self) -> str:
        plain = {"schema_version": SCHEMA_VERSION, "source": "replay", "poll_id": "poll-1"}
        if self.cadence_s is not None:
            plain["cadence_s"] = str(self.cadence_s)
        return json.dumps({k: v for k, v in {**plain, **self.headers}.items() if v != ""}, sort_keys=True)


def sample(
    coin_id: str, event: datetime | str, price: str = "100.5", delay: timedelta = timedelta(seconds=1), **record: Any
) -> Record:
    """A valid record of a coin that arrived `delay` after its event."""
    happened = event if isinstance(event, datetime) else at(event)
    return Record(happened + delay, message(coin_id, happened, price), **record)


def bronze_rows(
    records: Sequence[Record], *, partitions_start: datetime = START, with_store_columns: bool = True
) -> pa.Table:
    """Rows of `bronze.raw_prices`; offsets count up in the order given, event_hour is read as the Bronze step does."""
    ends: dict[tuple[str, int], int] = {}
    rows = []
    for r in records:
        place = (r.topic_id, r.partition)
        offset = ends.get(place, 0) if r.offset is None else r.offset
        ends[place] = offset + 1
        rows.append(
            {
                "topic": TOPIC,
                "topic_id": r.topic_id,
                "partition": r.partition,
                "offset": offset,
                "kafka_timestamp": r.arrival,
                "message_key": None,
                "raw_json": r.text,
                "raw_bytes": r.value if isinstance(r.value, bytes) else None,
                "headers": r.all_headers(),
                "arrival_hour": floor_hour(r.arrival),
                "kind": r.kind,
                "range_start": offset,
                "range_end": offset + 1,
                "seq": 1,
                "batch_id": "batch",
                "bronze_ingested_at": r.arrival,
            }
        )
    schema = arrow_schema(RAW_PRICES)
    arrivals = pa.array([r.arrival for r in records], pa.timestamp("us", "UTC"))
    hours = event_hour(pa.array([r.text for r in records], pa.string()), arrivals, partitions_start)
    for row, hour in zip(rows, hours.to_pylist(), strict=True):
        row["event_hour"] = hour
    table = pa.Table.from_pylist(rows, schema=schema)
    return table if with_store_columns else table.drop_columns(list(FILLED_BY_STORE))


def write_bronze(
    store: DeltaStore, records: Sequence[Record], *, first_offset: Mapping[int, int] | None = None
) -> dict[int, int]:
    """Append records to Bronze as the Bronze step would: one commit an arrival hour, offsets in order of arrival.

    Returns:
        Next offset by Kafka partition, for a later call's `first_offset`.
    """
    ends = dict(first_offset or {})
    for hour in sorted({floor_hour(r.arrival) for r in records}):
        of_hour = sorted((r for r in records if floor_hour(r.arrival) == hour), key=lambda r: r.arrival)
        numbered = []
        starts = dict(ends)
        for r in of_hour:
            numbered.append(Record(**{**vars(r), "offset": ends.get(r.partition, 0)}))
            ends[r.partition] = ends.get(r.partition, 0) + 1
        rows = bronze_rows(numbered, with_store_columns=False)
        partitions = sorted({r.partition for r in of_hour})
        covers = tuple(OffsetRange(p, starts.get(p, 0), ends[p]) for p in partitions)
        bounds = {c.partition: c for c in covers}
        of_row = rows.column("partition").to_pylist()
        for name, values in (
            ("range_start", [bounds[p].start for p in of_row]),
            ("range_end", [bounds[p].end for p in of_row]),
        ):
            rows = rows.set_column(
                rows.schema.get_field_index(name), rows.schema.field(name), pa.array(values, pa.int64())
            )
        batch = AppendBatch(rows, covers)
        store.append_once(
            RAW_PRICES.full_name, Slice(hour, hour + HOUR), f"bronze/{TOPIC_ID}/{hour_key(hour)}", lambda _, b=batch: b
        )
    return ends


def history_rows(
    replies: Sequence[tuple[str, datetime, str, Mapping[str, Any] | str]], fetched_at: datetime
) -> pa.Table:
    """Rows of `bronze.market_history` from (coin_id, day, granularity, reply)."""
    rows = [
        {
            "coin_id": coin,
            "day": day.date(),
            "day_start": floor_day(day),
            "granularity": granularity,
            "raw_json": reply if isinstance(reply, str) else json.dumps(reply),
            "points": 1,
            "fetched_at": fetched_at,
            "source": "replay",
        }
        for coin, day, granularity, reply in replies
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema(MARKET_HISTORY))


def silver_rows(samples: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of `silver.prices`; each sample gives coin_id, last_updated_at and price_usd, the rest has plain values."""
    rows = []
    for s in samples:
        event = s["last_updated_at"]
        plain: dict[str, Any] = {
            "symbol": "BTC", "volume_24h_usd": Decimal(5000), "market_cap_usd": None, "source": "replay",
            "granularity": "tick", "cadence_s": 10.0, "available_at": event + timedelta(seconds=1),
            "day": event.date(), "hour": floor_hour(event),
        }  # fmt: skip
        rows.append({**dict.fromkeys(SILVER_PRICES.column_names), **plain, **s, "price_usd": Decimal(s["price_usd"])})
    return pa.Table.from_pylist(rows, schema=arrow_schema(SILVER_PRICES))


def step_inputs(now: datetime, **changed: Any) -> StepInputs:
    """Inputs of a step at a time, with the coins of `COINS`."""
    plain = {"run_id": "run-1", "source": "replay", "partitions_start": START, "coins": COINS}
    return StepInputs(now=now, **{**plain, **changed})


def published(publisher: Publisher, messages: Sequence[Mapping[str, Any]], **options: Any) -> int:
    """Send the prices of one poll and wait; the number of confirmed messages."""
    publisher.enqueue_prices(messages, **options)
    return publisher.flush()
