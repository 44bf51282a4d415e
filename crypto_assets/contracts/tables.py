"""Every table of the lakehouse, declared once, in the module of its layer, and gathered here for all who use one.

Schemas, DDL, the data dictionary and checks derive from `TABLES` (`contracts.arrow`, `contracts.render`, `checks`).
How rows are computed does not belong here (`transforms`).
"""

from __future__ import annotations

from crypto_assets.contracts.bronze import MARKET_HISTORY, RAW_PRICES
from crypto_assets.contracts.features import PRICE_FEATURES
from crypto_assets.contracts.gold import (
    BARS_1D,
    BARS_1H,
    BARS_1M,
    BARS_5M,
    DIM_COIN,
    DIM_DATE,
    LATEST_PRICES,
    LEADERBOARD,
)
from crypto_assets.contracts.ml import (
    ANOMALIES,
    PREDICTION_ACCURACY,
    PRICE_PREDICTIONS,
    PROMOTIONS,
    VOLATILITY_ACCURACY,
    VOLATILITY_FORECASTS,
)
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.ops import ALERTS, PIPELINE_METRICS, POLLS
from crypto_assets.contracts.silver import QUARANTINE, SILVER_PRICES

TABLES: dict[str, Table] = {
    t.full_name: t
    for t in (
        RAW_PRICES,
        MARKET_HISTORY,
        SILVER_PRICES,
        QUARANTINE,
        BARS_1M,
        BARS_5M,
        BARS_1H,
        BARS_1D,
        DIM_COIN,
        DIM_DATE,
        LATEST_PRICES,
        LEADERBOARD,
        PRICE_FEATURES,
        ANOMALIES,
        PRICE_PREDICTIONS,
        PREDICTION_ACCURACY,
        VOLATILITY_FORECASTS,
        VOLATILITY_ACCURACY,
        PROMOTIONS,
        POLLS,
        PIPELINE_METRICS,
        ALERTS,
    )
}
