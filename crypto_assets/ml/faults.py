"""Injects faults (spikes, drops, freezes, drifts, market-wide moves) into real features, to measure what is found.

A fault moves prices; every feature that a detector reads is recomputed from them, except the scales `s`, `s_market` and
`common_activity`, and the median, which stay those of the clean data. They come from the slots before a row, so for a
fault's first slot that is exact; within a lasting fault, and after one, they would contain its earlier slots. Keeping
them means that each fault is judged as the only one. Features that no detector reads are left out rather than kept
stale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crypto_assets.ml.panel import SLOTS_A_DAY, Panel

if TYPE_CHECKING:
    import numpy as np

SPACING = 48
"""Slots between injected faults of a coin: four hours, so that none touches the next."""

LEAST_COINS = 3
"""Coins with a return from which they have a common move."""

LONGEST_RUN = 288
"""Length at which `unchanged_slots` is cut."""


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Args:
        slots: How many slots it lasts; the price returns afterwards.
        sigma: Move by slot in the coin's own scale `s`; 0 = the price stays that of the slot before.
        falls: Whether it always falls; else up or down at random.
        everywhere: Whether all coins move at once, each by its own scale; else one coin at a time.
    """

    slots: int
    sigma: float
    falls: bool = False
    everywhere: bool = False


KINDS = {
    "spike_3": Fault(1, 3.0),
    "spike_6": Fault(1, 6.0),
    "spike_12": Fault(1, 12.0),
    # A fall of 7.5 sigma within 15 minutes: too slow for one slot to stand out.
    "drop": Fault(3, 2.5, falls=True),
    "freeze_12": Fault(12, 0.0),
    "freeze_36": Fault(36, 0.0),
    "drift": Fault(24, 0.75),
    "market_6": Fault(1, 6.0, everywhere=True),
    "market": Fault(1, 12.0, everywhere=True),
}
"""Faults by name. `market` has the size of a crash's bars, `market_6` that of a spike of 6 sigma in one coin."""


@dataclass(frozen=True)
class Injected:
    """A panel with faults: start of each (coin index, slot index) and its length in slots."""

    data: Panel
    starts: list[tuple[int, int]]
    lasting: int

    @property
    def day(self) -> np.ndarray:
        """UTC day of each fault's start, in days since 1970."""
        import numpy as np

        return np.array([(self.data.first_slot + t - 1) // SLOTS_A_DAY for _, t in self.starts], dtype=np.int64)


def inject(data: Panel, kind: str, seed: int = 42) -> Injected:
    """A copy of the panel with faults of one kind, spread over coins and time.

    Raises:
        ValueError: The kind is unknown.
    """
    import numpy as np

    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no fault; choose one of {', '.join(KINDS)}")
    fault = KINDS[kind]
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    price, known = data["price"].copy(), np.isfinite(data["price"])
    coins = [list(range(len(data.coins)))] if fault.everywhere else [[c] for c in range(len(data.coins))]
    starts = []
    for together in coins:
        first = 24 + int(rng.integers(0, SPACING))
        for t in range(first, data.slots - fault.slots - 1, SPACING):
            sign = -1.0 if fault.falls or rng.random() < 0.5 else 1.0
            for c in together:
                scale = data["s"][c, t]
                if not np.isfinite(scale) or not known[c, t - 12 : t + fault.slots + 1].all():
                    continue
                span = slice(t, t + fault.slots)
                if fault.sigma:
                    price[c, span] *= np.exp(sign * fault.sigma * scale * np.arange(1, fault.slots + 1))
                else:
                    price[c, span] = price[c, t - 1]
                starts.append((c, t))
    return Injected(_recomputed(data, price), starts, fault.slots)


def _recomputed(data: Panel, price: np.ndarray) -> Panel:
    """A panel with moved prices and what detectors read of them; scales and the median stay."""
    import numpy as np

    logs = np.log(price)

    def back(slots: int) -> np.ndarray:
        moved = np.full_like(logs, np.nan)
        moved[:, slots:] = logs[:, slots:] - logs[:, :-slots]
        return moved

    r5 = back(1)
    sums = np.cumsum(np.nan_to_num(r5**2), axis=1)
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
    values = {name: data[name] for name in ("r5_median", "s", "s_market", "common_activity") if name in data.values}
    if "unchanged_slots" in data.values:
        values["unchanged_slots"] = _runs(price, data["unchanged_slots"][:, 0])
    rz = (r5 - data["r5_median"]) / data["s"]
    together = np.isfinite(rz).sum(axis=0) >= LEAST_COINS
    common = np.full_like(logs, np.nan)
    common[:, together] = np.where(np.isfinite(rz[:, together]), np.nanmedian(rz[:, together], axis=0), np.nan)
    values |= {
        "price": price,
        "r5": r5,
        "r15": back(3),
        "r1h": back(12),
        "rv1h": rv,
        "rz": rz,
        "rz_common": common,
        "r5_market": market,
    }
    return replace(data, values=values)


def _runs(price: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Slots up to each with the same price, C x T, 0 without a price; `first` are those of the first slot."""
    import numpy as np

    at = np.arange(price.shape[1])
    same = np.zeros(price.shape, dtype=bool)
    same[:, 1:] = price[:, 1:] == price[:, :-1]
    began = np.where(same, -LONGEST_RUN, at[None, :])
    began[:, 0] = 1 - np.nan_to_num(first)
    runs = np.minimum(at - np.maximum.accumulate(began, axis=1) + 1, LONGEST_RUN).astype(float)
    runs[~np.isfinite(price)] = 0
    return runs


def hits(flags: np.ndarray, injected: Injected) -> np.ndarray:
    """By fault, 1.0 if there is a flag while it lasts, else 0.0."""
    import numpy as np

    return np.array([float(flags[c, t : t + injected.lasting].any()) for c, t in injected.starts])


def recall(flags: np.ndarray, injected: Injected) -> float:
    """Share of faults with at least one flag while they last; NaN without faults."""
    return float(hits(flags, injected).mean()) if injected.starts else float("nan")
