"""Anomaly detectors: their scores, and a calibrated detector as a version of the model holds it.

A detector is one or several scores with a threshold by coin. `market` is the 5-minute return relative to the other
coins in the scale of its past, `common` how far all coins move, the median of their returns in own sigma, given how
active the market has been, and `robust_z` the coin's own return in own sigma; the union of them flags a slot when any
is above its threshold. Their scales come from the slots before, so that the scores of past days are out of sample.

Belongs here: scores, thresholds, flags. Does not belong here: choosing what to calibrate (`ml.anomaly`), fitting and
comparing a forest (`ml.challenger`), rows of tables (`ml.scoring`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crypto_assets.ml.panel import SLOTS_A_DAY, Panel, anomaly_inputs, usable

if TYPE_CHECKING:
    import numpy as np

ROBUST_Z, MARKET, COMMON, FOREST = "robust_z", "market", "common", "isolation_forest"
"""Names of scores."""

UNION = "union"
"""Algorithm of a version with several of the scores robust_z, market and common; other algorithms are named like their
one score."""

POOLED = "*"
"""Key of the threshold of coins that were not calibrated."""

OWN_SHARE = 0.3
"""Share of a coin's own scale that the market-relative scale is not taken below, see `market_scores`."""

ACTIVITY = (0.5, 2.0)
"""Bounds of the market's activity in `common_scores`: after a quiet hour any move would else stand out, and in a crash
none."""

LEAST_FROZEN, UNCALIBRATED_FROZEN, LONGEST_RUN = 6, 12, 288
"""Equal prices from which a quote is suspected: at least, without calibration, and at which runs are cut."""

CALIBRATION_DAYS, LEAST_CALIBRATION_DAYS = 28, 7
LEAST_THRESHOLD = 1e-6
"""Scores are divided by thresholds; those of a price that never moved would be 0."""

LEAST_CAPPED_DAYS = 4
"""Days from which on what one of them weighs is bounded."""

TAIL = 0.01
"""Share of a coin's scores above the level that scales its tail before tails are pooled."""


def z_scores(data: Panel) -> np.ndarray:
    """|robust z| of the 5-minute return, C x T; NaN where unknown."""
    import numpy as np

    return np.abs(data["rz"])


def market_scores(data: Panel) -> np.ndarray:
    """|r5_market| / sqrt(s_market max(s_market, 0.3 s)), C x T; NaN where unknown.

    The own scale keeps a coin that follows the market closely from being flagged for moves of no size.
    """
    import numpy as np

    scale = data["s_market"]
    return np.abs(data["r5_market"]) / np.sqrt(scale * np.maximum(scale, OWN_SHARE * data["s"]))


def common_scores(data: Panel) -> np.ndarray:
    """|rz_common| / sqrt(common_activity, at least 0.5 and at most 2), C x T; NaN where unknown.

    Moves of the market follow one another: after a wild hour one more is less of an anomaly. The root makes the scale
    the geometric mean of the last day's and the last hour's.
    """
    import numpy as np

    return np.abs(data["rz_common"]) / np.sqrt(np.clip(data["common_activity"], *ACTIVITY))


def scores(data: Panel, *, by_activity: bool = True) -> dict[str, np.ndarray]:
    """The scores that need no fitted model, by name, each C x T.

    Args:
        data: Features.
        by_activity: Whether `common` takes activity into account; it is |rz_common| in versions from before it did.
    """
    import numpy as np

    common = common_scores(data) if by_activity else np.abs(data["rz_common"])
    return {ROBUST_Z: z_scores(data), MARKET: market_scores(data), COMMON: common}


def forest_scores(forest: Any, data: Panel) -> np.ndarray:
    """Score of an isolation forest in [0, 1], higher = more anomalous; C x T, NaN where inputs are missing."""
    import numpy as np

    inputs = anomaly_inputs(data)
    mask = usable(inputs)
    found = np.full(mask.shape, np.nan)
    if mask.any():
        found[mask] = -forest.score_samples(inputs[mask])
    return found


def thresholds(found: np.ndarray, coins: tuple[str, ...], budget: float, *, pooled: bool = False) -> dict[str, float]:
    """Per coin, the quantile 1 - budget/288 of its scores: `budget` flags a day on data like these.

    A coin without scores is left out; it gets the threshold of all coins together, under the key `*`. No day counts for
    more than half of the flags, so that a threshold survives a crash.

    Args:
        found: Scores of whole days, C x T.
        coins: C coin ids.
        budget: Flags per coin and day.
        pooled: Whether the tail is that of all coins: beyond its 99 % quantile a coin has too few scores for a rare
            flag, so the scores of all coins, each in its own units, make the quantile.
    """
    import numpy as np

    level = 1 - budget / SLOTS_A_DAY
    days = found.shape[1] / SLOTS_A_DAY
    capped = _of_days(found, budget * days)
    limits = {POOLED: max(LEAST_THRESHOLD, float(np.nanquantile(capped, level)))}
    # Such an extreme quantile needs at least a few slots beyond it.
    enough = np.isfinite(found).sum(axis=1) >= LEAST_CALIBRATION_DAYS * SLOTS_A_DAY // 2
    known = {c: i for i, c in enumerate(coins) if enough[i]}
    if not pooled or not known:
        return limits | {c: max(LEAST_THRESHOLD, float(np.nanquantile(capped[i], level))) for c, i in known.items()}
    unit = {c: max(LEAST_THRESHOLD, float(np.nanquantile(found[i], 1 - TAIL))) for c, i in known.items()}
    relative = np.stack([found[i] / unit[c] for c, i in known.items()])
    tail = float(np.nanquantile(_of_days(relative, budget * days * len(known), together=True), level))
    return limits | {c: unit[c] * tail for c in known}


def _of_days(found: np.ndarray, wanted: float, *, together: bool = False) -> np.ndarray:
    """Scores of which no day has more than half of those that are to lie above a threshold; the rest of it are 0.

    A crash would else raise thresholds for the 28 days in which they see it.

    Args:
        found: Scores of whole days, C x T; a shorter time than four days is left as it is.
        wanted: Number of scores above the threshold, by coin.
        together: Whether the number is of all coins.
    """
    import numpy as np

    days, rest = divmod(found.shape[1], SLOTS_A_DAY)
    if rest or days < LEAST_CAPPED_DAYS:
        return found
    most = max(2, math.ceil(wanted / 2))
    by_day = found.reshape(len(found), days, SLOTS_A_DAY)
    if together:
        by_day = by_day.transpose(1, 0, 2).reshape(1, days, -1)
    if most >= by_day.shape[2]:
        return found
    highest = np.argsort(np.nan_to_num(by_day, nan=-np.inf), axis=2, kind="stable")[:, :, -most:]
    stays = np.isnan(by_day)
    np.put_along_axis(stays, highest, values=True, axis=2)
    kept = np.where(stays, by_day, 0.0)
    if together:
        kept = kept.reshape(days, len(found), SLOTS_A_DAY).transpose(1, 0, 2)
    return kept.reshape(found.shape)


@dataclass(frozen=True)
class Detector:
    """A calibrated detector.

    Args:
        algorithm: `union`, `robust_z` or `isolation_forest`.
        thresholds: By score, and in it by coin; `*` is for other coins.
        calibration_days: Days that the thresholds rest on.
        frozen_slots: By coin, the run of equal prices from which its quote is suspected to be frozen.
        windows: By coin, its strongest windows of the calibrated days: `window_end` (seconds since 1970) and `inputs`.
        forest: The fitted forest, if it has one.
        metrics: Figures of the training.
        by_activity: Whether its score `common` takes the market's activity into account, see `scores`.
    """

    algorithm: str
    thresholds: dict[str, dict[str, float]]
    calibration_days: int
    frozen_slots: dict[str, int] = field(default_factory=dict)
    windows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    forest: Any = None
    metrics: dict[str, Any] = field(default_factory=dict)
    by_activity: bool = True

    @property
    def provisional(self) -> bool:
        """Whether the thresholds rest on fewer than 28 days."""
        return self.calibration_days < CALIBRATION_DAYS

    def scores(self, data: Panel) -> dict[str, np.ndarray]:
        """Its scores by name, each C x T, NaN where unknown."""
        plain = self.plain(data)
        return {name: forest_scores(self.forest, data) if name == FOREST else plain[name] for name in self.thresholds}

    def plain(self, data: Panel) -> dict[str, np.ndarray]:
        """All scores that need no fitted model, whether it uses them or not."""
        return scores(data, by_activity=self.by_activity)

    def level(self, score: str, coin: str | None) -> float:
        """A coin's threshold of one of its scores."""
        levels = self.thresholds[score]
        return levels.get(coin or POOLED, levels[POOLED])

    def threshold(self, coin: str | None) -> float:
        """What `score` is compared with: the coin's threshold of the only score, or 1 for several."""
        return self.level(next(iter(self.thresholds)), coin) if len(self.thresholds) == 1 else 1.0

    def relative(self, data: Panel, names: tuple[str | None, ...] | None = None) -> dict[str, np.ndarray]:
        """What flags are decided by, by score and each C x T: the score itself, or of several each over its threshold.

        Args:
            data: Features.
            names: Coin ids of the panel's rows, if they are not its `coins`.
        """
        import numpy as np

        found = self.scores(data)
        if len(found) == 1:
            return found
        coins = data.coins if names is None else names
        return {
            name: values / np.array([self.level(name, c) for c in coins]).reshape(-1, 1)
            for name, values in found.items()
        }

    def flags(self, data: Panel) -> np.ndarray:
        """Slots above a threshold, C x T."""
        import numpy as np

        limit = np.array([self.threshold(c) for c in data.coins]).reshape(-1, 1)
        return np.logical_or.reduce([np.nan_to_num(r, nan=-np.inf) > limit for r in self.relative(data).values()])

    def frozen(self, data: Panel) -> np.ndarray:
        """Slots that end a run of equal prices which is too long for the coin, C x T: outside the budget of flags."""
        import numpy as np

        limit = np.array([self.frozen_after(c) for c in data.coins]).reshape(-1, 1)
        return np.nan_to_num(data["unchanged_slots"]) >= limit

    def frozen_after(self, coin: str | None) -> int:
        """Equal prices from which a coin's quote is suspected to be frozen."""
        return self.frozen_slots.get(coin or POOLED, UNCALIBRATED_FROZEN)

    def parameters(self) -> dict[str, Any]:
        """What is stored of it besides the forest, JSON-safe; a single score's thresholds are not nested."""
        only = len(self.thresholds) == 1
        return {
            "algorithm": self.algorithm,
            "thresholds": next(iter(self.thresholds.values())) if only else self.thresholds,
            "days": self.calibration_days,
            "frozen_slots": self.frozen_slots,
            "windows": self.windows,
            **({"by_activity": True} if self.by_activity else {}),
        }


def detector(parameters: Mapping[str, Any], forest: Any = None) -> Detector:
    """The detector of a version, of any release: from its parameters and model.

    Args:
        parameters: Parameters as stored; the baseline has `threshold` alone.
        forest: The loaded model, or None.
    """
    algorithm = parameters.get("algorithm") or (FOREST if forest is not None else ROBUST_Z)
    given: Mapping[str, Any] = parameters.get("thresholds") or {POOLED: float(parameters["threshold"])}
    levels: Mapping[str, Mapping[str, float]] = given if algorithm == UNION else {algorithm: given}
    return Detector(
        algorithm,
        {name: dict(of) for name, of in levels.items()},
        int(parameters.get("days", 0)),
        dict(parameters.get("frozen_slots") or {}),
        dict(parameters.get("windows") or {}),
        forest,
        by_activity=bool(parameters.get("by_activity")),
    )
