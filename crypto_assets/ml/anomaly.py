"""Training of the anomaly model: thresholds of a union of scores, from those of the past 28 days.

Nothing is fitted to decide: a training is a quantile per coin and score, and at the end of a UTC week a comparison with
an isolation forest (`ml.challenger`).

Belongs here: calibrating. Does not belong here: reading rows, scores and flags (`ml.detectors`), storing models
(`ml.registry`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crypto_assets.engine.base import NotEnoughData
from crypto_assets.ml import challenger
from crypto_assets.ml.challenger import Comparison
from crypto_assets.ml.detectors import (
    CALIBRATION_DAYS,
    COMMON,
    LEAST_CALIBRATION_DAYS,
    LEAST_FROZEN,
    LONGEST_RUN,
    MARKET,
    ROBUST_Z,
    UNION,
    Detector,
    scores,
    thresholds,
)
from crypto_assets.ml.evaluation import EPISODE_SLOTS, flag_statistics
from crypto_assets.ml.panel import SLOT_S, Panel, anomaly_inputs, usable

if TYPE_CHECKING:
    import numpy as np

LEAST_SHARE = 0.5
"""Share of slots with known scores from which a day counts."""

SHARES = {MARKET: 0.45, COMMON: 0.45, ROBUST_Z: 0.1}
"""Share of the budget that each score of the union has. What robust z finds beyond the two is a move of many sigmas."""

RARE_COMMON_SHARE = 0.35
"""The same of `common` at less than a flag a day. A common move flags all coins at once, so its threshold rests on one
or two moves of four weeks and is exceeded more often than wanted: by half, measured."""

LEAST_BEYOND = 10
"""Scores of four weeks beyond a coin's threshold from which it is the coin's own quantile, not of a tail of all coins.
The common move is the same for all, so there is nothing to pool."""

WINDOWS = 20
"""Strongest past windows kept per coin."""


@dataclass(frozen=True)
class Training:
    """Result of a day's training.

    Args:
        champion: The calibrated scores.
        comparison: Comparison with a forest, at the end of a week.
        why: Why there is none.
    """

    champion: Detector
    comparison: Comparison | None
    why: str


def train(data: Panel, budget: float, *, early: bool = False) -> Training:
    """Calibrate the scores, and compare them with a forest if the data end with a UTC week.

    Args:
        data: Everything known before the cut-off.
        budget: Flags wanted per coin and day.
        early: Compare with a forest although no week ends.

    Raises:
        NotEnoughData: See `calibrate`.
    """
    champion = calibrate(data, budget)
    if not early and not challenger.ends_week(data):
        return Training(champion, None, "no challenger today: a forest is compared at the end of every UTC week")
    if missing := challenger.missing(data):
        return Training(champion, None, f"no challenger yet: {missing}")
    rate = max(budget, challenger.LEAST_RATE)
    equal = champion if rate == budget else calibrate(data, rate)
    return Training(champion, challenger.compare(data, equal, champion, budget), "")


def calibrate(data: Panel, budget: float) -> Detector:
    """The union of scores, each with its share of the budget; robust z alone where coins are too few to be compared.

    Where rows do not have the common move yet, the other two scores have half the budget each.

    Args:
        data: Everything known before the cut-off.
        budget: Flags wanted per coin and day.

    Raises:
        NotEnoughData: Fewer than seven days with scores, or a budget below one a day with fewer than 28; names what
            is missing.
    """
    import numpy as np

    found = scores(data)
    days = _days(data, found[ROBUST_Z])
    _require(len(days), budget)
    shares, days = _shares(found, days, budget)
    slots = np.concatenate([np.arange(*d) for d in days])
    detector = Detector(
        UNION if len(shares) > 1 else ROBUST_Z,
        {
            name: thresholds(
                found[name][:, slots],
                data.coins,
                share,
                pooled=name != COMMON and share * CALIBRATION_DAYS < LEAST_BEYOND,
            )
            for name, share in shares.items()
        },
        len(days),
        frozen_limits(data.cut(int(slots[0]), data.slots)),
    )
    flags = detector.flags(data)[:, slots]
    return replace(detector, windows=_strongest(detector, data, slots), metrics=flag_statistics(flags, data.coins))


def _shares(
    found: dict[str, np.ndarray], days: list[tuple[int, int]], budget: float
) -> tuple[dict[str, float], list[tuple[int, int]]]:
    """Flags a day of each score that is known on enough days, and these days."""
    import numpy as np

    def known(name: str) -> list[tuple[int, int]]:
        return [d for d in days if np.isfinite(found[name][:, slice(*d)]).mean() > LEAST_SHARE]

    enough = CALIBRATION_DAYS if budget < 1 else LEAST_CALIBRATION_DAYS
    compared, moved = known(MARKET), known(COMMON)
    if min(len(compared), len(moved)) >= enough:
        shares = SHARES | ({COMMON: RARE_COMMON_SHARE} if budget < 1 else {})
        return {name: budget * share for name, share in shares.items()}, sorted({*compared} & {*moved})
    if len(compared) >= enough:
        return {ROBUST_Z: budget / 2, MARKET: budget / 2}, compared
    return {ROBUST_Z: budget}, days


def frozen_limits(data: Panel) -> dict[str, int]:
    """By coin, one more than its longest run of equal prices, at least 6 slots; coins without prices are left out.

    Some sources round dear coins to whole dollars, so that a calm coin repeats its price for a while.
    """
    import numpy as np

    limits = {}
    for coin, runs in zip(data.coins, data["unchanged_slots"], strict=True):
        longest = np.nan_to_num(runs).max(initial=0)
        if longest > 0:
            limits[coin] = int(min(max(LEAST_FROZEN, longest + 1), LONGEST_RUN))
    return limits


def _strongest(detector: Detector, data: Panel, slots: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """By coin, the windows with the highest scores, half an hour apart, with their inputs in own sigma."""
    import numpy as np

    inputs = anomaly_inputs(data)
    strength = np.max([np.nan_to_num(r, nan=-np.inf) for r in detector.relative(data).values()], axis=0)
    strength[~usable(inputs)] = -np.inf
    kept: dict[str, list[dict[str, Any]]] = {}
    for c, coin in enumerate(data.coins):
        chosen: list[int] = []
        for t in slots[np.argsort(-strength[c, slots], kind="stable")][: WINDOWS * 2 * EPISODE_SLOTS]:
            if np.isfinite(strength[c, t]) and all(abs(int(t) - other) > EPISODE_SLOTS for other in chosen):
                chosen.append(int(t))
            if len(chosen) == WINDOWS:
                break
        kept[coin] = [
            {"window_end": (data.first_slot + t) * SLOT_S, "inputs": [round(float(v), 3) for v in inputs[c, t]]}
            for t in chosen
        ]
    return kept


def _days(data: Panel, found: np.ndarray) -> list[tuple[int, int]]:
    """Spans of the last 28 whole days with scores."""
    import numpy as np

    spans = data.days() if data.slots else []
    return [s for s in spans if np.isfinite(found[:, slice(*s)]).mean() > LEAST_SHARE][-CALIBRATION_DAYS:]


def _require(days: int, budget: float) -> None:
    if days < LEAST_CALIBRATION_DAYS:
        raise NotEnoughData(
            f"needs {LEAST_CALIBRATION_DAYS - days} more days: {days} of the {LEAST_CALIBRATION_DAYS} days with scores "
            "that a threshold is calibrated on",
            {"days": days, "days_needed": LEAST_CALIBRATION_DAYS},
        )
    if budget < 1 and days < CALIBRATION_DAYS:
        raise NotEnoughData(
            f"needs {CALIBRATION_DAYS - days} more days: a budget of {budget:g} flags a day cannot be calibrated on "
            f"fewer than {CALIBRATION_DAYS} days; or set CRYPTO_ASSETS_ANOMALY_BUDGET=1",
            {"days": days, "days_needed": CALIBRATION_DAYS},
        )
