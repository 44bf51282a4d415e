-- Who may do what below the catalog.
-- Owned by this file; the bundle's job `setup` runs the same statements.
-- Rendered from crypto_assets/contracts by `python -m crypto_assets.rendered_files`.

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`bronze` TO `crypto-assets-ingest`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`silver` TO `crypto-assets-ingest`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`ops` TO `crypto-assets-ingest`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`bronze` TO `crypto-assets-transform`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`silver` TO `crypto-assets-transform`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`gold` TO `crypto-assets-transform`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`features` TO `crypto-assets-transform`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`ops` TO `crypto-assets-transform`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`features` TO `crypto-assets-train`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`ml` TO `crypto-assets-train`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`ops` TO `crypto-assets-train`;

GRANT CREATE MODEL, EXECUTE ON SCHEMA `crypto_analytics`.`ml` TO `crypto-assets-train`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`gold` TO `crypto-assets-serve`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`features` TO `crypto-assets-serve`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`ml` TO `crypto-assets-serve`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`ops` TO `crypto-assets-serve`;

GRANT EXECUTE ON SCHEMA `crypto_analytics`.`ml` TO `crypto-assets-serve`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`silver` TO `crypto-assets-dashboard`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`gold` TO `crypto-assets-dashboard`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`ml` TO `crypto-assets-dashboard`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`ops` TO `crypto-assets-dashboard`;

GRANT USE SCHEMA ON SCHEMA `crypto_analytics`.`compat` TO `crypto-assets-dashboard`;

GRANT SELECT ON TABLE `crypto_analytics`.`bronze`.`raw_prices` TO `crypto-assets-transform`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`bronze`.`raw_prices` TO `crypto-assets-ingest`;

GRANT SELECT ON TABLE `crypto_analytics`.`bronze`.`market_history` TO `crypto-assets-transform`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`bronze`.`market_history` TO `crypto-assets-ingest`;

GRANT SELECT ON TABLE `crypto_analytics`.`silver`.`prices` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`silver`.`prices` TO `crypto-assets-transform`;

GRANT SELECT ON TABLE `crypto_analytics`.`silver`.`quarantine` TO `crypto-assets-ingest`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`silver`.`quarantine` TO `crypto-assets-transform`;

GRANT SELECT ON TABLE `crypto_analytics`.`gold`.`bars_1m` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`gold`.`bars_1m` TO `crypto-assets-transform`;

GRANT SELECT ON TABLE `crypto_analytics`.`gold`.`bars_5m` TO `crypto-assets-serve`;

GRANT SELECT ON TABLE `crypto_analytics`.`gold`.`bars_5m` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`gold`.`bars_5m` TO `crypto-assets-transform`;

GRANT SELECT ON TABLE `crypto_analytics`.`gold`.`bars_1h` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`gold`.`bars_1h` TO `crypto-assets-transform`;

GRANT SELECT ON TABLE `crypto_analytics`.`gold`.`bars_1d` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`gold`.`bars_1d` TO `crypto-assets-transform`;

GRANT SELECT ON TABLE `crypto_analytics`.`gold`.`dim_coin` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`gold`.`dim_coin` TO `crypto-assets-transform`;

GRANT SELECT ON TABLE `crypto_analytics`.`gold`.`dim_date` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`gold`.`dim_date` TO `crypto-assets-transform`;

GRANT SELECT ON TABLE `crypto_analytics`.`gold`.`latest_prices` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`gold`.`latest_prices` TO `crypto-assets-transform`;

GRANT SELECT ON TABLE `crypto_analytics`.`gold`.`leaderboard_24h` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`gold`.`leaderboard_24h` TO `crypto-assets-transform`;

GRANT SELECT ON TABLE `crypto_analytics`.`features`.`price_features` TO `crypto-assets-train`;

GRANT SELECT ON TABLE `crypto_analytics`.`features`.`price_features` TO `crypto-assets-serve`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`features`.`price_features` TO `crypto-assets-transform`;

GRANT SELECT ON TABLE `crypto_analytics`.`gold`.`anomalies` TO `crypto-assets-transform`;

GRANT SELECT ON TABLE `crypto_analytics`.`gold`.`anomalies` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`gold`.`anomalies` TO `crypto-assets-serve`;

GRANT SELECT ON TABLE `crypto_analytics`.`gold`.`price_predictions` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`gold`.`price_predictions` TO `crypto-assets-serve`;

GRANT SELECT ON TABLE `crypto_analytics`.`gold`.`prediction_accuracy` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`gold`.`prediction_accuracy` TO `crypto-assets-serve`;

GRANT SELECT ON TABLE `crypto_analytics`.`gold`.`volatility_forecasts` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`gold`.`volatility_forecasts` TO `crypto-assets-serve`;

GRANT SELECT ON TABLE `crypto_analytics`.`gold`.`volatility_accuracy` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`gold`.`volatility_accuracy` TO `crypto-assets-serve`;

GRANT SELECT ON TABLE `crypto_analytics`.`ml`.`promotions` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`ml`.`promotions` TO `crypto-assets-train`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`ml`.`promotions` TO `crypto-assets-serve`;

GRANT SELECT ON TABLE `crypto_analytics`.`ops`.`polls` TO `crypto-assets-transform`;

GRANT SELECT ON TABLE `crypto_analytics`.`ops`.`polls` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`ops`.`polls` TO `crypto-assets-ingest`;

GRANT SELECT ON TABLE `crypto_analytics`.`ops`.`pipeline_metrics` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`ops`.`pipeline_metrics` TO `crypto-assets-transform`;

GRANT SELECT ON TABLE `crypto_analytics`.`ops`.`alerts` TO `crypto-assets-dashboard`;

GRANT SELECT, MODIFY ON TABLE `crypto_analytics`.`ops`.`alerts` TO `crypto-assets-serve`;

GRANT SELECT ON TABLE `crypto_analytics`.`compat`.`metrics_gold` TO `crypto-assets-dashboard`;

GRANT SELECT ON TABLE `crypto_analytics`.`compat`.`prices_silver` TO `crypto-assets-dashboard`;

GRANT SELECT ON TABLE `crypto_analytics`.`compat`.`anomalies` TO `crypto-assets-dashboard`;

GRANT SELECT ON TABLE `crypto_analytics`.`gold`.`fact_bars` TO `crypto-assets-dashboard`;

GRANT READ VOLUME ON VOLUME `crypto_analytics`.`bronze`.`landing` TO `crypto-assets-transform`;

GRANT READ VOLUME, WRITE VOLUME ON VOLUME `crypto_analytics`.`bronze`.`landing` TO `crypto-assets-ingest`;

GRANT READ VOLUME ON VOLUME `crypto_analytics`.`ml`.`artifacts` TO `crypto-assets-serve`;

GRANT READ VOLUME, WRITE VOLUME ON VOLUME `crypto_analytics`.`ml`.`artifacts` TO `crypto-assets-train`;

GRANT READ VOLUME, WRITE VOLUME ON VOLUME `crypto_analytics`.`ops`.`staging` TO `crypto-assets-ingest`;

GRANT READ VOLUME, WRITE VOLUME ON VOLUME `crypto_analytics`.`ops`.`staging` TO `crypto-assets-transform`;

GRANT READ VOLUME, WRITE VOLUME ON VOLUME `crypto_analytics`.`ops`.`staging` TO `crypto-assets-train`;

GRANT READ VOLUME, WRITE VOLUME ON VOLUME `crypto_analytics`.`ops`.`staging` TO `crypto-assets-serve`;

GRANT READ VOLUME, WRITE VOLUME ON VOLUME `crypto_analytics`.`ops`.`checkpoints` TO `crypto-assets-ingest`;

GRANT READ VOLUME, WRITE VOLUME ON VOLUME `crypto_analytics`.`ops`.`checkpoints` TO `crypto-assets-transform`;
