-- Owner, layer, partition and retention as tags.
-- Owned by this file; the bundle's job `setup` runs the same statements.
-- Rendered from crypto_assets/contracts by `python -m crypto_assets.rendered_files`.

ALTER TABLE `crypto_analytics`.`bronze`.`raw_prices` SET TAGS ('owner' = 'team:ingest', 'layer' = 'bronze', 'partition' = 'hour', 'retention_days' = '90', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`bronze`.`market_history` SET TAGS ('owner' = 'team:ingest', 'layer' = 'bronze', 'partition' = 'day', 'retention_days' = 'for ever', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`silver`.`prices` SET TAGS ('owner' = 'team:analytics', 'layer' = 'silver', 'partition' = 'hour', 'retention_days' = '365', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`silver`.`quarantine` SET TAGS ('owner' = 'team:analytics', 'layer' = 'silver', 'partition' = 'hour', 'retention_days' = '365', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`gold`.`bars_1m` SET TAGS ('owner' = 'team:analytics', 'layer' = 'gold', 'partition' = 'hour', 'retention_days' = 'for ever', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`gold`.`bars_5m` SET TAGS ('owner' = 'team:analytics', 'layer' = 'gold', 'partition' = 'hour', 'retention_days' = 'for ever', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`gold`.`bars_1h` SET TAGS ('owner' = 'team:analytics', 'layer' = 'gold', 'partition' = 'hour', 'retention_days' = 'for ever', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`gold`.`bars_1d` SET TAGS ('owner' = 'team:analytics', 'layer' = 'gold', 'partition' = 'day', 'retention_days' = 'for ever', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`gold`.`dim_coin` SET TAGS ('owner' = 'team:analytics', 'layer' = 'gold', 'partition' = 'none', 'retention_days' = 'for ever', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`gold`.`dim_date` SET TAGS ('owner' = 'team:analytics', 'layer' = 'gold', 'partition' = 'none', 'retention_days' = 'for ever', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`gold`.`latest_prices` SET TAGS ('owner' = 'team:analytics', 'layer' = 'gold', 'partition' = 'none', 'retention_days' = 'for ever', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`gold`.`leaderboard_24h` SET TAGS ('owner' = 'team:analytics', 'layer' = 'gold', 'partition' = 'none', 'retention_days' = 'for ever', 'code_version' = '2');

ALTER TABLE `crypto_analytics`.`features`.`price_features` SET TAGS ('owner' = 'team:ml', 'layer' = 'features', 'partition' = 'hour', 'retention_days' = 'for ever', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`gold`.`anomalies` SET TAGS ('owner' = 'team:ml', 'layer' = 'gold', 'partition' = 'hour', 'retention_days' = 'for ever', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`gold`.`price_predictions` SET TAGS ('owner' = 'team:ml', 'layer' = 'gold', 'partition' = 'hour', 'retention_days' = 'for ever', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`gold`.`prediction_accuracy` SET TAGS ('owner' = 'team:ml', 'layer' = 'gold', 'partition' = 'day', 'retention_days' = 'for ever', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`gold`.`volatility_forecasts` SET TAGS ('owner' = 'team:ml', 'layer' = 'gold', 'partition' = 'hour', 'retention_days' = 'for ever', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`gold`.`volatility_accuracy` SET TAGS ('owner' = 'team:ml', 'layer' = 'gold', 'partition' = 'day', 'retention_days' = 'for ever', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`ml`.`promotions` SET TAGS ('owner' = 'team:ml', 'layer' = 'ml', 'partition' = 'none', 'retention_days' = 'for ever', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`ops`.`polls` SET TAGS ('owner' = 'team:operations', 'layer' = 'ops', 'partition' = 'hour', 'retention_days' = '90', 'code_version' = '1');

ALTER TABLE `crypto_analytics`.`ops`.`pipeline_metrics` SET TAGS ('owner' = 'team:operations', 'layer' = 'ops', 'partition' = 'hour', 'retention_days' = 'for ever', 'code_version' = '2');

ALTER TABLE `crypto_analytics`.`ops`.`alerts` SET TAGS ('owner' = 'team:operations', 'layer' = 'ops', 'partition' = 'none', 'retention_days' = 'for ever', 'code_version' = '1');
