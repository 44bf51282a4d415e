-- The catalog, and who may look into it.
-- Owned by deploy/terraform: run this file only where Terraform is not used.
-- Rendered from crypto_assets/contracts by `python -m crypto_assets.rendered_files`.

CREATE CATALOG IF NOT EXISTS `crypto_analytics` COMMENT 'Live crypto prices: Bronze, Silver, Gold, features, models.';

GRANT USE CATALOG ON CATALOG `crypto_analytics` TO `crypto-assets-ingest`;

GRANT USE CATALOG ON CATALOG `crypto_analytics` TO `crypto-assets-transform`;

GRANT USE CATALOG ON CATALOG `crypto_analytics` TO `crypto-assets-train`;

GRANT USE CATALOG ON CATALOG `crypto_analytics` TO `crypto-assets-serve`;

GRANT USE CATALOG ON CATALOG `crypto_analytics` TO `crypto-assets-dashboard`;
