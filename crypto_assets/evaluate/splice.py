"""A crash spliced into real bars: the worst recorded hour, its returns five-fold, into the middle evaluated day.

Belongs here: the spliced features, and how detectors, intervals and scales come through. Does not belong here: the
walk-forward itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.slices import DAY
from crypto_assets.evaluate import detection, intervals, volatility
from crypto_assets.evaluate.bars import SLOT_S, Bars
from crypto_assets.evaluate.detection import Detection
from crypto_assets.evaluate.features import panel_of
from crypto_assets.evaluate.intervals import Forecasts
from crypto_assets.evaluate.tables import BUDGETED, Table, budget_text
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel

if TYPE_CHECKING:
    import numpy as np

    from crypto_assets.engine.base import Engine

HOUR_SLOTS, TIMES, AT_HOUR = 12, 5.0, 12
AFTER_SLOTS = 36
"""Three hours after the crash."""

FOLLOWED_DAYS = 5
"""Days that are scored with the crash and without it, its own the first."""

RECOVERED = 1.25
"""Ratio to the same data without the crash from which a scale or width counts as recovered."""

PROBE = "spike_6"


@dataclass(frozen=True)
class Spliced:
    """Features with the crash, and where it lies.

    Args:
        data: The whole panel.
        first: Index of the crash's first slot.
        recorded_at: Start of the hour that was copied (UTC).
        returns: The five-fold hour's log return by coin.
    """

    data: Panel
    first: int
    recorded_at: datetime
    returns: np.ndarray


def splice(engine: Engine, bars: Bars, data: Panel, start: int) -> Spliced:
    """Splice the crash into the day that begins at index `start`, at 12:00 UTC.

    Args:
        engine: Engine that computes the features.
        bars: The bars behind `data`.
        data: Features without the crash.
        start: Index of the first slot of a UTC day; at least two days follow.
    """
    import numpy as np

    worst = _worst(data)
    first = start + AT_HOUR * HOUR_SLOTS
    copied = np.nan_to_num(data["r5"][:, worst : worst + HOUR_SLOTS]) * TIMES
    own = np.nan_to_num(data["r5"][:, first : first + HOUR_SLOTS])
    shift = np.zeros((len(data.coins), data.slots))
    shift[:, first : first + HOUR_SLOTS] = np.cumsum(copied - own, axis=1)
    shift[:, first + HOUR_SLOTS :] = shift[:, [first + HOUR_SLOTS - 1]]
    begin = _moment(data, start) - timedelta(seconds=SLOT_S)
    # Beyond two days only the level of prices differs: no feature looks back further than 26 hours.
    crashed = panel_of(engine, _shifted(bars, data, shift), begin, begin + 2 * DAY)
    values = {name: rows.copy() for name, rows in data.values.items()}
    values["price"] *= np.exp(shift)
    for name, rows in crashed.values.items():
        values[name][:, start : start + crashed.slots] = rows
    return Spliced(
        replace(data, values=values),
        first,
        _moment(data, worst) - timedelta(seconds=SLOT_S),
        copied.sum(axis=1),
    )


def _moment(data: Panel, index: int) -> datetime:
    """End of a slot by its index."""
    return datetime.fromtimestamp((data.first_slot + index) * SLOT_S, UTC)


def _worst(data: Panel) -> int:
    """Index of the first slot of the hour with the greatest variance, in each coin's usual one, summed over coins."""
    import numpy as np

    squares = np.nan_to_num(data["r5"]) ** 2
    squares /= np.nanmedian(data["s"], axis=1, keepdims=True) ** 2
    sums = np.cumsum(squares.sum(axis=0))
    return int((sums[HOUR_SLOTS:] - sums[:-HOUR_SLOTS]).argmax()) + 1


def _shifted(bars: Bars, data: Panel, shift: np.ndarray) -> Bars:
    """Bars whose log closes are moved by coin and slot."""
    import numpy as np
    import pyarrow as pa

    ends = bars.rows.column("window_end").cast("int64").to_numpy() // 1_000_000 // SLOT_S
    index = {c: i for i, c in enumerate(data.coins)}
    coin = np.array([index[c] for c in bars.rows.column("coin_id").to_pylist()])
    at = ends - data.first_slot
    moved = np.where((at >= 0) & (at < data.slots), shift[coin, np.clip(at, 0, data.slots - 1)], 0.0)
    close = bars.rows.column("close").cast("double").to_numpy() * np.exp(moved)
    place = bars.rows.schema.get_field_index("close")
    return replace(bars, rows=bars.rows.set_column(place, "close", pa.array(close)))


def run(
    engine: Engine,
    bars: Bars,
    data: Panel,
    days: tuple[int, int],
    budgets: Sequence[float],
    horizons: dict[str, int],
    outlook: dict[str, int],
    advance: Callable[[int], object] = lambda _n: None,
) -> list[Table]:
    """Measure detectors, intervals, scales and volatility forecasts through the crash.

    Args:
        engine: Engine that computes the features.
        bars: The bars behind `data`.
        data: Features without the crash.
        days: Index of the first evaluated slot, and after the last; at least three days.
        budgets: Flags wanted per coin and day.
        horizons: Slots by horizon of price forecasts.
        outlook: Slots by horizon of volatility forecasts.
        advance: Called with 1 after each day that was scored.
    """
    whole = (days[1] - days[0]) // SLOTS_A_DAY
    middle = days[0] + whole // 2 * SLOTS_A_DAY
    end = min(days[1], middle + FOLLOWED_DAYS * SLOTS_A_DAY)
    crashed = splice(engine, bars, data, middle)
    panels = {"crash": crashed.data, "recorded": data}
    tables = [_about(crashed, data)]
    hurt = {name: detection.injected(panel.cut(0, end), middle) for name, panel in panels.items()}
    for budget in budgets:
        found = {
            name: detection.walk(panel.cut(0, end), middle, budget, hurt[name], advance)
            for name, panel in panels.items()
        }
        tables += _detected(found, crashed.first - middle, budget)
    forecasts = {
        name: [intervals.walk(panel, middle, end, h, slots, advance) for h, slots in horizons.items()]
        for name, panel in panels.items()
    }
    tables.append(_covered(forecasts["crash"], crashed.first - middle))
    tables.append(_recovery(forecasts, panels, crashed.first, middle, end))
    outlooks = {
        name: [volatility.walk(panel, middle, end, h, slots, advance) for h, slots in outlook.items()]
        for name, panel in panels.items()
    }
    if outlook:
        first = crashed.first - middle + HOUR_SLOTS
        tables.append(volatility.after_crash(outlooks["crash"], outlooks["recorded"], first))
    return tables


def scored_days(days: tuple[int, int], budgets: int, horizons: int) -> int:
    """How often `run` calls `advance`."""
    whole = (days[1] - days[0]) // SLOTS_A_DAY
    return 2 * (budgets + horizons) * min(FOLLOWED_DAYS, whole - whole // 2)


def _about(crashed: Spliced, data: Panel) -> Table:
    import numpy as np

    return Table(
        "The spliced crash",
        [
            {
                "copied from": f"{crashed.recorded_at:%Y-%m-%d %H:%M}",
                "to": f"{_moment(data, crashed.first) - timedelta(seconds=SLOT_S):%Y-%m-%d %H:%M}",
                "median return, %": float(np.expm1(np.median(crashed.returns))) * 100,
                "worst, %": float(np.expm1(crashed.returns.min())) * 100,
            }
        ],
    )


def _detected(found: dict[str, Detection], first: int, budget: float) -> list[Table]:
    """Flagged share of the crash's bars, and by day from its own on flags and found spikes, with and without it."""
    import numpy as np

    hour = slice(first, first + HOUR_SLOTS)
    crash, recorded = found["crash"], found["recorded"]
    numbers = np.unique(crash.fault_days[PROBE])
    rows, bars = [], []
    for arm in BUDGETED:
        bars.append({"detector": arm, "crash bars flagged, %": float(crash.flags[arm][:, hour].mean()) * 100})
        for day, number in enumerate(numbers):
            row: dict[str, Any] = {"detector": arm, "days after": day}
            of_day = slice(day * SLOTS_A_DAY, (day + 1) * SLOTS_A_DAY)
            for name, one in (("", crash), (" without it", recorded)):
                row[f"flags per coin{name}"] = float(one.flags[arm][:, of_day].sum()) / len(one.data.coins)
            for name, one in (("", crash), (" without it", recorded)):
                share = float(one.hits[arm][PROBE][one.fault_days[PROBE] == number].mean())
                row[f"{PROBE} found{name}, %"] = share * 100
            rows.append(row)
    text = budget_text(budget)
    return [Table(f"The crash at {text}", bars), Table(f"After the crash at {text}", rows)]


def _covered(crash: Sequence[Forecasts], first: int) -> Table:
    """Coverage of forecasts made in the crash, and in the three hours after it."""
    import numpy as np

    spans = {"in its hour, %": (first, HOUR_SLOTS), "in the 3 hours after, %": (first + HOUR_SLOTS, AFTER_SLOTS)}
    rows = []
    for one in crash:
        for arm, i in one.arms.items():
            inside = (i.lower <= one.outcomes) & (one.outcomes <= i.upper)
            known = np.isfinite(one.outcomes) & np.isfinite(i.lower)
            shares = {}
            for name, (begin, slots) in spans.items():
                span = slice(begin, begin + slots)
                shares[name] = float(inside[:, span].sum()) / max(1, int(known[:, span].sum())) * 100
            rows.append({"horizon": one.horizon, "version": arm, **shares})
    return Table("Coverage through the crash", rows)


def _recovery(
    forecasts: dict[str, list[Forecasts]], panels: dict[str, Panel], first: int, middle: int, end: int
) -> Table:
    """Hours after the crash from which a width or scale stays under 1.25 times that without it, median over coins."""
    import numpy as np

    after = first + HOUR_SLOTS
    series = {
        name: panels["crash"][name][:, after:end] / panels["recorded"][name][:, after:end]
        for name in ("s", "s_market", "rv1h")
    }
    for crash, recorded in zip(forecasts["crash"], forecasts["recorded"], strict=True):
        for arm in crash.arms:
            one, other = crash.arms[arm], recorded.arms[arm]
            ratio = (one.upper - one.lower) / (other.upper - other.lower)
            series[f"width {crash.horizon}, {arm}"] = ratio[:, after - middle :]
    rows = []
    for name, ratio in series.items():
        middle_ratio = np.nanmedian(ratio, axis=0)
        above = np.flatnonzero(middle_ratio > RECOVERED)
        hours = 0.0 if not len(above) else (int(above[-1]) + 1) / HOUR_SLOTS
        rows.append(
            {
                "quantity": name,
                "highest ratio": float(middle_ratio.max()),
                "hours until it stays under 1.25": hours if not len(above) or above[-1] + 1 < ratio.shape[1] else None,
                "ratio after 24 h": float(middle_ratio[24 * HOUR_SLOTS]) if ratio.shape[1] > 24 * HOUR_SLOTS else None,
                "ratio after 48 h": float(middle_ratio[48 * HOUR_SLOTS]) if ratio.shape[1] > 48 * HOUR_SLOTS else None,
            }
        )
    return Table("Recovery: ratio to the same data without the crash, median over coins", rows)
