"""crypto_assets: a live-price lakehouse on Dagster.

Importing this package has no side effects; Dagster loads `crypto_assets.definitions`.
"""

__version__ = "0.1.0"
