"""How 90 % intervals of log returns held: coverage by coin, week and hour of day, and sharpness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crypto_assets.ml.intervals import winkler
from crypto_assets.ml.panel import SLOTS_A_DAY

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.9
"""Nominal coverage."""

WEEK_DAYS = 7
WITHIN = 0.02
"""Distance of a week's coverage from the nominal one that still counts as calibrated."""

BASIS_POINTS = 1e4


@dataclass(frozen=True)
class Coverage:
    """How 90 % intervals of log returns held.

    Args:
        samples: Forecasts with a known outcome.
        covered: Share within the interval.
        by_coin: That share by coin.
        by_week: That share by week of seven days from the first day; a shorter last one is left out.
        by_hour: That share by UTC hour in which the forecast's slot began, 24.
        coin_weeks: Number of weeks of all coins.
        weekly_error: Mean over them of |share - 0.9|.
        weeks_within: Share of them within two points of it.
        winkler: Mean interval score, in basis points.
        width: Mean width, in basis points.
    """

    samples: int
    covered: float
    by_coin: dict[str, float]
    by_week: list[float]
    by_hour: list[float]
    coin_weeks: int
    weekly_error: float
    weeks_within: float
    winkler: float
    width: float


def coverage(
    outcomes: np.ndarray, lower: np.ndarray, upper: np.ndarray, coins: tuple[str, ...], first_slot: int
) -> Coverage:
    """Measure intervals of whole days.

    Args:
        outcomes: Log returns, C x T, NaN where unknown.
        lower: Lower bounds, C x T, NaN where there was no forecast.
        upper: Upper bounds, C x T.
        coins: C coin ids.
        first_slot: Number of the first slot's end, at which a UTC day's first slot ends.
    """
    import numpy as np

    score = winkler(lower, upper, outcomes)
    known = np.isfinite(score)
    inside = np.where(known, (lower <= outcomes) & (outcomes <= upper), np.nan)
    week = WEEK_DAYS * SLOTS_A_DAY
    weeks = [inside[:, i : i + week] for i in range(0, inside.shape[1] - week + 1, week)]
    off = [abs(_mean(row) - LEVEL) for w in weeks for row in w if np.isfinite(row).any()]
    hour = (first_slot + np.arange(inside.shape[1]) - 1) // 12 % 24
    return Coverage(
        samples=int(known.sum()),
        covered=_mean(inside),
        by_coin={c: _mean(inside[i]) for i, c in enumerate(coins)},
        by_week=[_mean(w) for w in weeks],
        by_hour=[_mean(inside[:, hour == h]) for h in range(24)],
        coin_weeks=len(off),
        weekly_error=float(np.mean(off)) if off else float("nan"),
        weeks_within=float(np.mean([e <= WITHIN for e in off])) if off else float("nan"),
        winkler=_mean(score) * BASIS_POINTS,
        width=_mean((upper - lower)[known]) * BASIS_POINTS,
    )


def _mean(values: np.ndarray) -> float:
    """Mean of the known; NaN without any."""
    import numpy as np

    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
