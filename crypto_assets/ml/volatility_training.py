"""Learning `log_har`, and choosing it by its QLIKE on days it had not seen.

It replaces the exponential average if its loss is lower, with 95 % confidence by resampling days, than that of the
average, of the last value and of a variance that never changes; it is replaced if one of them beats it with that
confidence. The constant is the best there is on a random walk: what beats it has found volatility that changes.

Belongs here: fitting, comparing, the rule. Does not belong here: forecasts themselves (`ml.volatility`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from crypto_assets.engine.base import NotEnoughData
from crypto_assets.ml.bootstrap import Difference, difference
from crypto_assets.ml.intervals import slots_of
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel
from crypto_assets.ml.volatility import (
    EWMA,
    LEAST_VOLATILITY,
    LOG_HAR,
    Volatility,
    ahead,
    capped,
    ewma,
    half_life,
    inputs,
    predicted,
    qlike,
    realised,
)

if TYPE_CHECKING:
    import numpy as np

LAST_VALUE, CONSTANT = "last_value", "constant"
BASELINES = (EWMA, LAST_VALUE, CONSTANT)
FIT_DAYS, EVALUATION_DAYS, LEAST_DAYS = 28, 28, 28
LOOK_BACK_DAYS = FIT_DAYS + EVALUATION_DAYS
EVERY = 4
"""The regression is fitted on every fourth slot: neighbours say almost the same."""

LARGEST_RESIDUAL = 4.0
"""Log error at which an outcome counts no more in the factor from logarithms to means."""


@dataclass(frozen=True)
class Trained:
    """A version, and how it was chosen.

    Args:
        version: Serves.
        outcomes: Outcomes that the regression was fitted on.
        days: Days of the comparison, which the compared regression had not seen.
        loss: Mean QLIKE over them by arm: `log_har` and the baselines.
        gains: Mean loss of each baseline less that of `log_har`, with 95 % bounds from resampled days.
        present: Algorithm that was in force.
    """

    version: Volatility
    outcomes: int
    days: int
    loss: Mapping[str, float]
    gains: Mapping[str, Difference]
    present: str

    def figures(self) -> dict[str, Any]:
        """JSON-safe figures on which the choice rests, for `by_rule`."""
        gains = {name: asdict(gain) for name, gain in self.gains.items()}
        return {"present": self.present, "days": self.days, "qlike": dict(self.loss), "gain": gains}

    def served(self) -> Trained:
        """The same with the version that serves by the rule."""
        if by_rule(self.figures()) == LOG_HAR:
            return self
        return replace(self, version=replace(self.version, algorithm=EWMA, weights=()))


def by_rule(figures: Mapping[str, Any]) -> str:
    """Algorithm that serves by the figures of a training."""
    gains = [figures["gain"][name] for name in BASELINES]
    if figures["present"] == LOG_HAR:
        return EWMA if any(gain["upper"] < 0 for gain in gains) else LOG_HAR
    return LOG_HAR if all(gain["lower"] > 0 for gain in gains) else EWMA


@dataclass(frozen=True)
class Prepared:
    """What the trainings of both horizons have in common.

    Args:
        data: Everything known before the cut-off, where outcomes end too.
        means: Capped mean squares by span, see `capped`.
        x: Inputs of the regression.
    """

    data: Panel
    means: Mapping[int, np.ndarray]
    x: list[np.ndarray]

    @classmethod
    def of(cls, data: Panel) -> Prepared:
        """From features."""
        means = capped(data) if data.slots else {}
        return cls(data, means, inputs(data, means) if data.slots else [])


def train(known: Prepared, slots: int, *, present: str = EWMA) -> Trained:
    """Fit the regression on the past, compare it on the days after, and fit it on the last 28 days.

    Args:
        known: Features up to the cut-off, and the regression's inputs.
        slots: Horizon.
        present: Algorithm in force.

    Raises:
        NotEnoughData: Fewer than 28 days with inputs and outcomes.
    """
    import numpy as np

    data, x = known.data, known.x
    y = np.log(ahead(known.means[slots], slots)) if data.slots else np.empty((0, 0))
    days = _days(data, x, y)
    if len(days) < LEAST_DAYS:
        raise NotEnoughData(
            f"needs {LEAST_DAYS - len(days)} more days with inputs and outcomes: {len(days)} of {LEAST_DAYS}",
            {"days": len(days), "days_needed": LEAST_DAYS},
        )
    begin = days[-min(EVALUATION_DAYS, len(days) // 2)]
    earlier, _ = _fit(x, y, begin, slots)
    arms = {LOG_HAR: predicted(earlier, [part[:, begin:] for part in x], slots), **baselines(data, slots, begin)}
    outcome = ahead(realised(data, slots), slots)[:, begin:]
    losses = {name: qlike(outcome, forecast) for name, forecast in arms.items()}
    day = (slots_of(data)[begin:] - 1) // SLOTS_A_DAY
    gains = {name: difference(losses[name], losses[LOG_HAR], day) for name in BASELINES}
    weights, outcomes = _fit(x, y, data.slots, slots)
    return Trained(
        Volatility(LOG_HAR, slots, half_life(slots), weights),
        outcomes,
        len(np.unique(day)),
        {name: float(np.nanmean(loss)) for name, loss in losses.items()},
        gains,
        present,
    ).served()


def baselines(data: Panel, slots: int, begin: int) -> dict[str, np.ndarray]:
    """What `log_har` is compared with, from the slots of `begin` on, each C x (T - begin).

    The constant is each coin's mean over the 28 days before.
    """
    import numpy as np

    past = data["r5"][:, max(0, begin - FIT_DAYS * SLOTS_A_DAY) : begin] ** 2
    constant = slots * np.maximum(np.nanmean(past, axis=1, keepdims=True), LEAST_VOLATILITY**2)
    forecasts = {
        EWMA: ewma(data, slots, half_life(slots)),
        LAST_VALUE: realised(data, slots),
        CONSTANT: np.broadcast_to(constant, data["r5"].shape),
    }
    return {name: values[:, begin:] for name, values in forecasts.items()}


def _days(data: Panel, x: list[np.ndarray], y: np.ndarray) -> list[int]:
    """First slots of the days of which half of the slots of a coin or more have inputs and an outcome."""
    import numpy as np

    known = np.isfinite(y)
    for values in x:
        known = known & np.isfinite(values)
    return [a for a, b in data.days() if known[:, a:b].sum() >= SLOTS_A_DAY // 2]


def _fit(x: list[np.ndarray], y: np.ndarray, end: int, slots: int) -> tuple[tuple[float, ...], int]:
    """Weights by least squares over the 28 days before `end`, outcomes included, and the number of outcomes."""
    import numpy as np

    some = slice(max(0, end - FIT_DAYS * SLOTS_A_DAY) + end % EVERY, end - slots, EVERY)
    rows, wanted = np.stack([part[:, some] for part in x], axis=-1), y[:, some]
    known = np.isfinite(rows).all(axis=-1) & np.isfinite(wanted)
    rows, wanted = rows[known], wanted[known]
    middle = rows.mean(axis=0)
    rows = rows - middle
    # Inputs that say the same (one coin is its own market) share their weight.
    slopes, *_ = np.linalg.lstsq(rows.T @ rows, rows.T @ (wanted - wanted.mean()))
    residuals = wanted - wanted.mean() - rows @ slopes
    factor = math.log(np.mean(np.exp(np.minimum(residuals, LARGEST_RESIDUAL))))
    constant = wanted.mean() - middle @ slopes + factor
    return (float(constant), *map(float, slopes)), len(wanted)
