"""Dagster assets: thin shells over `crypto_assets.steps`."""
