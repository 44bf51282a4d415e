"""Uncertainty of means and sums by resampling whole days with replacement (block bootstrap, Künsch 1989).

Errors and flags within a day are correlated, in time and across coins; days hardly are. Two methods measured on the
same samples are resampled together (paired), so that what makes a day hard for both does not widen the bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

RESAMPLES, SEED = 2000, 42
BOUNDS = (0.025, 0.975)
"""Levels of a 95 % interval."""


@dataclass(frozen=True)
class Difference:
    """Difference of two means, with its 95 % interval and the number of days that it rests on; NaN without samples."""

    value: float
    lower: float
    upper: float
    days: int


def day_sums(
    day: np.ndarray, *values: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED
) -> list[tuple[float, np.ndarray]]:
    """Sum of each series, and its sums over resampled days; the same days are drawn for all series.

    Args:
        day: Day number of each sample, N.
        values: Series of N finite samples.
        resamples: R.
        seed: Seed of the draw.

    Returns:
        By series its sum and R resampled sums.
    """
    import numpy as np

    days, index = np.unique(day, return_inverse=True)
    drawn = np.random.default_rng(seed).integers(0, max(1, len(days)), (resamples, len(days)))
    by_day = [np.bincount(index, weights=v, minlength=len(days)) for v in values]
    return [(float(v.sum()), v[drawn].sum(axis=1)) for v in by_day]


def difference(
    first: np.ndarray, second: np.ndarray, day: np.ndarray, *, resamples: int = RESAMPLES, seed: int = SEED
) -> Difference:
    """mean(first) - mean(second) of paired samples, such as hits (0 or 1) or Winkler scores.

    Args:
        first: Samples of any shape; where either of a pair is NaN, the pair is left out.
        second: Samples of the same shape.
        day: Day number of each sample; broadcast to that shape, as from T to C x T.
        resamples: Number of resamples.
        seed: Seed of the draw.
    """
    import numpy as np

    gap = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    days = np.broadcast_to(day, gap.shape)
    known = np.isfinite(gap)
    if not known.any():
        return Difference(float("nan"), float("nan"), float("nan"), 0)
    gap, days = gap[known], days[known]
    (total, totals), (count, counts) = day_sums(days, gap, np.ones_like(gap), resamples=resamples, seed=seed)
    lower, upper = np.quantile(totals / counts, BOUNDS)
    return Difference(total / count, float(lower), float(upper), len(np.unique(days)))
