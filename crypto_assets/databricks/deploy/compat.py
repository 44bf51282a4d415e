"""Views under the names of the systems this replaces.

Belongs here: portable SQL over `schema.table` names. Does not belong here: creating views on an engine, named queries
(`serving.queries`).
`vol_sum` is the last rolling 24 h volume of the window: the old systems added a rolling figure to itself.
"""

from __future__ import annotations

VIEWS: dict[str, str] = {
    "compat.metrics_gold": """
SELECT b.coin_id AS asset, b.symbol AS symbol, b.window_start AS window_start, b.window_end AS window_end,
       b.price_avg AS price_avg, b.price_vol AS price_vol, CAST(b.low AS DOUBLE) AS price_min,
       CAST(b.high AS DOUBLE) AS price_max, CAST(b.volume_24h_usd AS DOUBLE) AS vol_sum,
       CAST(b.close AS DOUBLE) / CAST(b.open AS DOUBLE) - 1 AS ret_window
FROM gold.bars_5m b""",
    "compat.prices_silver": """
SELECT p.coin_id AS asset, p.symbol AS symbol, p.name AS name, CAST(p.price_usd AS DOUBLE) AS price,
       CAST(p.volume_24h_usd AS DOUBLE) AS volume, p.last_updated_at AS event_ts, p.ingestion_timestamp AS ingest_ts,
       p.available_at AS load_ts, concat(p.coin_id, '@', CAST(p.last_updated_at AS STRING)) AS event_key
FROM silver.prices p""",
    "compat.anomalies": """
SELECT a.coin_id AS asset, a.symbol AS symbol, a.window_end AS window_end, b.price_avg AS price_avg,
       b.price_vol AS price_vol, CAST(b.close AS DOUBLE) / CAST(b.open AS DOUBLE) - 1 AS ret_window,
       CAST(b.volume_24h_usd AS DOUBLE) AS vol_sum, f.r5 AS ret_prev, a.anomaly_score AS anomaly_score,
       a.is_anomaly AS is_anomaly, a.model_version AS model_version, a.scored_at AS scored_at
FROM gold.anomalies a
LEFT JOIN gold.bars_5m b ON b.coin_id = a.coin_id AND b.window_end = a.window_end
LEFT JOIN features.price_features f ON f.coin_id = a.coin_id AND f.window_end = a.window_end""",
    "gold.fact_bars": """
SELECT b.*, d.coin_key AS coin_key, year(b.day) * 10000 + month(b.day) * 100 + day(b.day) AS date_key
FROM gold.bars_5m b
LEFT JOIN gold.dim_coin d ON d.coin_id = b.coin_id AND d.valid_from <= b.window_start
  AND (d.valid_to IS NULL OR b.window_start < d.valid_to)""",
}
"""View name to its SELECT. `fact_bars` joins each bar to the coin's identity as of the bar."""

VIEW_COMMENTS: dict[str, str] = {
    "compat.metrics_gold": "5-minute bars under their old names.",
    "compat.prices_silver": "Typed quotes under their old names.",
    "compat.anomalies": "Scored 5-minute slots under their old names.",
    "gold.fact_bars": "5-minute bars with the key of the coin's identity as of the bar, and of the day.",
}
"""Comments of the views."""

_VOL_SUM = "The last rolling 24 h volume in USD: the old sum added a rolling figure to itself."
VIEW_COLUMN_COMMENTS: dict[str, dict[str, str]] = {
    "compat.metrics_gold": {"vol_sum": _VOL_SUM, "ret_window": "close / open - 1 of the window."},
    "compat.anomalies": {"vol_sum": _VOL_SUM, "ret_prev": "Log return over the 5 minutes before window_end."},
}
"""Comments of columns whose old name is misleading, by view."""
