"""Scores slots with the version effective at the time: what `gold.anomalies` says of a slot, in batch and on request.

Belongs here: from features and a loaded version to columns. Does not belong here: choice of the version
(`ml.promotions.effective`), reading or writing tables, forecasts (`ml.forecasts`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from crypto_assets.ml.detectors import COMMON, MARKET, ROBUST_Z, UNION, Detector, detector
from crypto_assets.ml.panel import ANOMALY_INPUTS, SLOT_S, Panel, anomaly_inputs

if TYPE_CHECKING:
    import numpy as np

EXPLAINED, SIMILAR = 3, 3
"""Numbers of strongest features, and of similar past windows, named with a score."""

DIGITS = 3


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

    @cached_property
    def detector(self) -> Detector:
        """The detector of a version of the anomaly model."""
        return detector(self.parameters, self.model)


class Scored:
    """Scores of a panel by one version.

    Args:
        data: Features; for `scope` of a version with one score, of all coins and from the slot before on.
        version: A version of the anomaly model.
        names: Coin ids of the panel's rows, if they are not its `coins`.
    """

    def __init__(self, data: Panel, version: Version, names: tuple[str | None, ...] | None = None) -> None:
        import numpy as np

        self._data, self._detector = data, version.detector
        self._names = data.coins if names is None else names
        relative = self._detector.relative(data, self._names)
        limits = np.array([self._detector.threshold(c) for c in self._names]).reshape(-1, 1)
        self._fired = {name: np.nan_to_num(r, nan=-np.inf) > limits for name, r in relative.items()}
        self._limits = limits[:, 0]
        # The highest of those that are known.
        self._score = np.fmax.reduce(list(relative.values()))
        self._flags = np.logical_or.reduce(list(self._fired.values()))
        self._plain = self._detector.plain(data)
        self._inputs = anomaly_inputs(data)
        with np.errstate(divide="ignore", invalid="ignore"):
            self._market_sizes = np.abs(data["r5_market"]) / data["s_market"]

    @property
    def flags(self) -> np.ndarray:
        """Flagged slots, C x T."""
        return self._flags

    def row(self, c: int, t: int) -> dict[str, Any]:
        """Columns of `gold.anomalies` that follow from features and version, for a coin and a slot by index."""
        name = self._names[c]
        fired = sorted(n for n, f in self._fired.items() if f[c, t])
        return {
            "anomaly_score": _known(self._score[c, t]),
            "threshold": float(self._limits[c]),
            "is_anomaly": bool(self._flags[c, t]),
            "detectors": fired,
            "z_threshold": self._level(ROBUST_Z, name),
            "market_score": _known(self._plain[MARKET][c, t]),
            "market_threshold": self._level(MARKET, name),
            "common_score": _known(self._plain[COMMON][c, t]),
            "common_threshold": self._level(COMMON, name),
            "size_sigma": _known(self._plain[ROBUST_Z][c, t]),
            "size_market_sigma": _known(self._market_sizes[c, t]),
            "explanation": explanation(self._inputs[c, t]),
            "similar_windows": self._similar(c, t),
            "scope": self._scope(c, t, fired),
        }

    def _level(self, score: str, name: str | None) -> float | None:
        return self._detector.level(score, name) if score in self._detector.thresholds else None

    def _scope(self, c: int, t: int, fired: list[str]) -> str | None:
        """Which score fired tells the scope; where only one can fire, the other coins' flags do."""
        if self._detector.algorithm != UNION or _known(self._plain[MARKET][c, t]) is None:
            return scope(self._flags, c, t)
        return None if not fired else "coin_specific" if MARKET in fired else "market_wide"

    def _similar(self, c: int, t: int) -> str | None:
        """JSON of the coin's past windows with the nearest inputs, for a flagged slot; None if there are none."""
        import numpy as np

        past = self._detector.windows.get(self._names[c] or "", [])
        if not self._flags[c, t] or not past or not np.isfinite(self._inputs[c, t]).all():
            return None
        away = np.linalg.norm(np.array([w["inputs"] for w in past]) - self._inputs[c, t], axis=1)
        nearest = sorted(zip(away.tolist(), past, strict=True), key=lambda p: (p[0], p[1]["window_end"]))[:SIMILAR]
        return json.dumps([{"window_end": _text(w["window_end"]), "distance": round(d, DIGITS)} for d, w in nearest])

    def frozen(self, c: int, t: int) -> bool:
        """Whether the quote may be frozen: its run of equal prices is too long for the coin."""
        return bool(self._data["unchanged_slots"][c, t] >= self._detector.frozen_after(self._names[c]))


def _known(value: Any) -> float | None:
    return float(value) if value == value else None


def _text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def explanation(inputs: np.ndarray) -> str | None:
    """JSON of the strongest of a slot's inputs, with values in own sigma; None where nothing is known."""
    import numpy as np

    known = [(n, float(v)) for n, v in zip(ANOMALY_INPUTS, inputs, strict=True) if np.isfinite(v)]
    strongest = sorted(known, key=lambda p: -abs(p[1]))[:EXPLAINED]
    return json.dumps([{"feature": n, "sigma": round(v, DIGITS)} for n, v in strongest]) if known else None


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


def suspicion(row: Mapping[str, Any], *, frozen: bool = False) -> str | None:
    """Reason why the data behind a slot may be at fault: stale, frozen, single_sample, incomplete; None = no sign.

    Args:
        row: A feature row.
        frozen: Whether its price has been the same for too long.
    """
    if row["price"] is None or (row["staleness_s"] or 0) > SLOT_S:
        return "stale"
    if frozen:
        return "frozen"
    if row["sample_count"] == 1:
        return "single_sample"
    return None if row["is_complete"] else "incomplete"
