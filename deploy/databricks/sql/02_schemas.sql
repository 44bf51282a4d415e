-- Schemas.
-- Owned by deploy/databricks.yml: run this file only where the bundle is not used.
-- Rendered from crypto_assets/contracts by `python -m crypto_assets.rendered_files`.

CREATE SCHEMA IF NOT EXISTS `crypto_analytics`.`bronze` COMMENT 'Records and replies as they came; the system of record.';

CREATE SCHEMA IF NOT EXISTS `crypto_analytics`.`silver` COMMENT 'Typed, deduplicated quotes, and the records that did not become any.';

CREATE SCHEMA IF NOT EXISTS `crypto_analytics`.`gold` COMMENT 'Bars, dimensions, boards, anomalies and forecasts.';

CREATE SCHEMA IF NOT EXISTS `crypto_analytics`.`features` COMMENT 'Scale-free features, known at their time.';

CREATE SCHEMA IF NOT EXISTS `crypto_analytics`.`ml` COMMENT 'Registered models, and every decision about them.';

CREATE SCHEMA IF NOT EXISTS `crypto_analytics`.`ops` COMMENT 'What the producer saw, the pipeline\'s own metrics, alerts, and working files.';

CREATE SCHEMA IF NOT EXISTS `crypto_analytics`.`compat` COMMENT 'Views under the names of the systems this replaces.';
