"""Walk-forward of the anomaly detectors: what each flags on real days, and finds of faults injected into them.

Each day is scored by a detector trained on what was known before it. Besides the product's detector, two of its scores
are measured alone, each at the whole budget with thresholds at the plain quantile of its last 28 days.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crypto_assets.assets.anomaly_model import DAYS
from crypto_assets.engine.base import NotEnoughData
from crypto_assets.ml import anomaly, detectors, faults
from crypto_assets.ml.faults import Injected
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel

if TYPE_CHECKING:
    import numpy as np

ROBUST_Z, MARKET, UNION, FROZEN = "robust z", "market", "union", "frozen"
ALONE = {ROBUST_Z: "robust_z", MARKET: "market"}
"""Arms that are one score alone, and that score's name in `Detector.scores`."""


@dataclass(frozen=True)
class Detection:
    """What was flagged and found at one budget.

    Args:
        budget: Flags wanted per coin and day.
        data: The evaluated slots, D whole days.
        served: By day, whether a detector could be trained for it; other days count nowhere.
        missing: Why the others have none; empty if there are none.
        flags: By arm, C x T; those of `frozen` are outside the budget.
        hits: By arm and kind of fault, 1.0 for each fault found, else 0.0.
        fault_days: By kind, the UTC day of each fault.
    """

    budget: float
    data: Panel
    served: np.ndarray
    missing: str
    flags: dict[str, np.ndarray]
    hits: dict[str, dict[str, np.ndarray]]
    fault_days: dict[str, np.ndarray]


def injected(data: Panel, start: int) -> dict[str, Injected]:
    """The panel from index `start` on, with faults, by kind; the slots before it only give the returns."""
    before = min(start, SLOTS_A_DAY)
    found = {}
    for kind in faults.KINDS:
        hurt = faults.inject(data.cut(start - before, data.slots), kind)
        inside = [(c, t - before) for c, t in hurt.starts if t >= before]
        found[kind] = replace(hurt, data=hurt.data.cut(before, hurt.data.slots), starts=inside)
    return found


def walk(
    data: Panel,
    start: int,
    budget: float,
    hurt: dict[str, Injected],
    advance: Callable[[int], object] = lambda _n: None,
) -> Detection:
    """Train for each day from index `start` on, and score that day, as it was and with faults.

    Args:
        data: Features; from `start` on whole days.
        start: Index of the first evaluated slot.
        budget: Flags wanted per coin and day.
        hurt: The evaluated slots with faults, see `injected`.
        advance: Called with 1 after each day.

    Raises:
        NotEnoughData: No day has enough data before it; says what the last one lacks.
    """
    import numpy as np

    days = (data.slots - start) // SLOTS_A_DAY
    real = data.cut(start, data.slots)
    panels = {"": real, **{kind: h.data for kind, h in hurt.items()}}
    arms = {name: {p: np.zeros(v["price"].shape, dtype=bool) for p, v in panels.items()} for name in (UNION, FROZEN)}
    served, missing = np.zeros(days, dtype=bool), NotEnoughData("")
    for day in range(days):
        cutoff = start + day * SLOTS_A_DAY
        try:
            detector = anomaly.calibrate(data.cut(cutoff - DAYS * SLOTS_A_DAY, cutoff), budget)
        except NotEnoughData as error:
            missing = error
            advance(1)
            continue
        served[day] = True
        span = slice(day * SLOTS_A_DAY, (day + 1) * SLOTS_A_DAY)
        for name, panel in panels.items():
            of_day = panel.cut(span.start, span.stop)
            arms[UNION][name][:, span] = detector.flags(of_day)
            arms[FROZEN][name][:, span] = detector.frozen(of_day)
        advance(1)
    if not served.any():
        raise missing
    arms |= _alone(data, start, budget, panels)
    counted = np.repeat(served, SLOTS_A_DAY)
    kept = {k: np.array([counted[t] for _, t in h.starts], dtype=bool) for k, h in hurt.items()}
    return Detection(
        budget,
        real,
        served,
        str(missing) if not served.all() else "",
        {arm: flags[""] & counted for arm, flags in arms.items()},
        {arm: {k: faults.hits(flags[k], h)[kept[k]] for k, h in hurt.items()} for arm, flags in arms.items()},
        {k: h.day[kept[k]] for k, h in hurt.items()},
    )


def _alone(data: Panel, start: int, budget: float, panels: dict[str, Panel]) -> dict[str, dict[str, np.ndarray]]:
    """Flags of each score alone, above the quantile 1 - budget/288 of each coin's last 28 days of that score."""
    import numpy as np

    arms = {}
    for arm, name in ALONE.items():
        past = detectors.scores(data)[name]
        limits = np.full((len(data.coins), data.slots - start), np.inf)
        for day in range((data.slots - start) // SLOTS_A_DAY):
            end = start + day * SLOTS_A_DAY
            trail = past[:, max(0, end - detectors.CALIBRATION_DAYS * SLOTS_A_DAY) : end]
            known = np.isfinite(trail).any(axis=1)
            level = np.nanquantile(trail[known], 1 - budget / SLOTS_A_DAY, axis=1)
            limits[known, day * SLOTS_A_DAY : (day + 1) * SLOTS_A_DAY] = level[:, None]
        arms[arm] = {
            panel_name: np.nan_to_num(detectors.scores(panel)[name], nan=-np.inf) > limits
            for panel_name, panel in panels.items()
        }
    return arms
