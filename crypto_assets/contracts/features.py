"""Tables of features."""

from __future__ import annotations

from crypto_assets.contracts.columns import ML, day, of
from crypto_assets.contracts.model import Column as C
from crypto_assets.contracts.model import Rule, Table

_bar = of("gold.bars_5m")
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
        C("rz_common", "double", "Median of rz over the coins of the slot (at least three): how far all of them move. Null "
          "in rows before version 3.", unit="own sigma", lineage=_PRICE),
        C("common_activity", "double", "How much the whole market moved in the last hour, compared with the last day: root of the "
          "EWMA (half-life 12 slots) of the other coins' median r5 squared over its mean, both over the 288 slots before t (at "
          "least 144 known) and floored at 1e-10. Null in rows before version 4.", unit="ratio", lineage=_PRICE),
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
        day(),
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
