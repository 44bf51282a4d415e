"""Baseline models: they exist before any training, and every trained model has to beat them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from crypto_assets.ml.volatility import EWMA, half_life

ANOMALY, PRICE_5M, PRICE_1H = "anomaly", "price_5m", "price_1h"
VOLATILITY_1H, VOLATILITY_24H = "volatility_1h", "volatility_24h"
BASELINE = "v0"
"""Version text of every baseline."""

HORIZONS = {"5m": 1, "1h": 12}
"""Slots ahead by horizon of price forecasts."""

VOLATILITY_HORIZONS = {"1h": 12, "24h": 288}
"""The same of volatility forecasts."""

V0_THRESHOLD = 5.5
"""|robust z| that a Student t with 4 degrees of freedom (a usual fit of short crypto returns) exceeds once in 288
slots: its two-sided quantile 6.1 over its MAD-sigma 1.10. Used until seven days of calibration data exist."""

V0_INTERVAL = 1.6449
"""90 % interval of the v0 forecast in own sigmas times the root of the slots: Gaussian, until errors are known."""

REGISTERED = {model: f"crypto_{model}" for model in (ANOMALY, PRICE_5M, PRICE_1H, VOLATILITY_1H, VOLATILITY_24H)}
"""Registered model name by model."""


def v0_rows(begin: datetime, now: datetime) -> list[dict[str, Any]]:
    """Rows of `ml.promotions` for the baselines, effective from the first partition.

    Args:
        begin: Start of the first partition; no data precedes it.
        now: Time of the decision.
    """
    algorithms = {
        ANOMALY: ("robust_z", {"threshold": V0_THRESHOLD}),
        PRICE_5M: ("persistence", {"interval_sigma": V0_INTERVAL}),
        PRICE_1H: ("persistence", {"interval_sigma": V0_INTERVAL}),
        **{
            f"volatility_{horizon}": (EWMA, {"half_life_slots": half_life(slots)})
            for horizon, slots in VOLATILITY_HORIZONS.items()
        },
    }
    return [
        {
            "model": model,
            "version": BASELINE,
            "algorithm": algorithm,
            "cutoff": begin,
            "effective_from": begin,
            "decision": "promoted",
            "provisional": True,
            "why": "baseline: serves until a version is promoted",
            "metrics": json.dumps(parameters),
            "artifact_uri": "builtin:v0",
            "artifact_sha256": "",
            "content_hash": f"v0:{json.dumps(parameters, sort_keys=True)}",
            "run_id": "",
            "decided_at": now,
        }
        for model, (algorithm, parameters) in algorithms.items()
    ]
