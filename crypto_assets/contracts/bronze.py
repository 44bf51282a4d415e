"""Tables of records as they arrived."""

from __future__ import annotations

from crypto_assets.contracts.columns import INGEST, LOG_RANGE, LOG_RECORD, LOG_RULES
from crypto_assets.contracts.model import Column as C
from crypto_assets.contracts.model import Rule, Table

RAW_PRICES = Table(
    "bronze", "raw_prices",
    "Every price record exactly as read from Kafka, with its coordinates. The system of record, from which all "
    "downstream tables can be rebuilt. Appended exactly once; each commit also records its offset ranges.",
    (
        *LOG_RECORD,
        C("event_hour", "timestamp", "Hour of last_updated_at, parsed leniently; null if invalid, later than arrival "
          "+ 60 s, or before the first partition."),
        *LOG_RANGE,
    ),
    key=("topic_id", "partition", "offset"), grain="hour", write="append_once", time_column="arrival_hour",
    partition_by=("arrival_hour",), owner=INGEST, group="bronze", kinds=("kafka", "deltalake", "bronze"),
    retention_days=90, rules=LOG_RULES,
)

MARKET_HISTORY = Table(
    "bronze", "market_history",
    "Raw market_chart/range replies by coin and day, for days before polling started or with gaps.",
    (
        C("coin_id", "string", "Coin.", nullable=False),
        C("day", "date", "UTC day of the points.", nullable=False),
        C("day_start", "timestamp", "Start of `day`.", nullable=False),
        C("granularity", "string", "5m, 1h or 1d: spacing of the reply's points.", nullable=False),
        C("raw_json", "string", "The reply's points of that day: prices, market_caps, total_volumes.", nullable=False),
        C("points", "int", "Number of price points.", nullable=False),
        C("fetched_at", "timestamp", "When the reply was complete; the points' available_at.", nullable=False),
        C("source", "string", "Data mode that fetched it.", nullable=False),
    ),
    key=("coin_id", "day"), grain="day", write="replace_slice", time_column="day_start", partition_by=("day",),
    owner=INGEST, group="bronze", kinds=("python", "deltalake", "bronze"),
    rules=(Rule("known_granularity", "granularity IN ('5m', '1h', '1d')", "The API documents only these spacings.",
                blocking=True),),
)
