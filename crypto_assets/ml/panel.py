"""Feature rows as dense coins x slots arrays, on which models compute.

Belongs here: pivoting, and the inputs derived from features. Does not belong here: any model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SLOT_S = 300
SLOTS_A_DAY = 288
FIELDS = (
    *("price", "r5", "r15", "r1h", "r5_median", "s", "rz", "rv1h", "rv15m", "rv4h", "rv24h"),
    *("r5_market", "s_market", "rz_common", "common_activity", "unchanged_slots", "rsi14", "macd_hist", "bollinger_b"),
)
ANOMALY_INPUTS = ("rz", "r15", "r1h", "rv1h", "r5_market")


@dataclass(frozen=True)
class Panel:
    """Features of C coins at T consecutive slots.

    Args:
        coins: C coin ids, sorted.
        first_slot: Number of the first slot's end since 1970 in 5-minute slots.
        values: By field, C x T doubles; NaN = null or no row.
    """

    coins: tuple[str, ...]
    first_slot: int
    values: dict[str, np.ndarray]

    @property
    def slots(self) -> int:
        """T."""
        return self.values["r5"].shape[1]

    def __getitem__(self, field: str) -> np.ndarray:
        return self.values[field]

    def cut(self, start: int, end: int) -> Panel:
        """Slots [start, end) by index."""
        start, end = max(0, start), min(self.slots, end)
        return replace(
            self, first_slot=self.first_slot + start, values={k: v[:, start:end] for k, v in self.values.items()}
        )

    def days(self) -> list[tuple[int, int]]:
        """Index spans of whole UTC days, counted from the end; a shorter first piece is left out."""
        spans = []
        end = self.slots
        while end - SLOTS_A_DAY >= 0:
            spans.insert(0, (end - SLOTS_A_DAY, end))
            end -= SLOTS_A_DAY
        return spans


def slot_of(moment: datetime) -> int:
    """Number of a slot by its end."""
    return int(moment.timestamp()) // SLOT_S


def panel(rows: pa.Table, end: datetime, *, known_at: datetime | None = None) -> Panel:
    """Pivot feature rows up to a time.

    Args:
        rows: Rows of `features.price_features`, any order; the panel has those of `FIELDS` that they have.
        end: Rows whose window_end is later are left out (UTC).
        known_at: Rows whose available_at is later are left out too: the cut-off of a training. None for scoring, where
            the newest row becomes available only after its slot.

    Returns:
        A panel whose last slot ends at `end`; empty (T = 0) when no row is left.
    """
    import numpy as np

    ends = rows.column("window_end").cast("int64").to_numpy() // 1_000_000
    available = rows.column("available_at").cast("int64").fill_null(0).to_numpy() / 1_000_000
    known = ends <= end.timestamp()
    fields = [f for f in FIELDS if f in rows.column_names]
    if known_at is not None:
        known &= available <= known_at.timestamp()
    slots = (ends // SLOT_S)[known]
    if not len(slots):
        return Panel((), slot_of(end), {f: np.empty((0, 0)) for f in fields})
    first, last = int(slots.min()), slot_of(end)
    coded = rows.column("coin_id").filter(known).dictionary_encode().combine_chunks()
    names = coded.dictionary.to_pylist()
    coins = tuple(sorted(names))
    row = np.array([coins.index(name) for name in names])[coded.indices.to_numpy()]
    values = {}
    for field in fields:
        grid = np.full((len(coins), last - first + 1), np.nan)
        column = rows.column(field).cast("double").fill_null(float("nan")).to_numpy()[known]
        grid[row, slots - first] = column
        values[field] = grid
    return Panel(coins, first, values)


def anomaly_inputs(data: Panel) -> np.ndarray:
    """C x T x 5 inputs in units of the coin's own sigma; NaN where any part is null.

    They are rz, r15/(s sqrt 3), r1h/(s sqrt 12), ln(rv1h/s) and r5_market/s.
    """
    import numpy as np

    s = data["s"]
    with np.errstate(divide="ignore", invalid="ignore"):
        volatility = np.log(np.maximum(data["rv1h"], 1e-9) / s)
    parts = [
        data["rz"],
        data["r15"] / (s * np.sqrt(3)),
        data["r1h"] / (s * np.sqrt(12)),
        volatility,
        data["r5_market"] / s,
    ]
    return np.stack(parts, axis=-1)


def usable(inputs: np.ndarray) -> np.ndarray:
    """C x T mask of slots whose inputs are all finite."""
    import numpy as np

    return np.asarray(np.isfinite(inputs).all(axis=-1))
