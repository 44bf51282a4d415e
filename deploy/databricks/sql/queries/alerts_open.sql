-- alerts_open: Alerts that are firing now: those without a later recovery of their cause and partition.
-- Rendered from crypto_assets/serving/queries.py by `python -m crypto_assets.rendered_files`.

USE CATALOG `crypto_analytics`;

WITH newest AS (
  SELECT a.*, row_number() OVER (
           PARTITION BY a.cause, coalesce(a.partition_key, '') ORDER BY a.at DESC, a.state) AS n
  FROM ops.alerts a
)
SELECT o.alert_id, o.cause, o.severity, o.asset, o.check_name, o.partition_key, o.summary, o.at, o.delivered_at,
       o.attempts, o.rule, o.coin_id, o.value
FROM newest o WHERE o.n = 1 AND o.state = 'firing'
ORDER BY o.at DESC, o.alert_id;
