"""A small lake that keeps every law: made from records of a real topic, written with the real store.

What the tables should hold is computed here in plain Python, so that neither the product's transforms nor the audit's
SQL are their own witness.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import HOUR, Slice, floor_day, floor_hour, hour_key
from crypto_assets.contracts.tables import TABLES
from crypto_assets.storage.base import AppendBatch, OffsetRange
from crypto_assets.storage.delta_rs import DeltaRsStore

START = datetime(2024, 3, 1, 10, tzinfo=UTC)
HOURS = 3
NOW = datetime(2024, 3, 2, 6, tzinfo=UTC)
COINS = {"bitcoin": ("BTC", 0), "ethereum": ("ETH", 1)}
WIDTHS = {"1m": timedelta(minutes=1), "5m": timedelta(minutes=5), "1h": HOUR, "1d": timedelta(days=1)}

HEADERS = {"schema_version": "1", "source": "replay", "poll_id": "poll-1", "cadence_s": "600"}
NO_CADENCE = {name: value for name, value in HEADERS.items() if name != "cadence_s"}


@dataclass
class Sent:
    """A message as published, and what should become of it: `reasons` empty = a quote."""

    partition: int
    at: datetime
    value: bytes
    reasons: list[str]
    quote: dict[str, Any] | None = None
    offset: int = -1
    headers: dict[str, str] = field(default_factory=lambda: HEADERS)


@dataclass
class HonestLake:
    lake: Path
    topic: str
    polls_topic: str
    config: dict[str, Any]


def rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def quote(coin: str, event: datetime, arrival: datetime, price: str, **changed: Any) -> Sent:
    message: dict[str, Any] = {
        "coin_id": coin,
        "symbol": COINS[coin][0].lower(),
        "name": coin.title(),
        "price_usd": price,
        "market_cap_usd": None,
        "volume_24h_usd": "1234567.5",
        "change_24h_pct": "-1.25",
        "change_7d_pct": None,
        "last_updated_at": rfc3339(event),
        "ingestion_timestamp": rfc3339(arrival - timedelta(milliseconds=300)),
    }
    reasons = changed.pop("reasons", [])
    dropped = changed.pop("drop", None)
    headers = changed.pop("headers", HEADERS)
    message |= changed
    if dropped:
        del message[dropped]
    return Sent(
        COINS[coin][1], arrival, json.dumps(message).encode(), reasons, None if reasons else message, headers=headers
    )


def messages() -> list[Sent]:
    """Quotes every ten minutes, a duplicate, a late record of unknown cadence and one of several faults."""
    sent = []
    for slot in range(HOURS * 6):
        event = START + timedelta(minutes=10 * slot, seconds=7)
        for i, coin in enumerate(COINS):
            price = str(Decimal("61234.1234567890123") / (1 + 19 * i) + Decimal(slot * slot % 7) / 10)
            sent.append(quote(coin, event, event + timedelta(seconds=20 + i), price))
    again = START + timedelta(minutes=10, seconds=7)
    late = START + timedelta(minutes=33)
    second = START + HOUR
    sent += [
        quote("bitcoin", again, again + timedelta(seconds=80), "1.0"),
        quote("bitcoin", late, START + 2 * HOUR + timedelta(minutes=3), "61999.5", headers=NO_CADENCE),
        quote("ethereum", late, second + timedelta(minutes=1), "0", reasons=["non_positive_price"]),
        quote("ethereum", late, second + timedelta(minutes=2), "3.5", drop="symbol", reasons=["missing_field"]),
        quote("dogecoin" if "dogecoin" in COINS else "bitcoin", late, second + timedelta(minutes=4), "7",
              coin_id="dogecoin", reasons=["unknown_coin"]),
        Sent(2, START + timedelta(minutes=5), b"{not json", ["not_json"]),
        Sent(2, START + timedelta(minutes=6), b"\xff\xfe\x00", ["not_utf8"]),
    ]  # fmt: skip
    return sorted(sent, key=lambda s: s.at)


def publish(config: dict[str, Any], topic: str, sent: list[Sent]) -> str:
    """Publish in order and note the offsets; returns the topic's id."""
    from confluent_kafka import Producer, TopicCollection
    from confluent_kafka.admin import AdminClient

    producer = Producer(config | {"acks": "all", "enable.idempotence": True})
    for record in sent:

        def delivered(error: object, message: Any, record: Sent = record) -> None:
            assert error is None, error
            record.offset = message.offset()

        producer.produce(
            topic,
            record.value,
            partition=record.partition,
            timestamp=int(record.at.timestamp() * 1000),
            headers=[(k, v.encode()) for k, v in record.headers.items()],
            on_delivery=delivered,
        )
    assert producer.flush(30) == 0
    assert all(record.offset >= 0 for record in sent)
    admin = AdminClient(config)
    topic_id = str(admin.describe_topics(TopicCollection([topic]))[topic].result(30).topic_id)
    return topic_id.replace("+", "-").replace("/", "_")


def build(root: Path, topic: str, polls_topic: str, config: dict[str, Any]) -> HonestLake:
    """Publish, and write every table that the laws look at."""
    sent = messages()
    topic_id = publish(config, topic, sent)

    def no_session() -> Any:
        raise AssertionError("the honest lake is written and read without a Spark session")

    store = DeltaRsStore(str(root), no_session)
    write_bronze(store, topic, topic_id, sent)
    polls = [Sent(0, START + timedelta(minutes=10 * i), b'{"poll_id": "p"}', []) for i in range(6)]
    write_polls(store, polls_topic, publish(config, polls_topic, polls), polls)
    silver = [*silver_rows(topic_id, sent), history_row()]
    replace(store, "bronze.market_history", [stored_reply()], "day_start")
    replace(store, "silver.prices", silver, "hour")
    replace(store, "silver.quarantine", quarantine_rows(topic, topic_id, sent), "hour")
    for width in WIDTHS:
        replace(store, f"gold.bars_{width}", bars(silver, width), "hour" if width != "1d" else "day_start")
    return HonestLake(root, topic, polls_topic, config)


def log_row(topic: str, topic_id: str, record: Sent) -> dict[str, Any]:
    try:
        text, raw = record.value.decode(), None
    except UnicodeDecodeError:
        text, raw = None, record.value
    return {
        "topic": topic,
        "topic_id": topic_id,
        "partition": record.partition,
        "offset": record.offset,
        "kafka_timestamp": record.at,
        "message_key": None,
        "raw_json": text,
        "raw_bytes": raw,
        "headers": json.dumps(record.headers, sort_keys=True, separators=(",", ":")),
    }


def write_bronze(store: DeltaRsStore, topic: str, topic_id: str, sent: list[Sent]) -> None:
    """Two commits an hour, each with the ranges of all partitions that it covers."""
    append(store, "bronze.raw_prices", "bronze", topic, topic_id, sent, commits=2)


def write_polls(store: DeltaRsStore, topic: str, topic_id: str, sent: list[Sent]) -> None:
    append(store, "ops.polls", "polls", topic, topic_id, sent, commits=1)


def append(
    store: DeltaRsStore, table: str, name: str, topic: str, topic_id: str, sent: list[Sent], commits: int
) -> None:
    ends: dict[int, int] = defaultdict(int)
    for hour in Slice(START, START + HOURS * HOUR).hours():
        of_hour = [s for s in sent if floor_hour(s.at) == hour]
        for part in range(commits):
            piece = of_hour[part * len(of_hour) // commits : (part + 1) * len(of_hour) // commits]
            covers = {
                p: OffsetRange(p, ends[p], max(s.offset for s in piece if s.partition == p) + 1)
                for p in sorted({s.partition for s in piece})
            }
            rows = []
            for record in piece:
                event = event_hour(record)
                rows.append(
                    log_row(topic, topic_id, record)
                    | {"arrival_hour": hour, "kind": "record", "bronze_ingested_at": record.at}
                    | {"range_start": covers[record.partition].start, "range_end": covers[record.partition].end}
                    | ({"event_hour": event} if table == "bronze.raw_prices" else {"poll_id": "p"})
                )
            ends |= {p: c.end for p, c in covers.items()}
            if not rows:
                continue
            names = [n for n in TABLES[table].column_names if n not in ("seq", "batch_id")]
            batch = AppendBatch(
                pa.Table.from_pylist(rows, arrow_schema(TABLES[table], names)), tuple(covers.values()), {}
            )
            app_id = f"{name}/{topic_id}/{hour_key(hour)}"
            assert store.append_once(table, Slice(hour, hour + HOUR), app_id, lambda _, b=batch: b).committed


def event_hour(record: Sent) -> datetime | None:
    try:
        return floor_hour(datetime.fromisoformat(json.loads(record.value)["last_updated_at"]))
    except (ValueError, KeyError, UnicodeDecodeError):
        return None


def silver_rows(topic_id: str, sent: list[Sent]) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for record in sent:
        if record.quote is None:
            continue
        q = record.quote
        event = datetime.fromisoformat(q["last_updated_at"])

        def number(name: str, q: dict[str, Any] = q) -> Decimal | None:
            return None if q.get(name) is None else Decimal(q[name])

        row = {
            "coin_id": q["coin_id"],
            "symbol": q["symbol"].upper(),
            "name": q["name"],
            "last_updated_at": event,
            "price_usd": number("price_usd"),
            "volume_24h_usd": number("volume_24h_usd"),
            "change_24h_pct": number("change_24h_pct"),
            "ingestion_timestamp": datetime.fromisoformat(q["ingestion_timestamp"]),
            "available_at": record.at,
            "source": "replay",
            "granularity": "tick",
            "cadence_s": float(record.headers["cadence_s"]) if "cadence_s" in record.headers else None,
            "poll_id": "poll-1",
            "topic_id": topic_id,
            "partition": record.partition,
            "offset": record.offset,
            "day": event.date(),
            "hour": floor_hour(event),
        }
        rows.setdefault((q["coin_id"], q["last_updated_at"]), row)
    return list(rows.values())


HISTORY_AT = START + HOURS * HOUR + timedelta(seconds=1, milliseconds=500)
FETCHED_AT = NOW - HOUR


def stored_reply() -> dict[str, Any]:
    """A day's reply of hourly points: one in an hour without live samples, one beside a live sample."""
    points = [
        [int((START + timedelta(seconds=8)).timestamp() * 1000), 61000.25],
        [int(HISTORY_AT.timestamp() * 1000), 61250.5],
    ]
    return {
        "coin_id": "bitcoin",
        "day": START.date(),
        "day_start": floor_day(START),
        "granularity": "1h",
        "raw_json": json.dumps({"prices": points, "market_caps": [], "total_volumes": []}),
        "points": len(points),
        "fetched_at": FETCHED_AT,
        "source": "replay",
    }


def history_row() -> dict[str, Any]:
    return {
        "coin_id": "bitcoin",
        "symbol": "BTC",
        "last_updated_at": HISTORY_AT,
        "price_usd": Decimal("61250.5"),
        "available_at": FETCHED_AT,
        "source": "replay",
        "granularity": "1h",
        "day": HISTORY_AT.date(),
        "hour": floor_hour(HISTORY_AT),
    }


def quarantine_rows(topic: str, topic_id: str, sent: list[Sent]) -> list[dict[str, Any]]:
    return [
        log_row(topic, topic_id, s)
        | {"reasons": s.reasons, "detail": "as planned", "day": s.at.date(), "hour": floor_hour(s.at)}
        | {"coin_id": coin_id(s)}
        for s in sent
        if s.reasons
    ]


def coin_id(record: Sent) -> str | None:
    try:
        return json.loads(record.value)["coin_id"]
    except (ValueError, KeyError):
        return None


def bars(silver: list[dict[str, Any]], width: str) -> list[dict[str, Any]]:
    windows: dict[tuple[str, datetime], list[dict[str, Any]]] = defaultdict(list)
    for row in silver:
        if row["granularity"] == "1h" and width not in ("1h", "1d"):
            continue
        since = row["last_updated_at"] - floor_day(row["last_updated_at"])
        start = floor_day(row["last_updated_at"]) + since // WIDTHS[width] * WIDTHS[width]
        windows[row["coin_id"], start].append(row)
    made = []
    for (coin, start), unsorted in windows.items():
        samples = sorted(unsorted, key=lambda r: r["last_updated_at"])
        prices = [s["price_usd"] for s in samples]
        floats = [float(p) for p in prices]
        several = len(samples) > 1
        history = {s["granularity"] for s in samples} != {"tick"}
        cadence = None if history else samples[-1]["cadence_s"]
        expected = cadence and max(1, round(WIDTHS[width].total_seconds() / cadence))
        closed = start + WIDTHS[width] + timedelta(seconds=60) <= START + (HOURS - 1) * HOUR
        made.append(
            {
                "coin_id": coin,
                "symbol": samples[-1]["symbol"],
                "window_start": start,
                "window_end": start + WIDTHS[width],
                "open": prices[0],
                "high": max(prices),
                "low": min(prices),
                "close": prices[-1],
                "price_avg": statistics.fmean(floats),
                "price_vol": statistics.stdev(floats) if several else None,
                "range": float(max(prices)) / float(min(prices)) - 1 if several else None,
                "volume_24h_usd": samples[-1].get("volume_24h_usd"),
                "sample_count": len(samples),
                "granularity": "1h" if history else "tick",
                "first_event_at": samples[0]["last_updated_at"],
                "last_event_at": samples[-1]["last_updated_at"],
                "available_at": max(s["available_at"] for s in samples),
                "expected_count": expected,
                "is_closed": closed,
                "is_complete": closed and (history or (expected is not None and len(samples) >= 0.8 * expected)),
                "day": start.date(),
                "hour": floor_hour(start),
                "day_start": floor_day(start),
            }
        )
    return made


def arrow(table: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, arrow_schema(TABLES[table]))


def replace(store: DeltaRsStore, table: str, rows: list[dict[str, Any]], by: str) -> None:
    for start in sorted({row[by] for row in rows}):
        piece = arrow(table, [row for row in rows if row[by] == start])
        length = HOUR if TABLES[table].grain == "hour" else timedelta(days=1)
        assert store.replace_slice(table, Slice(start, start + length), lambda p=piece: p, now=NOW).committed
