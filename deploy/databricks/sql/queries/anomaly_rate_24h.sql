-- anomaly_rate_24h: How many slots of the last 24 h were flagged per coin, to hold against the budget of flags a day.
-- Parameters stand at their defaults:
--   until = NULL: End (inclusive); null = the newest row.
-- Rendered from crypto_assets/serving/queries.py by `python -m crypto_assets.rendered_files`.

USE CATALOG `crypto_analytics`;

SELECT a.coin_id, max(a.symbol) AS symbol, count(*) AS slots, count(a.anomaly_score) AS scored,
       CAST(sum(CASE WHEN a.is_anomaly THEN 1 ELSE 0 END) AS BIGINT) AS flagged,
       sum(CASE WHEN a.is_anomaly THEN 1e0 ELSE 0e0 END) / nullif(count(a.anomaly_score), 0) AS rate,
       CASE WHEN count(a.anomaly_score) = 0 THEN 'no slot had enough history for a score' END AS null_reason
FROM gold.anomalies a CROSS JOIN (SELECT coalesce(NULL, max(window_end)) AS until_at FROM gold.anomalies) s
WHERE a.window_end <= s.until_at AND unix_micros(a.window_end) > unix_micros(s.until_at) - 24 * 3600000000
GROUP BY a.coin_id
ORDER BY a.coin_id;
