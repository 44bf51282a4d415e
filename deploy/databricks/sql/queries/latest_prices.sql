-- latest_prices: The newest quote of every coin as the source reported it, with its age.
-- Parameters stand at their defaults:
--   coin = NULL: Coin id; null = every coin.
--   now = now(): Time that ages are counted to; null = the newest quote.
-- Rendered from crypto_assets/serving/queries.py by `python -m crypto_assets.rendered_files`.

USE CATALOG `crypto_analytics`;

SELECT p.coin_id, p.symbol, p.name, p.price_usd, p.change_1h_pct, p.change_24h_pct, p.change_7d_pct,
       p.volume_24h_usd, p.market_cap_usd, p.last_updated_at, p.available_at,
       greatest((unix_micros(c.now_at) - unix_micros(p.last_updated_at)) / 1e6, 0e0) AS age_s, p.source
FROM gold.latest_prices p CROSS JOIN (SELECT coalesce(now(), max(last_updated_at)) AS now_at FROM gold.latest_prices) c
WHERE NULL IS NULL OR p.coin_id = NULL
ORDER BY p.coin_id;
