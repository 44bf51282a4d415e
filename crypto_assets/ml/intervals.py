"""Width of price intervals: the size of move to expect from a slot, and the quantiles of outcomes measured in it.

Three scales, by the data that they need. `own_sigma`: 24 hours' MAD, as the first version had it. `last_hour`: the
geometric mean of that and the last hour's volatility. `har`: a Poisson regression of the size of the move on volatility
over 5 minutes to 7 days, time of day and weekend (heterogeneous autoregression, Corsi 2009). The last two are tracked:
per coin and side, the interval widens after a miss and narrows after a hit (Angelopoulos, Candès and Tibshirani 2023).

Everything that a slot's width needs is in its feature row and in the version, but the tracking, which begins at each
UTC midnight with what the version learnt up to its cut-off and follows the outcomes of that day. So a row depends on
rows of its own day up to itself, never on where a slice begins.

Belongs here: widths by what a version knows. Does not belong here: learning and choosing it (`ml.calibration`), point
forecasts (`ml.price`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from crypto_assets.ml.panel import SLOT_S, SLOTS_A_DAY, Panel

if TYPE_CHECKING:
    import numpy as np

OWN_SIGMA, LAST_HOUR, HAR = SCALES = ("own_sigma", "last_hour", "har")
MISSES = 0.05
"""Share of outcomes wanted beyond each side."""

RATES = {1: 0.03, 12: 0.01}
"""Rate of tracking by horizon in slots: one miss widens a side by 2.9 % or 1 %."""

FLOOR = 0.02
"""Smallest volatility, in own sigmas, that an input's logarithm is taken of; a single return's is 0.05."""
WIDEST = 5.0
"""Bound on the logarithm of the regression's result."""

HARMONICS = (1, 2, 3, 4)
"""Of the day: periods of 24, 12, 8 and 6 hours."""

INPUTS = (
    *("r5", "rv15m", "rv1h", "rv4h", "rv24h", "level"),
    *(f"{wave}{k}" for k in HARMONICS for wave in ("sin", "cos")),
    *("hour_edge", "weekend"),
)
FEATURES = {OWN_SIGMA: ("s",), LAST_HOUR: ("s", "rv1h"), HAR: ("s", "r5", "rv15m", "rv1h", "rv4h", "rv24h")}
"""Features that a scale uses."""

Values = Mapping[str, "np.ndarray"]


def _untracked() -> np.ndarray:
    import numpy as np

    return np.zeros((2, 0, 0))


@dataclass(frozen=True)
class Intervals:
    """90 % intervals and medians of log returns, C x T; NaN where unknown.

    Args:
        lower: 5 % quantile.
        median: Median.
        upper: 95 % quantile.
        tracked: Log factors of the lower and the upper half that are in them, 2 x C x T.
    """

    lower: np.ndarray
    median: np.ndarray
    upper: np.ndarray
    tracked: np.ndarray = field(default_factory=_untracked)

    def shifted(self, drift: np.ndarray | float) -> Intervals:
        """Around a forecast log return, C x T or one for all."""
        return replace(self, lower=self.lower + drift, median=self.median + drift, upper=self.upper + drift)


@dataclass(frozen=True)
class Scale:
    """What a version knows of widths, in numbers only.

    Args:
        name: One of `SCALES`.
        slots: Horizon.
        quantiles: 5, 50 and 95 % quantiles of outcomes in units of the scale.
        own: The same in own sigmas, for slots with an unknown input.
        weights: Of the regression: constant, then one for each of `INPUTS`.
        level: By coin, root mean square of r5 over the 7 days before the cut-off.
        tracked: By coin, log factors of the lower and upper half at the cut-off.
        coverage: By coin, share of outcomes covered over the 7 and 28 days before the cut-off by intervals that had
            not seen them; None where too few are known.
    """

    name: str
    slots: int
    quantiles: tuple[float, float, float]
    own: tuple[float, float, float]
    weights: tuple[float, ...] = ()
    level: Mapping[str, float] = field(default_factory=dict)
    tracked: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    coverage: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)

    @classmethod
    def of(cls, parameters: Mapping[str, Any], slots: int) -> Scale:
        """From a version's parameters, also those of the first version and of the baseline."""
        if "scale" in parameters:
            names = ("quantiles", "own", "weights")
            return cls(**{**parameters["scale"], **{n: tuple(parameters["scale"][n]) for n in names}})
        half = parameters.get("interval_sigma")
        lower, upper = (-half, half) if half is not None else (parameters["lower"], parameters["upper"])
        # Keeps the forecast within its interval also when the errors were one-sided.
        own = (min(float(lower), 0.0), 0.0, max(float(upper), 0.0))
        return cls(OWN_SIGMA, slots, own, own)

    def parameters(self) -> dict[str, Any]:
        """JSON-safe, for `of`."""
        return asdict(self)


def bounds(scale: Scale, values: Values, coins: Sequence[str], slot: np.ndarray, tracked: np.ndarray) -> Intervals:
    """Intervals around no change, from features alone.

    Args:
        scale: Of the version.
        values: Features by name, C x T.
        coins: C coin ids.
        slot: Number of the slot, broadcast to C x T.
        tracked: Log factors of the lower and the upper half, 2 x C x T.
    """
    import numpy as np

    level = np.array([scale.level.get(c, math.nan) for c in coins])[:, None]
    return _bounds(scale, values, unit(scale, values, level, slot), tracked)


def _bounds(scale: Scale, values: Values, width: np.ndarray, tracked: np.ndarray) -> Intervals:
    import numpy as np

    own = values["s"] * math.sqrt(scale.slots)
    known = np.isfinite(width)
    factor = np.where(known, np.exp(tracked), 1.0)
    ends = zip(scale.quantiles, scale.own, strict=True)
    lower, middle, upper = (np.where(known, in_units * width, in_own * own) for in_units, in_own in ends)
    lower, upper = lower * factor[0], upper * factor[1]
    return Intervals(lower, np.clip(middle, lower, upper), upper, np.where(known, tracked, 0.0))


def unit(scale: Scale, values: Values, level: np.ndarray, slot: np.ndarray) -> np.ndarray:
    """Size of move that the scale expects, C x T; NaN where an input is unknown.

    Args:
        scale: Of the version.
        values: Features by name, C x T.
        level: See `Scale.level`; broadcast to C x T.
        slot: Number of the slot, broadcast to C x T.
    """
    import numpy as np

    s = values["s"]
    if scale.name == OWN_SIGMA:
        return s * math.sqrt(scale.slots)
    if scale.name == LAST_HOUR:
        return np.sqrt(np.maximum(values["rv1h"] / math.sqrt(12), 0.05 * s) * s) * math.sqrt(scale.slots)
    log = np.full(s.shape, scale.weights[0])
    for weight, values_of in zip(scale.weights[1:], inputs(values, level, slot), strict=True):
        # One by one: a matrix product's last bit depends on the shape.
        log = log + weight * values_of
    return s * math.sqrt(scale.slots) * np.exp(np.clip(log, -WIDEST, WIDEST))


def inputs(values: Values, level: np.ndarray, slot: np.ndarray) -> list[np.ndarray]:
    """The regression's `INPUTS`, each C x T: logarithms of volatilities over the own sigma, then the clock's."""
    import numpy as np

    s = values["s"]

    def over_own(volatility: np.ndarray, floor: float = FLOOR) -> np.ndarray:
        return np.log(np.maximum(volatility, floor * s) / s)

    made = [over_own(np.abs(values["r5"]), 0.05)]
    spans = (("rv15m", 3), ("rv1h", 12), ("rv4h", 48), ("rv24h", 288))
    made += [over_own(values[name] / math.sqrt(slots)) for name, slots in spans]
    made.append(over_own(level))
    return [*made, *(np.broadcast_to(c, s.shape) for c in clock(slot))]


def clock(slot: np.ndarray) -> list[np.ndarray]:
    """The last of `INPUTS`, which only the time gives, each of the shape of the slots' numbers."""
    import numpy as np

    second = (slot * SLOT_S) % 86_400
    angle = 2 * np.pi * second / 86_400
    parts = [part(k * angle) for k in HARMONICS for part in (np.sin, np.cos)]
    # 1970-01-01 was a Thursday; a slot belongs to the day in which it begins.
    weekday = ((slot * SLOT_S - 1) // 86_400 + 3) % 7
    return [*parts, (second % 3600 == 0).astype(float), (weekday >= 5).astype(float)]


def slots_of(data: Panel) -> np.ndarray:
    """Numbers of a panel's slots, T."""
    import numpy as np

    return data.first_slot + np.arange(data.slots)


def intervals(scale: Scale, data: Panel, drift: np.ndarray | float = 0.0) -> Intervals:
    """Intervals of log returns from every slot of a panel, tracked from midnight or the panel's first slot.

    Args:
        scale: Of the version.
        data: Features; must begin at or before midnight of the first day wanted.
        drift: Forecast log return, C x T or one for all.
    """
    import numpy as np

    coins, slot = len(data.coins), slots_of(data)
    level = np.array([scale.level.get(c, math.nan) for c in data.coins])[:, None]
    width = unit(scale, data.values, level, slot)
    tracked = np.zeros((2, coins, data.slots))
    if scale.name != OWN_SIGMA and data.slots:
        began = np.array([scale.tracked.get(c, (0.0, 0.0)) for c in data.coins]).T[..., None]
        # Days side by side, each beginning with the version's own state.
        before = int((slot[0] - 1) % SLOTS_A_DAY)
        after = -(before + data.slots) % SLOTS_A_DAY
        beyond = excess(scale, outcomes(data, scale.slots) - drift, width)
        padded = np.pad(beyond, ((0, 0), (0, 0), (before, after)), constant_values=np.nan)
        days = padded.reshape(2, coins, -1, SLOTS_A_DAY)
        tracked = follow(days, scale.slots, began).reshape(padded.shape)[..., before : before + data.slots]
    return _bounds(scale, data.values, width, tracked).shifted(drift)


def outcomes(data: Panel, slots: int) -> np.ndarray:
    """ln(price[t+h] / price[t]), C x T; NaN where a price is unknown."""
    import numpy as np

    logs = np.log(data["price"])
    ahead = np.full_like(logs, np.nan)
    if slots < data.slots:
        ahead[:, :-slots] = logs[:, slots:] - logs[:, :-slots]
    return ahead


def excess(scale: Scale, errors: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Log of errors over the untracked lower and upper bound, 2 x C x T: a miss exceeds the log factor; NaN unknown.

    Args:
        scale: Of the version.
        errors: Outcome less forecast, C x T.
        width: See `unit`.
    """
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        sides = np.stack([errors / width / scale.quantiles[0], errors / width / scale.quantiles[2]])
        return np.where(np.isnan(sides), np.nan, np.log(np.maximum(sides, 0.0)))


def follow(beyond: np.ndarray, slots: int, began: np.ndarray | float) -> np.ndarray:
    """Log factors of each slot, of the shape of `beyond`, whose last axis is time; only passed outcomes count.

    Args:
        beyond: See `excess`.
        slots: Horizon: an outcome is known that many slots later.
        began: Factors at the first slot, broadcast to the shape of `beyond` without time.
    """
    import numpy as np

    by_time = np.moveaxis(beyond, -1, 0)
    rate = np.where(np.isnan(by_time), 0.0, RATES[slots])
    found = np.empty_like(by_time)
    now = np.broadcast_to(began, found.shape[1:])
    for t in range(len(found)):
        if t >= slots:
            now = now + rate[t - slots] * ((by_time[t - slots] > found[t - slots]) - MISSES)
        found[t] = now
    return np.moveaxis(found, 0, -1)


def winkler(lower: np.ndarray, upper: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """Interval score (Winkler 1972): width plus 20 times the miss; NaN where the outcome is unknown."""
    import numpy as np

    return upper - lower + 2 / 0.1 * (np.maximum(lower - outcome, 0.0) + np.maximum(outcome - upper, 0.0))
