-- Volumes for landed files, staged wheels and streams.
-- Owned by deploy/databricks.yml: run this file only where the bundle is not used.
-- Rendered from crypto_assets/contracts by `python -m crypto_assets.rendered_files`.

CREATE VOLUME IF NOT EXISTS `crypto_analytics`.`bronze`.`landing` COMMENT 'JSON lines by date and hour, picked up exactly once.';

CREATE VOLUME IF NOT EXISTS `crypto_analytics`.`ml`.`artifacts` COMMENT 'Files of models, by model and version; their checksums are in the promotions.';

CREATE VOLUME IF NOT EXISTS `crypto_analytics`.`ops`.`staging` COMMENT 'Files of launched steps: code, inputs, events; wheels and messages.';

CREATE VOLUME IF NOT EXISTS `crypto_analytics`.`ops`.`checkpoints` COMMENT 'Progress of streams; the tables are the truth, whatever it says.';
