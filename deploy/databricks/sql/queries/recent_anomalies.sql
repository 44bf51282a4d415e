-- recent_anomalies: The newest flagged slots, with what made them stand out and what is suspicious about the data.
-- Parameters stand at their defaults:
--   coin = NULL: Coin id; null = every coin.
--   until = NULL: End (inclusive); null = the newest row.
--   hours = 24: Length of the span in hours.
-- Rendered from crypto_assets/serving/queries.py by `python -m crypto_assets.rendered_files`.

USE CATALOG `crypto_analytics`;

SELECT a.coin_id, a.symbol, a.window_end, a.anomaly_score, a.threshold, a.detectors, a.size_sigma, a.z_threshold,
       a.size_market_sigma, a.market_score, a.market_threshold, a.common_score, a.common_threshold, a.scope,
       a.suspicion, a.explanation,
       a.similar_windows, a.price, a.model_version, a.scored_at
FROM gold.anomalies a CROSS JOIN (SELECT coalesce(NULL, max(window_end)) AS until_at FROM gold.anomalies) s
WHERE a.is_anomaly AND a.window_end <= s.until_at
  AND unix_micros(a.window_end) > unix_micros(s.until_at) - 24 * 3600000000
  AND (NULL IS NULL OR a.coin_id = NULL)
ORDER BY a.window_end DESC, a.anomaly_score DESC, a.coin_id;
