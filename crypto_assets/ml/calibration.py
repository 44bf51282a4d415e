"""Learning the scales of price intervals, and choosing one by its Winkler score on days it had not seen.

A scale replaces the one in force if its score is better, with 95 % confidence by resampling days, than that one's and
than that of a width that never changes, and if it covers 88 to 92 % of each coin's outcomes. The constant width is the
best there is on a random walk: whatever beats it has found volatility that changes.

Belongs here: fitting, replaying, comparing scales. Does not belong here: widths themselves (`ml.intervals`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from crypto_assets.ml.bootstrap import Difference, difference
from crypto_assets.ml.intervals import (
    FEATURES,
    HAR,
    LAST_HOUR,
    OWN_SIGMA,
    Scale,
    excess,
    follow,
    inputs,
    outcomes,
    slots_of,
    unit,
    winkler,
)
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel

if TYPE_CHECKING:
    import numpy as np

LEVELS = (0.05, 0.5, 0.95)
"""Quantiles of a 90 % interval and its median."""

FIT_DAYS, EVALUATION_DAYS = 28, 28
LEAST_DAYS = {LAST_HOUR: 14, HAR: 28}
"""Days with outcomes from which a scale is tried: half of them, at most 28, are for its evaluation."""

EVERY = 4
"""The regression is fitted on every fourth slot: neighbours say almost the same."""

PENALTY = 1e-4
CUT_RETURN, CUT_MOVE = 4.0, 10.0
"""Own sigmas at which a return counts no more in the level of seven days, and a move in the fit: one crash would widen
intervals for a week and for four."""

LEVEL_DAYS, LEAST_LEVEL_SLOTS = 7, 2 * SLOTS_A_DAY
COVERAGE, TOLERANCE = 0.9, 0.02
LEAST_COVERED = 2 * SLOTS_A_DAY
"""Outcomes of a coin from which its coverage is measured."""

COVERAGE_DAYS = (7, 28)
LEAST_QUANTILE = 1e-3
"""Distance of an interval's untracked ends from the forecast, in units of the scale."""


@dataclass(frozen=True)
class Trial:
    """A scale on days that it had not seen.

    Args:
        name: The scale.
        winkler: Mean Winkler score, log return.
        gain: Mean score of the scale in force less its own, with 95 % bounds from resampled days.
        over_constant: The same against a width that never changes.
        coverage: Share of outcomes covered, by coin.
    """

    name: str
    winkler: float
    gain: Difference
    over_constant: Difference
    coverage: Mapping[str, float]

    @property
    def passes(self) -> bool:
        """Whether it replaces the scale in force."""
        return (
            self.gain.lower > 0
            and self.over_constant.lower > 0
            and all(abs(share - COVERAGE) <= TOLERANCE for share in self.coverage.values())
        )


@dataclass(frozen=True)
class Calibration:
    """The scale that serves, and how it was chosen.

    Args:
        scale: Serves.
        present: Scale that was in force.
        winkler: Its mean Winkler score on the days of the evaluation; None without one.
        days: Days of the evaluation.
        trials: Scales that were compared with it.
        missing: What the scales that were not lack; None: nothing.
    """

    scale: Scale
    present: str = OWN_SIGMA
    winkler: float | None = None
    days: int = 0
    trials: tuple[Trial, ...] = ()
    missing: str | None = None

    def figures(self) -> dict[str, Any]:
        """JSON-safe figures on which the choice rests, for `by_rule`; null = not finite."""
        scales = {
            t.name: {
                "winkler": _finite(t.winkler),
                **{
                    name: {k: _finite(v) for k, v in asdict(gain).items()}
                    for name, gain in (("gain", t.gain), ("over_constant", t.over_constant))
                },
                "coverage": dict(t.coverage),
            }
            for t in self.trials
        }
        winkler = None if self.winkler is None else _finite(self.winkler)
        return {"present": self.present, "winkler": winkler, "days": self.days, "scales": scales}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def by_rule(figures: Mapping[str, Any]) -> str:
    """Scale that serves by the figures of a calibration."""

    def gain(known: Mapping[str, Any]) -> Difference:
        value, lower, upper = (math.nan if known[n] is None else known[n] for n in ("value", "lower", "upper"))
        return Difference(value, lower, upper, known["days"])

    trials = [
        Trial(name, f["winkler"] or math.nan, gain(f["gain"]), gain(f["over_constant"]), f["coverage"])
        for name, f in figures["scales"].items()
    ]
    return chosen(trials, figures["present"])


def chosen(trials: Sequence[Trial], present: str) -> str:
    """The rule: of the scales that pass, the one with the best score; without any, the one in force."""
    passing = [t for t in trials if t.passes]
    return min(passing, key=lambda t: t.winkler).name if passing else present


def calibrate(data: Panel, slots: int, drift: np.ndarray | float = 0.0, present: str = OWN_SIGMA) -> Calibration:
    """Compare the scales that there is data for, and fit the one that serves on the last 28 days.

    Args:
        data: Everything known before the cut-off, the panel's end.
        slots: Horizon.
        drift: Forecast log return, C x T or one for all.
        present: Scale in force; without the data for it, the comparison is with `own_sigma`.
    """
    import numpy as np

    errors = outcomes(data, slots) - drift
    days = {name: _days(data, errors, name) for name in LEAST_DAYS}
    tried = [name for name, least in LEAST_DAYS.items() if len(days[name]) >= least]
    missing = "; ".join(
        f"the interval's scale {name} needs {least - len(days[name])} more days with inputs and outcomes: "
        f"{len(days[name])} of {least}"
        for name, least in LEAST_DAYS.items()
        if name not in tried
    )
    if not tried:
        return Calibration(fit(OWN_SIGMA, data, slots, errors), missing=missing)
    fewest = min((days[name] for name in tried), key=len)
    begin = fewest[-min(EVALUATION_DAYS, len(fewest) // 2)]
    replays = {name: _replay(name, data, slots, errors, begin) for name in (OWN_SIGMA, *tried)}
    present = present if present in replays else OWN_SIGMA
    in_force, constant = replays[present], _replay(OWN_SIGMA, _constant(data, begin), slots, errors, begin)
    day = (slots_of(data)[begin:] - 1) // SLOTS_A_DAY
    trials = tuple(
        Trial(
            name,
            float(np.nanmean(replay.score)),
            difference(in_force.score, replay.score, day),
            difference(constant.score, replay.score, day),
            {c: float(share) for c, share in zip(data.coins, replay.covered(), strict=True) if math.isfinite(share)},
        )
        for name, replay in replays.items()
        if name != present
    )
    name = chosen(trials, present)
    scale = replace(fit(name, data, slots, errors), coverage=_coverage(data.coins, replays[name]))
    return Calibration(scale, present, float(np.nanmean(in_force.score)), len(np.unique(day)), trials, missing or None)


def _days(data: Panel, errors: np.ndarray, name: str) -> list[int]:
    """First slots of the days of which half of the slots of a coin or more have a scale's inputs and an outcome."""
    import numpy as np

    known = np.isfinite(errors)
    for feature in FEATURES[name]:
        known &= np.isfinite(data[feature])
    return [a for a, b in data.days() if known[:, a:b].sum() >= SLOTS_A_DAY // 2]


def fit(name: str, data: Panel, slots: int, errors: np.ndarray) -> Scale:
    """Learn a scale from the last 28 days of a panel.

    Args:
        name: One of `SCALES`.
        data: Features up to the cut-off.
        slots: Horizon.
        errors: Outcome less forecast, C x T, NaN where the target lies beyond the cut-off.
    """
    begin = max(0, data.slots - FIT_DAYS * SLOTS_A_DAY)
    last, late = data.cut(begin, data.slots), errors[:, begin:]
    own = _quantiles(late / (last["s"] * math.sqrt(slots)))
    if name == OWN_SIGMA:
        return Scale(name, slots, own, own)
    level = levels(data)
    scale = Scale(name, slots, own, own)
    if name == HAR:
        scale = replace(
            scale,
            weights=_weights(last, slots, late, level[:, begin:-1]),
            level={c: float(x) for c, x in zip(data.coins, level[:, -1], strict=True) if math.isfinite(x)},
        )
    width = unit(scale, last.values, level[:, begin:-1], slots_of(last))
    scale = replace(scale, quantiles=_quantiles(late / width))
    at_end = follow(excess(scale, late, width), slots, 0.0)[..., -1]
    return replace(scale, tracked={c: (float(a), float(b)) for c, a, b in zip(data.coins, *at_end, strict=True)})


def levels(data: Panel) -> np.ndarray:
    """Root mean square of r5 over the 7 days before each slot's UTC day; C x (T + 1), the last one of the day after.

    Each return counts for at most 4 own sigmas. NaN where fewer than two days of returns are known.
    """
    import numpy as np

    cut = np.minimum(data["r5"] ** 2, (CUT_RETURN * data["s"]) ** 2)
    squares = np.cumsum(np.pad(np.nan_to_num(cut), ((0, 0), (1, 0))), axis=1)
    counts = np.cumsum(np.pad(np.isfinite(cut), ((0, 0), (1, 0))), axis=1)
    slot = np.append(slots_of(data), data.first_slot + data.slots)
    midnight = np.clip((slot - 1) // SLOTS_A_DAY * SLOTS_A_DAY + 1 - data.first_slot, 0, data.slots)
    start = np.maximum(midnight - LEVEL_DAYS * SLOTS_A_DAY, 0)
    n = counts[:, midnight] - counts[:, start]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.maximum(squares[:, midnight] - squares[:, start], 0.0) / n
    return np.sqrt(np.where(n >= LEAST_LEVEL_SLOTS, mean, np.nan))


def _weights(data: Panel, slots: int, errors: np.ndarray, level: np.ndarray) -> tuple[float, ...]:
    """Weights of the Poisson regression of |error| in own sigmas."""
    import numpy as np
    from sklearn.linear_model import PoissonRegressor

    some = slice(data.slots % EVERY, None, EVERY)
    values = {n: v[:, some] for n, v in data.values.items()}
    x = np.stack(inputs(values, level[:, some], slots_of(data)[some]), axis=-1)
    y = np.minimum(np.abs(errors[:, some]) / (values["s"] * math.sqrt(slots)), CUT_MOVE)
    known = np.isfinite(x).all(axis=-1) & np.isfinite(y)
    fitted = PoissonRegressor(alpha=PENALTY, solver="newton-cholesky").fit(x[known], y[known])
    return (float(fitted.intercept_), *map(float, fitted.coef_))


def _quantiles(errors: np.ndarray) -> tuple[float, float, float]:
    import numpy as np

    lower, middle, upper = (float(q) for q in np.nanquantile(errors, LEVELS))
    return min(lower, -LEAST_QUANTILE), middle, max(upper, LEAST_QUANTILE)


@dataclass(frozen=True)
class _Replay:
    """Intervals of days that a scale had not seen: Winkler scores and hits (0 or 1), C x T, NaN where unknown."""

    score: np.ndarray
    hit: np.ndarray

    def covered(self, days: int | None = None) -> list[float]:
        """Share covered by coin, of all or the last days; NaN where too few outcomes are known."""
        import numpy as np

        hits = self.hit if days is None else self.hit[:, -days * SLOTS_A_DAY :]
        return [float(np.nanmean(row)) if np.isfinite(row).sum() >= LEAST_COVERED else math.nan for row in hits]


def _replay(name: str, data: Panel, slots: int, errors: np.ndarray, begin: int) -> _Replay:
    """Learn a scale from what was known at `begin`, and follow it from there.

    The level is of each day's own past, as every day has its version.
    """
    import numpy as np

    past = errors[:, :begin].copy()
    past[:, max(0, begin - slots) :] = np.nan
    scale = fit(name, data.cut(0, begin), slots, past)
    after, late = data.cut(begin, data.slots), errors[:, begin:]
    width = unit(scale, after.values, levels(data)[:, begin:-1], slots_of(after))
    tracked: np.ndarray | float = 0.0
    if name != OWN_SIGMA:
        began = np.array([scale.tracked[c] for c in data.coins]).T
        tracked = follow(excess(scale, late, width), slots, began)
    factor = np.broadcast_to(np.exp(tracked), (2, *width.shape))
    lower, upper = scale.quantiles[0] * width * factor[0], scale.quantiles[2] * width * factor[1]
    known = np.isfinite(late) & np.isfinite(width)
    return _Replay(winkler(lower, upper, late), np.where(known, (lower <= late) & (late <= upper), np.nan))


def _constant(data: Panel, begin: int) -> Panel:
    """The panel with each coin's volatility over the 28 days before `begin` as its own sigma throughout."""
    import numpy as np

    past = data["r5"][:, max(0, begin - FIT_DAYS * SLOTS_A_DAY) : begin]
    level = np.sqrt(np.nanmean(past**2, axis=1, keepdims=True))
    return replace(data, values={**data.values, "s": np.broadcast_to(level, data["s"].shape)})


def _coverage(coins: Sequence[str], replay: _Replay) -> dict[str, tuple[float | None, float | None]]:
    spans = [
        replay.covered(days) if replay.hit.shape[1] >= days * SLOTS_A_DAY else [math.nan] * len(coins)
        for days in COVERAGE_DAYS
    ]
    known = [[share if math.isfinite(share) else None for share in shares] for shares in spans]
    return {c: (week, month) for c, week, month in zip(coins, *known, strict=True)}
