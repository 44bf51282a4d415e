-- score_histogram: How anomaly scores are distributed per model version, and where the flags begin.
-- Parameters stand at their defaults:
--   coin = NULL: Coin id; null = every coin.
--   until = NULL: End (inclusive); null = the newest row.
--   hours = 168: Length of the span in hours.
--   width = CAST('0.5' AS DOUBLE): Width of a bucket.
-- Rendered from crypto_assets/serving/queries.py by `python -m crypto_assets.rendered_files`.

USE CATALOG `crypto_analytics`;

SELECT model_version, bucket * CAST('0.5' AS DOUBLE) AS score_from, (bucket + 1) * CAST('0.5' AS DOUBLE) AS score_to, count(*) AS slots,
       CAST(sum(CASE WHEN is_anomaly THEN 1 ELSE 0 END) AS BIGINT) AS flagged
FROM (
  SELECT a.model_version, a.is_anomaly, CAST(floor(a.anomaly_score / CAST('0.5' AS DOUBLE)) AS DOUBLE) AS bucket
  FROM gold.anomalies a CROSS JOIN (SELECT coalesce(NULL, max(window_end)) AS until_at FROM gold.anomalies) s
  WHERE a.anomaly_score IS NOT NULL AND a.window_end <= s.until_at
    AND unix_micros(a.window_end) > unix_micros(s.until_at) - 168 * 3600000000
    AND (NULL IS NULL OR a.coin_id = NULL)
) scores GROUP BY model_version, bucket
ORDER BY model_version, score_from;
