-- price_line: The 5-minute bars of a span: its line, its candles and its holes, where windows are missing.
-- Parameters stand at their defaults:
--   coin = NULL: Coin id; null = every coin.
--   until = NULL: End (inclusive); null = the newest row.
--   hours = 24: Length of the span in hours.
-- Rendered from crypto_assets/serving/queries.py by `python -m crypto_assets.rendered_files`.

USE CATALOG `crypto_analytics`;

SELECT b.coin_id, b.symbol, b.window_end, b.open, b.high, b.low, b.close, b.price_avg, b.sample_count, b.is_complete
FROM gold.bars_5m b CROSS JOIN (SELECT coalesce(NULL, max(window_end)) AS until_at FROM gold.bars_5m) s
WHERE b.window_end <= s.until_at AND unix_micros(b.window_end) > unix_micros(s.until_at) - 24 * 3600000000
  AND (NULL IS NULL OR b.coin_id = NULL)
ORDER BY b.coin_id, b.window_end;
