-- leaderboard_24h: Coins by their change over 24 h of bars, with the span between high and low.
-- Rendered from crypto_assets/serving/queries.py by `python -m crypto_assets.rendered_files`.

USE CATALOG `crypto_analytics`;

SELECT rank, coin_id, symbol, price_usd, price_24h_ago_usd, price_24h_ago_at, change_24h,
       CASE WHEN change_24h IS NULL THEN 'no bar within 10 min of 24 h ago' END AS null_reason,
       high_24h, low_24h, CAST(high_24h AS DOUBLE) / CAST(low_24h AS DOUBLE) - 1 AS range_24h,
       volume_24h_usd, window_end
FROM gold.leaderboard_24h
ORDER BY rank;
