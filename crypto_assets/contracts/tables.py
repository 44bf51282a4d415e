"""Every table of the lakehouse, declared once.

Belongs here: contracts and `TABLES`, from which schemas, DDL, the data dictionary and checks are derived
(`contracts.arrow`, `contracts.render`, `checks`). Does not belong here: how rows are computed (`transforms`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from crypto_assets.contracts.model import MONEY, Rule, Table
from crypto_assets.contracts.model import Column as C
from crypto_assets.source_facts import listed

INGEST, TRANSFORM, ML, OPS = "team:ingest", "team:analytics", "team:ml", "team:operations"


def _of(table: str) -> Callable[..., tuple[str, ...]]:
    """Function that builds lineage from a table's columns."""
    return lambda *columns: tuple(f"{table}.{column}" for column in columns)


def _day(lineage: tuple[str, ...] = ()) -> C:
    """The Delta partition column `day`."""
    return C("day", "date", "UTC day of `hour`; the Delta partition.", nullable=False, lineage=lineage)


_raw, _history, _silver = _of("bronze.raw_prices"), _of("bronze.market_history"), _of("silver.prices")
_bar, _feature, _forecast = _of("gold.bars_5m"), _of("features.price_features"), _of("gold.price_predictions")
_CHAIN = (
    C("chain_seq", "bigint", "Position of the row in its hash chain, from 1, in write order; null for rows written "
      "before chains were introduced."),
    C("chain_previous", "string", "Hash of the previous row in the chain, zeros for the first; null like chain_seq."),
    C("chain_commit", "bigint", "Number of the commit that wrote the row; the newest equals the table's transaction "
      "ledger/<table>. Null like chain_seq."),
    C("chain_commit_hash", "string", "Hash of all rows of that commit; null like chain_seq."),
)
_LOG_COORDINATES = (
    C("topic", "string", "Kafka topic.", nullable=False),
    C("topic_id", "string", "Incarnation of the topic: a re-created topic gets a new id.", nullable=False),
    C("partition", "int", "Kafka partition.", nullable=False),
    C("offset", "bigint", "Kafka offset; first missing offset if kind = gap.", nullable=False),
)
_LOG_RECORD = (
    *_LOG_COORDINATES,
    C("kafka_timestamp", "timestamp", "Broker timestamp: when the record became available. Null for a gap."),
    C("message_key", "string", "Message key; coin_id for prices."),
    C("raw_json", "string", "Unmodified record value; null if it is not UTF-8 text."),
    C("raw_bytes", "binary", "Record value if it is not UTF-8 text, else null."),
    C("headers", "string", "Record headers as a JSON object with sorted keys."),
    C("arrival_hour", "timestamp", "Start of the hour whose offset range contains the record.", nullable=False),
)
_LOG_RANGE = (
    C("kind", "string", "record, or gap for offsets lost to retention and accepted as lost.", nullable=False),
    C("range_start", "bigint", "First offset of the commit's range.", nullable=False),
    C("range_end", "bigint", "End (exclusive) of the commit's range.", nullable=False),
    C("seq", "bigint", "Sequence number of the commit within its topic and hour, from 1.", nullable=False),
    C("batch_id", "string", "Identifier of the write.", nullable=False),
    C("bronze_ingested_at", "timestamp", "When the record was written to this table.", nullable=False),
)
_LOG_RULES = (
    Rule("offsets_in_range", "range_start <= offset AND offset < range_end", "A row lies within its commit's offset range.",
         blocking=True),
    Rule("known_kind", "kind IN ('record', 'gap')", "Rows are records or accepted gaps.", blocking=True),
    Rule("not_stamped_ahead", "kafka_timestamp IS NULL OR kafka_timestamp <= bronze_ingested_at + INTERVAL 60 SECONDS",
         "A record cannot arrive after it was stored; if it seems to, the broker's clock was ahead.", severity="warn"),
    Rule("no_gap", "kind <> 'gap'", "No records were lost to retention before they were read.", severity="warn"),
)

RAW_PRICES = Table(
    "bronze", "raw_prices",
    "Every price record exactly as read from Kafka, with its coordinates. The system of record, from which all "
    "downstream tables can be rebuilt. Appended exactly once; each commit also records its offset ranges.",
    (
        *_LOG_RECORD,
        C("event_hour", "timestamp", "Hour of last_updated_at, parsed leniently; null if invalid, later than arrival "
          "+ 60 s, or before the first partition."),
        *_LOG_RANGE,
    ),
    key=("topic_id", "partition", "offset"), grain="hour", write="append_once", time_column="arrival_hour",
    partition_by=("arrival_hour",), owner=INGEST, group="bronze", kinds=("kafka", "deltalake", "bronze"),
    retention_days=90, rules=_LOG_RULES,
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
        _day(_QUOTE),
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
        *(replace(c, lineage=_raw(c.name)) for c in _LOG_RECORD[:-1]),
        C("coin_id", "string", "coin_id, if readable.", lineage=_raw("raw_json", "kafka_timestamp")),
        C("reasons", "array<string>", "All reasons, sorted.", nullable=False, lineage=_JUDGED),
        C("detail", "string", "Offending value, for readers.", nullable=False, lineage=_JUDGED),
        _day(_raw("arrival_hour")),
        C("hour", "timestamp", "Arrival hour.", nullable=False, lineage=_raw("arrival_hour")),
    ),
    key=("topic_id", "partition", "offset"), grain="hour", write="replace_slice", time_column="hour",
    partition_by=("day",), owner=TRANSFORM, group="silver", kinds=("pyspark", "deltalake", "silver"),
    retention_days=365,
    rules=(Rule("has_reason", "size(reasons) > 0", "Every row has a reason for its rejection.", blocking=True),),
)


def _bars(width: str, grain: str) -> Table:
    period = {"1m": "minute", "5m": "5 minutes", "1h": "hour", "1d": "day"}[width]
    event, price = _silver("last_updated_at"), _silver("price_usd")
    time = ("hour", "Hour of window_start.") if grain == "hour" else ("day_start", "Start of `day`.")
    return Table(
        "gold", f"bars_{width}",
        f"OHLC of polled samples, not of trades, per coin and {period}. A window without samples has no row.",
        (
            C("coin_id", "string", "Coin.", nullable=False, lineage=_silver("coin_id")),
            C("symbol", "string", "Ticker symbol.", nullable=False, lineage=_silver("symbol")),
            C("window_start", "timestamp", "Start of the window.", nullable=False, lineage=event),
            C("window_end", "timestamp", "End (exclusive) of the window.", nullable=False, lineage=event),
            C("open", MONEY, "First sample.", nullable=False, unit="USD", lineage=price),
            C("high", MONEY, "Highest sample.", nullable=False, unit="USD", lineage=price),
            C("low", MONEY, "Lowest sample.", nullable=False, unit="USD", lineage=price),
            C("close", MONEY, "Last sample.", nullable=False, unit="USD", lineage=price),
            C("price_avg", "double", "Arithmetic mean of the samples.", nullable=False, unit="USD",
              lineage=price),
            C("price_vol", "double", "Sample standard deviation; null if sample_count = 1.", unit="USD",
              lineage=price),
            C("range", "double", "high/low - 1; null if sample_count = 1.", unit="ratio", lineage=price),
            C("volume_24h_usd", MONEY, "Last rolling 24 h volume; null = unknown.", unit="USD",
              lineage=_silver("volume_24h_usd")),
            C("market_cap_usd", MONEY, "Last market capitalisation; null = unknown.", unit="USD",
              lineage=_silver("market_cap_usd")),
            C("sample_count", "bigint", "Samples in the window.", nullable=False, lineage=event),
            C("expected_count", "bigint", "Samples expected at the effective cadence; null for history.",
              lineage=_silver("cadence_s", "granularity")),
            C("granularity", "string", "tick, or the coarsest history granularity used.", nullable=False,
              lineage=_silver("granularity")),
            C("first_event_at", "timestamp", "Event time of the first sample.", nullable=False, lineage=event),
            C("last_event_at", "timestamp", "Event time of the last sample.", nullable=False, lineage=event),
            C("available_at", "timestamp", "Latest available_at of the samples.", nullable=False,
              lineage=_silver("available_at")),
            C("is_closed", "boolean", "Bronze covers the window's end + 60 s.", nullable=False,
              lineage=event),
            C("is_complete", "boolean", "Closed and at least 80 % of the expected samples.", nullable=False,
              lineage=event + _silver("cadence_s", "granularity")),
            _day(event),
            C(time[0], "timestamp", time[1], nullable=False, lineage=event),
        ),
        key=("coin_id", "window_start"), grain=grain, write="replace_slice",  # type: ignore[arg-type]
        time_column=time[0], partition_by=("day",), owner=TRANSFORM, group="gold",
        kinds=("pyspark", "deltalake", "gold"),
        rules=(
            Rule("ohlc_ordered", "low <= open AND low <= close AND open <= high AND close <= high AND low <= high",
                 "low is the minimum and high the maximum.", blocking=True),
            Rule("average_within_range", "price_avg >= CAST(low AS DOUBLE) * (1 - 1e-9) AND "
                 "price_avg <= CAST(high AS DOUBLE) * (1 + 1e-9)", "The mean lies between low and high.", blocking=True),
            Rule("has_samples", "sample_count >= 1", "A window without samples has no row.", blocking=True),
            Rule("complete_windows", "NOT is_closed OR is_complete", "A closed window has at least 80 % of its samples.",
                 severity="warn"),
        ),
    )


BARS_1M, BARS_5M, BARS_1H, BARS_1D = _bars("1m", "hour"), _bars("5m", "hour"), _bars("1h", "hour"), _bars("1d", "day")

DIM_COIN = Table(
    "gold", "dim_coin",
    "Coin identities over time (SCD type 2): one row per coin and span without changes.",
    (
        C("coin_key", "string", "Surrogate key: coin_id and valid_from.", nullable=False),
        C("coin_id", "string", "Coin.", nullable=False),
        C("symbol", "string", "Ticker symbol, upper case.", nullable=False),
        C("name", "string", "Name.", nullable=False),
        C("aliases", "array<string>", "Former ids, by date of change.", nullable=False),
        C("valid_from", "timestamp", "Start (inclusive).", nullable=False),
        C("valid_to", "timestamp", "End (exclusive); null = current."),
        C("is_current", "boolean", "True for the newest version.", nullable=False),
        C("is_active", "boolean", "True if the coin is polled in this span.", nullable=False),
    ),
    key=("coin_id", "valid_from"), grain=None, write="merge", owner=TRANSFORM, group="gold",
    kinds=("python", "deltalake", "gold"),
    rules=(Rule("span_not_empty", "valid_to IS NULL OR valid_from < valid_to", "Spans are not empty.", blocking=True),
           Rule("current_is_open", "is_current = (valid_to IS NULL)", "Only the current version is open.", blocking=True)),
)

DIM_DATE = Table(
    "gold", "dim_date", "Calendar of UTC days from the first partition to the end of next year.",
    (
        C("date_key", "int", "yyyymmdd.", nullable=False),
        C("day", "date", "UTC day.", nullable=False),
        C("year", "int", "Year.", nullable=False),
        C("quarter", "int", "Quarter, 1-4.", nullable=False),
        C("month", "int", "Month, 1-12.", nullable=False),
        C("day_of_month", "int", "Day of month.", nullable=False),
        C("iso_week", "int", "ISO 8601 week.", nullable=False),
        C("iso_weekday", "int", "ISO weekday, Monday = 1.", nullable=False),
        C("is_weekend", "boolean", "Saturday or Sunday.", nullable=False),
    ),
    key=("day",), grain=None, write="merge", owner=TRANSFORM, group="gold", kinds=("python", "deltalake", "gold"),
    rules=(Rule("weekday_range", "iso_weekday BETWEEN 1 AND 7", "ISO weekdays are 1-7.", blocking=True),),
)

LATEST_PRICES = Table(
    "gold", "latest_prices",
    "Newest quote of every coin with its age.",
    (
        C("coin_id", "string", "Coin.", nullable=False, lineage=_silver("coin_id")),
        C("symbol", "string", "Ticker symbol.", nullable=False, lineage=_silver("symbol")),
        C("name", "string", "Name.", lineage=_silver("name")),
        C("price_usd", MONEY, "Price.", nullable=False, unit="USD", lineage=_silver("price_usd")),
        C("market_cap_usd", MONEY, "Market capitalisation.", unit="USD", lineage=_silver("market_cap_usd")),
        C("volume_24h_usd", MONEY, "Rolling 24 h volume.", unit="USD", lineage=_silver("volume_24h_usd")),
        C("change_1h_pct", MONEY, "Change over 1 h.", unit="percent", lineage=_silver("change_1h_pct")),
        C("change_24h_pct", MONEY, "Change over 24 h.", unit="percent", lineage=_silver("change_24h_pct")),
        C("change_7d_pct", MONEY, "Change over 7 d.", unit="percent", lineage=_silver("change_7d_pct")),
        C("last_updated_at", "timestamp", "Event time of the quote.", nullable=False,
          lineage=_silver("last_updated_at")),
        C("available_at", "timestamp", "When the quote became available.", nullable=False,
          lineage=_silver("available_at")),
        C("source", "string", "Data mode.", nullable=False, lineage=_silver("source")),
        C("covered_until", "timestamp", "Watermark: highest broker timestamp that Bronze covered when this was written.",
          nullable=False),
        C("covered_offsets", "string", "JSON object: end offset reflected in this table, per Kafka partition.",
          nullable=False),
        C("age_s", "double", "covered_until - last_updated_at.", nullable=False, unit="seconds",
          lineage=_silver("last_updated_at")),
        C("refreshed_at", "timestamp", "When this was written.", nullable=False),
    ),
    key=("coin_id",), grain=None, write="merge", owner=TRANSFORM, group="gold",
    kinds=("pyspark", "deltalake", "gold"),
    rules=(Rule("price_positive", "price_usd > 0", "Prices are positive.", blocking=True),),
)

LEADERBOARD = Table(
    "gold", "leaderboard_24h", "Coins ranked by their change over the last 24 hours of bars, best first.",
    (
        C("rank", "int", "1 = best.", nullable=False, lineage=_bar("close", "open")),
        C("coin_id", "string", "Coin.", nullable=False, lineage=_bar("coin_id")),
        C("symbol", "string", "Ticker symbol.", nullable=False, lineage=_bar("symbol")),
        C("price_usd", MONEY, "Newest close.", nullable=False, unit="USD", lineage=_bar("close")),
        C("price_24h_ago_usd", MONEY, "Close of the newest bar at least 24 h older, else open of the oldest bar less than "
          "24 h older, at most 10 min off; else null.", unit="USD", lineage=_bar("close", "open")),
        C("price_24h_ago_at", "timestamp", "Event time of that price; null without one.",
          lineage=_bar("last_event_at", "first_event_at")),
        C("change_24h", "double", "price_usd / price_24h_ago_usd - 1; null = unknown.", unit="ratio",
          lineage=_bar("close", "open")),
        C("high_24h", MONEY, "Highest sample of 24 h.", nullable=False, unit="USD", lineage=_bar("high")),
        C("low_24h", MONEY, "Lowest sample of 24 h.", nullable=False, unit="USD", lineage=_bar("low")),
        C("volume_24h_usd", MONEY, "Last rolling 24 h volume.", unit="USD", lineage=_bar("volume_24h_usd")),
        C("window_end", "timestamp", "End of the newest bar.", nullable=False, lineage=_bar("window_end")),
    ),
    key=("coin_id",), grain=None, write="merge", owner=TRANSFORM, group="gold",
    kinds=("pyspark", "deltalake", "gold"), code_version="2",
    rules=(Rule("rank_positive", "rank >= 1", "Ranks start at 1.", blocking=True),),
)

_PRICE = _bar("close", "last_event_at", "expected_count")
PRICE_FEATURES = Table(
    "features", "price_features",
    "Scale-free, point-in-time features per coin on the 5-minute grid: no data after window_end, lags by grid time. "
    "One row per active coin and closed slot; values that cannot be computed are null, with a reason.",
    (
        C("coin_id", "string", "Coin.", nullable=False),
        C("window_start", "timestamp", "Start of the slot.", nullable=False),
        C("window_end", "timestamp", "End of the slot; features use no later data.", nullable=False),
        C("price", "double", "price(t): newest sample at most 2 x cadence (max. 10 min) old, else null.",
          unit="USD", lineage=_PRICE),
        C("price_at", "timestamp", "Event time of that sample.", lineage=_bar("last_event_at", "expected_count")),
        C("staleness_s", "double", "window_end - price_at.", unit="seconds",
          lineage=_bar("last_event_at", "expected_count")),
        C("sample_count", "bigint", "Samples in the slot.", nullable=False, lineage=_bar("sample_count")),
        C("r5", "double", "ln price(t) - ln price(t-5 min).", unit="log return", lineage=_PRICE),
        C("r15", "double", "Log return over 15 min.", unit="log return", lineage=_PRICE),
        C("r1h", "double", "Log return over 1 h.", unit="log return", lineage=_PRICE),
        C("r24h", "double", "Log return over 24 h.", unit="log return", lineage=_PRICE),
        C("r5_median", "double", "Median of r5 over the 288 slots before t.", unit="log return", lineage=_PRICE),
        C("s", "double", "1.4826 x MAD of r5 over the 288 slots before t (at least 144), floored at 1e-5.",
          unit="log return", lineage=_PRICE),
        C("rz", "double", "(r5 - r5_median) / s.", unit="own sigma", lineage=_PRICE),
        C("rv1h", "double", "Root of the sum of r5 squared over 12 slots.", unit="log return", lineage=_PRICE),
        C("rv15m", "double", "The same over 3 slots. Null in rows of version 1.", unit="log return", lineage=_PRICE),
        C("rv4h", "double", "The same over 48 slots. Null in rows of version 1.", unit="log return", lineage=_PRICE),
        C("rv24h", "double", "The same over 288 slots, of which at least 144 known stand for the rest. Null in rows of "
          "version 1.", unit="log return", lineage=_PRICE),
        C("rsi14", "double", "Cutler's RSI (plain means) over 14 slots.", unit="0-100", lineage=_PRICE),
        C("macd", "double", "MACD on ln price, finite 130-slot kernels of 12 and 26.", unit="log price",
          lineage=_PRICE),
        C("macd_signal", "double", "The same kernel with span 9, applied to macd.", unit="log price", lineage=_PRICE),
        C("macd_hist", "double", "macd - macd_signal.", unit="log price", lineage=_PRICE),
        C("bollinger_b", "double", "Bollinger %b: 20 slots, 2 sigma.", unit="ratio", lineage=_PRICE),
        C("r5_market", "double", "r5 - median r5 of the other coins (at least two), else null.", unit="log return",
          lineage=_PRICE),
        C("s_market", "double", "Root of the EWMA of r5_market squared over the 288 slots before t (half-life 72 slots; at "
          "least 144 known), floored at 1e-5. Null in rows of version 1.", unit="log return", lineage=_PRICE),
        C("unchanged_slots", "bigint", "Slots up to t with the same price, at most 288; 0 without a price. Null in rows of "
          "version 1.", lineage=_PRICE),
        C("basket_hash", "string", "Hash of the coins with r5 in the slot.", nullable=False, lineage=_PRICE),
        C("volume_change", "double", "ln(V24(t)/V24(t-5 min)): never a model input.", unit="log ratio",
          lineage=_bar("volume_24h_usd")),
        C("null_reason", "string", "Why values are null: stale_price, no_lag, short_history, few_coins (in the slot, or for "
          "s_market), no_volume; comma separated, sorted; null = complete.", lineage=_PRICE + _bar("volume_24h_usd")),
        C("available_at", "timestamp", "Latest available_at of the row's inputs, those of the other coins' returns over the "
          "288 slots before t included; null without inputs.", lineage=_bar("available_at")),
        C("is_complete", "boolean", "True if the slot's bar is complete.", nullable=False, lineage=_bar("is_complete")),
        _day(),
        C("hour", "timestamp", "Hour of window_start.", nullable=False),
    ),
    key=("coin_id", "window_end"), grain="hour", write="replace_slice", time_column="hour", partition_by=("day",),
    owner=ML, group="features", kinds=("pyspark", "deltalake"),
    rules=(
        Rule("rsi_range", "rsi14 IS NULL OR (rsi14 >= 0 AND rsi14 <= 100)", "RSI lies in 0-100.", blocking=True),
        Rule("sigma_floored", "s IS NULL OR s >= 1e-5", "The scale is floored.", blocking=True),
        Rule("market_sigma_floored", "s_market IS NULL OR s_market >= 1e-5", "The market-relative scale is floored.",
             blocking=True),
        Rule("null_has_reason", "null_reason IS NOT NULL OR (price IS NOT NULL AND r5 IS NOT NULL AND s IS NOT NULL)",
             "Every null is explained.", blocking=True),
        Rule("price_known", "price IS NOT NULL", "The coin had a fresh price in the slot.", severity="warn"),
    ),
)

_ANOMALY_INPUTS = _feature("rz", "r15", "r1h", "rv1h", "r5_market", "s")
_ALL_INPUTS = (*_ANOMALY_INPUTS, *_feature("s_market"))
ANOMALIES = Table(
    "gold", "anomalies",
    "Anomaly score of every coin and closed 5-minute slot, by the model version effective at the time.",
    (
        C("coin_id", "string", "Coin.", nullable=False, lineage=_feature("coin_id")),
        C("symbol", "string", "Ticker symbol.", nullable=False),
        C("window_start", "timestamp", "Start of the slot.", nullable=False, lineage=_feature("window_start")),
        C("window_end", "timestamp", "End of the slot.", nullable=False, lineage=_feature("window_end")),
        C("anomaly_score", "double", "Score, higher = more anomalous; null if inputs are null. Of a version with two scores "
          "(algorithm union) the higher of score / threshold; else |rz| in own sigma, or the forest's score.",
          lineage=_ALL_INPUTS),
        C("threshold", "double", "Coin's threshold in that model version; 1 for two scores.", nullable=False),
        C("is_anomaly", "boolean", "Score above threshold; false if the score is null.", nullable=False,
          lineage=_ALL_INPUTS),
        C("detectors", "array<string>", "Scores above their thresholds, sorted: market, robust_z, isolation_forest. Null in "
          "rows from before there were two.", lineage=_ALL_INPUTS),
        C("z_threshold", "double", "Coin's threshold of |rz| (size_sigma); null if the version does not use it.",
          unit="own sigma"),
        C("market_score", "double", "|r5_market| / sqrt(s_market x max(s_market, 0.3 s)).",
          lineage=_feature("r5_market", "s_market", "s")),
        C("market_threshold", "double", "Coin's threshold of market_score; null if the version does not use it."),
        C("explanation", "string", "JSON list of the strongest features with their values, in the coin's own sigma.",
          lineage=_ANOMALY_INPUTS),
        C("size_sigma", "double", "|rz| of the slot, which is the score robust_z.", unit="own sigma",
          lineage=_feature("rz")),
        C("size_market_sigma", "double", "|r5_market| / s_market of the slot.", unit="market-relative sigma",
          lineage=_feature("r5_market", "s_market")),
        C("similar_windows", "string", "JSON list of the three nearest of the coin's 20 strongest windows before the version's "
          "cut-off: window_end, and distance of the inputs in own sigma. Null unless flagged.", lineage=_ALL_INPUTS),
        C("scope", "string", "Of a flag: coin_specific if market fired, market_wide if robust_z alone did. Of a version "
          "with one score, or without market_score: market_wide if at least half of the other coins were flagged within "
          "5 min.", lineage=_ALL_INPUTS),
        C("suspicion", "string", "Data-quality suspicion: stale, frozen (the same price for longer than the coin's 28 days "
          "before the version's cut-off had it), single_sample, incomplete; or null.",
          lineage=_feature("price", "staleness_s", "unchanged_slots", "sample_count", "is_complete")),
        C("price", "double", "price(t).", unit="USD", lineage=_feature("price")),
        C("model_name", "string", "Registered model.", nullable=False),
        C("model_version", "string", "Model version used.", nullable=False),
        C("scored_at", "timestamp", "When the row was first scored.", nullable=False),
        C("latency_s", "double", "scored_at - window_end.", nullable=False, unit="seconds",
          lineage=_feature("window_end")),
        C("inference_ms", "double", "Time of the model call that scored the row: all coins and slots of a day, or of the "
          "part of it that the run covers. Null for rows scored before it was measured.", unit="milliseconds"),
        C("revision", "int", "0 initially; incremented when a restatement changes the row.", nullable=False),
        C("previous_is_anomaly", "boolean", "Flag before the restatement; null at revision 0."),
        _day(_feature("day")),
        C("hour", "timestamp", "Hour of window_start.", nullable=False, lineage=_feature("hour")),
    ),
    key=("coin_id", "window_end"), grain="hour", write="replace_slice", time_column="hour", partition_by=("day",),
    owner=ML, group="ml", kinds=("scikitlearn", "deltalake", "gold"),
    rules=(Rule("flag_matches_score", "is_anomaly = (anomaly_score IS NOT NULL AND anomaly_score > threshold)",
                "The flag is derived from score and threshold.", blocking=True),
           Rule("score_present", "anomaly_score IS NOT NULL", "The slot could be scored.", severity="warn")),
)

_FORECAST_INPUTS = _feature("rz", "r15", "r1h", "r5_market", "macd_hist", "bollinger_b", "rsi14", "s")
_FORECAST = _feature("price") + _FORECAST_INPUTS
_WIDTH = _feature("r5", "rv15m", "rv1h", "rv4h", "rv24h")
PRICE_PREDICTIONS = Table(
    "gold", "price_predictions",
    "Insert-only forecast ledger; the rows of a coin, horizon and model form a hash chain. Live forecasts were written "
    "before their target time.",
    (
        C("coin_id", "string", "Coin.", nullable=False, lineage=_feature("coin_id")),
        C("window_end", "timestamp", "End of the slot from which the forecast was made.", nullable=False,
          lineage=_feature("window_end")),
        C("horizon", "string", "5m or 1h.", nullable=False),
        C("target_at", "timestamp", "window_end + horizon.", nullable=False, lineage=_feature("window_end")),
        C("price", "double", "price(t) the forecast starts from.", nullable=False, unit="USD",
          lineage=_feature("price")),
        C("predicted_return", "double", "Forecast of the log return.", nullable=False, unit="log return",
          lineage=_FORECAST_INPUTS),
        C("predicted_price", "double", "price x exp(predicted_return).", nullable=False, unit="USD", lineage=_FORECAST),
        C("lower_90", "double", "5 % quantile of the price.", nullable=False, unit="USD", lineage=_FORECAST + _WIDTH),
        C("upper_90", "double", "95 % quantile of the price.", nullable=False, unit="USD", lineage=_FORECAST + _WIDTH),
        C("median", "double", "Median of the price; null in rows of the first version.", unit="USD", lineage=_FORECAST + _WIDTH),
        C("tracked_lower", "double", "Log factor by which tracking has widened the lower half of the interval since it was "
          "calibrated; null in rows of the first version.", unit="log ratio", lineage=_FORECAST + _WIDTH),
        C("tracked_upper", "double", "The same of the upper half.", unit="log ratio", lineage=_FORECAST + _WIDTH),
        C("coverage_7d", "double", "Share of outcomes that intervals of this kind covered for this coin and horizon over "
          "the 7 days before the version's cut-off, none of which they had seen; null = unknown, see null_reason.",
          unit="ratio"),
        C("coverage_28d", "double", "The same over 28 days.", unit="ratio"),
        C("skill_verdict", "string", "Of predicted_price: skill, no skill, or not evaluated; null in rows of the first "
          "version."),
        C("null_reason", "string", "Why a coverage is null; null = none is, or a row of the first version."),
        C("model_name", "string", "Registered model.", nullable=False),
        C("model_version", "string", "Model version used.", nullable=False),
        C("mode", "string", "live if written before target_at, else backfill.", nullable=False,
          lineage=_feature("window_end")),
        C("predicted_at", "timestamp", "When the forecast was written.", nullable=False),
        _day(_feature("day")),
        C("hour", "timestamp", "Hour of the slot's start.", nullable=False, lineage=_feature("hour")),
        *_CHAIN,
    ),
    chain=("coin_id", "horizon", "model_name"),
    key=("coin_id", "window_end", "horizon", "model_version"), grain="hour", write="merge", time_column="hour",
    partition_by=("day",), owner=ML, group="ml", kinds=("scikitlearn", "deltalake", "gold"),
    rules=(
        Rule("interval_ordered", "lower_90 <= predicted_price AND predicted_price <= upper_90",
             "The interval contains the forecast.", blocking=True),
        Rule("median_within", "median IS NULL OR (lower_90 <= median AND median <= upper_90)",
             "The interval contains its median.", blocking=True),
        Rule("coverage_or_reason", "median IS NULL OR null_reason IS NOT NULL OR (coverage_7d IS NOT NULL AND "
             "coverage_28d IS NOT NULL)", "An unknown coverage has a reason.", blocking=True),
        Rule("mode_is_honest", "(mode = 'live') = (predicted_at < target_at)", "live means written before the outcome.",
             blocking=True),
    ),
)

_ERROR = _forecast("price", "predicted_return") + _bar("close")
_INTERVAL = _forecast("lower_90", "upper_90", "price") + _bar("close")
PREDICTION_ACCURACY = Table(
    "gold", "prediction_accuracy",
    "Forecasts scored against outcomes, per day, coin, horizon, model version and mode.",
    (
        C("day", "date", "UTC day of the target.", nullable=False, lineage=_forecast("target_at")),
        C("day_start", "timestamp", "Start of `day`.", nullable=False, lineage=_forecast("target_at")),
        C("coin_id", "string", "Coin.", nullable=False, lineage=_forecast("coin_id")),
        C("horizon", "string", "5m or 1h.", nullable=False, lineage=_forecast("horizon")),
        C("model_name", "string", "Registered model.", nullable=False, lineage=_forecast("model_name")),
        C("model_version", "string", "Version.", nullable=False, lineage=_forecast("model_version")),
        C("mode", "string", "live or backfill; only live counts as skill.", nullable=False, lineage=_forecast("mode")),
        C("forecasts", "bigint", "Forecasts with a known outcome.", nullable=False,
          lineage=_forecast("target_at") + _bar("close")),
        C("without_outcome", "bigint", "Forecasts whose outcome is unknown (no price at the target).", nullable=False,
          lineage=_forecast("target_at") + _bar("close")),
        C("mae_pct", "double", "Mean absolute error of the log return x 100.", unit="percent", lineage=_ERROR),
        C("rmse_pct", "double", "Root mean squared error x 100.", unit="percent", lineage=_ERROR),
        C("skill", "double", "1 - MSE / MSE of persistence; null without outcomes.", unit="ratio", lineage=_ERROR),
        C("direction_hit", "double", "Share of correct signs among non-zero forecasts and outcomes; null without any.",
          unit="ratio", lineage=_ERROR),
        C("coverage_90", "double", "Share of outcomes within the interval.", unit="ratio",
          lineage=_forecast("lower_90", "upper_90") + _bar("close")),
        C("winkler_pct", "double", "Mean interval score: width plus 20 x the miss, over the price x 100; lower is better. "
          "Null without outcomes, and in rows of the first version.", unit="percent", lineage=_INTERVAL),
        C("width_pct", "double", "Mean width of the interval over the price x 100; null as winkler_pct.", unit="percent",
          lineage=_INTERVAL),
        C("below_lower", "double", "Share of outcomes below the interval; 0.05 is promised. Null as winkler_pct.",
          unit="ratio", lineage=_INTERVAL),
        C("below_median", "double", "Share of outcomes below the median, of forecasts that have one; 0.5 is promised.",
          unit="ratio", lineage=_forecast("median") + _bar("close")),
        C("below_upper", "double", "Share of outcomes up to the interval's upper end; 0.95 is promised. Null as "
          "winkler_pct.", unit="ratio", lineage=_INTERVAL),
    ),
    key=("day", "coin_id", "horizon", "model_version", "mode"), grain="day", write="replace_slice",
    time_column="day_start", partition_by=("day",), owner=ML, group="ml", kinds=("python", "deltalake", "gold"),
    rules=(Rule("skill_at_most_one", "skill IS NULL OR skill <= 1", "Skill cannot exceed 1.", blocking=True),
           Rule("coverage_plausible", "coverage_90 IS NULL OR coverage_90 >= 5e-1",
                "A 90 % interval that covers under half of the outcomes is wrong.", severity="warn")),
)

_outlook = _of("gold.volatility_forecasts")
VOLATILITY_FORECASTS = Table(
    "gold", "volatility_forecasts",
    "Insert-only ledger of volatility forecasts: 1 h ahead from every slot, 24 h ahead from each full hour. The rows of a "
    "coin, horizon and model form a hash chain. Volatility is the root of the realised variance, the sum of squared "
    "5-minute log returns over the horizon; it is not annualised.",
    (
        C("coin_id", "string", "Coin.", nullable=False, lineage=_feature("coin_id")),
        C("window_end", "timestamp", "End of the slot from which the forecast was made.", nullable=False,
          lineage=_feature("window_end")),
        C("horizon", "string", "1h or 24h.", nullable=False),
        C("target_at", "timestamp", "window_end + horizon.", nullable=False, lineage=_feature("window_end")),
        C("volatility_pct", "double", "Forecast: 100 x root of the sum of squared 5-minute log returns from window_end to "
          "target_at.", nullable=False, unit="percent", lineage=_feature("r5", "s")),
        C("ewma_pct", "double", "The same if squared returns, of 6 own sigmas at most, go on as on average lately: exponential "
          "weights over 7 days that halve in twice the horizon.", nullable=False, unit="percent",
          lineage=_feature("r5", "s")),
        C("last_value_pct", "double", "The same if the horizon before window_end repeats itself: 100 x rv1h or rv24h; null "
          "where that is unknown.", unit="percent", lineage=_feature("rv1h", "rv24h")),
        C("model_name", "string", "Registered model.", nullable=False),
        C("model_version", "string", "Model version used.", nullable=False),
        C("mode", "string", "live if written before target_at, else backfill.", nullable=False,
          lineage=_feature("window_end")),
        C("predicted_at", "timestamp", "When the forecast was written.", nullable=False),
        _day(_feature("day")),
        C("hour", "timestamp", "Hour of the slot's start.", nullable=False, lineage=_feature("hour")),
        *_CHAIN,
    ),
    chain=("coin_id", "horizon", "model_name"),
    key=("coin_id", "window_end", "horizon", "model_version"), grain="hour", write="merge", time_column="hour",
    partition_by=("day",), owner=ML, group="ml", kinds=("python", "deltalake", "gold"),
    rules=(
        Rule("volatility_positive", "volatility_pct > 0 AND ewma_pct > 0", "A volatility is positive.", blocking=True),
        Rule("mode_is_honest", "(mode = 'live') = (predicted_at < target_at)", "live means written before the outcome.",
             blocking=True),
        Rule("near_the_average", "volatility_pct <= 1e1 * ewma_pct AND ewma_pct <= 1e1 * volatility_pct",
             "A forecast ten times the recent average, or a tenth of it, comes from inputs that no training saw.",
             severity="warn"),
    ),
)

_LOSS = _feature("rv1h", "rv24h")
VOLATILITY_ACCURACY = Table(
    "gold", "volatility_accuracy",
    "Volatility forecasts scored against the realised volatility of their horizon, per day, coin, horizon, model version and "
    "mode. Loss: QLIKE of the variances, x - ln x - 1 with x = outcome / forecast; 0 is perfect, less is better.",
    (
        C("day", "date", "UTC day of the target.", nullable=False, lineage=_outlook("target_at")),
        C("day_start", "timestamp", "Start of `day`.", nullable=False, lineage=_outlook("target_at")),
        C("coin_id", "string", "Coin.", nullable=False, lineage=_outlook("coin_id")),
        C("horizon", "string", "1h or 24h.", nullable=False, lineage=_outlook("horizon")),
        C("model_name", "string", "Registered model.", nullable=False, lineage=_outlook("model_name")),
        C("model_version", "string", "Version.", nullable=False, lineage=_outlook("model_version")),
        C("mode", "string", "live or backfill; only live counts as skill.", nullable=False, lineage=_outlook("mode")),
        C("forecasts", "bigint", "Forecasts with a known outcome: rv1h or rv24h of the features at the target.",
          nullable=False, lineage=_outlook("target_at") + _LOSS),
        C("without_outcome", "bigint", "Forecasts whose outcome is unknown (no or too few returns in the horizon).",
          nullable=False, lineage=_outlook("target_at") + _LOSS),
        C("qlike", "double", "Mean QLIKE of the forecasts; null without outcomes.",
          lineage=_outlook("volatility_pct") + _LOSS),
        C("qlike_ewma", "double", "Of ewma_pct; null as qlike.", lineage=_outlook("ewma_pct") + _LOSS),
        C("qlike_last_value", "double", "Of last_value_pct, over the forecasts that have one; null without any.",
          lineage=_outlook("last_value_pct") + _LOSS),
        C("qlike_ratio", "double", "qlike over the lower of qlike_ewma and qlike_last_value; below 1, the model is better "
          "than both. Null without outcomes.", unit="ratio",
          lineage=_outlook("volatility_pct", "ewma_pct", "last_value_pct") + _LOSS),
        C("volatility_pct", "double", "Mean forecast, over those with an outcome.", unit="percent",
          lineage=_outlook("volatility_pct") + _LOSS),
        C("outcome_pct", "double", "Mean realised volatility.", unit="percent", lineage=_LOSS + _outlook("target_at")),
    ),
    key=("day", "coin_id", "horizon", "model_version", "mode"), grain="day", write="replace_slice",
    time_column="day_start", partition_by=("day",), owner=ML, group="ml", kinds=("python", "deltalake", "gold"),
    rules=(Rule("loss_not_negative", "(qlike IS NULL OR qlike >= 0) AND (qlike_ewma IS NULL OR qlike_ewma >= 0)",
                "QLIKE has its minimum, 0, at the outcome.", blocking=True),
           Rule("loss_plausible", "qlike IS NULL OR qlike <= 1e1",
                "Over a day, a mean loss above 10 means variances that are wrong by an order of magnitude.",
                severity="warn")),
)

_LEARNT = _ALL_INPUTS + _feature(
    *("unchanged_slots", "price", "r5", "r5_median", "rv15m", "rv4h", "rv24h", "macd_hist", "bollinger_b", "rsi14")
)
PROMOTIONS = Table(
    "ml", "promotions",
    "Promotion decisions on model versions. Scoring uses the version effective at the scored hour; the registry alias "
    "is derived from this table. Insert-only; the rows of a model form a hash chain.",
    (
        C("model", "string", "anomaly, price_5m, price_1h, volatility_1h or volatility_24h.", nullable=False),
        C("version", "string", "Registry version; v0 = baseline.", nullable=False),
        C("algorithm", "string", "Algorithm of the version.", nullable=False, lineage=_LEARNT),
        C("cutoff", "timestamp", "Training used no later data.", nullable=False),
        C("effective_from", "timestamp", "Start of service if promoted.", nullable=False),
        C("decision", "string", "promoted or rejected by the gate of a training; promoted_by_hand, or rolled_back: by a "
          "person, which trainings do not replace.", nullable=False, lineage=_LEARNT),
        C("provisional", "boolean", "Calibrated on fewer than 28 days.", nullable=False, lineage=_LEARNT),
        C("why", "string", "Reason, with the figures compared.", nullable=False, lineage=_LEARNT),
        C("metrics", "string", "JSON of every metric compared.", nullable=False, lineage=_LEARNT),
        C("artifact_uri", "string", "Folder of the model files, relative to the home; absolute on a volume.", nullable=False),
        C("artifact_sha256", "string", "Content hash of the artifact.", nullable=False, lineage=_LEARNT),
        C("content_hash", "string", "Hash of the learnt parameters; equal data and code give an equal hash.", nullable=False,
          lineage=_LEARNT),
        C("run_id", "string", "MLflow run.", nullable=False),
        C("decided_at", "timestamp", "When the decision was made.", nullable=False),
        *_CHAIN,
    ),
    chain=("model",),
    key=("model", "version", "effective_from", "decision"), grain=None, write="merge", owner=ML, group="ml",
    kinds=("python", "deltalake"),
    rules=(Rule("known_decision", "decision IN ('promoted', 'rejected', 'promoted_by_hand', 'rolled_back')",
                "There are four decisions.", blocking=True),
           Rule("serves_after_cutoff", "effective_from >= cutoff", "A version serves only after its cut-off.",
                blocking=True)),
)

POLLS = Table(
    "ops", "polls",
    "One row per poll of the source: outcome, missing coins, cadence, credits.",
    (
        *_LOG_RECORD,
        *_LOG_RANGE,
        C("poll_id", "string", "Poll; null if the record is unreadable."),
        C("started_at", "timestamp", "Start of the request."),
        C("finished_at", "timestamp", "End of the request."),
        C("source", "string", "Data mode."),
        C("outcome", "string", "ok, or the named failure."),
        C("http_status", "int", "HTTP status; null without a reply."),
        C("detail", "string", "Cause of a failure."),
        C("coins_asked", "int", "Coins requested."),
        C("coins_returned", "int", "Coins in the reply."),
        C("coins_unchanged", "int", "Coins whose quote had already been sent."),
        C("coins_missing", "array<string>", "Coins requested but not returned."),
        C("age_s", "double", "Age of the reply in a cache.", unit="seconds"),
        C("latency_ms", "double", "Time to the complete reply.", unit="milliseconds"),
        C("cadence_s", "double", "Effective poll interval.", unit="seconds"),
        C("credits_used", "int", "Credits used by the poll."),
        C("credits_left", "int", "Credits left this month."),
        C("delivered", "int", "Messages confirmed by Kafka."),
        C("coins_absent", "array<string>", "Coins missing from at least three consecutive replies; null before version 2."),
        C("problems", "array<string>", "Coins with unusable quotes, with reasons; null before version 2."),
        C("nulled", "array<string>", "Quote fields set to null because their number is out of range; null before "
          "version 2."),
        C("quote_age_s", "double", "Age of the newest quote at the end of the poll; null without one.", unit="seconds"),
    ),
    key=("topic_id", "partition", "offset"), grain="hour", write="append_once", time_column="arrival_hour",
    partition_by=("arrival_hour",), owner=OPS, group="ops", kinds=("kafka", "deltalake"), retention_days=90,
    rules=(*_LOG_RULES,
           Rule("readable", "kind = 'gap' OR (poll_id IS NOT NULL AND started_at IS NOT NULL AND finished_at IS NOT NULL "
                "AND source IS NOT NULL AND outcome IS NOT NULL AND coins_asked IS NOT NULL AND coins_returned IS NOT NULL "
                "AND coins_unchanged IS NOT NULL AND coins_missing IS NOT NULL AND latency_ms IS NOT NULL AND "
                "cadence_s IS NOT NULL AND delivered IS NOT NULL)", "Every poll record is readable.", severity="warn"),
           Rule("poll_ok", "kind = 'gap' OR outcome = 'ok'", "The poll succeeded.", severity="warn")),
)

_MEASURED = (
    *_raw("offset", "kafka_timestamp", "headers", "bronze_ingested_at"), "silver.prices.offset", "silver.quarantine.offset",
    "ops.polls.outcome", "gold.anomalies.inference_ms",
)
PIPELINE_METRICS = Table(
    "ops", "pipeline_metrics", "Pipeline metrics by arrival hour.",
    (
        C("metric", "string", "messages_produced, processing_latency_ms_p50, processing_latency_ms_p99, dedup_rate, "
          "quarantine_rate, model_inference_latency_ms, polls_ok_rate.", nullable=False),
        C("value", "double", "Value; null = no data in the hour. Latencies run from the arrival at the broker (where that "
          "is virtual, from the header sent_at) to the write to Bronze; inference is one call of the model.",
          lineage=_MEASURED),
        C("unit", "string", "Unit.", nullable=False),
        C("measured_over", "bigint", "Records that the value was computed from.", nullable=False,
          lineage=(*_raw("offset"), "silver.quarantine.offset", "ops.polls.offset", "gold.anomalies.window_end")),
        _day(),
        C("hour", "timestamp", "Arrival hour.", nullable=False),
    ),
    key=("metric", "hour"), grain="hour", write="replace_slice", time_column="hour", partition_by=("day",), owner=OPS,
    group="ops", kinds=("python", "deltalake"), code_version="2",
    rules=(Rule("null_means_nothing", "value IS NOT NULL OR measured_over = 0", "A metric over records has a value.",
                blocking=True),
           Rule("quarantine_below_1pct", "metric <> 'quarantine_rate' OR value IS NULL OR value < 1e-2",
                "Under 1 % of records are quarantined.", severity="warn")),
)

ALERTS = Table(
    "ops", "alerts", "All alerts and recoveries, of the pipeline and of the market: transitions only, one per cause.",
    (
        C("alert_id", "string", "Idempotency key: hash of cause, partition, state and time of the transition; of a market "
          "alert the hash of rule, coin and slot.", nullable=False),
        C("cause", "string", "Subject of the alert (asset and check, a named condition, or rule and coin).", nullable=False),
        C("state", "string", "firing or resolved.", nullable=False),
        C("severity", "string", "error or warn.", nullable=False),
        C("asset", "string", "Asset key; null for a condition of the whole pipeline."),
        C("check_name", "string", "Check; null for a condition, a run and a rule."),
        C("partition_key", "string", "Partition; null if not partitioned."),
        C("summary", "string", "Finding and remedy.", nullable=False),
        C("at", "timestamp", "When the transition was detected; of a market alert the end of its slot.", nullable=False),
        C("delivered_at", "timestamp", "When the last of its channels accepted it; null = no channel, or not yet delivered."),
        C("attempts", "int", "Delivery attempts.", nullable=False),
        C("rule", "string", "Rule of a market alert; null for the pipeline."),
        C("coin_id", "string", "Coin of a market alert; null if its rule is about no single coin, and for the pipeline."),
        C("value", "double", "What the rule's `value` came to in the slot; null without one, and once resolved."),
    ),
    key=("alert_id",), grain=None, write="merge", owner=OPS, group="ops", kinds=("python", "deltalake"),
    rules=(Rule("known_state", "state IN ('firing', 'resolved')", "Alerts are firing or resolved.", blocking=True),),
)

TABLES: dict[str, Table] = {
    t.full_name: t
    for t in (
        RAW_PRICES, MARKET_HISTORY, SILVER_PRICES, QUARANTINE, BARS_1M, BARS_5M, BARS_1H, BARS_1D, DIM_COIN, DIM_DATE,
        LATEST_PRICES, LEADERBOARD, PRICE_FEATURES, ANOMALIES, PRICE_PREDICTIONS, PREDICTION_ACCURACY,
        VOLATILITY_FORECASTS, VOLATILITY_ACCURACY, PROMOTIONS, POLLS, PIPELINE_METRICS, ALERTS,
    )
}
