"""crypto_assets: a live-price lakehouse on Dagster.

Importing this package does nothing; `crypto_assets.definitions` holds what Dagster loads.
"""

__version__ = "0.1.0"
