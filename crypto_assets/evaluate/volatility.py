"""Walk-forward of the volatility forecasts: those of the product, and of the baselines that they are compared with.

Each day is forecast by a version trained on what was known before it, by the code that serves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from crypto_assets.assets.volatility_model import DAYS
from crypto_assets.engine.base import NotEnoughData
from crypto_assets.evaluate.tables import Table, days_of
from crypto_assets.ml import volatility_training as learning
from crypto_assets.ml.bootstrap import difference
from crypto_assets.ml.panel import SLOT_S, SLOTS_A_DAY, Panel
from crypto_assets.ml.volatility import EWMA, LOOK_BACK_DAYS, ahead, ewma, half_life, qlike, realised
from crypto_assets.ml.volatility_training import LAST_VALUE

if TYPE_CHECKING:
    import numpy as np

PRODUCT = "product"
ARMS = (PRODUCT, EWMA, LAST_VALUE)
AFTER_SLOTS = 2 * SLOTS_A_DAY
"""Slots after a crash that are judged apart: two days."""


@dataclass(frozen=True)
class Outlooks:
    """Forecasts of one horizon, and their losses.

    Args:
        horizon: `1h` or `24h`.
        data: The evaluated slots, D whole days.
        forecast: Variance that the product expected, C x T; NaN where unknown or without a version.
        outcomes: Realised variance, C x T; NaN where unknown.
        losses: By arm QLIKE, C x T, NaN where the outcome is unknown or there was no version.
        served: By day the algorithm that served; None without a version.
        missing: Why days have none; empty if there are none.
    """

    horizon: str
    data: Panel
    forecast: np.ndarray
    outcomes: np.ndarray
    losses: dict[str, np.ndarray]
    served: list[str | None]
    missing: str


def walk(
    data: Panel,
    start: int,
    end: int,
    horizon: str,
    slots: int,
    advance: Callable[[int], object] = lambda _n: None,
) -> Outlooks:
    """Train for each day of the slots [start, end), and forecast from each of its slots.

    Args:
        data: Features; what lies after `end` only gives outcomes.
        start: Index of the first evaluated slot, the first of a UTC day.
        end: Index after the last; whole days.
        horizon: `1h` or `24h`.
        slots: The horizon in slots.
        advance: Called with 1 after each day.

    Raises:
        NotEnoughData: No day has enough data before it; says what the last one lacks.
    """
    import numpy as np

    forecast = np.full((len(data.coins), end - start), np.nan)
    served, missing, present = list[str | None](), NotEnoughData(""), EWMA
    for day in range((end - start) // SLOTS_A_DAY):
        cutoff = start + day * SLOTS_A_DAY
        try:
            known = learning.Prepared.of(data.cut(cutoff - DAYS * SLOTS_A_DAY, cutoff))
            made = learning.train(known, slots, present=present)
        except NotEnoughData as error:
            missing = error
            served.append(None)
        else:
            present = made.version.algorithm
            served.append(present)
            seen = data.cut(cutoff - LOOK_BACK_DAYS * SLOTS_A_DAY, cutoff + SLOTS_A_DAY)
            found = made.version.variance(seen)[:, -SLOTS_A_DAY:]
            forecast[:, day * SLOTS_A_DAY : (day + 1) * SLOTS_A_DAY] = found
        advance(1)
    if not any(served):
        raise missing
    came = ahead(realised(data, slots), slots)[:, start:end]
    arms = {
        PRODUCT: forecast,
        EWMA: ewma(data, slots, half_life(slots))[:, start:end],
        LAST_VALUE: realised(data, slots)[:, start:end],
    }
    losses = {arm: np.where(np.isfinite(forecast), qlike(came, values), np.nan) for arm, values in arms.items()}
    return Outlooks(horizon, data.cut(start, end), forecast, came, losses, served, str(missing))


def tables(found: Sequence[Outlooks]) -> list[Table]:
    """Loss by arm and month, and by coin; all horizons."""
    if not found:
        return []
    return [
        Table("Volatility forecasts: QLIKE, less is better", [row for one in found for row in _losses(one)]),
        Table("Volatility forecasts: QLIKE by month", [row for one in found for row in _by_month(one)]),
        Table("Volatility forecasts: QLIKE by coin", [row for one in found for row in _by_coin(one)]),
    ]


def _losses(one: Outlooks) -> list[dict[str, Any]]:
    rows = []
    for arm, losses in one.losses.items():
        gain = difference(losses, one.losses[PRODUCT], days_of(one.data))
        rows.append(
            {
                "horizon": one.horizon,
                "forecast": arm,
                "forecasts": _known(losses),
                "QLIKE": _mean(losses),
                "less by the product": None
                if arm == PRODUCT
                else f"{gain.value:+.3f} [{gain.lower:+.3f}, {gain.upper:+.3f}]",
                "days by log_har": sum(s == learning.LOG_HAR for s in one.served) if arm == PRODUCT else None,
                "of days": sum(s is not None for s in one.served),
            }
        )
    return rows


def _by_month(one: Outlooks) -> list[dict[str, Any]]:
    import numpy as np

    moments = [datetime.fromtimestamp((one.data.first_slot + t - 1) * SLOT_S, UTC) for t in range(one.data.slots)]
    month = np.array([f"{m:%Y-%m}" for m in moments])
    return [
        {"horizon": one.horizon, "month": str(name)}
        | {arm: _mean(losses[:, month == name]) for arm, losses in one.losses.items()}
        for name in sorted(set(month))
    ]


def _by_coin(one: Outlooks) -> list[dict[str, Any]]:
    return [
        {"horizon": one.horizon, "coin": coin} | {arm: _mean(losses[i]) for arm, losses in one.losses.items()}
        for i, coin in enumerate(one.data.coins)
    ]


def after_crash(crash: Sequence[Outlooks], recorded: Sequence[Outlooks], first: int) -> Table:
    """Losses of the two days after a spliced crash, and of the same days without it.

    Args:
        crash: With the crash.
        recorded: Without it.
        first: Index of the first slot after it.
    """
    after = slice(first, first + AFTER_SLOTS)
    return Table(
        "Volatility forecasts in the 2 days after the crash: QLIKE",
        [
            {
                "horizon": one.horizon,
                "forecast": arm,
                "QLIKE": _mean(one.losses[arm][:, after]),
                "without the crash": _mean(other.losses[arm][:, after]),
            }
            for one, other in zip(crash, recorded, strict=True)
            for arm in ARMS
        ],
    )


def _known(values: np.ndarray) -> int:
    import numpy as np

    return int(np.isfinite(values).sum())


def _mean(values: np.ndarray) -> float:
    """Mean of the known; NaN without any."""
    import numpy as np

    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
