-- volatility_accuracy: How good the volatility forecasts of each day were, and what an average and the last value would have lost.
-- Parameters stand at their defaults:
--   coin = NULL: Coin id; null = every coin.
--   until = NULL: End (inclusive); null = the newest row.
--   days = 7: Length of the span in days.
-- Rendered from crypto_assets/serving/queries.py by `python -m crypto_assets.rendered_files`.

USE CATALOG `crypto_analytics`;

SELECT a.day, a.coin_id, a.horizon, a.model_name, a.model_version, a.mode, a.forecasts, a.without_outcome, a.qlike,
       a.qlike_ewma, a.qlike_last_value, a.qlike_ratio, a.volatility_pct, a.outcome_pct
FROM gold.volatility_accuracy a CROSS JOIN (SELECT coalesce(NULL, max(day_start)) AS until_at FROM gold.volatility_accuracy) s
WHERE a.day_start <= s.until_at AND unix_micros(a.day_start) > unix_micros(s.until_at) - 7 * 86400000000
  AND (NULL IS NULL OR a.coin_id = NULL)
ORDER BY a.day DESC, a.coin_id, a.horizon, a.model_version, a.mode;
