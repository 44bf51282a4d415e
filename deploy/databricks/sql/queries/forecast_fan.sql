-- forecast_fan: Forecasts with their 90 % interval, how well such intervals have held lately, and the price that came.
-- Parameters stand at their defaults:
--   coin = NULL: Coin id; null = every coin.
--   horizon = '1h': Horizon of the forecasts.
--   until = NULL: End (inclusive); null = the newest row.
--   hours = 24: Length of the span in hours.
-- Rendered from crypto_assets/serving/queries.py by `python -m crypto_assets.rendered_files`.

USE CATALOG `crypto_analytics`;

SELECT f.coin_id, f.window_end, f.target_at, f.price, f.predicted_price, f.skill_verdict, f.lower_90, f.median,
       f.upper_90, f.coverage_7d, f.coverage_28d, f.null_reason AS coverage_null,
       CAST(b.close AS DOUBLE) AS outcome,
       CASE WHEN b.close IS NULL THEN 'no closed bar ends at the target yet' END AS outcome_null,
       f.model_name, f.model_version, f.mode
FROM gold.price_predictions f CROSS JOIN (SELECT coalesce(NULL, max(window_end)) AS until_at FROM gold.price_predictions) s
LEFT JOIN gold.bars_5m b ON b.coin_id = f.coin_id AND b.window_end = f.target_at AND b.is_closed
WHERE f.window_end <= s.until_at AND unix_micros(f.window_end) > unix_micros(s.until_at) - 24 * 3600000000
  AND f.horizon = '1h' AND (NULL IS NULL OR f.coin_id = NULL)
ORDER BY f.coin_id, f.target_at, f.model_version;
