"""Price forecasters: log returns 5 minutes and 1 hour ahead, compared with persistence, and their 90 % intervals.

Targets are ln(price[t+h] / price[t]) of grid prices, never of averages: averaging alone fakes skill. Inputs and targets
are in units of the coin's own sigma, so that no coin dominates. Expect no skill; report it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from crypto_assets.engine.base import NotEnoughData
from crypto_assets.ml import calibration
from crypto_assets.ml.calibration import Calibration, calibrate, fit
from crypto_assets.ml.evaluation import Skill, skill
from crypto_assets.ml.intervals import OWN_SIGMA, Intervals, Scale, intervals, outcomes
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
PERSISTENCE = "persistence"
JOINED = "+"
"""Stands between the algorithm and the scale in a forecaster's name."""

NOT_EVALUATED = "not evaluated"
CANDIDATES = ("ridge", "gradient_boosting")
EVERY = {"ridge": 1, "gradient_boosting": 4}
"""Candidates are fitted on every n-th row: trees cost far more, and learn no more from neighbours in time."""

REFIT_DAYS = 7
LEAST_ERRORS = 500
"""Minimum number of outcomes for the empirical quantiles of an interval."""


@dataclass(frozen=True)
class Candidate:
    """Walk-forward result of one algorithm: skill on the target, and on the target that starts a bar later.

    An echo of the newest price (a stale or averaged quote) is gone a bar later; a property of the market is weaker, but
    present. None = not evaluated, because there is no skill on the target itself.
    """

    algorithm: str
    skill: Skill
    skill_delayed: Skill | None

    @property
    def passes(self) -> bool:
        """Return whether both lower 95 % bounds are above zero."""
        return self.skill.lower > 0 and self.skill_delayed is not None and self.skill_delayed.lower > 0


@dataclass(frozen=True)
class Forecaster:
    """A forecaster version: what it forecasts, and how wide its 90 % interval is.

    Args:
        algorithm: `persistence`, or the candidate that serves.
        scale: Of the interval.
        errors: Outcomes that the interval's quantiles rest on.
        model: Of the candidate that serves; None = persistence.
        candidates: Evaluated candidates.
        calibration: How the scale was chosen; None when loaded.
        metrics: Figures on missing data.
    """

    algorithm: str
    scale: Scale
    errors: int
    model: Any = None
    candidates: tuple[Candidate, ...] = ()
    calibration: Calibration | None = None
    metrics: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, parameters: Mapping[str, Any], model: Any, slots: int) -> Forecaster:
        """From a version's files, or from the parameters of a baseline."""
        scale = Scale.of(parameters, slots)
        algorithm = parameters.get("algorithm", PERSISTENCE).partition(JOINED)[0]
        return cls(algorithm, scale, parameters.get("errors", 0), model)

    @property
    def name(self) -> str:
        """Algorithm and scale, as promotions name them."""
        return f"{self.algorithm}{JOINED}{self.scale.name}"

    @property
    def verdict(self) -> str:
        """`skill`, `no skill`, or `not evaluated` for want of days."""
        return NOT_EVALUATED if not self.candidates else "no skill" if self.model is None else "skill"

    def parameters(self) -> dict[str, Any]:
        """JSON-safe, for `of`."""
        return {
            "algorithm": self.name,
            "horizon_slots": self.scale.slots,
            "errors": self.errors,
            "verdict": self.verdict,
            "scale": self.scale.parameters(),
        }

    def figures(self) -> dict[str, Any]:
        """JSON-safe figures on which the decision rests, for `by_rule`."""
        found: dict[str, Any] = {
            c.algorithm: {
                "skill": asdict(c.skill),
                **({"delayed": asdict(c.skill_delayed)} if c.skill_delayed is not None else {}),
            }
            for c in self.candidates
        }
        return found | ({"interval": self.calibration.figures()} if self.calibration is not None else {})

    def drift(self, data: Panel) -> np.ndarray:
        """Forecast log return, C x T: zero for persistence, NaN where an input of the model is unknown."""
        import numpy as np

        if self.model is None:
            return np.zeros((len(data.coins), data.slots))
        x = inputs(data)
        known = np.isfinite(x).all(axis=-1)
        found = np.full(known.shape, np.nan)
        if known.any():
            with one_thread():
                found[known] = self.model.predict(x[known])
        return found * (data["s"] * np.sqrt(self.scale.slots))

    def intervals(self, data: Panel) -> Intervals:
        """90 % intervals and medians of log returns from every slot; see `ml.intervals.intervals`."""
        return intervals(self.scale, data, self.drift(data))


PRICE_INPUTS = ("rz", "r15", "r1h", "r5_market", "macd_hist", "bollinger_b", "rsi14")
"""Features that the candidates read, beside `s`."""


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


def scale_of(algorithm: str) -> str:
    """Scale in the name of a forecaster; the first version's is not named."""
    return algorithm.partition(JOINED)[2] or OWN_SIGMA


def by_rule(figures: Mapping[str, Any]) -> str:
    """Name of the forecaster that serves by the figures of a training."""
    passing = {
        name: figures[name]["skill"]["value"]
        for name in CANDIDATES
        if name in figures
        and figures[name]["skill"]["lower"] > 0
        and figures[name].get("delayed", {"lower": 0})["lower"] > 0
    }
    best = max(passing, key=lambda name: passing[name], default=PERSISTENCE)
    return f"{best}{JOINED}{calibration.by_rule(figures['interval'])}" if "interval" in figures else best


def first_version(data: Panel, slots: int) -> Forecaster:
    """Persistence with the first version's interval: quantiles of the last 28 days' outcomes in 24 h MAD sigmas.

    Args:
        data: Everything known before the cut-off.
        slots: Horizon.
    """
    outcome = outcomes(data, slots)
    return Forecaster(PERSISTENCE, fit(OWN_SIGMA, data, slots, outcome), _recent(outcome))


def train(data: Panel, slots: int, candidates: tuple[str, ...] = CANDIDATES, *, present: str = OWN_SIGMA) -> Forecaster:
    """Choose the interval's scale, and evaluate the candidates if there are enough days.

    Args:
        data: Everything known before the cut-off, where labels end too.
        slots: Horizon.
        candidates: Algorithms tried.
        present: Scale of the version in force; another one has to beat it.

    Raises:
        NotEnoughData: Fewer than 500 known outcomes for the interval's quantiles.
    """
    import numpy as np

    outcome = target(data, slots) if data.slots else np.empty((0, 0))
    known = int(np.isfinite(outcome).sum())
    if known < LEAST_ERRORS:
        raise NotEnoughData(
            f"needs {LEAST_ERRORS - known} more outcomes: {known} of the {LEAST_ERRORS} that error quantiles rest on "
            "(a day of one coin has 288)",
            {"outcomes": known, "outcomes_needed": LEAST_ERRORS},
        )
    days = _whole_days(data, slots)
    metrics: dict[str, Any] = {}
    tried: tuple[Candidate, ...] = ()
    if len(days) < TRAIN_DAYS + EVALUATION_DAYS:
        missing = TRAIN_DAYS + EVALUATION_DAYS - len(days)
        text = (
            f"needs {missing} more days with known inputs and outcomes ({TRAIN_DAYS} to train and {EVALUATION_DAYS} to "
            f"evaluate; there are {len(days)})"
        )
        metrics = {"missing": text, "days": len(days), "days_needed": TRAIN_DAYS + EVALUATION_DAYS}
    else:
        with one_thread():
            tried = tuple(_evaluate(data, days, slots, name) for name in candidates)
    best = max((c for c in tried if c.passes), key=lambda c: c.skill.value, default=None)
    made = Forecaster(PERSISTENCE, Scale(OWN_SIGMA, slots, (0, 0, 0), (0, 0, 0)), 0, candidates=tried, metrics=metrics)
    if best is not None:
        samples = _samples(data.cut(days[-TRAIN_DAYS][0], data.slots), slots)
        with one_thread():
            made = replace(made, algorithm=best.algorithm, model=_fit(best.algorithm, *samples[:2]))
    found = calibrate(data, slots, made.drift(data), present)
    return replace(made, scale=found.scale, errors=_recent(outcome), calibration=found)


def _recent(outcome: np.ndarray) -> int:
    """Number of known outcomes of the last 28 days."""
    import numpy as np

    return int(np.isfinite(outcome[:, -TRAIN_DAYS * SLOTS_A_DAY :]).sum())


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
    now = _walk_forward(data, days, slots, algorithm, 0)
    return Candidate(algorithm, now, _walk_forward(data, days, slots, algorithm, 1) if now.lower > 0 else None)


def _walk_forward(data: Panel, days: list[tuple[int, int]], slots: int, algorithm: str, delay: int) -> Skill:
    """Forecast the last 14 days week by week, by a model of the 28 days before each, the target `delay` bars later.

    A training label ends at the week's start at the latest: the training panel is cut there, so its last rows have no
    label (the embargo equals the horizon). Refitting daily, as first done, takes seven times as long.
    """
    import numpy as np

    found = []
    for number in range(len(days) - EVALUATION_DAYS, len(days), REFIT_DAYS):
        start, end = days[number][0], days[number + REFIT_DAYS - 1][1]
        x, y, _ = _samples(data.cut(days[number - TRAIN_DAYS][0], start), slots, delay)
        some = slice(None, None, EVERY.get(algorithm, 1))
        model = _fit(algorithm, x[some], y[some])
        x_week, y_week, at = _samples(data.cut(start, end + slots + delay), slots, delay)
        inside = at < end - start
        found.append((model.predict(x_week[inside]), y_week[inside], (start + at[inside]) // SLOTS_A_DAY))
    forecasts, outcome, day_numbers = (np.concatenate(part) for part in zip(*found, strict=True))
    return skill(outcome - forecasts, outcome, forecasts, day_numbers)


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
