"""Evaluation measures: skill with its uncertainty, flag rates, episodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crypto_assets.ml.bootstrap import BOUNDS, SEED, day_sums
from crypto_assets.ml.panel import SLOTS_A_DAY

if TYPE_CHECKING:
    import numpy as np

EPISODE_SLOTS = 6
"""Flags within 30 minutes of each other are one episode."""


@dataclass(frozen=True)
class Skill:
    """1 - MSE / MSE of persistence, with a 95 % interval from resampling whole days."""

    value: float
    lower: float
    upper: float
    samples: int
    days: int
    direction_hit: float


def skill(errors: np.ndarray, outcomes: np.ndarray, forecasts: np.ndarray, day: np.ndarray, seed: int = SEED) -> Skill:
    """Skill of forecasts of log returns against forecasting no change.

    Args:
        errors: Outcome - forecast.
        outcomes: Outcomes.
        forecasts: Forecasts.
        day: Day number of each; days are resampled whole, because errors within a day are correlated.
        seed: Seed of the bootstrap.
    """
    import numpy as np

    (model, models), (base, bases) = day_sums(day, errors**2, outcomes**2, seed=seed)
    lower, upper = np.quantile(1 - models / bases, BOUNDS)
    moved = (forecasts != 0) & (outcomes != 0)
    hit = float((np.sign(forecasts[moved]) == np.sign(outcomes[moved])).mean()) if moved.any() else float("nan")
    return Skill(1 - model / base, float(lower), float(upper), len(errors), len(np.unique(day)), hit)


def flag_statistics(flags: np.ndarray, coins: tuple[str, ...]) -> dict[str, object]:
    """Flags per coin and day of a C x T mask: mean, median, 99 % quantile, shares, episodes, market-wide ones."""
    import numpy as np

    days = flags.shape[1] // SLOTS_A_DAY
    if not days:
        return {"flags": int(flags.sum()), "days": 0}
    whole = flags[:, flags.shape[1] - days * SLOTS_A_DAY :]
    per_day = whole.reshape(len(coins), days, SLOTS_A_DAY).sum(axis=2)
    total = max(1, int(whole.sum()))
    return {
        "flags": int(whole.sum()),
        "days": days,
        "mean_per_coin_day": float(per_day.mean()),
        "median_per_coin_day": float(np.median(per_day)),
        "p99_per_coin_day": float(np.quantile(per_day, 0.99)),
        "share": {c: round(float(whole[i].sum()) / total, 4) for i, c in enumerate(coins)},
        "episodes": sum(episodes(row) for row in whole),
        "market_wide_episodes": episodes(whole.sum(axis=0) * 2 >= len(coins)) if len(coins) > 1 else 0,
    }


def episodes(flags: np.ndarray) -> int:
    """Number of episodes in a row of slots; gaps up to 30 minutes do not split an episode."""
    import numpy as np

    at = np.flatnonzero(flags)
    return int(len(at) and 1 + (np.diff(at) > EPISODE_SLOTS).sum())
