"""`evaluate`: the models' walk-forward on a file of bars or a home, as tables, JSON and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets.cli import output
from crypto_assets.contracts.slices import DAY, floor_day
from crypto_assets.engine.base import Engine, NotEnoughData
from crypto_assets.engine.engines import make_engine
from crypto_assets.engine.sail import SailEngine
from crypto_assets.errors import UsageError
from crypto_assets.evaluate import bars as reading
from crypto_assets.evaluate import detection, features, intervals, pictures, splice, tables, volatility
from crypto_assets.evaluate.bars import Bars, BarsRefused
from crypto_assets.home import existing_home
from crypto_assets.ml.baselines import HORIZONS, VOLATILITY_HORIZONS
from crypto_assets.ml.panel import SLOTS_A_DAY, slot_of
from crypto_assets.orchestration.backfill import parse_days
from crypto_assets.settings import Settings

if TYPE_CHECKING:
    from crypto_assets.evaluate.detection import Detection
    from crypto_assets.evaluate.intervals import Forecasts
    from crypto_assets.evaluate.tables import Table
    from crypto_assets.evaluate.volatility import Outlooks
    from crypto_assets.ml.panel import Panel

HOME = "home"
BUDGETS = ("1", "1/7")
LEAST_SPLICE_DAYS = 3
LOOK_BACK = max(detection.DAYS, intervals.DAYS + intervals.LOOK_BACK_DAYS, volatility.DAYS) * DAY
"""Days before the first evaluated one whose features are computed."""


@dataclass(frozen=True)
class Request:
    """What to evaluate.

    Args:
        first: First day.
        last: Last day, included.
        budgets: Flags wanted per coin and day.
        horizons: Slots by horizon of price forecasts.
        outlook: Slots by horizon of volatility forecasts.
        splice: Whether a crash is spliced in too.
        plot: Folder of pictures; None = no pictures.
    """

    first: date
    last: date
    budgets: tuple[float, ...]
    horizons: dict[str, int]
    outlook: dict[str, int]
    splice: bool
    plot: Path | None

    @classmethod
    def of(
        cls, days: str, budgets: Sequence[str], horizons: Sequence[str], plot: Path | None, *, splice: bool
    ) -> Request:
        """From options.

        Raises:
            UsageError: One cannot be read; it is named.
        """
        first, last = parse_days(days)
        if last < first:
            raise UsageError(f"--days {days}: the last day lies before the first")
        if splice and (last - first).days + 1 < LEAST_SPLICE_DAYS:
            raise UsageError(
                f"--splice needs at least {LEAST_SPLICE_DAYS} days, so that the crash has days to recover from"
            )
        known = {**HORIZONS, **VOLATILITY_HORIZONS}
        if unknown := [h for h in horizons if h not in known]:
            raise UsageError(f"--horizon {', '.join(unknown)}: choose {' or '.join(known)}")
        chosen, outlook = (
            {h: s for h, s in of.items() if not horizons or h in horizons} for of in (HORIZONS, VOLATILITY_HORIZONS)
        )
        return cls(first, last, tuple(_budget(b) for b in budgets or BUDGETS), chosen, outlook, splice, plot)


def _budget(text: str) -> float:
    try:
        value = float(Fraction(text))
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"--budget {text}: give flags per coin and day, as 1 or 1/7") from error
    if not 0 < value < SLOTS_A_DAY / 2 or not math.isfinite(value):
        raise UsageError(f"--budget {text}: it must lie between 0 and {SLOTS_A_DAY // 2} flags per coin and day")
    return value


def run(settings: Callable[[], Settings], origin: str, request: Request, *, as_json: bool) -> int:
    """Evaluate and print; always 0.

    Args:
        settings: Loads the settings; called only for a home.
        origin: Path of a Parquet file of bars, or `home`.
        request: What to evaluate.
        as_json: JSON on standard output instead of tables.

    Raises:
        BarsRefused: The bars cannot be evaluated; every fault is named.
        NotEnoughData: No day has enough data before it.
    """
    engine: Engine
    if origin == HOME:
        known = settings()
        existing_home(known)
        engine = make_engine(known)
        bars = reading.of_home(engine)
    else:
        engine = SailEngine("")
        bars = reading.of_file(Path(origin))
    if not as_json:
        output.say(f"{len(bars.coins)} coins: {', '.join(bars.coins)}; bars {bars.start:%Y-%m-%d %H:%M} to "
                   f"{bars.end:%Y-%m-%d %H:%M} UTC")  # fmt: skip
    for note in bars.notes:
        output.notice(note)
    data, span = _features(engine, bars, request, quiet=as_json)
    found, forecasts, outlooks, missing = _walk(data, span, request, quiet=as_json)
    made = [*tables.of_detection(found), *tables.of_forecasts(forecasts), *volatility.tables(outlooks)]
    if request.splice:
        budgets = [one.budget for one in found]
        horizons = {one.horizon: request.horizons[one.horizon] for one in forecasts}
        outlook = {one.horizon: request.outlook[one.horizon] for one in outlooks}
        scored = splice.scored_days(span, len(budgets), len(horizons) + len(outlook))
        with _progress("spliced crash, days scored", scored, quiet=as_json) as advance:
            made += splice.run(engine, bars, data, span, budgets, horizons, outlook, advance)
    drawn = pictures.draw(request.plot, found, forecasts, outlooks) if request.plot else []
    _print(bars, request, made, drawn, missing, as_json=as_json)
    return 0


def _features(engine: Engine, bars: Bars, request: Request, *, quiet: bool) -> tuple[Panel, tuple[int, int]]:
    """Features from the look-back to the day after the last, and the index span of the evaluated days."""
    first, after = (datetime.combine(d, time(), UTC) for d in (request.first, request.last + timedelta(days=1)))
    if first < bars.start or after > bars.end:
        begin = bars.start if bars.start == floor_day(bars.start) else floor_day(bars.start) + DAY
        raise BarsRefused(
            f"--days {request.first}..{request.last}: the bars have whole days from {begin:%Y-%m-%d} to "
            f"{floor_day(bars.end) - DAY:%Y-%m-%d} only, and models need weeks before the first evaluated day"
        )
    start = max(floor_day(bars.start), first - LOOK_BACK)
    # The last day's forecasts have outcomes on the next, where that is known.
    end = max(after, min(floor_day(bars.end + DAY - timedelta(seconds=1)), after + DAY))
    with _progress("features, days", (end - start) // DAY, quiet=quiet) as advance:
        data = features.panel_of(engine, bars, start, end, advance)
    return data, tuple(slot_of(m) + 1 - data.first_slot for m in (first, after))  # type: ignore[return-value]


def _walk(
    data: Panel, span: tuple[int, int], request: Request, *, quiet: bool
) -> tuple[list[Detection], list[Forecasts], list[Outlooks], list[str]]:
    """Results by budget and by horizons, and what days could not be scored, with the reason.

    Raises:
        NotEnoughData: There is no result at all.
    """
    start, end = span
    cut = data.cut(0, end)
    found: list[Detection] = []
    forecasts: list[Forecasts] = []
    outlooks: list[Outlooks] = []
    missing: dict[str, str] = {}
    scored = (end - start) // SLOTS_A_DAY * (len(request.budgets) + len(request.horizons) + len(request.outlook))
    with _progress("walk-forward, days scored", scored, quiet=quiet) as advance:
        hurt = detection.injected(cut, start)
        for budget in request.budgets:
            name = tables.budget_text(budget)
            try:
                found.append(detection.walk(cut, start, budget, hurt, advance))
                missing[name] = found[-1].missing
            except NotEnoughData as error:
                missing[name] = str(error)
        for horizon, slots in request.horizons.items():
            try:
                forecasts.append(intervals.walk(data, start, end, horizon, slots, advance))
                missing[horizon] = forecasts[-1].missing
            except NotEnoughData as error:
                missing[horizon] = str(error)
        for horizon, slots in request.outlook.items():
            name = f"volatility {horizon}"
            try:
                outlooks.append(volatility.walk(data, start, end, horizon, slots, advance))
                missing[name] = outlooks[-1].missing
            except NotEnoughData as error:
                missing[name] = str(error)
    texts = [f"{name}: {text}" for name, text in missing.items() if text]
    if not found and not forecasts and not outlooks:
        raise NotEnoughData("; ".join(texts))
    return found, forecasts, outlooks, texts


def _progress(text: str, total: int, *, quiet: bool) -> AbstractContextManager[Any]:
    from contextlib import nullcontext

    return nullcontext(lambda _n: None) if quiet else output.progress(text, total)


def _print(
    bars: Bars, request: Request, made: Sequence[Table], drawn: Sequence[Path], missing: Sequence[str], *, as_json: bool
) -> None:
    if as_json:
        output.as_json(
            {
                "coins": list(bars.coins),
                "days": [request.first.isoformat(), request.last.isoformat()],
                "notes": [*bars.notes],
                "days_left_out": list(missing),
                "tables": [{"title": t.title, "rows": [_plain(r) for r in t.rows]} for t in made],
                "pictures": [str(p) for p in drawn],
            }
        )
        return
    for text in missing:
        output.notice(f"days left out at {text}")
    for table in made:
        output.table(table.title, table.rows)
    for path in drawn:
        output.say(str(path))


def _plain(row: Any) -> dict[str, Any]:
    """JSON has no NaN."""
    return {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in row.items()}
