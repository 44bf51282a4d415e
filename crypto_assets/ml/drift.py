"""Drift: whether the last seven days of a coin's inputs and scores are distributed as in the 28 days before them.

Measured by the population stability index over ten quantile bins of the earlier days. All series are in the coin's own
sigma, so that a calmer or wilder market alone moves them little; a feed that repeats, smooths or rounds its quotes
moves them much. Thresholds are calibrated, see docs/decisions/0025-drift.md.

Belongs here: the index and its thresholds. Does not belong here: what follows from drift (`assets.anomaly_model`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crypto_assets.ml.detectors import COMMON, scores
from crypto_assets.ml.panel import ANOMALY_INPUTS, SLOTS_A_DAY, Panel, anomaly_inputs

if TYPE_CHECKING:
    import numpy as np

RECENT_DAYS, REFERENCE_DAYS = 7, 28
BINS = 10
LEAST_SHARE = 0.5
"""Share of slots that must be known in both spans."""

SMALLEST = 1e-4
"""Share below which a bin counts as this much: the logarithm of an empty bin has no value."""

FLOOR = 0.02
"""Smallest volatility, in own sigmas, that a logarithm is taken of."""

SCORE = "score "
THRESHOLDS: Mapping[str, float] = {
    "rz": 0.05,
    "r15": 0.08,
    "r1h": 0.15,
    "rv1h": 0.2,
    "rv15m": 0.1,
    "rv4h": 0.6,
    "r5_market": 0.5,
    f"{SCORE}robust_z": 0.1,
    f"{SCORE}market": 0.1,
}
"""Index by series from which a coin has drifted: above the highest of nine coins in 53 days by a quarter or more."""


@dataclass(frozen=True)
class Drift:
    """Index by coin and series; a series of which too little is known is absent."""

    indices: Mapping[str, Mapping[str, float]]

    @property
    def red(self) -> dict[str, list[str]]:
        """By drifted coin, the series above their thresholds, the farthest above first."""
        found = {}
        for coin, of in self.indices.items():
            above = [name for name, index in of.items() if index > THRESHOLDS[name]]
            if above:
                found[coin] = sorted(above, key=lambda name, of=of: -of[name] / THRESHOLDS[name])
        return found

    @property
    def text(self) -> str:
        """Drifted coins with their series, in a line; how many were measured if there are none."""
        red = self.red
        if not red:
            measured = sum(bool(of) for of in self.indices.values())
            lacking = f"; {len(self.indices) - measured} have too few days" if measured < len(self.indices) else ""
            return f"no drift in {measured} coins{lacking}"
        return "; ".join(
            f"{coin}: " + ", ".join(f"{n} {self.indices[coin][n]:.2f} (over {THRESHOLDS[n]:g})" for n in names)
            for coin, names in red.items()
        )


def measure(data: Panel) -> Drift:
    """Compare the last seven days of a panel with the 28 before them, by coin.

    Args:
        data: Features up to a cut-off at midnight UTC.
    """
    recent = RECENT_DAYS * SLOTS_A_DAY
    begin = max(0, data.slots - recent - REFERENCE_DAYS * SLOTS_A_DAY)
    known = {}
    for name, values in series(data).items():
        for c, coin in enumerate(data.coins):
            before, after = values[c, begin : max(begin, data.slots - recent)], values[c, max(0, data.slots - recent) :]
            index = psi(before, after, REFERENCE_DAYS * SLOTS_A_DAY, recent)
            known.setdefault(coin, {})
            if index is not None:
                known[coin][name] = index
    return Drift(known)


def series(data: Panel) -> dict[str, np.ndarray]:
    """Inputs of both models and scores that are compared, by name, each C x T.

    Volatility over 24 hours and more is an input of the intervals too, and left out: seven days have too few of its
    values, so that it drifts by nature. So is the common move, which belongs to no coin.
    """
    import numpy as np

    inputs, s = anomaly_inputs(data), data["s"]
    found = {name: inputs[..., i] for i, name in enumerate(ANOMALY_INPUTS)}
    for name, slots in (("rv15m", 3), ("rv4h", 48)):
        found[name] = np.log(np.maximum(data[name] / np.sqrt(slots), FLOOR * s) / s)
    return found | {f"{SCORE}{name}": values for name, values in scores(data).items() if name != COMMON}


def psi(before: np.ndarray, after: np.ndarray, wanted_before: int, wanted_after: int) -> float | None:
    """Population stability index: sum of (q - p) ln(q / p) over ten bins with equal shares of `before`.

    Args:
        before: Earlier values; NaN = unknown.
        after: Later values.
        wanted_before: How many there would be if all were known.
        wanted_after: Likewise.

    Returns:
        The index, 0 for equal distributions; None if under half of either are known.
    """
    import numpy as np

    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    if len(before) < LEAST_SHARE * wanted_before or len(after) < LEAST_SHARE * wanted_after:
        return None
    # Equal quantiles, as of a coin that often does not move, make one bin.
    edges = np.unique(np.quantile(before, np.arange(1, BINS) / BINS))
    shares = []
    for values in (before, after):
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
        shares.append(np.maximum(counts / len(values), SMALLEST))
    p, q = shares
    return float(((q - p) * np.log(q / p)).sum())
