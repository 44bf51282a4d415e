"""Anomaly detectors: robust z (the champion to beat) and an IsolationForest on inputs in the coin's own sigma.

Belongs here: fitting, calibrating on out-of-sample scores, comparing. Does not belong here: reading rows, storing
models (`ml.registry`), or scoring tables (`ml.scoring`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crypto_assets.engine.base import NotEnoughData
from crypto_assets.ml import faults
from crypto_assets.ml.evaluation import flag_statistics
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel, anomaly_inputs, usable

if TYPE_CHECKING:
    import numpy as np

FIT_DAYS = 7
CALIBRATION_DAYS, LEAST_CALIBRATION_DAYS = 28, 7
LEAST_SHARE = 0.5
"""Share of slots with known inputs from which a day, or a week, counts."""

TREES, SEED = 200, 42
COMPARED = ("spike_6", "spike_12", "freeze_12", "drift")


@dataclass(frozen=True)
class Detector:
    """A calibrated detector: thresholds by coin, and the forest unless it is the robust z."""

    algorithm: str
    thresholds: dict[str, float]
    calibration_days: int
    forest: Any = None
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def provisional(self) -> bool:
        """Whether the thresholds rest on fewer than 28 days."""
        return self.calibration_days < CALIBRATION_DAYS


@dataclass(frozen=True)
class Training:
    """Result of a day's training: calibrated robust z, the forest if there was data for it, and the one that serves."""

    champion: Detector
    challenger: Detector | None
    challenger_wins: bool
    why: str
    missing: str | None


def z_scores(data: Panel) -> np.ndarray:
    """|robust z| of the 5-minute return, C x T; NaN where unknown. Its scale comes from the past: out of sample."""
    import numpy as np

    return np.abs(data["rz"])


def fit_forest(data: Panel) -> Any:
    """Fit an IsolationForest (Liu, Ting and Zhou 2008) on all usable slots of a panel."""
    from sklearn.ensemble import IsolationForest

    inputs = anomaly_inputs(data)
    return IsolationForest(n_estimators=TREES, random_state=SEED, n_jobs=1).fit(inputs[usable(inputs)])


def forest_scores(forest: Any, data: Panel) -> np.ndarray:
    """Anomaly score of the forest in [0, 1], higher = more anomalous; C x T, NaN where inputs are missing."""
    import numpy as np

    inputs = anomaly_inputs(data)
    mask = usable(inputs)
    scores = np.full(mask.shape, np.nan)
    if mask.any():
        scores[mask] = -forest.score_samples(inputs[mask])
    return scores


def thresholds(scores: np.ndarray, coins: tuple[str, ...], budget: float) -> dict[str, float]:
    """Per coin, the quantile 1 - budget/288 of its scores: `budget` flags a day on data like these.

    A coin without scores is left out; it keeps the pooled threshold under the key `*`.
    """
    import numpy as np

    level = 1 - budget / SLOTS_A_DAY
    found = {"*": float(np.nanquantile(scores, level))}
    for i, coin in enumerate(coins):
        known = scores[i][np.isfinite(scores[i])]
        # Such an extreme quantile needs at least a few slots beyond it.
        if len(known) >= LEAST_CALIBRATION_DAYS * SLOTS_A_DAY // 2:
            found[coin] = float(np.quantile(known, level))
    return found


def train(data: Panel, budget: float) -> Training:
    """Calibrate the champion, fit and calibrate the challenger, and compare them.

    Args:
        data: Everything known before the cut-off.
        budget: Flags wanted per coin and day.

    Raises:
        NotEnoughData: Fewer than seven days with scores, or a budget below one a day with fewer than 28; names what
            is missing.
    """
    import numpy as np

    z = z_scores(data)
    days = [span for span in data.days() if np.isfinite(z[:, slice(*span)]).mean() > LEAST_SHARE] if data.slots else []
    days = days[-CALIBRATION_DAYS:]
    _require(len(days), budget)
    spans = [slice(*span) for span in days]
    calibrated = np.concatenate([z[:, s] for s in spans], axis=1)
    champion = Detector(
        "robust_z",
        thresholds(calibrated, data.coins, budget),
        len(days),
        metrics=flag_statistics(_flags(calibrated, data.coins, thresholds(calibrated, data.coins, budget)), data.coins),
    )
    last = data.cut(data.slots - FIT_DAYS * SLOTS_A_DAY, data.slots)
    if not usable(anomaly_inputs(last)).mean() > LEAST_SHARE:
        return Training(champion, None, False, "no challenger", "the inputs of the last 7 days are mostly unknown")
    scored = _out_of_sample(data, days)
    if len(scored) < LEAST_CALIBRATION_DAYS:
        missing = f"needs {LEAST_CALIBRATION_DAYS - len(scored)} more days ({FIT_DAYS} to fit and 7 to calibrate)"
        return Training(champion, None, False, "no challenger yet", missing)
    return _compare(data, champion, np.concatenate(scored, axis=1), len(scored), budget)


def _require(days: int, budget: float) -> None:
    if days < LEAST_CALIBRATION_DAYS:
        raise NotEnoughData(
            f"needs {LEAST_CALIBRATION_DAYS - days} more days: {days} of the {LEAST_CALIBRATION_DAYS} days with scores "
            "that a threshold is calibrated on",
            {"days": days, "days_needed": LEAST_CALIBRATION_DAYS},
        )
    if budget < 1 and days < CALIBRATION_DAYS:
        raise NotEnoughData(
            f"needs {CALIBRATION_DAYS - days} more days: a budget of {budget:g} flags a day cannot be calibrated on "
            f"fewer than {CALIBRATION_DAYS} days; or set CRYPTO_ASSETS_ANOMALY_BUDGET=1",
            {"days": days, "days_needed": CALIBRATION_DAYS},
        )


def _out_of_sample(data: Panel, days: list[tuple[int, int]]) -> list[np.ndarray]:
    """Scores of each day by a forest fitted on the seven days before it alone."""
    scored = []
    for start, end in days:
        before = data.cut(start - FIT_DAYS * SLOTS_A_DAY, start)
        if start >= FIT_DAYS * SLOTS_A_DAY and usable(anomaly_inputs(before)).mean() > LEAST_SHARE:
            scored.append(forest_scores(fit_forest(before), data.cut(start, end)))
    return scored


def _compare(data: Panel, champion: Detector, scores: np.ndarray, days: int, budget: float) -> Training:
    """Compare both by recall on injected faults of the last week, at thresholds with equal flag rates."""
    last = data.cut(data.slots - FIT_DAYS * SLOTS_A_DAY, data.slots)
    forest = fit_forest(last)
    challenger = Detector("isolation_forest", thresholds(scores, data.coins, budget), days, forest)
    # At least half a flag a day, so that the quantile of one week is not its maximum.
    rate = max(budget, 0.5)
    z_level = thresholds(z_scores(last), last.coins, rate)
    f_level = thresholds(forest_scores(forest, last), last.coins, rate)
    recalls: dict[str, dict[str, float]] = {"champion": {}, "challenger": {}}
    for kind in COMPARED:
        hurt = faults.inject(last, kind)
        recalls["champion"][kind] = faults.recall(_flags(z_scores(hurt.data), last.coins, z_level), hurt)
        recalls["challenger"][kind] = faults.recall(_flags(forest_scores(forest, hurt.data), last.coins, f_level), hurt)
    worse = [k for k in COMPARED if not recalls["challenger"][k] >= recalls["champion"][k]]
    figures = ", ".join(f"{k} {recalls['challenger'][k]:.0%} against {recalls['champion'][k]:.0%}" for k in COMPARED)
    metrics = {
        "recall": recalls,
        "flag_rate": rate,
        **flag_statistics(_flags(scores, data.coins, challenger.thresholds), data.coins),
    }
    challenger = Detector("isolation_forest", challenger.thresholds, days, forest, metrics)
    why = f"recall on injected faults at {rate:g} flags a day, forest against robust z: {figures}"
    return Training(champion, challenger, not worse, why, None)


def _flags(scores: np.ndarray, coins: tuple[str, ...], levels: dict[str, float]) -> np.ndarray:
    import numpy as np

    limit = np.array([levels.get(c, levels["*"]) for c in coins])[:, None]
    return np.nan_to_num(scores, nan=-np.inf) > limit
