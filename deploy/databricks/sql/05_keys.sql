-- Primary keys (informational: nothing enforces them).
-- Owned by this file; the bundle's job `setup` runs the same statements.
-- Rendered from crypto_assets/contracts by `python -m crypto_assets.rendered_files`.

ALTER TABLE `crypto_analytics`.`bronze`.`raw_prices` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`bronze`.`raw_prices` ADD CONSTRAINT `raw_prices_pk` PRIMARY KEY (`topic_id`, `partition`, `offset`);

ALTER TABLE `crypto_analytics`.`bronze`.`market_history` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`bronze`.`market_history` ADD CONSTRAINT `market_history_pk` PRIMARY KEY (`coin_id`, `day`);

ALTER TABLE `crypto_analytics`.`silver`.`prices` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`silver`.`prices` ADD CONSTRAINT `prices_pk` PRIMARY KEY (`coin_id`, `last_updated_at`);

ALTER TABLE `crypto_analytics`.`silver`.`quarantine` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`silver`.`quarantine` ADD CONSTRAINT `quarantine_pk` PRIMARY KEY (`topic_id`, `partition`, `offset`);

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` ADD CONSTRAINT `bars_1m_pk` PRIMARY KEY (`coin_id`, `window_start`);

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` ADD CONSTRAINT `bars_5m_pk` PRIMARY KEY (`coin_id`, `window_start`);

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` ADD CONSTRAINT `bars_1h_pk` PRIMARY KEY (`coin_id`, `window_start`);

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` ADD CONSTRAINT `bars_1d_pk` PRIMARY KEY (`coin_id`, `window_start`);

ALTER TABLE `crypto_analytics`.`gold`.`dim_coin` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`gold`.`dim_coin` ADD CONSTRAINT `dim_coin_pk` PRIMARY KEY (`coin_id`, `valid_from`);

ALTER TABLE `crypto_analytics`.`gold`.`dim_date` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`gold`.`dim_date` ADD CONSTRAINT `dim_date_pk` PRIMARY KEY (`day`);

ALTER TABLE `crypto_analytics`.`gold`.`latest_prices` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`gold`.`latest_prices` ADD CONSTRAINT `latest_prices_pk` PRIMARY KEY (`coin_id`);

ALTER TABLE `crypto_analytics`.`gold`.`leaderboard_24h` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`gold`.`leaderboard_24h` ADD CONSTRAINT `leaderboard_24h_pk` PRIMARY KEY (`coin_id`);

ALTER TABLE `crypto_analytics`.`features`.`price_features` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`features`.`price_features` ADD CONSTRAINT `price_features_pk` PRIMARY KEY (`coin_id`, `window_end`);

ALTER TABLE `crypto_analytics`.`gold`.`anomalies` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`gold`.`anomalies` ADD CONSTRAINT `anomalies_pk` PRIMARY KEY (`coin_id`, `window_end`);

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` ADD CONSTRAINT `price_predictions_pk` PRIMARY KEY (`coin_id`, `window_end`, `horizon`, `model_version`);

ALTER TABLE `crypto_analytics`.`gold`.`prediction_accuracy` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`gold`.`prediction_accuracy` ADD CONSTRAINT `prediction_accuracy_pk` PRIMARY KEY (`day`, `coin_id`, `horizon`, `model_version`, `mode`);

ALTER TABLE `crypto_analytics`.`gold`.`volatility_forecasts` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`gold`.`volatility_forecasts` ADD CONSTRAINT `volatility_forecasts_pk` PRIMARY KEY (`coin_id`, `window_end`, `horizon`, `model_version`);

ALTER TABLE `crypto_analytics`.`gold`.`volatility_accuracy` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`gold`.`volatility_accuracy` ADD CONSTRAINT `volatility_accuracy_pk` PRIMARY KEY (`day`, `coin_id`, `horizon`, `model_version`, `mode`);

ALTER TABLE `crypto_analytics`.`ml`.`promotions` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`ml`.`promotions` ADD CONSTRAINT `promotions_pk` PRIMARY KEY (`model`, `version`, `effective_from`, `decision`);

ALTER TABLE `crypto_analytics`.`ops`.`polls` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`ops`.`polls` ADD CONSTRAINT `polls_pk` PRIMARY KEY (`topic_id`, `partition`, `offset`);

ALTER TABLE `crypto_analytics`.`ops`.`pipeline_metrics` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`ops`.`pipeline_metrics` ADD CONSTRAINT `pipeline_metrics_pk` PRIMARY KEY (`metric`, `hour`);

ALTER TABLE `crypto_analytics`.`ops`.`alerts` DROP PRIMARY KEY IF EXISTS;

ALTER TABLE `crypto_analytics`.`ops`.`alerts` ADD CONSTRAINT `alerts_pk` PRIMARY KEY (`alert_id`);
