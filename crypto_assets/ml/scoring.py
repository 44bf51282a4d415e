"""Scores slots with the version effective at the time: anomaly scores, thresholds, explanations.

Belongs here: from features and a loaded version to scores. Does not belong here: forecasts (`ml.forecasts`), choice of
the version (`ml.baselines.effective`), reading or writing tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crypto_assets.ml import anomaly
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
