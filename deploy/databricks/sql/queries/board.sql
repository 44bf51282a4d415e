-- board: What every coin costs now, how it moved and how old that is, with the reason of every null.
-- Parameters stand at their defaults:
--   coin = NULL: Coin id; null = every coin.
--   now = now(): Time that ages are counted to; null = the newest quote.
-- Rendered from crypto_assets/serving/queries.py by `python -m crypto_assets.rendered_files`.

USE CATALOG `crypto_analytics`;

SELECT p.coin_id, p.symbol, p.name, p.price_usd,
       CAST(p.change_1h_pct AS DOUBLE) AS change_1h_pct,
       CASE WHEN p.change_1h_pct IS NULL THEN concat('not reported by ', p.source) END AS change_1h_null,
       coalesce(CAST(p.change_24h_pct AS DOUBLE), 100 * l.change_24h) AS change_24h_pct,
       CASE WHEN p.change_24h_pct IS NULL AND l.change_24h IS NOT NULL THEN l.price_24h_ago_at END AS change_24h_since,
       CASE WHEN p.change_24h_pct IS NOT NULL OR l.change_24h IS NOT NULL THEN NULL
            WHEN l.coin_id IS NULL THEN concat('not reported by ', p.source, '; gold.leaderboard_24h has no row of it')
            WHEN l.is_late THEN concat('not reported by ', p.source, '; gold.leaderboard_24h is older')
            ELSE 'no bar within 10 min of 24 h ago' END AS change_24h_null,
       p.volume_24h_usd,
       CASE WHEN p.volume_24h_usd IS NULL THEN concat('not reported by ', p.source) END AS volume_24h_null,
       p.market_cap_usd,
       CASE WHEN p.market_cap_usd IS NULL THEN concat('not reported by ', p.source) END AS market_cap_null,
       p.last_updated_at,
       greatest((unix_micros(c.now_at) - unix_micros(p.last_updated_at)) / 1e6, 0e0) AS age_s,
       p.source
FROM gold.latest_prices p
CROSS JOIN (SELECT coalesce(now(), max(last_updated_at)) AS now_at FROM gold.latest_prices) c
LEFT JOIN (
  SELECT b.coin_id, unix_micros(b.window_end) < unix_micros(q.last_updated_at) - 600000000 AS is_late,
         CASE WHEN unix_micros(b.window_end) >= unix_micros(q.last_updated_at) - 600000000 THEN b.change_24h END AS change_24h,
         b.price_24h_ago_at
  FROM gold.leaderboard_24h b JOIN gold.latest_prices q ON q.coin_id = b.coin_id
) l ON l.coin_id = p.coin_id
WHERE NULL IS NULL OR p.coin_id = NULL
ORDER BY p.market_cap_usd DESC NULLS LAST, p.price_usd DESC, p.coin_id;
