-- credits_left: Credits left of the source's plan, how fast they go, and when they run out at that pace.
-- Rendered from crypto_assets/serving/queries.py by `python -m crypto_assets.rendered_files`.

USE CATALOG `crypto_analytics`;

WITH clock AS (SELECT max(finished_at) AS until_at FROM ops.polls WHERE kind = 'record'),
day_of AS (
  SELECT p.source, count(*) AS polls_24h, CAST(sum(p.credits_used) AS BIGINT) AS credits_used_24h,
         max_by(p.credits_left, p.finished_at) AS credits_left, max(p.finished_at) AS polled_at
  FROM ops.polls p CROSS JOIN clock c
  WHERE p.kind = 'record' AND unix_micros(p.finished_at) > unix_micros(c.until_at) - 24 * 3600000000
  GROUP BY p.source
)
SELECT source, polled_at, polls_24h, credits_used_24h, credits_left,
       credits_left / nullif(CAST(credits_used_24h AS DOUBLE), 0e0) AS days_left,
       CASE WHEN credits_left IS NULL THEN concat(source, ' has no metered credits')
            WHEN coalesce(credits_used_24h, 0) = 0 THEN 'no credits were used in 24 h' END AS null_reason
FROM day_of
ORDER BY source;
