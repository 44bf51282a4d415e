-- Blocking rules as constraints; each reads its table once.
-- Owned by this file; the bundle's job `setup` runs the same statements.
-- Rendered from crypto_assets/contracts by `python -m crypto_assets.contracts.render`.

ALTER TABLE `crypto_analytics`.`bronze`.`raw_prices` DROP CONSTRAINT IF EXISTS `offsets_in_range`;

ALTER TABLE `crypto_analytics`.`bronze`.`raw_prices` ADD CONSTRAINT `offsets_in_range` CHECK (range_start <= offset AND offset < range_end);

ALTER TABLE `crypto_analytics`.`bronze`.`raw_prices` DROP CONSTRAINT IF EXISTS `known_kind`;

ALTER TABLE `crypto_analytics`.`bronze`.`raw_prices` ADD CONSTRAINT `known_kind` CHECK (kind IN ('record', 'gap'));

ALTER TABLE `crypto_analytics`.`bronze`.`market_history` DROP CONSTRAINT IF EXISTS `known_granularity`;

ALTER TABLE `crypto_analytics`.`bronze`.`market_history` ADD CONSTRAINT `known_granularity` CHECK (granularity IN ('5m', '1h', '1d'));

ALTER TABLE `crypto_analytics`.`silver`.`prices` DROP CONSTRAINT IF EXISTS `price_positive`;

ALTER TABLE `crypto_analytics`.`silver`.`prices` ADD CONSTRAINT `price_positive` CHECK (price_usd > 0);

ALTER TABLE `crypto_analytics`.`silver`.`prices` DROP CONSTRAINT IF EXISTS `event_not_after_arrival`;

ALTER TABLE `crypto_analytics`.`silver`.`prices` ADD CONSTRAINT `event_not_after_arrival` CHECK (granularity <> 'tick' OR last_updated_at <= available_at + INTERVAL 60 SECONDS);

ALTER TABLE `crypto_analytics`.`silver`.`prices` DROP CONSTRAINT IF EXISTS `hour_matches_event`;

ALTER TABLE `crypto_analytics`.`silver`.`prices` ADD CONSTRAINT `hour_matches_event` CHECK (hour <= last_updated_at AND last_updated_at < hour + INTERVAL 1 HOUR);

ALTER TABLE `crypto_analytics`.`silver`.`quarantine` DROP CONSTRAINT IF EXISTS `has_reason`;

ALTER TABLE `crypto_analytics`.`silver`.`quarantine` ADD CONSTRAINT `has_reason` CHECK (size(reasons) > 0);

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` DROP CONSTRAINT IF EXISTS `ohlc_ordered`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` ADD CONSTRAINT `ohlc_ordered` CHECK (low <= open AND low <= close AND open <= high AND close <= high AND low <= high);

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` DROP CONSTRAINT IF EXISTS `average_within_range`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` ADD CONSTRAINT `average_within_range` CHECK (price_avg >= CAST(low AS DOUBLE) * (1 - 1e-9) AND price_avg <= CAST(high AS DOUBLE) * (1 + 1e-9));

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` DROP CONSTRAINT IF EXISTS `has_samples`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` ADD CONSTRAINT `has_samples` CHECK (sample_count >= 1);

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` DROP CONSTRAINT IF EXISTS `ohlc_ordered`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` ADD CONSTRAINT `ohlc_ordered` CHECK (low <= open AND low <= close AND open <= high AND close <= high AND low <= high);

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` DROP CONSTRAINT IF EXISTS `average_within_range`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` ADD CONSTRAINT `average_within_range` CHECK (price_avg >= CAST(low AS DOUBLE) * (1 - 1e-9) AND price_avg <= CAST(high AS DOUBLE) * (1 + 1e-9));

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` DROP CONSTRAINT IF EXISTS `has_samples`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` ADD CONSTRAINT `has_samples` CHECK (sample_count >= 1);

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` DROP CONSTRAINT IF EXISTS `ohlc_ordered`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` ADD CONSTRAINT `ohlc_ordered` CHECK (low <= open AND low <= close AND open <= high AND close <= high AND low <= high);

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` DROP CONSTRAINT IF EXISTS `average_within_range`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` ADD CONSTRAINT `average_within_range` CHECK (price_avg >= CAST(low AS DOUBLE) * (1 - 1e-9) AND price_avg <= CAST(high AS DOUBLE) * (1 + 1e-9));

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` DROP CONSTRAINT IF EXISTS `has_samples`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` ADD CONSTRAINT `has_samples` CHECK (sample_count >= 1);

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` DROP CONSTRAINT IF EXISTS `ohlc_ordered`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` ADD CONSTRAINT `ohlc_ordered` CHECK (low <= open AND low <= close AND open <= high AND close <= high AND low <= high);

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` DROP CONSTRAINT IF EXISTS `average_within_range`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` ADD CONSTRAINT `average_within_range` CHECK (price_avg >= CAST(low AS DOUBLE) * (1 - 1e-9) AND price_avg <= CAST(high AS DOUBLE) * (1 + 1e-9));

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` DROP CONSTRAINT IF EXISTS `has_samples`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` ADD CONSTRAINT `has_samples` CHECK (sample_count >= 1);

ALTER TABLE `crypto_analytics`.`gold`.`dim_coin` DROP CONSTRAINT IF EXISTS `span_not_empty`;

ALTER TABLE `crypto_analytics`.`gold`.`dim_coin` ADD CONSTRAINT `span_not_empty` CHECK (valid_to IS NULL OR valid_from < valid_to);

ALTER TABLE `crypto_analytics`.`gold`.`dim_coin` DROP CONSTRAINT IF EXISTS `current_is_open`;

ALTER TABLE `crypto_analytics`.`gold`.`dim_coin` ADD CONSTRAINT `current_is_open` CHECK (is_current = (valid_to IS NULL));

ALTER TABLE `crypto_analytics`.`gold`.`dim_date` DROP CONSTRAINT IF EXISTS `weekday_range`;

ALTER TABLE `crypto_analytics`.`gold`.`dim_date` ADD CONSTRAINT `weekday_range` CHECK (iso_weekday BETWEEN 1 AND 7);

ALTER TABLE `crypto_analytics`.`gold`.`latest_prices` DROP CONSTRAINT IF EXISTS `price_positive`;

ALTER TABLE `crypto_analytics`.`gold`.`latest_prices` ADD CONSTRAINT `price_positive` CHECK (price_usd > 0);

ALTER TABLE `crypto_analytics`.`gold`.`leaderboard_24h` DROP CONSTRAINT IF EXISTS `rank_positive`;

ALTER TABLE `crypto_analytics`.`gold`.`leaderboard_24h` ADD CONSTRAINT `rank_positive` CHECK (rank >= 1);

ALTER TABLE `crypto_analytics`.`features`.`price_features` DROP CONSTRAINT IF EXISTS `rsi_range`;

ALTER TABLE `crypto_analytics`.`features`.`price_features` ADD CONSTRAINT `rsi_range` CHECK (rsi14 IS NULL OR (rsi14 >= 0 AND rsi14 <= 100));

ALTER TABLE `crypto_analytics`.`features`.`price_features` DROP CONSTRAINT IF EXISTS `sigma_floored`;

ALTER TABLE `crypto_analytics`.`features`.`price_features` ADD CONSTRAINT `sigma_floored` CHECK (s IS NULL OR s >= 1e-5);

ALTER TABLE `crypto_analytics`.`features`.`price_features` DROP CONSTRAINT IF EXISTS `null_has_reason`;

ALTER TABLE `crypto_analytics`.`features`.`price_features` ADD CONSTRAINT `null_has_reason` CHECK (null_reason IS NOT NULL OR (price IS NOT NULL AND r5 IS NOT NULL AND s IS NOT NULL));

ALTER TABLE `crypto_analytics`.`gold`.`anomalies` DROP CONSTRAINT IF EXISTS `flag_matches_score`;

ALTER TABLE `crypto_analytics`.`gold`.`anomalies` ADD CONSTRAINT `flag_matches_score` CHECK (is_anomaly = (anomaly_score IS NOT NULL AND anomaly_score > threshold));

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` DROP CONSTRAINT IF EXISTS `interval_ordered`;

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` ADD CONSTRAINT `interval_ordered` CHECK (lower_90 <= predicted_price AND predicted_price <= upper_90);

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` DROP CONSTRAINT IF EXISTS `mode_is_honest`;

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` ADD CONSTRAINT `mode_is_honest` CHECK ((mode = 'live') = (predicted_at < target_at));

ALTER TABLE `crypto_analytics`.`gold`.`prediction_accuracy` DROP CONSTRAINT IF EXISTS `skill_at_most_one`;

ALTER TABLE `crypto_analytics`.`gold`.`prediction_accuracy` ADD CONSTRAINT `skill_at_most_one` CHECK (skill IS NULL OR skill <= 1);

ALTER TABLE `crypto_analytics`.`ml`.`promotions` DROP CONSTRAINT IF EXISTS `known_decision`;

ALTER TABLE `crypto_analytics`.`ml`.`promotions` ADD CONSTRAINT `known_decision` CHECK (decision IN ('promoted', 'rejected'));

ALTER TABLE `crypto_analytics`.`ml`.`promotions` DROP CONSTRAINT IF EXISTS `serves_after_cutoff`;

ALTER TABLE `crypto_analytics`.`ml`.`promotions` ADD CONSTRAINT `serves_after_cutoff` CHECK (effective_from >= cutoff);

ALTER TABLE `crypto_analytics`.`ops`.`polls` DROP CONSTRAINT IF EXISTS `offsets_in_range`;

ALTER TABLE `crypto_analytics`.`ops`.`polls` ADD CONSTRAINT `offsets_in_range` CHECK (range_start <= offset AND offset < range_end);

ALTER TABLE `crypto_analytics`.`ops`.`polls` DROP CONSTRAINT IF EXISTS `known_kind`;

ALTER TABLE `crypto_analytics`.`ops`.`polls` ADD CONSTRAINT `known_kind` CHECK (kind IN ('record', 'gap'));

ALTER TABLE `crypto_analytics`.`ops`.`pipeline_metrics` DROP CONSTRAINT IF EXISTS `null_means_nothing`;

ALTER TABLE `crypto_analytics`.`ops`.`pipeline_metrics` ADD CONSTRAINT `null_means_nothing` CHECK (value IS NOT NULL OR measured_over = 0);

ALTER TABLE `crypto_analytics`.`ops`.`alerts` DROP CONSTRAINT IF EXISTS `known_state`;

ALTER TABLE `crypto_analytics`.`ops`.`alerts` ADD CONSTRAINT `known_state` CHECK (state IN ('firing', 'resolved'));
