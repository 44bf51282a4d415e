"""Forecasts with the version effective at the time, as rows of `gold.price_predictions`.

Belongs here: from features and a loaded version to rows. Does not belong here: choice of the version
(`ml.baselines.effective`), reading or writing tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from crypto_assets.ml import price
from crypto_assets.ml.baselines import HORIZONS
from crypto_assets.ml.panel import SLOT_S, Panel
from crypto_assets.ml.scoring import Version

if TYPE_CHECKING:
    import numpy as np


def forecasts(
    rows: Sequence[Mapping[str, Any]], data: Panel, version: Version, horizon: str, now: datetime
) -> list[dict[str, Any]]:
    """Forecast rows of `gold.price_predictions` for feature rows with a price and a scale.

    Args:
        rows: Feature rows to forecast from.
        data: Panel that holds these rows.
        version: Version of the horizon's model.
        horizon: `5m` or `1h`.
        now: Time of writing: live when before the target.
    """
    slots = HORIZONS[horizon]
    lower, upper = _quantiles(version)
    predicted = _predicted(data, version)
    index = {c: i for i, c in enumerate(data.coins)}
    made = []
    for row in rows:
        if row["price"] is None or row["s"] is None:
            continue
        unit = row["s"] * math.sqrt(slots)
        slot = int(row["window_end"].timestamp()) // SLOT_S - data.first_slot
        drift = float(predicted[index[row["coin_id"]], slot]) * unit if predicted is not None else 0.0
        if not math.isfinite(drift):
            continue
        target_at = row["window_end"] + timedelta(seconds=SLOT_S * slots)
        made.append(
            {
                "coin_id": row["coin_id"],
                "window_end": row["window_end"],
                "horizon": horizon,
                "target_at": target_at,
                "price": row["price"],
                "predicted_return": drift,
                "predicted_price": row["price"] * math.exp(drift),
                # Keeps the forecast within its interval also when the errors were one-sided.
                "lower_90": row["price"] * math.exp(drift + min(lower, 0.0) * unit),
                "upper_90": row["price"] * math.exp(drift + max(upper, 0.0) * unit),
                "model_name": version.promotion["model"],
                "model_version": version.name,
                "mode": "live" if now < target_at else "backfill",
                "predicted_at": now,
                "day": row["day"],
                "hour": row["hour"],
            }
        )
    return made


def _quantiles(version: Version) -> tuple[float, float]:
    if "interval_sigma" in version.parameters:
        half = float(version.parameters["interval_sigma"])
        return -half, half
    return float(version.parameters["lower"]), float(version.parameters["upper"])


def _predicted(data: Panel, version: Version) -> np.ndarray | None:
    """Forecast return in own sigmas, C x T; None for persistence."""
    import numpy as np

    if version.model is None:
        return None
    x = price.inputs(data)
    mask = np.isfinite(x).all(axis=-1)
    found = np.full(mask.shape, np.nan)
    if mask.any():
        with price.one_thread():
            found[mask] = version.model.predict(x[mask])
    return found
