-- Blocking rules as constraints; each reads its table once.
-- Owned by this file; the bundle's job `setup` runs the same statements.
-- Rendered from crypto_assets/contracts by `python -m crypto_assets.rendered_files`.

ALTER TABLE `crypto_analytics`.`bronze`.`raw_prices` DROP CONSTRAINT IF EXISTS `offsets_in_range`;

ALTER TABLE `crypto_analytics`.`bronze`.`raw_prices` ADD CONSTRAINT `offsets_in_range` CHECK (coalesce((range_start <= offset AND offset < range_end), false));

ALTER TABLE `crypto_analytics`.`bronze`.`raw_prices` DROP CONSTRAINT IF EXISTS `known_kind`;

ALTER TABLE `crypto_analytics`.`bronze`.`raw_prices` ADD CONSTRAINT `known_kind` CHECK (coalesce((kind IN ('record', 'gap')), false));

ALTER TABLE `crypto_analytics`.`bronze`.`market_history` DROP CONSTRAINT IF EXISTS `known_granularity`;

ALTER TABLE `crypto_analytics`.`bronze`.`market_history` ADD CONSTRAINT `known_granularity` CHECK (coalesce((granularity IN ('5m', '1h', '1d')), false));

ALTER TABLE `crypto_analytics`.`silver`.`prices` DROP CONSTRAINT IF EXISTS `price_positive`;

ALTER TABLE `crypto_analytics`.`silver`.`prices` ADD CONSTRAINT `price_positive` CHECK (coalesce((price_usd > 0), false));

ALTER TABLE `crypto_analytics`.`silver`.`prices` DROP CONSTRAINT IF EXISTS `event_not_after_arrival`;

ALTER TABLE `crypto_analytics`.`silver`.`prices` ADD CONSTRAINT `event_not_after_arrival` CHECK (coalesce((granularity <> 'tick' OR last_updated_at <= available_at + INTERVAL 60 SECONDS), false));

ALTER TABLE `crypto_analytics`.`silver`.`prices` DROP CONSTRAINT IF EXISTS `hour_matches_event`;

ALTER TABLE `crypto_analytics`.`silver`.`prices` ADD CONSTRAINT `hour_matches_event` CHECK (coalesce((hour <= last_updated_at AND last_updated_at < hour + INTERVAL 1 HOUR), false));

ALTER TABLE `crypto_analytics`.`silver`.`prices` DROP CONSTRAINT IF EXISTS `finite`;

ALTER TABLE `crypto_analytics`.`silver`.`prices` ADD CONSTRAINT `finite` CHECK (coalesce(((cadence_s IS NULL OR abs(cadence_s) <= 1.7976931348623157e308)), false));

ALTER TABLE `crypto_analytics`.`silver`.`quarantine` DROP CONSTRAINT IF EXISTS `has_reason`;

ALTER TABLE `crypto_analytics`.`silver`.`quarantine` ADD CONSTRAINT `has_reason` CHECK (coalesce((size(reasons) > 0), false));

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` DROP CONSTRAINT IF EXISTS `ohlc_ordered`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` ADD CONSTRAINT `ohlc_ordered` CHECK (coalesce((low <= open AND low <= close AND open <= high AND close <= high AND low <= high), false));

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` DROP CONSTRAINT IF EXISTS `average_within_range`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` ADD CONSTRAINT `average_within_range` CHECK (coalesce((price_avg >= CAST(low AS DOUBLE) * (1 - 1e-9) AND price_avg <= CAST(high AS DOUBLE) * (1 + 1e-9)) AND (price_avg IS NULL OR abs(price_avg) <= 1.7976931348623157e308), false));

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` DROP CONSTRAINT IF EXISTS `has_samples`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` ADD CONSTRAINT `has_samples` CHECK (coalesce((sample_count >= 1), false));

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` DROP CONSTRAINT IF EXISTS `finite`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` ADD CONSTRAINT `finite` CHECK (coalesce(((price_avg IS NULL OR abs(price_avg) <= 1.7976931348623157e308) AND (price_vol IS NULL OR abs(price_vol) <= 1.7976931348623157e308) AND (range IS NULL OR abs(range) <= 1.7976931348623157e308)), false));

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` DROP CONSTRAINT IF EXISTS `ohlc_ordered`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` ADD CONSTRAINT `ohlc_ordered` CHECK (coalesce((low <= open AND low <= close AND open <= high AND close <= high AND low <= high), false));

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` DROP CONSTRAINT IF EXISTS `average_within_range`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` ADD CONSTRAINT `average_within_range` CHECK (coalesce((price_avg >= CAST(low AS DOUBLE) * (1 - 1e-9) AND price_avg <= CAST(high AS DOUBLE) * (1 + 1e-9)) AND (price_avg IS NULL OR abs(price_avg) <= 1.7976931348623157e308), false));

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` DROP CONSTRAINT IF EXISTS `has_samples`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` ADD CONSTRAINT `has_samples` CHECK (coalesce((sample_count >= 1), false));

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` DROP CONSTRAINT IF EXISTS `finite`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` ADD CONSTRAINT `finite` CHECK (coalesce(((price_avg IS NULL OR abs(price_avg) <= 1.7976931348623157e308) AND (price_vol IS NULL OR abs(price_vol) <= 1.7976931348623157e308) AND (range IS NULL OR abs(range) <= 1.7976931348623157e308)), false));

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` DROP CONSTRAINT IF EXISTS `ohlc_ordered`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` ADD CONSTRAINT `ohlc_ordered` CHECK (coalesce((low <= open AND low <= close AND open <= high AND close <= high AND low <= high), false));

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` DROP CONSTRAINT IF EXISTS `average_within_range`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` ADD CONSTRAINT `average_within_range` CHECK (coalesce((price_avg >= CAST(low AS DOUBLE) * (1 - 1e-9) AND price_avg <= CAST(high AS DOUBLE) * (1 + 1e-9)) AND (price_avg IS NULL OR abs(price_avg) <= 1.7976931348623157e308), false));

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` DROP CONSTRAINT IF EXISTS `has_samples`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` ADD CONSTRAINT `has_samples` CHECK (coalesce((sample_count >= 1), false));

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` DROP CONSTRAINT IF EXISTS `finite`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` ADD CONSTRAINT `finite` CHECK (coalesce(((price_avg IS NULL OR abs(price_avg) <= 1.7976931348623157e308) AND (price_vol IS NULL OR abs(price_vol) <= 1.7976931348623157e308) AND (range IS NULL OR abs(range) <= 1.7976931348623157e308)), false));

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` DROP CONSTRAINT IF EXISTS `ohlc_ordered`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` ADD CONSTRAINT `ohlc_ordered` CHECK (coalesce((low <= open AND low <= close AND open <= high AND close <= high AND low <= high), false));

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` DROP CONSTRAINT IF EXISTS `average_within_range`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` ADD CONSTRAINT `average_within_range` CHECK (coalesce((price_avg >= CAST(low AS DOUBLE) * (1 - 1e-9) AND price_avg <= CAST(high AS DOUBLE) * (1 + 1e-9)) AND (price_avg IS NULL OR abs(price_avg) <= 1.7976931348623157e308), false));

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` DROP CONSTRAINT IF EXISTS `has_samples`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` ADD CONSTRAINT `has_samples` CHECK (coalesce((sample_count >= 1), false));

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` DROP CONSTRAINT IF EXISTS `finite`;

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` ADD CONSTRAINT `finite` CHECK (coalesce(((price_avg IS NULL OR abs(price_avg) <= 1.7976931348623157e308) AND (price_vol IS NULL OR abs(price_vol) <= 1.7976931348623157e308) AND (range IS NULL OR abs(range) <= 1.7976931348623157e308)), false));

ALTER TABLE `crypto_analytics`.`gold`.`dim_coin` DROP CONSTRAINT IF EXISTS `span_not_empty`;

ALTER TABLE `crypto_analytics`.`gold`.`dim_coin` ADD CONSTRAINT `span_not_empty` CHECK (coalesce((valid_to IS NULL OR valid_from < valid_to), false));

ALTER TABLE `crypto_analytics`.`gold`.`dim_coin` DROP CONSTRAINT IF EXISTS `current_is_open`;

ALTER TABLE `crypto_analytics`.`gold`.`dim_coin` ADD CONSTRAINT `current_is_open` CHECK (coalesce((is_current = (valid_to IS NULL)), false));

ALTER TABLE `crypto_analytics`.`gold`.`dim_date` DROP CONSTRAINT IF EXISTS `weekday_range`;

ALTER TABLE `crypto_analytics`.`gold`.`dim_date` ADD CONSTRAINT `weekday_range` CHECK (coalesce((iso_weekday BETWEEN 1 AND 7), false));

ALTER TABLE `crypto_analytics`.`gold`.`latest_prices` DROP CONSTRAINT IF EXISTS `price_positive`;

ALTER TABLE `crypto_analytics`.`gold`.`latest_prices` ADD CONSTRAINT `price_positive` CHECK (coalesce((price_usd > 0), false));

ALTER TABLE `crypto_analytics`.`gold`.`latest_prices` DROP CONSTRAINT IF EXISTS `finite`;

ALTER TABLE `crypto_analytics`.`gold`.`latest_prices` ADD CONSTRAINT `finite` CHECK (coalesce(((age_s IS NULL OR abs(age_s) <= 1.7976931348623157e308)), false));

ALTER TABLE `crypto_analytics`.`gold`.`leaderboard_24h` DROP CONSTRAINT IF EXISTS `rank_positive`;

ALTER TABLE `crypto_analytics`.`gold`.`leaderboard_24h` ADD CONSTRAINT `rank_positive` CHECK (coalesce((rank >= 1), false));

ALTER TABLE `crypto_analytics`.`gold`.`leaderboard_24h` DROP CONSTRAINT IF EXISTS `finite`;

ALTER TABLE `crypto_analytics`.`gold`.`leaderboard_24h` ADD CONSTRAINT `finite` CHECK (coalesce(((change_24h IS NULL OR abs(change_24h) <= 1.7976931348623157e308)), false));

ALTER TABLE `crypto_analytics`.`features`.`price_features` DROP CONSTRAINT IF EXISTS `rsi_range`;

ALTER TABLE `crypto_analytics`.`features`.`price_features` ADD CONSTRAINT `rsi_range` CHECK (coalesce((rsi14 IS NULL OR (rsi14 >= 0 AND rsi14 <= 100)) AND (rsi14 IS NULL OR abs(rsi14) <= 1.7976931348623157e308), false));

ALTER TABLE `crypto_analytics`.`features`.`price_features` DROP CONSTRAINT IF EXISTS `sigma_floored`;

ALTER TABLE `crypto_analytics`.`features`.`price_features` ADD CONSTRAINT `sigma_floored` CHECK (coalesce((s IS NULL OR s >= 1e-5) AND (s IS NULL OR abs(s) <= 1.7976931348623157e308), false));

ALTER TABLE `crypto_analytics`.`features`.`price_features` DROP CONSTRAINT IF EXISTS `market_sigma_floored`;

ALTER TABLE `crypto_analytics`.`features`.`price_features` ADD CONSTRAINT `market_sigma_floored` CHECK (coalesce((s_market IS NULL OR s_market >= 1e-5) AND (s_market IS NULL OR abs(s_market) <= 1.7976931348623157e308), false));

ALTER TABLE `crypto_analytics`.`features`.`price_features` DROP CONSTRAINT IF EXISTS `null_has_reason`;

ALTER TABLE `crypto_analytics`.`features`.`price_features` ADD CONSTRAINT `null_has_reason` CHECK (coalesce((null_reason IS NOT NULL OR (price IS NOT NULL AND r5 IS NOT NULL AND s IS NOT NULL)) AND (price IS NULL OR abs(price) <= 1.7976931348623157e308) AND (r5 IS NULL OR abs(r5) <= 1.7976931348623157e308) AND (s IS NULL OR abs(s) <= 1.7976931348623157e308), false));

ALTER TABLE `crypto_analytics`.`features`.`price_features` DROP CONSTRAINT IF EXISTS `finite`;

ALTER TABLE `crypto_analytics`.`features`.`price_features` ADD CONSTRAINT `finite` CHECK (coalesce(((price IS NULL OR abs(price) <= 1.7976931348623157e308) AND (staleness_s IS NULL OR abs(staleness_s) <= 1.7976931348623157e308) AND (r5 IS NULL OR abs(r5) <= 1.7976931348623157e308) AND (r15 IS NULL OR abs(r15) <= 1.7976931348623157e308) AND (r1h IS NULL OR abs(r1h) <= 1.7976931348623157e308) AND (r24h IS NULL OR abs(r24h) <= 1.7976931348623157e308) AND (r5_median IS NULL OR abs(r5_median) <= 1.7976931348623157e308) AND (s IS NULL OR abs(s) <= 1.7976931348623157e308) AND (rz IS NULL OR abs(rz) <= 1.7976931348623157e308) AND (rv1h IS NULL OR abs(rv1h) <= 1.7976931348623157e308) AND (rv15m IS NULL OR abs(rv15m) <= 1.7976931348623157e308) AND (rv4h IS NULL OR abs(rv4h) <= 1.7976931348623157e308) AND (rv24h IS NULL OR abs(rv24h) <= 1.7976931348623157e308) AND (rsi14 IS NULL OR abs(rsi14) <= 1.7976931348623157e308) AND (macd IS NULL OR abs(macd) <= 1.7976931348623157e308) AND (macd_signal IS NULL OR abs(macd_signal) <= 1.7976931348623157e308) AND (macd_hist IS NULL OR abs(macd_hist) <= 1.7976931348623157e308) AND (bollinger_b IS NULL OR abs(bollinger_b) <= 1.7976931348623157e308) AND (r5_market IS NULL OR abs(r5_market) <= 1.7976931348623157e308) AND (s_market IS NULL OR abs(s_market) <= 1.7976931348623157e308) AND (rz_common IS NULL OR abs(rz_common) <= 1.7976931348623157e308) AND (common_activity IS NULL OR abs(common_activity) <= 1.7976931348623157e308) AND (volume_change IS NULL OR abs(volume_change) <= 1.7976931348623157e308)), false));

ALTER TABLE `crypto_analytics`.`gold`.`anomalies` DROP CONSTRAINT IF EXISTS `flag_matches_score`;

ALTER TABLE `crypto_analytics`.`gold`.`anomalies` ADD CONSTRAINT `flag_matches_score` CHECK (coalesce((is_anomaly = (anomaly_score IS NOT NULL AND anomaly_score > threshold)) AND (anomaly_score IS NULL OR abs(anomaly_score) <= 1.7976931348623157e308) AND (threshold IS NULL OR abs(threshold) <= 1.7976931348623157e308), false));

ALTER TABLE `crypto_analytics`.`gold`.`anomalies` DROP CONSTRAINT IF EXISTS `finite`;

ALTER TABLE `crypto_analytics`.`gold`.`anomalies` ADD CONSTRAINT `finite` CHECK (coalesce(((anomaly_score IS NULL OR abs(anomaly_score) <= 1.7976931348623157e308) AND (threshold IS NULL OR abs(threshold) <= 1.7976931348623157e308) AND (z_threshold IS NULL OR abs(z_threshold) <= 1.7976931348623157e308) AND (market_score IS NULL OR abs(market_score) <= 1.7976931348623157e308) AND (market_threshold IS NULL OR abs(market_threshold) <= 1.7976931348623157e308) AND (common_score IS NULL OR abs(common_score) <= 1.7976931348623157e308) AND (common_threshold IS NULL OR abs(common_threshold) <= 1.7976931348623157e308) AND (size_sigma IS NULL OR abs(size_sigma) <= 1.7976931348623157e308) AND (size_market_sigma IS NULL OR abs(size_market_sigma) <= 1.7976931348623157e308) AND (price IS NULL OR abs(price) <= 1.7976931348623157e308) AND (latency_s IS NULL OR abs(latency_s) <= 1.7976931348623157e308) AND (inference_ms IS NULL OR abs(inference_ms) <= 1.7976931348623157e308)), false));

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` DROP CONSTRAINT IF EXISTS `interval_ordered`;

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` ADD CONSTRAINT `interval_ordered` CHECK (coalesce((lower_90 <= predicted_price AND predicted_price <= upper_90) AND (predicted_price IS NULL OR abs(predicted_price) <= 1.7976931348623157e308) AND (lower_90 IS NULL OR abs(lower_90) <= 1.7976931348623157e308) AND (upper_90 IS NULL OR abs(upper_90) <= 1.7976931348623157e308), false));

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` DROP CONSTRAINT IF EXISTS `median_within`;

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` ADD CONSTRAINT `median_within` CHECK (coalesce((median IS NULL OR (lower_90 <= median AND median <= upper_90)) AND (lower_90 IS NULL OR abs(lower_90) <= 1.7976931348623157e308) AND (upper_90 IS NULL OR abs(upper_90) <= 1.7976931348623157e308) AND (median IS NULL OR abs(median) <= 1.7976931348623157e308), false));

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` DROP CONSTRAINT IF EXISTS `coverage_or_reason`;

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` ADD CONSTRAINT `coverage_or_reason` CHECK (coalesce((median IS NULL OR null_reason IS NOT NULL OR (coverage_7d IS NOT NULL AND coverage_28d IS NOT NULL)) AND (median IS NULL OR abs(median) <= 1.7976931348623157e308) AND (coverage_7d IS NULL OR abs(coverage_7d) <= 1.7976931348623157e308) AND (coverage_28d IS NULL OR abs(coverage_28d) <= 1.7976931348623157e308), false));

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` DROP CONSTRAINT IF EXISTS `mode_is_honest`;

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` ADD CONSTRAINT `mode_is_honest` CHECK (coalesce(((mode = 'live') = (predicted_at < target_at)), false));

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` DROP CONSTRAINT IF EXISTS `finite`;

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` ADD CONSTRAINT `finite` CHECK (coalesce(((price IS NULL OR abs(price) <= 1.7976931348623157e308) AND (predicted_return IS NULL OR abs(predicted_return) <= 1.7976931348623157e308) AND (predicted_price IS NULL OR abs(predicted_price) <= 1.7976931348623157e308) AND (lower_90 IS NULL OR abs(lower_90) <= 1.7976931348623157e308) AND (upper_90 IS NULL OR abs(upper_90) <= 1.7976931348623157e308) AND (median IS NULL OR abs(median) <= 1.7976931348623157e308) AND (tracked_lower IS NULL OR abs(tracked_lower) <= 1.7976931348623157e308) AND (tracked_upper IS NULL OR abs(tracked_upper) <= 1.7976931348623157e308) AND (coverage_7d IS NULL OR abs(coverage_7d) <= 1.7976931348623157e308) AND (coverage_28d IS NULL OR abs(coverage_28d) <= 1.7976931348623157e308)), false));

ALTER TABLE `crypto_analytics`.`gold`.`prediction_accuracy` DROP CONSTRAINT IF EXISTS `skill_at_most_one`;

ALTER TABLE `crypto_analytics`.`gold`.`prediction_accuracy` ADD CONSTRAINT `skill_at_most_one` CHECK (coalesce((skill IS NULL OR skill <= 1) AND (skill IS NULL OR abs(skill) <= 1.7976931348623157e308), false));

ALTER TABLE `crypto_analytics`.`gold`.`prediction_accuracy` DROP CONSTRAINT IF EXISTS `finite`;

ALTER TABLE `crypto_analytics`.`gold`.`prediction_accuracy` ADD CONSTRAINT `finite` CHECK (coalesce(((mae_pct IS NULL OR abs(mae_pct) <= 1.7976931348623157e308) AND (rmse_pct IS NULL OR abs(rmse_pct) <= 1.7976931348623157e308) AND (skill IS NULL OR abs(skill) <= 1.7976931348623157e308) AND (direction_hit IS NULL OR abs(direction_hit) <= 1.7976931348623157e308) AND (coverage_90 IS NULL OR abs(coverage_90) <= 1.7976931348623157e308) AND (winkler_pct IS NULL OR abs(winkler_pct) <= 1.7976931348623157e308) AND (width_pct IS NULL OR abs(width_pct) <= 1.7976931348623157e308) AND (below_lower IS NULL OR abs(below_lower) <= 1.7976931348623157e308) AND (below_median IS NULL OR abs(below_median) <= 1.7976931348623157e308) AND (below_upper IS NULL OR abs(below_upper) <= 1.7976931348623157e308)), false));

ALTER TABLE `crypto_analytics`.`gold`.`volatility_forecasts` DROP CONSTRAINT IF EXISTS `volatility_positive`;

ALTER TABLE `crypto_analytics`.`gold`.`volatility_forecasts` ADD CONSTRAINT `volatility_positive` CHECK (coalesce((volatility_pct > 0 AND ewma_pct > 0) AND (volatility_pct IS NULL OR abs(volatility_pct) <= 1.7976931348623157e308) AND (ewma_pct IS NULL OR abs(ewma_pct) <= 1.7976931348623157e308), false));

ALTER TABLE `crypto_analytics`.`gold`.`volatility_forecasts` DROP CONSTRAINT IF EXISTS `mode_is_honest`;

ALTER TABLE `crypto_analytics`.`gold`.`volatility_forecasts` ADD CONSTRAINT `mode_is_honest` CHECK (coalesce(((mode = 'live') = (predicted_at < target_at)), false));

ALTER TABLE `crypto_analytics`.`gold`.`volatility_forecasts` DROP CONSTRAINT IF EXISTS `finite`;

ALTER TABLE `crypto_analytics`.`gold`.`volatility_forecasts` ADD CONSTRAINT `finite` CHECK (coalesce(((volatility_pct IS NULL OR abs(volatility_pct) <= 1.7976931348623157e308) AND (ewma_pct IS NULL OR abs(ewma_pct) <= 1.7976931348623157e308) AND (last_value_pct IS NULL OR abs(last_value_pct) <= 1.7976931348623157e308)), false));

ALTER TABLE `crypto_analytics`.`gold`.`volatility_accuracy` DROP CONSTRAINT IF EXISTS `loss_not_negative`;

ALTER TABLE `crypto_analytics`.`gold`.`volatility_accuracy` ADD CONSTRAINT `loss_not_negative` CHECK (coalesce(((qlike IS NULL OR qlike >= 0) AND (qlike_ewma IS NULL OR qlike_ewma >= 0)) AND (qlike IS NULL OR abs(qlike) <= 1.7976931348623157e308) AND (qlike_ewma IS NULL OR abs(qlike_ewma) <= 1.7976931348623157e308), false));

ALTER TABLE `crypto_analytics`.`gold`.`volatility_accuracy` DROP CONSTRAINT IF EXISTS `finite`;

ALTER TABLE `crypto_analytics`.`gold`.`volatility_accuracy` ADD CONSTRAINT `finite` CHECK (coalesce(((qlike IS NULL OR abs(qlike) <= 1.7976931348623157e308) AND (qlike_ewma IS NULL OR abs(qlike_ewma) <= 1.7976931348623157e308) AND (qlike_last_value IS NULL OR abs(qlike_last_value) <= 1.7976931348623157e308) AND (qlike_ratio IS NULL OR abs(qlike_ratio) <= 1.7976931348623157e308) AND (volatility_pct IS NULL OR abs(volatility_pct) <= 1.7976931348623157e308) AND (outcome_pct IS NULL OR abs(outcome_pct) <= 1.7976931348623157e308)), false));

ALTER TABLE `crypto_analytics`.`ml`.`promotions` DROP CONSTRAINT IF EXISTS `known_decision`;

ALTER TABLE `crypto_analytics`.`ml`.`promotions` ADD CONSTRAINT `known_decision` CHECK (coalesce((decision IN ('promoted', 'rejected', 'promoted_by_hand', 'rolled_back')), false));

ALTER TABLE `crypto_analytics`.`ml`.`promotions` DROP CONSTRAINT IF EXISTS `serves_after_cutoff`;

ALTER TABLE `crypto_analytics`.`ml`.`promotions` ADD CONSTRAINT `serves_after_cutoff` CHECK (coalesce((effective_from >= cutoff), false));

ALTER TABLE `crypto_analytics`.`ops`.`polls` DROP CONSTRAINT IF EXISTS `offsets_in_range`;

ALTER TABLE `crypto_analytics`.`ops`.`polls` ADD CONSTRAINT `offsets_in_range` CHECK (coalesce((range_start <= offset AND offset < range_end), false));

ALTER TABLE `crypto_analytics`.`ops`.`polls` DROP CONSTRAINT IF EXISTS `known_kind`;

ALTER TABLE `crypto_analytics`.`ops`.`polls` ADD CONSTRAINT `known_kind` CHECK (coalesce((kind IN ('record', 'gap')), false));

ALTER TABLE `crypto_analytics`.`ops`.`pipeline_metrics` DROP CONSTRAINT IF EXISTS `null_means_nothing`;

ALTER TABLE `crypto_analytics`.`ops`.`pipeline_metrics` ADD CONSTRAINT `null_means_nothing` CHECK (coalesce((value IS NOT NULL OR measured_over = 0) AND (value IS NULL OR abs(value) <= 1.7976931348623157e308), false));

ALTER TABLE `crypto_analytics`.`ops`.`pipeline_metrics` DROP CONSTRAINT IF EXISTS `finite`;

ALTER TABLE `crypto_analytics`.`ops`.`pipeline_metrics` ADD CONSTRAINT `finite` CHECK (coalesce(((value IS NULL OR abs(value) <= 1.7976931348623157e308)), false));

ALTER TABLE `crypto_analytics`.`ops`.`alerts` DROP CONSTRAINT IF EXISTS `known_state`;

ALTER TABLE `crypto_analytics`.`ops`.`alerts` ADD CONSTRAINT `known_state` CHECK (coalesce((state IN ('firing', 'resolved')), false));

ALTER TABLE `crypto_analytics`.`ops`.`alerts` DROP CONSTRAINT IF EXISTS `finite`;

ALTER TABLE `crypto_analytics`.`ops`.`alerts` ADD CONSTRAINT `finite` CHECK (coalesce(((value IS NULL OR abs(value) <= 1.7976931348623157e308)), false));
