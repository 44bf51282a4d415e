"""Price forecasters: log returns 5 minutes and 1 hour ahead, compared with persistence day by day.

Targets are ln(price[t+h] / price[t]) of grid prices, never of averages: averaging alone fakes skill. Inputs and targets
are in units of the coin's own sigma, so that no coin dominates. Expect no skill; report it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from crypto_assets.engine.base import NotEnoughData
from crypto_assets.ml.evaluation import Skill, skill
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel

if TYPE_CHECKING:
    import numpy as np

TRAIN_DAYS, EVALUATION_DAYS = 28, 14
LOOK_BACK_DAYS = TRAIN_DAYS + EVALUATION_DAYS + 14
"""Days read, with spares for days with long gaps, which do not count."""

LEAST_DAY_SHARE = 0.05
"""Share of complete slots (inputs and outcome) from which a day counts; low, as a first day's inputs start at 22 h."""

SEED = 42
RIDGE_ALPHA = 10.0
CANDIDATES = ("ridge", "gradient_boosting")
LEAST_ERRORS = 500
"""Minimum number of errors for the empirical quantiles of persistence."""


@dataclass(frozen=True)
class Candidate:
    """Walk-forward result of one algorithm: skill on the target, and on the target that starts a bar later.

    An echo of the newest price (a stale or averaged quote) is gone a bar later; a property of the market is weaker, but
    present. None = not evaluated, because there is no skill on the target itself.
    """

    algorithm: str
    skill: Skill
    skill_delayed: Skill | None
    interval: tuple[float, float]
    """5 % and 95 % quantiles of out-of-sample forecast errors, in own sigmas."""

    @property
    def passes(self) -> bool:
        """Return whether both lower 95 % bounds are above zero."""
        return self.skill.lower > 0 and self.skill_delayed is not None and self.skill_delayed.lower > 0


@dataclass(frozen=True)
class Forecaster:
    """A forecaster version: algorithm, model (None = persistence), 5 % and 95 % error quantiles in own sigmas."""

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
    """Calibrate persistence, and evaluate the candidates if there are enough days.

    Args:
        data: Everything known before the cut-off, where labels end too.
        slots: Horizon.
        candidates: Algorithms tried.

    Raises:
        NotEnoughData: Fewer than 500 known outcomes for persistence's error quantiles.
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
    days = _whole_days(data, slots)
    if len(days) < TRAIN_DAYS + EVALUATION_DAYS:
        missing = TRAIN_DAYS + EVALUATION_DAYS - len(days)
        text = (
            f"needs {missing} more days with known inputs and outcomes ({TRAIN_DAYS} to train and {EVALUATION_DAYS} to "
            f"evaluate; there are {len(days)})"
        )
        metrics = {"missing": text, "days": len(days), "days_needed": TRAIN_DAYS + EVALUATION_DAYS}
        return replace(persistence, metrics=metrics)
    with one_thread():
        return _best(data, days, slots, candidates, persistence)


def _best(
    data: Panel, days: list[tuple[int, int]], slots: int, candidates: tuple[str, ...], persistence: Forecaster
) -> Forecaster:
    """The passing candidate with the most skill, fitted on the last 28 days; persistence when none passes."""
    tried = tuple(_evaluate(data, days, slots, name) for name in candidates)
    passing = [c for c in tried if c.passes]
    if not passing:
        return replace(persistence, candidates=tried)
    best = max(passing, key=lambda c: c.skill.value)
    model = _fit(best.algorithm, *_samples(data.cut(days[-TRAIN_DAYS][0], data.slots), slots)[:2])
    return Forecaster(best.algorithm, slots, *best.interval, best.skill.samples, model, tried)


def one_thread() -> AbstractContextManager[Any]:
    """Context within which boosted trees use one thread.

    Their threads spin while waiting for each other: on shared cores one thread is over ten times as fast.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def _whole_days(data: Panel, slots: int) -> list[tuple[int, int]]:
    """Index spans of the days usable for training."""
    _, _, at = _samples(data, slots)
    least = LEAST_DAY_SHARE * SLOTS_A_DAY * len(data.coins)
    return [(start, end) for start, end in data.days() if ((at >= start) & (at < end)).sum() >= least]


def _evaluate(data: Panel, days: list[tuple[int, int]], slots: int, algorithm: str) -> Candidate:
    """Skill of an algorithm, and if positive, its skill on the target that starts a bar later."""
    import numpy as np

    errors, now = _walk_forward(data, days, slots, algorithm, 0)
    later = _walk_forward(data, days, slots, algorithm, 1)[1] if now.lower > 0 else None
    return Candidate(algorithm, now, later, (float(np.quantile(errors, 0.05)), float(np.quantile(errors, 0.95))))


def _walk_forward(
    data: Panel, days: list[tuple[int, int]], slots: int, algorithm: str, delay: int
) -> tuple[np.ndarray, Skill]:
    """Forecast each of the last 14 days by a model of the 28 days before it, the target `delay` bars later.

    A training label ends at the day's start at the latest: the training panel is cut there, so its last rows have no
    label (the embargo equals the horizon).

    Returns:
        Errors and skill.
    """
    import numpy as np

    found = []
    for number in range(len(days) - EVALUATION_DAYS, len(days)):
        start, end = days[number]
        x, y, _ = _samples(data.cut(days[number - TRAIN_DAYS][0], start), slots, delay)
        model = _fit(algorithm, x, y)
        x_day, y_day, at = _samples(data.cut(start, end + slots + delay), slots, delay)
        inside = at < end - start
        found.append((model.predict(x_day[inside]), y_day[inside], np.full(int(inside.sum()), number)))
    forecasts, outcomes, day_numbers = (np.concatenate(part) for part in zip(*found, strict=True))
    errors = outcomes - forecasts
    return errors, skill(errors, outcomes, forecasts, day_numbers)


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
