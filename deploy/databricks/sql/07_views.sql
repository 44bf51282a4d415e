-- Views.
-- Owned by this file; the bundle's job `setup` runs the same statements.
-- Rendered from crypto_assets/contracts by `python -m crypto_assets.rendered_files`.

CREATE OR REPLACE VIEW `crypto_analytics`.`compat`.`metrics_gold` (
  `asset`, `symbol`, `window_start`, `window_end`, `price_avg`, `price_vol`, `price_min`, `price_max`, `vol_sum` COMMENT 'The last rolling 24 h volume in USD: the old sum added a rolling figure to itself.', `ret_window` COMMENT 'close / open - 1 of the window.'
)
COMMENT '5-minute bars under their old names.'
AS SELECT b.coin_id AS asset, b.symbol AS symbol, b.window_start AS window_start, b.window_end AS window_end,
       b.price_avg AS price_avg, b.price_vol AS price_vol, CAST(b.low AS DOUBLE) AS price_min,
       CAST(b.high AS DOUBLE) AS price_max, CAST(b.volume_24h_usd AS DOUBLE) AS vol_sum,
       CAST(b.close AS DOUBLE) / CAST(b.open AS DOUBLE) - 1 AS ret_window
FROM `crypto_analytics`.`gold`.`bars_5m` b;

CREATE OR REPLACE VIEW `crypto_analytics`.`compat`.`prices_silver`
COMMENT 'Typed quotes under their old names.'
AS SELECT p.coin_id AS asset, p.symbol AS symbol, p.name AS name, CAST(p.price_usd AS DOUBLE) AS price,
       CAST(p.volume_24h_usd AS DOUBLE) AS volume, p.last_updated_at AS event_ts, p.ingestion_timestamp AS ingest_ts,
       p.available_at AS load_ts, concat(p.coin_id, '@', CAST(p.last_updated_at AS STRING)) AS event_key
FROM `crypto_analytics`.`silver`.`prices` p;

CREATE OR REPLACE VIEW `crypto_analytics`.`compat`.`anomalies` (
  `asset`, `symbol`, `window_end`, `price_avg`, `price_vol`, `ret_window`, `vol_sum` COMMENT 'The last rolling 24 h volume in USD: the old sum added a rolling figure to itself.', `ret_prev` COMMENT 'Log return over the 5 minutes before window_end.', `anomaly_score`, `is_anomaly`, `model_version`, `scored_at`
)
COMMENT 'Scored 5-minute slots under their old names.'
AS SELECT a.coin_id AS asset, a.symbol AS symbol, a.window_end AS window_end, b.price_avg AS price_avg,
       b.price_vol AS price_vol, CAST(b.close AS DOUBLE) / CAST(b.open AS DOUBLE) - 1 AS ret_window,
       CAST(b.volume_24h_usd AS DOUBLE) AS vol_sum, f.r5 AS ret_prev, a.anomaly_score AS anomaly_score,
       a.is_anomaly AS is_anomaly, a.model_version AS model_version, a.scored_at AS scored_at
FROM `crypto_analytics`.`gold`.`anomalies` a
LEFT JOIN `crypto_analytics`.`gold`.`bars_5m` b ON b.coin_id = a.coin_id AND b.window_end = a.window_end
LEFT JOIN `crypto_analytics`.`features`.`price_features` f ON f.coin_id = a.coin_id AND f.window_end = a.window_end;

CREATE OR REPLACE VIEW `crypto_analytics`.`gold`.`fact_bars`
COMMENT '5-minute bars with the key of the coin\'s identity as of the bar, and of the day.'
AS SELECT b.*, d.coin_key AS coin_key, year(b.day) * 10000 + month(b.day) * 100 + day(b.day) AS date_key
FROM `crypto_analytics`.`gold`.`bars_5m` b
LEFT JOIN `crypto_analytics`.`gold`.`dim_coin` d ON d.coin_id = b.coin_id AND d.valid_from <= b.window_start
  AND (d.valid_to IS NULL OR b.window_start < d.valid_to);
