-- interval_coverage: Whether the 90 % intervals hold 90 % of the outcomes, how wide they are, and their Winkler score.
-- Parameters stand at their defaults:
--   coin = NULL: Coin id; null = every coin.
--   until = NULL: End (inclusive); null = the newest row.
--   days = 7: Length of the span in days.
-- Rendered from crypto_assets/serving/queries.py by `python -m crypto_assets.rendered_files`.

USE CATALOG `crypto_analytics`;

SELECT horizon, model_name, model_version, mode, count(*) AS forecasts, count(outcome) AS with_outcome,
       avg(CASE WHEN outcome IS NULL THEN NULL WHEN outcome BETWEEN lower_90 AND upper_90 THEN 1e0 ELSE 0e0 END)
         AS coverage_90,
       avg(CASE WHEN outcome IS NOT NULL THEN (upper_90 - lower_90) / price * 100 END) AS width_pct,
       avg(CASE WHEN outcome IS NOT NULL THEN
             (upper_90 - lower_90 + 20 * (greatest(lower_90 - outcome, 0e0) + greatest(outcome - upper_90, 0e0)))
             / price * 100 END) AS winkler_pct,
       avg(CASE WHEN outcome IS NULL THEN NULL WHEN outcome < lower_90 THEN 1e0 ELSE 0e0 END) AS below_lower,
       avg(CASE WHEN outcome IS NULL OR median IS NULL THEN NULL WHEN outcome < median THEN 1e0 ELSE 0e0 END)
         AS below_median,
       avg(CASE WHEN outcome IS NULL THEN NULL WHEN outcome <= upper_90 THEN 1e0 ELSE 0e0 END) AS below_upper,
       CASE WHEN count(outcome) = 0 THEN 'no outcome is known yet' END AS null_reason
FROM (
  SELECT f.horizon, f.model_name, f.model_version, f.mode, f.price, f.lower_90, f.median, f.upper_90,
         CAST(b.close AS DOUBLE) AS outcome
  FROM gold.price_predictions f CROSS JOIN (SELECT coalesce(NULL, max(target_at)) AS until_at FROM gold.price_predictions) s
  LEFT JOIN gold.bars_5m b ON b.coin_id = f.coin_id AND b.window_end = f.target_at AND b.is_closed
  WHERE f.target_at <= s.until_at AND unix_micros(f.target_at) > unix_micros(s.until_at) - 7 * 86400000000
    AND (NULL IS NULL OR f.coin_id = NULL)
) scored
GROUP BY horizon, model_name, model_version, mode
ORDER BY horizon, model_name, model_version, mode;
