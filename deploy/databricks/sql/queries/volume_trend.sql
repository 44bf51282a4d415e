-- volume_trend: The rolling 24 h volume hour by hour, and against the same hour of the day before.
-- Parameters stand at their defaults:
--   coin = NULL: Coin id; null = every coin.
--   until = NULL: End (inclusive); null = the newest row.
--   hours = 168: Length of the span in hours.
-- Rendered from crypto_assets/serving/queries.py by `python -m crypto_assets.rendered_files`.

USE CATALOG `crypto_analytics`;

SELECT b.coin_id, b.symbol, b.window_end, b.volume_24h_usd,
       CAST(b.volume_24h_usd AS DOUBLE) / nullif(CAST(p.volume_24h_usd AS DOUBLE), 0e0) - 1 AS change_24h,
       CASE WHEN b.volume_24h_usd IS NULL THEN 'not reported by the source'
            WHEN p.coin_id IS NULL THEN 'no bar 24 h before'
            WHEN p.volume_24h_usd IS NULL THEN 'not reported by the source 24 h before'
            WHEN p.volume_24h_usd = 0 THEN 'no volume 24 h before' END AS null_reason
FROM gold.bars_1h b CROSS JOIN (SELECT coalesce(NULL, max(window_end)) AS until_at FROM gold.bars_1h) s
LEFT JOIN gold.bars_1h p ON p.coin_id = b.coin_id AND p.window_end = b.window_end - INTERVAL 24 HOURS
WHERE b.window_end <= s.until_at AND unix_micros(b.window_end) > unix_micros(s.until_at) - 168 * 3600000000
  AND (NULL IS NULL OR b.coin_id = NULL)
ORDER BY b.coin_id, b.window_end;
