"""Tables of bars, dimensions and boards."""

from __future__ import annotations

from crypto_assets.contracts.columns import TRANSFORM, day, of
from crypto_assets.contracts.model import MONEY, Rule, Table
from crypto_assets.contracts.model import Column as C

_silver, _bar = of("silver.prices"), of("gold.bars_5m")


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
            day(event),
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
