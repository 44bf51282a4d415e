"""Injects faults (spikes, freezes, drifts) into real features, to measure what a detector finds.

A fault moves the price, and every return that includes it is recomputed; the scale comes from the past and stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crypto_assets.ml.panel import Panel

if TYPE_CHECKING:
    import numpy as np

SPACING = 36
"""Slots between injected faults of a coin: three hours, so that none touches the next."""

FREEZE_SLOTS, DRIFT_SLOTS, DRIFT_SIGMA = 12, 24, 0.75
KINDS = ("spike_6", "spike_12", "freeze", "drift")


@dataclass(frozen=True)
class Injected:
    """A panel with faults: start of each (coin index, slot index) and its length in slots."""

    data: Panel
    starts: list[tuple[int, int]]
    lasting: int


def inject(data: Panel, kind: str, seed: int = 42) -> Injected:
    """A copy of the panel with faults of one kind, spread over coins and time.

    Raises:
        ValueError: The kind is unknown.
    """
    import numpy as np

    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no fault; choose one of {', '.join(KINDS)}")
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    offset = np.zeros_like(data["r5"])
    logs = np.log(data["price"])
    starts = []
    lasting = {"freeze": FREEZE_SLOTS, "drift": DRIFT_SLOTS}.get(kind, 1)
    for c in range(len(data.coins)):
        first = 24 + int(rng.integers(0, SPACING))
        for t in range(first, data.slots - lasting - 1, SPACING):
            scale = data["s"][c, t]
            if not np.isfinite(scale) or not np.isfinite(logs[c, t - 12 : t + lasting + 1]).all():
                continue
            sign = 1 if rng.random() < 0.5 else -1
            if kind.startswith("spike"):
                offset[c, t] = sign * float(kind.split("_")[1]) * scale
            elif kind == "drift":
                offset[c, t : t + lasting] = sign * DRIFT_SIGMA * scale * np.arange(1, lasting + 1)
            else:
                offset[c, t : t + lasting] = logs[c, t - 1] - logs[c, t : t + lasting]
            starts.append((c, t))
    return Injected(_recomputed(data, logs + offset), starts, lasting)


def _recomputed(data: Panel, logs: np.ndarray) -> Panel:
    """Recompute returns, volatility and market-relative return from moved log prices; s and the median stay."""
    import numpy as np

    def back(slots: int) -> np.ndarray:
        moved = np.full_like(logs, np.nan)
        moved[:, slots:] = logs[:, slots:] - logs[:, :-slots]
        return moved

    r5 = back(1)
    squares = np.nan_to_num(r5**2)
    sums = np.cumsum(squares, axis=1)
    rv = np.full_like(logs, np.nan)
    rv[:, 12:] = np.sqrt(np.maximum(sums[:, 12:] - sums[:, :-12], 0))
    unknown = np.cumsum(~np.isfinite(r5), axis=1)
    rv[:, 12:][unknown[:, 12:] > unknown[:, :-12]] = np.nan
    market = np.full_like(logs, np.nan)
    for c in range(len(data.coins)):
        others = np.delete(r5, c, axis=0)
        enough = np.isfinite(others).sum(axis=0) >= 2
        if enough.any():
            market[c, enough] = r5[c, enough] - np.nanmedian(others[:, enough], axis=0)
    values = {
        **data.values,
        "price": np.exp(logs),
        "r5": r5,
        "r15": back(3),
        "r1h": back(12),
        "rv1h": rv,
        "rz": (r5 - data["r5_median"]) / data["s"],
        "r5_market": market,
    }
    return replace(data, values=values)


def recall(flags: np.ndarray, injected: Injected) -> float:
    """Share of faults with at least one flag while they last; NaN without faults."""
    if not injected.starts:
        return float("nan")
    found = sum(bool(flags[c, t : t + injected.lasting].any()) for c, t in injected.starts)
    return found / len(injected.starts)
