"""Features of bars as a panel, by the product's own transform on an engine, a few days at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from crypto_assets.contracts.slices import DAY, Slice
from crypto_assets.evaluate.bars import SLOT_S, Bars
from crypto_assets.market.coins import Coin, CoinRegistry
from crypto_assets.ml.panel import FIELDS, Panel, panel
from crypto_assets.transforms.features import LOOK_BACK, features

if TYPE_CHECKING:
    import pyarrow as pa

    from crypto_assets.engine.base import Engine

CHUNK_DAYS = 4
"""Days per query: the kernels of more would need more memory, of fewer more time."""

COLUMNS = ("coin_id", "window_end", "available_at", *FIELDS)


def chunks(start: datetime, end: datetime) -> list[Slice]:
    """Slices of whole days that cover [start, end)."""
    found = []
    while start < end:
        found.append(Slice(start, min(start + CHUNK_DAYS * DAY, end)))
        start += CHUNK_DAYS * DAY
    return found


def panel_of(
    engine: Engine, bars: Bars, start: datetime, end: datetime, advance: Callable[[int], object] = lambda _n: None
) -> Panel:
    """Features of the slots in [start, end).

    Args:
        engine: Engine that computes them.
        bars: The bars; what precedes `start` by 26 hours enters.
        start: A UTC midnight.
        end: A later one.
        advance: Called with the number of days after each query.

    Returns:
        A panel whose last slot ends at `end`; every coin has every slot, NaN where nothing is known.
    """
    import pyarrow as pa

    coins = CoinRegistry(Coin(coin, coin, coin) for coin in bars.coins)
    tables = []
    for slice_ in chunks(start, end):
        rows = _between(bars.rows, slice_.start - LOOK_BACK, slice_.end)
        frame = features(engine.frame(rows), slice_, coins, end + DAY)
        tables.append(frame.select(*COLUMNS).toArrow())
        advance((slice_.end - slice_.start) // DAY)
    return panel(pa.concat_tables(tables), end)


def _between(rows: pa.Table, start: datetime, end: datetime) -> pa.Table:
    """Bars whose window starts in [start, end)."""
    import pyarrow as pa

    starts = rows.column("window_end").cast("int64").to_numpy() // 1_000_000 - SLOT_S
    return rows.filter(pa.array((start.timestamp() <= starts) & (starts < end.timestamp())))
