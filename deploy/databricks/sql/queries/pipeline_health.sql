-- pipeline_health: Each of the pipeline's own metrics: its newest measured hour, and the 24 h before it.
-- Parameters stand at their defaults:
--   until = NULL: End (inclusive); null = the newest row.
-- Rendered from crypto_assets/serving/queries.py by `python -m crypto_assets.rendered_files`.

USE CATALOG `crypto_analytics`;

SELECT metric, unit, max(CASE WHEN n = 1 AND value IS NOT NULL THEN hour END) AS hour,
       max(CASE WHEN n = 1 THEN value END) AS value,
       max(CASE WHEN n = 1 THEN measured_over END) AS measured_over,
       avg(value) AS mean_24h, max(value) AS max_24h, count(value) AS hours_measured, count(*) AS hours,
       CASE WHEN count(value) = 0 THEN 'nothing to measure in these hours' END AS null_reason
FROM (
  SELECT m.metric, m.unit, m.hour, m.value, m.measured_over,
         row_number() OVER (
           PARTITION BY m.metric ORDER BY CASE WHEN m.value IS NULL THEN 1 ELSE 0 END, m.hour DESC) AS n
  FROM ops.pipeline_metrics m CROSS JOIN (SELECT coalesce(NULL, max(hour)) AS until_at FROM ops.pipeline_metrics) s
  WHERE m.hour <= s.until_at AND unix_micros(m.hour) > unix_micros(s.until_at) - 24 * 3600000000
) recent
GROUP BY metric, unit
ORDER BY metric;
