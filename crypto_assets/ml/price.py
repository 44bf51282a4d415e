"""Price forecasters: log returns 5 minutes and 1 hour ahead, compared with persistence day by day.

Targets are ln(price[t+h] / price[t]) of grid prices, never of averages: averaging alone fakes skill. Inputs and targets
are in units of the coin's own sigma, so that no coin dominates. Expect no skill, and say so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crypto_assets.compute.base import NotEnoughData
from crypto_assets.ml.evaluation import Skill, skill
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel

if TYPE_CHECKING:
    import numpy as np

TRAIN_DAYS, EVALUATION_DAYS = 28, 14
SEED = 42
RIDGE_ALPHA = 10.0
CANDIDATES = ("ridge", "gradient_boosting")
LEAST_ERRORS = 500
"""Errors that the empirical quantiles of persistence rest on at least."""


@dataclass(frozen=True)
class Candidate:
    """One algorithm's walk-forward result: skill on the target, and on the target that starts a bar later."""

    algorithm: str
    skill: Skill
    skill_delayed: Skill

    @property
    def passes(self) -> bool:
        """Both lower 95 % bounds are above zero."""
        return self.skill.lower > 0 and self.skill_delayed.lower > 0


@dataclass(frozen=True)
class Forecaster:
    """A version: algorithm, model (None = persistence), and the 5 % and 95 % quantiles of its errors in own sigmas."""

    algorithm: str
    horizon_slots: int
    lower: float
    upper: float
    errors: int
    model: Any = None
    candidates: tuple[Candidate, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)


def inputs(data: Panel) -> np.ndarray:
    """C x T x 7 scale-free inputs; NaN where unknown. Volume is never an input."""
    import numpy as np

    s = data["s"]
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [
            data["rz"],
            data["r15"] / (s * np.sqrt(3)),
            data["r1h"] / (s * np.sqrt(12)),
            data["r5_market"] / s,
            data["macd_hist"] / s,
            data["bollinger_b"] - 0.5,
            data["rsi14"] / 50 - 1,
        ]
    return np.stack(parts, axis=-1)


def target(data: Panel, slots: int, delay: int = 0) -> np.ndarray:
    """ln(price[t+delay+h] / price[t+delay]) in own sigmas of t; C x T, NaN where a price is unknown."""
    import numpy as np

    logs = np.log(data["price"])
    ahead = np.full_like(logs, np.nan)
    end = logs.shape[1] - slots - delay
    if end > 0:
        ahead[:, :end] = logs[:, delay + slots :] - logs[:, delay : logs.shape[1] - slots]
    return ahead / (data["s"] * np.sqrt(slots))


def train(data: Panel, slots: int, candidates: tuple[str, ...] = CANDIDATES) -> Forecaster:
    """Calibrate persistence on what is known, and evaluate the candidates where there are days enough.

    Args:
        data: Everything known before the cut-off; labels end at the cut-off, because the panel does.
        slots: Horizon.
        candidates: Algorithms tried.

    Raises:
        NotEnoughData: Fewer than 500 known outcomes to take persistence's error quantiles from.
    """
    import numpy as np

    outcome = target(data, slots) if data.slots else np.empty((0, 0))
    known = outcome[np.isfinite(outcome)]
    if len(known) < LEAST_ERRORS:
        raise NotEnoughData(
            f"needs {LEAST_ERRORS - len(known)} more outcomes: {len(known)} of the {LEAST_ERRORS} that error quantiles "
            "rest on (a day of one coin has 288)",
            {"outcomes": len(known), "outcomes_needed": LEAST_ERRORS},
        )
    recent = outcome[:, -TRAIN_DAYS * SLOTS_A_DAY :]
    recent = recent[np.isfinite(recent)]
    persistence = Forecaster(
        "persistence", slots, float(np.quantile(recent, 0.05)), float(np.quantile(recent, 0.95)), len(recent)
    )
    days = len(data.days())
    if days < TRAIN_DAYS + EVALUATION_DAYS:
        missing = TRAIN_DAYS + EVALUATION_DAYS - days
        metrics = {"missing": f"needs {missing} more days ({TRAIN_DAYS} to train and {EVALUATION_DAYS} to evaluate)"}
        return Forecaster(**{**persistence.__dict__, "metrics": metrics})
    tried = tuple(_evaluate(data, slots, name) for name in candidates)
    passing = [c for c in tried if c.passes]
    if not passing:
        return Forecaster(**{**persistence.__dict__, "candidates": tried})
    best = max(passing, key=lambda c: c.skill.value)
    model = _fit(best.algorithm, *_samples(data.cut(data.slots - TRAIN_DAYS * SLOTS_A_DAY, data.slots), slots)[:2])
    x, y, _ = _samples(data, slots)
    errors = y - model.predict(x)
    return Forecaster(
        best.algorithm,
        slots,
        float(np.quantile(errors, 0.05)),
        float(np.quantile(errors, 0.95)),
        len(errors),
        model,
        tried,
    )


def _evaluate(data: Panel, slots: int, algorithm: str) -> Candidate:
    """Walk forward: each of the last 14 days is forecast by a model of the 28 days before it.

    A training label may end at the day's start at the latest: the training panel is cut there, so the last `slots`
    rows have no label (the embargo equals the horizon).
    """
    import numpy as np

    collected: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {0: [], 1: []}
    for number, (start, end) in enumerate(data.days()[-EVALUATION_DAYS:]):
        x, y, _ = _samples(data.cut(start - TRAIN_DAYS * SLOTS_A_DAY, start), slots)
        model = _fit(algorithm, x, y)
        day = data.cut(start, min(data.slots, end + slots + 1))
        for delay, found in collected.items():
            x_day, y_day, at = _samples(day, slots, delay)
            inside = at < end - start
            if inside.any():
                found.append((model.predict(x_day[inside]), y_day[inside], np.full(int(inside.sum()), number)))
    results = []
    for found in collected.values():
        forecasts, outcomes, day_numbers = (np.concatenate(part) for part in zip(*found, strict=True))
        results.append(skill(outcomes - forecasts, outcomes, forecasts, day_numbers))
    return Candidate(algorithm, results[0], results[1])


def _samples(data: Panel, slots: int, delay: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with all inputs and a target: inputs N x 7, targets N, slot index N."""
    import numpy as np

    x, y = inputs(data), target(data, slots, delay)
    mask = np.isfinite(x).all(axis=-1) & np.isfinite(y)
    return x[mask], y[mask], np.broadcast_to(np.arange(y.shape[1]), y.shape)[mask]


def _fit(algorithm: str, x: np.ndarray, y: np.ndarray) -> Any:
    if algorithm == "ridge":
        from sklearn.linear_model import Ridge

        return Ridge(alpha=RIDGE_ALPHA).fit(x, y)
    if algorithm == "gradient_boosting":
        from sklearn.ensemble import HistGradientBoostingRegressor

        return HistGradientBoostingRegressor(
            max_iter=60, learning_rate=0.05, max_depth=3, min_samples_leaf=200, random_state=SEED
        ).fit(x, y)
    raise ValueError(f"{algorithm!r} is no algorithm; choose one of {', '.join(CANDIDATES)}")
