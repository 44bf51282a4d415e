"""Pictures of a walk-forward, as SVG files.

Belongs here: drawing results. Does not belong here: computing them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets.evaluate.coverage import BASIS_POINTS, LEVEL
from crypto_assets.evaluate.detection import UNION, Detection
from crypto_assets.evaluate.intervals import Forecasts
from crypto_assets.evaluate.tables import BUDGETED, budget_text, days_of, measured
from crypto_assets.evaluate.volatility import PRODUCT, Outlooks
from crypto_assets.ml import faults
from crypto_assets.ml.intervals import winkler
from crypto_assets.ml.panel import SLOT_S, SLOTS_A_DAY, Panel
from crypto_assets.ml.pictures import svg

if TYPE_CHECKING:
    import numpy as np


def draw(
    folder: Path, found: Sequence[Detection], forecasts: Sequence[Forecasts], outlooks: Sequence[Outlooks]
) -> list[Path]:
    """Write all pictures into a folder, which is created.

    Raises:
        OSError: They cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for one in found:
        name = budget_text(one.budget).replace(" ", "_")
        paths.append(_save(folder / f"flags_{name}.svg", _flags, one))
        paths.append(_save(folder / f"recall_{name}.svg", _recall, one))
    for one in forecasts:
        paths.append(_save(folder / f"coverage_{one.horizon}.svg", _coverage, one))
        paths.append(_save(folder / f"winkler_{one.horizon}.svg", _winkler, one))
    for outlook in outlooks:
        paths.append(_save(folder / f"qlike_{outlook.horizon}.svg", _qlike, outlook))
        paths.append(_save(folder / f"volatility_{outlook.horizon}.svg", _volatility, outlook))
    return paths


def _save(path: Path, paint: Callable[[Any, Any], None], one: Any) -> Path:
    path.write_text(svg(lambda figure: paint(figure, one)), encoding="utf-8")
    return path


def _flags(figure: Any, one: Detection) -> None:
    """Flags per coin by day, product's detector and robust z alone, against the budget."""
    axes = figure.subplots()
    days = len(one.served)
    for arm in BUDGETED:
        by_day = one.flags[arm].reshape(len(one.data.coins), days, SLOTS_A_DAY).sum(axis=2).mean(axis=0)
        axes.plot(_dates(one.data.first_slot, days), by_day, label=arm, linewidth=2 if arm == UNION else 1)
    axes.axhline(one.budget, color="black", linestyle=":", label="budget")
    axes.set(title=f"Flags per coin and day, budget {budget_text(one.budget)}", ylabel="flags")
    axes.legend()
    figure.autofmt_xdate()


def _recall(figure: Any, one: Detection) -> None:
    """Share of injected faults found, by kind and detector."""
    import numpy as np

    axes = figure.subplots()
    at = np.arange(len(faults.KINDS))
    for i, arm in enumerate(BUDGETED):
        shares = [100 * one.hits[arm][k].mean() if len(one.hits[arm][k]) else 0.0 for k in faults.KINDS]
        axes.bar(at + (i - 1) * 0.27, shares, 0.27, label=arm)
    axes.set_xticks(at, list(faults.KINDS), rotation=30)
    axes.set(title=f"Injected faults found, budget {budget_text(one.budget)}", ylabel="%", ylim=(0, 100))
    axes.legend()


def _coverage(figure: Any, one: Forecasts) -> None:
    """Coverage by hour of day, and by week, of each version."""
    by_hour, by_week = figure.subplots(1, 2, sharey=True)
    for arm, held in measured(one).items():
        by_hour.plot(range(24), [100 * c for c in held.by_hour], label=arm)
        by_week.plot(range(1, len(held.by_week) + 1), [100 * c for c in held.by_week], marker="o", label=arm)
    for axes, label in ((by_hour, "UTC hour"), (by_week, "week")):
        axes.axhline(100 * LEVEL, color="black", linestyle=":")
        axes.set(xlabel=label)
    by_hour.set(ylabel="%")
    by_hour.legend()
    figure.suptitle(f"Coverage of 90 % intervals, {one.horizon} ahead")


def _winkler(figure: Any, one: Forecasts) -> None:
    """Mean interval score by day of each version."""
    scores = {arm: winkler(i.lower, i.upper, one.outcomes) * BASIS_POINTS for arm, i in one.arms.items()}
    axes = _by_day(figure, one.data, scores)
    axes.set(title=f"Winkler score by day, {one.horizon} ahead (less is better)", ylabel="basis points", yscale="log")


def _qlike(figure: Any, one: Outlooks) -> None:
    """Mean loss of the volatility forecasts by day of each method."""
    axes = _by_day(figure, one.data, one.losses)
    axes.set(title=f"QLIKE of volatility by day, {one.horizon} ahead (less is better)", ylabel="QLIKE", yscale="log")


def _volatility(figure: Any, one: Outlooks) -> None:
    """Volatility of the first coin as forecast at each full hour and as realised."""
    import numpy as np

    axes = figure.subplots()
    ends = (one.data.first_slot + np.arange(one.data.slots)) * SLOT_S
    hourly = ends % 3600 == 0
    moments = ends[hourly].astype("datetime64[s]")
    for name, variance, width in (("realised", one.outcomes, 1), (PRODUCT, one.forecast, 2)):
        axes.plot(moments, 100 * np.sqrt(variance[0, hourly]), label=name, linewidth=width)
    axes.set(title=f"Volatility of {one.data.coins[0]}, {one.horizon} ahead of each full hour", ylabel="%")
    axes.legend()
    figure.autofmt_xdate()


def _by_day(figure: Any, data: Panel, scores: Mapping[str, np.ndarray]) -> Any:
    """Axes with the mean by day of scores, C x T, a line each."""
    import numpy as np

    axes = figure.subplots()
    day = days_of(data)
    numbers = np.unique(day)
    for name, score in scores.items():
        means = [_mean(score[:, day == d]) for d in numbers]
        axes.plot(_dates(data.first_slot, len(numbers)), means, label=name)
    axes.legend()
    figure.autofmt_xdate()
    return axes


def _mean(values: np.ndarray) -> float:
    import numpy as np

    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _dates(first_slot: int, days: int) -> list[Any]:
    """UTC days of whole days of slots."""
    import numpy as np

    return list(np.datetime64(0, "D") + ((first_slot - 1) // SLOTS_A_DAY + np.arange(days)))
