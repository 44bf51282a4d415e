"""Walk-forward of the price intervals: those of the product, and of the first version for comparison.

Each day is forecast by a version trained on what was known before it. Outcomes count where they are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crypto_assets.assets.price_model import DAYS
from crypto_assets.engine.base import NotEnoughData
from crypto_assets.ml import price
from crypto_assets.ml.evaluation import Skill
from crypto_assets.ml.intervals import OWN_SIGMA, Intervals, outcomes
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel

if TYPE_CHECKING:
    import numpy as np

    from crypto_assets.ml.price import Forecaster


PRODUCT, FIRST = "product", "first version"
PARTS = ("lower", "median", "upper")
LOOK_BACK_DAYS = 8
"""Days of features that a forecast reads before its slot."""


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of one horizon and what came.

    Args:
        horizon: `5m` or `1h`.
        data: The evaluated slots, D whole days.
        outcomes: Log returns over the horizon, C x T, NaN where unknown.
        arms: By arm lower, median and upper log return, each C x T, NaN on days without a version.
        served: By day, algorithm and scale that served; None without a version.
        candidates: By algorithm of point forecasts its skills in the trainings, each over the 14 days before a day.
        missing: Why days have none; empty if there are none.
    """

    horizon: str
    data: Panel
    outcomes: np.ndarray
    arms: dict[str, Intervals]
    served: list[str | None]
    candidates: dict[str, list[Skill]]
    missing: str


def walk(
    data: Panel,
    start: int,
    end: int,
    horizon: str,
    slots: int,
    advance: Callable[[int], object] = lambda _n: None,
) -> Forecasts:
    """Train for each day of the slots [start, end), and forecast from each of its slots.

    Args:
        data: Features; what lies after `end` only gives outcomes.
        start: Index of the first evaluated slot, the first of a UTC day.
        end: Index after the last; whole days.
        horizon: `5m` or `1h`.
        slots: The horizon in slots.
        advance: Called with 1 after each day.

    Raises:
        NotEnoughData: No day has enough data before it; says what the last one lacks.
    """
    import numpy as np

    shape = (len(data.coins), end - start)
    arms = {arm: {n: np.full(shape, np.nan) for n in PARTS} for arm in (PRODUCT, FIRST)}
    missing, served, candidates = NotEnoughData(""), list[str | None](), dict[str, list[Skill]]()
    serving: Forecaster | None = None
    for day in range((end - start) // SLOTS_A_DAY):
        cutoff = start + day * SLOTS_A_DAY
        past = data.cut(cutoff - DAYS * SLOTS_A_DAY, cutoff)
        seen = data.cut(cutoff - LOOK_BACK_DAYS * SLOTS_A_DAY, cutoff + SLOTS_A_DAY)
        try:
            serving = price.train(past, slots, present=serving.scale.name if serving else OWN_SIGMA)
            trained = {PRODUCT: serving, FIRST: price.first_version(past, slots)}
        except NotEnoughData as error:
            missing = error
            served.append(None)
            advance(1)
            continue
        served.append(serving.name)
        for candidate in serving.candidates:
            candidates.setdefault(candidate.algorithm, []).append(candidate.skill)
        for arm, version in trained.items():
            found = version.intervals(seen)
            for name, values in arms[arm].items():
                values[:, day * SLOTS_A_DAY : (day + 1) * SLOTS_A_DAY] = getattr(found, name)[:, -SLOTS_A_DAY:]
        advance(1)
    if not any(np.isfinite(a["lower"]).any() for a in arms.values()):
        raise missing
    return Forecasts(
        horizon,
        data.cut(start, end),
        outcomes(data, slots)[:, start:end],
        {arm: Intervals(**values, tracked=np.zeros((2, *shape))) for arm, values in arms.items()},
        served,
        candidates,
        str(missing),
    )
