"""Forecasts of realised volatility, 1 h and 24 h ahead, from the returns of the 7 days before a slot.

Realised variance over a horizon is the sum of its squared 5-minute log returns, volatility its root. There are two
forecasters: `ewma`, the exponentially weighted average of squared returns, and `log_har`, a regression of the log
variance on those of the past 15 minutes to 7 days, of the market, and on the clock (heterogeneous autoregression,
Corsi 2009). Its inputs and fitted outcomes are capped, so that one crash does not raise all forecasts for a month.

Every value of a row is a sum of fixed slots in a fixed order, so that it does not depend on where a slice begins.

Belongs here: forecasts by what a version knows, and their loss. Does not belong here: learning and choosing
(`ml.volatility_training`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

from crypto_assets.ml.intervals import FLOOR, clock, slots_of
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel

if TYPE_CHECKING:
    import numpy as np

LOG_HAR, EWMA = "log_har", "ewma"
REALISED = {12: "rv1h", 288: "rv24h"}
"""Feature that holds the volatility of the last slots, by their number: at the target it is the outcome."""

FIELDS = ("r5", "s", *REALISED.values())
"""Features that forecasts read."""

SPANS = (3, 12, 48, 288, 2016)
"""Slots over which past variance is averaged; each divides the next."""

LEAST_KNOWN = (2, 6, 24, 144, 576)
"""Known returns from which an average over each of them is one."""

LOOK_BACK_DAYS = 7

MARKET_SPANS = (12, 288)
CUT_RETURN, CUT_IN_AVERAGE = 4.0, 6.0
"""Own sigmas for which a return counts at most, in the regression and in the exponential average. What 4 leave out the
regression's constant makes up for; the average has nothing to do so, and 6 leave out nothing but crashes."""

LEAST_VOLATILITY = 1e-5
"""Per slot; a price that stands still has none, and a logarithm needs some."""


@dataclass(frozen=True)
class Volatility:
    """What a version knows, in numbers only.

    Args:
        algorithm: `log_har` or `ewma`.
        slots: Horizon.
        half_life: Of the exponential average, in slots.
        weights: Of the regression: constant, then one for each of `inputs`.
    """

    algorithm: str
    slots: int
    half_life: float
    weights: tuple[float, ...] = ()

    @classmethod
    def of(cls, parameters: Mapping[str, Any], slots: int) -> Volatility:
        """From a version's parameters, or those of the baseline."""
        weights = tuple(parameters.get("weights", ()))
        return cls(parameters.get("algorithm", EWMA), slots, parameters["half_life_slots"], weights)

    def parameters(self) -> dict[str, Any]:
        """JSON-safe, for `of`."""
        return {
            "algorithm": self.algorithm,
            "horizon_slots": self.slots,
            "half_life_slots": self.half_life,
            "weights": list(self.weights),
        }

    def variance(self, data: Panel) -> np.ndarray:
        """Expected realised variance over the horizon from every slot, C x T; NaN where an input is unknown.

        Args:
            data: Features that reach 7 days back from the first slot wanted.
        """
        if self.algorithm == EWMA:
            return ewma(data, self.slots, self.half_life)
        return predicted(self.weights, inputs(data), self.slots)


def half_life(slots: int) -> float:
    """Half-life of the exponential average for a horizon, in slots: twice the horizon, the best of those tried."""
    return 2.0 * slots


def ewma(data: Panel, slots: int, half_life: float) -> np.ndarray:
    """Realised variance over the horizon if it goes on as on average lately, C x T; NaN where unknown.

    The average is over the last 7 days with weights that halve every `half_life`, each return counting for 6 own
    sigmas at most; half of the last 24 hours must be known.
    """
    import numpy as np

    squares, known = _squares(data, CUT_IN_AVERAGE)
    decay = 0.5 ** (1 / half_life)
    total, weight = (trailing(part, decay)[SPANS[-1]] for part in (squares, known.astype(float)))
    recent = trailing(known.astype(float))[SLOTS_A_DAY]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(recent >= SLOTS_A_DAY / 2, total / weight, np.nan)
    return slots * np.maximum(mean, LEAST_VOLATILITY**2)


def _squares(data: Panel, most: float) -> tuple[np.ndarray, np.ndarray]:
    """Squared returns, each of at most so many own sigmas, zero where unknown; and where they are known. C x T.

    In a coin's first half day, which has no own sigma, returns count as they are.
    """
    import numpy as np

    known = np.isfinite(data["r5"])
    return np.where(known, np.fmin(data["r5"] ** 2, (most * data["s"]) ** 2), 0.0), known


def realised(data: Panel, slots: int) -> np.ndarray:
    """Realised variance of the last `slots` slots, C x T; NaN where unknown. At the target it is the outcome."""
    import numpy as np

    return np.maximum(data[REALISED[slots]] ** 2, slots * LEAST_VOLATILITY**2)


def ahead(values: np.ndarray, slots: int) -> np.ndarray:
    """Values `slots` later, C x T; NaN beyond the end."""
    import numpy as np

    found = np.full_like(values, np.nan)
    if slots < values.shape[1]:
        found[:, :-slots] = values[:, slots:]
    return found


def capped(data: Panel) -> dict[int, np.ndarray]:
    """Mean of squared returns over the last slots by their number, each return counting for 4 own sigmas at most.

    C x T, at least `FLOOR` own sigmas; NaN where too few of the slots are known.
    """
    import numpy as np

    s = data["s"]
    squares, known = _squares(data, CUT_RETURN)
    sums, counts = trailing(squares), trailing(known.astype(float))
    with np.errstate(divide="ignore", invalid="ignore"):
        means = {
            span: np.where(counts[span] >= least, sums[span] / counts[span], np.nan)
            for span, least in zip(SPANS, LEAST_KNOWN, strict=True)
        }
    return {span: np.maximum(mean, (FLOOR * s) ** 2) for span, mean in means.items()}


def inputs(data: Panel, means: Mapping[int, np.ndarray] | None = None) -> list[np.ndarray]:
    """The regression's inputs, each C x T: logarithms of variances per slot, of their market means, and the clock.

    Args:
        data: Features.
        means: `capped` of them, if known already.
    """
    import numpy as np

    logs = {span: np.log(mean) for span, mean in (capped(data) if means is None else means).items()}
    market = [_over_coins(logs[span]) for span in MARKET_SPANS]
    return [np.broadcast_to(part, data["s"].shape) for part in (*logs.values(), *market, *clock(slots_of(data)))]


def _over_coins(values: np.ndarray) -> np.ndarray:
    """Mean over the coins where it is known, T; added up one by one, for a sum's last bit depends on the shape."""
    import numpy as np

    known = np.isfinite(values)
    total, count = (reduce(add, list(part)) for part in (np.where(known, values, 0.0), known.astype(float)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(total / count)


def predicted(weights: tuple[float, ...], known: list[np.ndarray], slots: int) -> np.ndarray:
    """Realised variance over the horizon by the regression, C x T.

    Args:
        weights: Constant, then one for each input.
        known: See `inputs`.
        slots: Horizon.
    """
    import numpy as np

    log = np.full(known[0].shape, weights[0])
    for weight, values in zip(weights[1:], known, strict=True):
        log = log + weight * values
    return slots * np.exp(np.clip(log, 2 * math.log(LEAST_VOLATILITY), 0.0))


def trailing(values: np.ndarray, decay: float = 1.0) -> dict[int, np.ndarray]:
    """Sums over the last slots by their number, C x T, each sum made of the shorter ones.

    Args:
        values: C x T finite values; what precedes them counts as zero.
        decay: Factor by which a slot counts less than the one after it.
    """
    found: dict[int, np.ndarray] = {}
    length, shorter = 1, values
    for span in SPANS:
        done = shorter.copy()
        for before in range(length, min(span, values.shape[1]), length):
            done[:, before:] += decay**before * shorter[:, :-before]
        found[span] = shorter = done
        length = span
    return found


def qlike(outcome: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Loss of forecasts of a variance: 0 if right, about half the squared log error if nearly so (Patton 2011)."""
    import numpy as np

    ratio = outcome / forecast
    return ratio - np.log(ratio) - 1
