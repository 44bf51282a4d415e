"""Bars to evaluate on, from a Parquet file or a home: read, checked, and brought to the 5-minute grid.

Belongs here: what a file may look like, and its faults in words. Does not belong here: features of the bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from crypto_assets.engine.base import Engine

SLOT_S = 300
NAMES = {
    "coin": ("coin", "coin_id", "symbol"),
    "time": ("time", "ts", "timestamp", "window_start"),
    **{name: (name,) for name in ("open", "high", "low", "close")},
}
"""Accepted names of each column, in order of preference; `time` is the start of a bar."""

USED = (
    *("coin_id", "window_end", "close", "last_event_at", "expected_count", "sample_count", "volume_24h_usd"),
    *("available_at", "is_closed", "granularity", "is_complete"),
)
"""Columns of `gold.bars_5m` that features are made from."""

EXAMPLES = 3


class BarsRefused(UsageError):
    """The bars cannot be evaluated; the message names every fault and its fix."""


@dataclass(frozen=True)
class Bars:
    """Checked bars.

    Args:
        rows: Columns `USED` of 5-minute bars.
        coins: Coin ids, sorted.
        start: Start of the first bar (UTC).
        end: End of the last bar (UTC).
        notes: What was tolerated, with counts.
    """

    rows: pa.Table
    coins: tuple[str, ...]
    start: datetime
    end: datetime
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class _Columns:
    """Columns of a file as arrays: coin index, start in seconds since 1970, and prices."""

    coins: tuple[str, ...]
    coin: np.ndarray
    at: np.ndarray
    prices: dict[str, np.ndarray]

    def take(self, rows: np.ndarray) -> _Columns:
        """Some rows, in the order given."""
        return _Columns(self.coins, self.coin[rows], self.at[rows], {n: v[rows] for n, v in self.prices.items()})

    def examples(self, rows: np.ndarray) -> str:
        """The first of some rows, by coin and time."""
        text = [f"{self.coins[self.coin[i]]} {_text(int(self.at[i]))}" for i in rows[:EXAMPLES]]
        return ", ".join(text) + (", ..." if len(rows) > EXAMPLES else "")


def of_home(engine: Engine) -> Bars:
    """Bars of a home's `gold.bars_5m`.

    Raises:
        BarsRefused: There are none yet.
    """
    rows = engine.store.read_arrow("gold.bars_5m", columns=list(USED))
    if not rows.num_rows:
        raise BarsRefused("gold.bars_5m of this home has no rows yet: run crypto-assets demo, up or backfill first")
    return _bars(rows)


def of_file(path: Path) -> Bars:
    """Bars of a Parquet file with coin, time and OHLC; times without a zone are UTC.

    Raises:
        BarsRefused: It is no such file, or holds bars that cannot be used; every fault is named.
    """
    found = _read(path)
    notes: list[str] = []
    found = _priced(path, found, notes)
    found = _in_order(path, found, notes)
    width = _width(path, found)
    if width < SLOT_S:
        notes.append(f"bars of {width} s were aggregated to 5 minutes")
    rows = _five_minutes(found, width)
    _count_gaps(rows, found.coins, notes)
    return _bars(rows, tuple(notes))


def _bars(rows: pa.Table, notes: tuple[str, ...] = ()) -> Bars:
    ends = _ends(rows)
    first, last = (datetime.fromtimestamp(int(s), UTC) for s in (ends.min(), ends.max()))
    coins = tuple(sorted(rows.column("coin_id").unique().to_pylist()))
    return Bars(rows, coins, first - timedelta(seconds=SLOT_S), last, notes)


def _ends(rows: pa.Table) -> np.ndarray:
    """Ends of the bars in seconds since 1970."""
    return rows.column("window_end").cast("int64").to_numpy() // 1_000_000


def _read(path: Path) -> _Columns:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise BarsRefused(f"--from {path}: there is no such file; give a Parquet file of bars, or home")
    try:
        schema = pq.read_schema(path)
        names = _names(path, schema.names)
        table = pq.read_table(path, columns=list(names.values()))
    except pa.ArrowInvalid as error:
        raise BarsRefused(f"--from {path}: not a Parquet file ({str(error).splitlines()[0]})") from error
    if not table.num_rows:
        raise BarsRefused(f"--from {path}: it has no rows")
    seconds = _seconds(path, names["time"], table.column(names["time"]))
    problems = []
    coin = table.column(names["coin"])
    if coin.null_count or seconds.null_count:
        problems.append(f"{coin.null_count + seconds.null_count:,} rows have no coin or no time: remove them")
    prices = {}
    for name in ("open", "high", "low", "close"):
        column = table.column(names[name])
        if not (
            pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_decimal(column.type)
        ):
            problems.append(f"{names[name]} is {column.type} and must be a number")
            continue
        prices[name] = column.cast("double").fill_null(float("nan")).to_numpy()
    if problems:
        raise BarsRefused(f"--from {path}: {'; '.join(problems)}")
    coded = coin.cast(pa.string()).combine_chunks().dictionary_encode()
    ids = coded.dictionary.to_pylist()
    order = np.argsort(np.array(ids, dtype=object))
    rank = np.empty(len(ids), dtype=np.int64)
    rank[order] = np.arange(len(ids))
    return _Columns(tuple(sorted(ids)), rank[coded.indices.to_numpy()], seconds.to_numpy(), prices)


def _names(path: Path, present: Sequence[str]) -> dict[str, str]:
    """The file's name of each column; letter case does not matter."""
    lower = {name.lower(): name for name in present}
    found = {wanted: next((lower[n] for n in names if n in lower), None) for wanted, names in NAMES.items()}
    missing = [" or ".join(NAMES[wanted]) for wanted, name in found.items() if name is None]
    if missing:
        raise BarsRefused(
            f"--from {path}: no column named {'; none named '.join(missing)}. It has: {', '.join(present) or 'none'}. "
            "Rename its columns"
        )
    return {wanted: name for wanted, name in found.items() if name is not None}


def _seconds(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    if not pa.types.is_timestamp(column.type):
        raise BarsRefused(
            f"--from {path}: {name} is {column.type} and must be a timestamp, with its zone or in UTC: convert it, as "
            "with pandas.to_datetime(..., utc=True)"
        )
    return column.cast(pa.timestamp("s", column.type.tz), safe=False).cast("int64")


def _priced(path: Path, found: _Columns, notes: list[str]) -> _Columns:
    """Bars with a close; a bar without one is a gap. Refuses prices that cannot be."""
    import numpy as np

    problems = []
    every = np.stack(list(found.prices.values()))
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero((every <= 0).any(axis=0) | np.isinf(every).any(axis=0))
        high, low = found.prices["high"], found.prices["low"]
        wrong = np.flatnonzero((high < low) | (found.prices["close"] > high) | (found.prices["close"] < low))
    if len(bad):
        problems.append(
            f"{len(bad):,} bars have a price that is zero, negative or infinite ({found.examples(bad)}): "
            "correct or remove them"
        )
    if len(wrong):
        problems.append(
            f"{len(wrong):,} bars close outside their low and high ({found.examples(wrong)}): check which columns hold "
            "what, or remove them"
        )
    if problems:
        raise BarsRefused(f"--from {path}: {'; '.join(problems)}")
    missing = np.isnan(found.prices["close"])
    if missing.all():
        raise BarsRefused(f"--from {path}: no bar has a close")
    if missing.any():
        notes.append(f"{int(missing.sum()):,} bars without a close count as gaps")
        return found.take(np.flatnonzero(~missing))
    return found


def _in_order(path: Path, found: _Columns, notes: list[str]) -> _Columns:
    """By coin and time, each bar once; equal repetitions are dropped, contradicting ones refused."""
    import numpy as np

    order = np.lexsort((found.at, found.coin))
    later = np.diff(found.at) < 0
    unsorted = int((later & (np.diff(found.coin) == 0)).sum())
    if unsorted:
        notes.append(f"{unsorted:,} rows came after a later one of their coin and were sorted")
    found = found.take(order)
    again = np.flatnonzero((np.diff(found.at) == 0) & (np.diff(found.coin) == 0)) + 1
    if not len(again):
        return found
    differs = np.zeros(len(again), dtype=bool)
    for values in found.prices.values():
        differs |= values[again] != values[again - 1]
    if differs.any():
        raise BarsRefused(
            f"--from {path}: {int(differs.sum()):,} bars are given more than once with different prices "
            f"({found.examples(again[differs])}): keep one row per coin and time"
        )
    notes.append(f"{len(again):,} repeated rows were dropped")
    return found.take(np.setdiff1d(np.arange(len(found.at)), again))


def _width(path: Path, found: _Columns) -> int:
    """Length of a bar in seconds: the most frequent distance of a coin's bars."""
    import numpy as np

    steps = np.diff(found.at)[np.diff(found.coin) == 0]
    if not len(steps):
        raise BarsRefused(f"--from {path}: no coin has two bars")
    lengths, counts = np.unique(steps, return_counts=True)
    width = int(lengths[counts.argmax()])
    if width > SLOT_S:
        raise BarsRefused(f"--from {path}: its bars are {width / 60:g} minutes long; the models need 5 minutes or less")
    if SLOT_S % width:
        raise BarsRefused(f"--from {path}: its bars are {width} s long, which does not divide 5 minutes")
    off = np.flatnonzero(found.at % width)
    if len(off):
        raise BarsRefused(
            f"--from {path}: {len(off):,} bars do not begin at a multiple of their {width} s ({found.examples(off)}): "
            "the time column must be the start of each bar, in UTC"
        )
    return width


def _five_minutes(found: _Columns, width: int) -> pa.Table:
    """Columns `USED`, one row a slot; a bar is known at its end, and its close holds until the product's own limit."""
    import numpy as np
    import pyarrow as pa

    slot = found.at // SLOT_S
    last = np.append((np.diff(slot) != 0) | (np.diff(found.coin) != 0), True)
    at = np.flatnonzero(last)
    counts = np.diff(np.append(-1, at))
    expected = SLOT_S // width
    rows = len(at)

    def times(seconds: np.ndarray) -> pa.Array:
        return pa.array(seconds * 1_000_000, pa.int64()).cast(pa.timestamp("us", "UTC"))

    known: dict[str, Any] = {
        "coin_id": pa.DictionaryArray.from_arrays(found.coin[at], list(found.coins)).cast(pa.string()),
        "window_end": times((slot[at] + 1) * SLOT_S),
        "close": pa.array(found.prices["close"][at]),
        "last_event_at": times(found.at[at] + width),
        "expected_count": pa.array(np.full(rows, expected)),
        "sample_count": pa.array(counts),
        "volume_24h_usd": pa.nulls(rows, pa.float64()),
        "available_at": times((slot[at] + 1) * SLOT_S),
        "is_closed": pa.array(np.full(rows, True)),
        "granularity": pa.array(["tick"] * rows),
        "is_complete": pa.array(counts >= 0.8 * expected),
    }
    return pa.table(known)


def _count_gaps(rows: pa.Table, coins: Sequence[str], notes: list[str]) -> None:
    import numpy as np

    ends = _ends(rows) // SLOT_S
    ids = np.array(rows.column("coin_id").to_pylist(), dtype=object)
    missing, longest = {}, 0
    span = int(ends.max() - ends.min()) + 1
    for coin in coins:
        mine = ends[ids == coin]
        if len(mine) < span:
            missing[coin] = span - len(mine)
            longest = max(longest, int(np.diff(mine).max(initial=1)) - 1)
    if missing:
        text = ", ".join(f"{coin} {count:,}" for coin, count in missing.items())
        within = f"; longest gap {longest * 5} minutes" if longest else ""
        notes.append(f"missing 5-minute bars: {text}{within}")


def _text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
