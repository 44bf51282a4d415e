"""Tables of judged records: typed quotes, and what was rejected."""

from __future__ import annotations

from dataclasses import replace

from crypto_assets.contracts.columns import LOG_RECORD, TRANSFORM, day, of
from crypto_assets.contracts.model import MONEY, Rule, Table
from crypto_assets.contracts.model import Column as C
from crypto_assets.source_facts import listed

_raw, _history = of("bronze.raw_prices"), of("bronze.market_history")
_JSON, _QUOTE = _raw("raw_json"), _raw("raw_json") + _history("raw_json")
SILVER_PRICES = Table(
    "silver", "prices",
    "Typed, deduplicated quotes: one row per coin and source timestamp, first arrival wins. History points fill only "
    "5-minute slots without a live sample.",
    (
        C("coin_id", "string", "Coin.", nullable=False, lineage=_JSON + _history("coin_id")),
        C("symbol", "string", "Ticker symbol, upper case.", nullable=False,
          lineage=_JSON + _history("coin_id", "day")),
        C("name", "string", "Name reported by the source.", lineage=_JSON),
        C("last_updated_at", "timestamp", "Event time: the source's timestamp of the quote.", nullable=False,
          lineage=_QUOTE),
        C("price_usd", MONEY, "Price.", nullable=False, unit="USD", lineage=_QUOTE),
        C("market_cap_usd", MONEY, "Market capitalisation; null = unknown.", unit="USD", lineage=_QUOTE),
        C("volume_24h_usd", MONEY, "Rolling 24 h volume; null = unknown.", unit="USD", lineage=_QUOTE),
        C("change_1h_pct", MONEY, "Change over 1 h, computed by the source.", unit="percent", lineage=_JSON),
        C("change_24h_pct", MONEY, "Change over 24 h, computed by the source.", unit="percent", lineage=_JSON),
        C("change_7d_pct", MONEY, "Change over 7 d, computed by the source.", unit="percent", lineage=_JSON),
        C("ingestion_timestamp", "timestamp", "When the producer received the quote; null for history.", lineage=_JSON),
        C("available_at", "timestamp", "When the row became available: broker timestamp, or fetch time for history.",
          nullable=False, lineage=_raw("kafka_timestamp") + _history("fetched_at")),
        C("source", "string", f"{listed()}.", nullable=False, lineage=_raw("headers") + _history("source")),
        C("granularity", "string", "tick for a polled sample; 5m, 1h or 1d for history.", nullable=False,
          lineage=_history("granularity")),
        C("cadence_s", "double", "Effective poll interval; null for history.", unit="seconds", lineage=_raw("headers")),
        C("poll_id", "string", "Poll that returned the quote; null for history.", lineage=_raw("headers")),
        C("topic_id", "string", "Topic incarnation; null for history.", lineage=_raw("topic_id")),
        C("partition", "int", "Kafka partition; null for history.", lineage=_raw("partition")),
        C("offset", "bigint", "Kafka offset; null for history.", lineage=_raw("offset")),
        day(_QUOTE),
        C("hour", "timestamp", "Hour of last_updated_at.", nullable=False, lineage=_QUOTE),
    ),
    key=("coin_id", "last_updated_at"), grain="hour", write="replace_slice", time_column="hour", partition_by=("day",),
    owner=TRANSFORM, group="silver", kinds=("pyspark", "deltalake", "silver"), retention_days=365,
    rules=(
        Rule("price_positive", "price_usd > 0", "Prices are positive.", blocking=True),
        Rule("event_not_after_arrival", "granularity <> 'tick' OR last_updated_at <= available_at + INTERVAL 60 SECONDS",
             "A quote cannot be later than its arrival, allowing for 60 s of clock skew.", blocking=True),
        Rule("hour_matches_event", "hour <= last_updated_at AND last_updated_at < hour + INTERVAL 1 HOUR",
             "A row lies in the hour of its event.", blocking=True),
        Rule("volume_not_negative", "volume_24h_usd IS NULL OR volume_24h_usd >= 0", "Volumes are not negative.",
             severity="warn"),
    ),
)

_JUDGED = _raw("raw_json", "raw_bytes", "headers", "kafka_timestamp", "arrival_hour", "event_hour")
QUARANTINE = Table(
    "silver", "quarantine",
    "Records rejected by Silver, with every reason that applies. Nothing is dropped: per arrival hour, Bronze records = "
    "valid + quarantined.",
    (
        *(replace(c, lineage=_raw(c.name)) for c in LOG_RECORD[:-1]),
        C("coin_id", "string", "coin_id, if readable.", lineage=_raw("raw_json", "kafka_timestamp")),
        C("reasons", "array<string>", "All reasons, sorted.", nullable=False, lineage=_JUDGED),
        C("detail", "string", "Offending value, for readers.", nullable=False, lineage=_JUDGED),
        day(_raw("arrival_hour")),
        C("hour", "timestamp", "Arrival hour.", nullable=False, lineage=_raw("arrival_hour")),
    ),
    key=("topic_id", "partition", "offset"), grain="hour", write="replace_slice", time_column="hour",
    partition_by=("day",), owner=TRANSFORM, group="silver", kinds=("pyspark", "deltalake", "silver"),
    retention_days=365,
    rules=(Rule("has_reason", "size(reasons) > 0", "Every row has a reason for its rejection.", blocking=True),),
)
