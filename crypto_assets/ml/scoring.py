"""Scores slots with the version effective at the time: anomalies and forecasts as plain rows.

Belongs here: from features and a loaded version to rows. Does not belong here: choice of the version
(`ml.baselines.effective`), reading or writing tables.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from crypto_assets.ml import anomaly, price
from crypto_assets.ml.baselines import HORIZONS
from crypto_assets.ml.panel import ANOMALY_INPUTS, SLOT_S, Panel, anomaly_inputs

if TYPE_CHECKING:
    import numpy as np

EXPLAINED = 3
"""Number of strongest features named with a score."""


@dataclass(frozen=True)
class Version:
    """A loaded version: its row of `ml.promotions`, parameters, and model (None for baselines)."""

    promotion: Mapping[str, Any]
    parameters: Mapping[str, Any]
    model: Any = None

    @property
    def name(self) -> str:
        """Version text."""
        return str(self.promotion["version"])


def scores(data: Panel, version: Version) -> np.ndarray:
    """Anomaly scores of a panel, C x T, NaN where unknown."""
    if version.model is None:
        return anomaly.z_scores(data)
    return anomaly.forest_scores(version.model, data)


def threshold(version: Version, coin: str) -> float:
    """A coin's threshold in a version, pooled for coins that were not calibrated."""
    levels = version.parameters.get("thresholds")
    if levels is None:
        return float(version.parameters["threshold"])
    return float(levels.get(coin, levels["*"]))


def explanations(data: Panel) -> list[list[str | None]]:
    """JSON of the strongest inputs, with values in own sigma, by coin and slot; None where nothing is known."""
    import numpy as np

    values = anomaly_inputs(data)
    explained: list[list[str | None]] = []
    for row in values:
        explained.append([])
        for slot in row:
            known = [(n, float(v)) for n, v in zip(ANOMALY_INPUTS, slot, strict=True) if np.isfinite(v)]
            strongest = sorted(known, key=lambda p: -abs(p[1]))[:EXPLAINED]
            explained[-1].append(
                json.dumps([{"feature": n, "sigma": round(v, 3)} for n, v in strongest]) if known else None
            )
    return explained


def scope(flags: np.ndarray, coin: int, slot: int) -> str | None:
    """market_wide when half or more of the other coins were flagged in this slot or the one before, else coin_specific.

    None when the coin was not flagged, or is alone.
    """
    import numpy as np

    if not flags[coin, slot] or len(flags) < 2:
        return None
    near = np.asarray(flags[:, max(0, slot - 1) : slot + 1].any(axis=1))
    others = int(near.sum()) - int(near[coin])
    return "market_wide" if others * 2 >= len(flags) - 1 else "coin_specific"


def suspicion(row: Mapping[str, Any]) -> str | None:
    """Reason why the data behind a slot may be at fault: stale, single_sample, incomplete; None = no sign."""
    if row["price"] is None or (row["staleness_s"] or 0) > SLOT_S:
        return "stale"
    if row["sample_count"] == 1:
        return "single_sample"
    return None if row["is_complete"] else "incomplete"


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
