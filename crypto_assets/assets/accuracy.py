"""`gold.prediction_accuracy`: a day's forecasts against outcomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from crypto_assets.assets.card import Reads, Step
from crypto_assets.assets.publishing import pieces, publish
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import DAY, HOUR, Slice, floor_day, key_slice
from crypto_assets.contracts.tables import PREDICTION_ACCURACY, PRICE_PREDICTIONS
from crypto_assets.engine.base import CheckOutcome, Engine, Result, StepInputs, TableResult

if TYPE_CHECKING:
    import pyarrow as pa

COVERAGE = "coverage_7d"
WEEK_DAYS, PROMISED, TOLERANCE = 7, 0.9, 0.02
LEAST_COVERED = 6 * 288
"""Live forecasts with an outcome from which a coin's coverage is judged."""

COVERED = ("day_start", "coin_id", "horizon", "mode", "forecasts", "coverage_90")
GROUP = ("coin_id", "horizon", "model_name", "model_version", "mode")
NEEDED = (*GROUP, "target_at")
"""Columns of a ledger by which `due` groups its rows."""


@Step(
    "gold_prediction_accuracy",
    [PREDICTION_ACCURACY],
    reads=[Reads("gold/price_predictions", back=1), Reads("gold/bars_5m")],
    moved_by="daily",
    role="serve",
    checks={COVERAGE: "Every coin's live 90 % intervals covered 88 to 92 % of the outcomes of 7 days, per horizon."},
    restated=True,
)
def work(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Score the forecasts whose target lies in the given days.

    Args:
        engine: Engine whose store is read and written.
        partition_keys: Days.
        inputs: `now`, `run_id`.
    """
    done = scored(
        PREDICTION_ACCURACY, PRICE_PREDICTIONS, engine, partition_keys, inputs, lambda slice_: _accuracy(engine, slice_)
    )
    for key, outcome in _coverage(engine, partition_keys).items():
        done.partitions[key].checks.append(outcome)
    return Result({PREDICTION_ACCURACY.full_name: done})


def scored(
    table: Table,
    ledger: Table,
    engine: Engine,
    partition_keys: Sequence[str],
    inputs: StepInputs,
    build: Callable[[Slice], pa.Table],
) -> TableResult:
    """Write the days of a table that scores a ledger of forecasts.

    Args:
        table: The table.
        ledger: Its forecasts.
        engine: Engine whose store is read and written.
        partition_keys: Days.
        inputs: `now`, `run_id`.
        build: Rows of a slice.
    """

    def not_yet(key: str) -> str | None:
        end = key_slice(key, "day").end
        earlier = engine.store.read_arrow(
            ledger.full_name, columns=["target_at"], where=f"target_at <= '{end:%Y-%m-%dT%H:%M:%SZ}'"
        )
        return None if earlier.num_rows else "no forecast was made whose outcome was due by the end of this day"

    why_empty = "no forecast has its target on this day, though earlier days have some"
    return publish(engine, table, partition_keys, inputs, build, why_empty=why_empty, not_yet=not_yet)


Forecast = Mapping[str, Any]


def due(made: Sequence[Forecast], slice_: Slice) -> list[tuple[dict[str, Any], list[Forecast]]]:
    """Forecasts whose target lies in a slice, with the columns that group them, in order of these."""
    groups: dict[tuple[Any, ...], list[Forecast]] = {}
    for f in made:
        # A target on midnight belongs to the day that ends there, like its bar.
        at = f["target_at"] - timedelta(microseconds=1)
        if slice_.start <= at < slice_.end:
            groups.setdefault((floor_day(at), *(f[n] for n in GROUP)), []).append(f)
    return [
        ({"day": key[0].date(), "day_start": key[0], **dict(zip(GROUP, key[1:], strict=True))}, forecasts)
        for key, forecasts in sorted(groups.items(), key=lambda g: tuple(map(str, g[0])))
    ]


def _accuracy(engine: Engine, slice_: Slice) -> pa.Table:
    import pyarrow as pa

    span = slice_.extend(before=2 * HOUR)
    columns = [*NEEDED, "price", "predicted_return", "lower_90", "median", "upper_90"]
    made = engine.store.read_arrow("gold.price_predictions", span, columns=columns).to_pylist()
    bars = engine.store.read_arrow("gold.bars_5m", span, columns=["coin_id", "window_end", "close", "is_closed"])
    closes = {(b["coin_id"], b["window_end"]): float(b["close"]) for b in bars.to_pylist() if b["is_closed"]}
    rows = [{**group, **_score(forecasts, closes)} for group, forecasts in due(made, slice_)]
    return pa.Table.from_pylist(rows, schema=arrow_schema(PREDICTION_ACCURACY))


def _score(forecasts: Sequence[Forecast], closes: Mapping[Any, float]) -> dict[str, Any]:
    """Measures of one group: errors of log returns and intervals over the price in percent; skill against no change."""
    known = [(f, closes[at]) for f in forecasts if (at := (f["coin_id"], f["target_at"])) in closes]
    pairs = [(math.log(came / f["price"]), f["predicted_return"]) for f, came in known]
    n = len(known)
    model = sum((o - p) ** 2 for o, p in pairs)
    base = sum(o**2 for o, _ in pairs)
    signs = [(o > 0) == (p > 0) for o, p in pairs if o != 0 and p != 0]
    return {
        "forecasts": n,
        "without_outcome": len(forecasts) - n,
        "mae_pct": sum(abs(o - p) for o, p in pairs) / n * 100 if n else None,
        "rmse_pct": math.sqrt(model / n) * 100 if n else None,
        "skill": 1 - model / base if base > 0 else None,
        "direction_hit": sum(signs) / len(signs) if signs else None,
        "coverage_90": mean([f["lower_90"] <= came <= f["upper_90"] for f, came in known]),
        "winkler_pct": mean([_winkler(f, came) / f["price"] * 100 for f, came in known]),
        "width_pct": mean([(f["upper_90"] - f["lower_90"]) / f["price"] * 100 for f, _ in known]),
        "below_lower": mean([came < f["lower_90"] for f, came in known]),
        "below_median": mean([came < f["median"] for f, came in known if f.get("median") is not None]),
        "below_upper": mean([came <= f["upper_90"] for f, came in known]),
    }


def _winkler(f: Mapping[str, Any], came: float) -> float:
    """Width of the interval plus 20 times the distance by which the price lies outside (Winkler 1972), in USD."""
    lower, upper = f["lower_90"], f["upper_90"]
    return upper - lower + 20 * (max(lower - came, 0.0) + max(came - upper, 0.0))


def mean(values: Sequence[float]) -> float | None:
    """Mean; None without values."""
    return sum(values) / len(values) if values else None


def _coverage(engine: Engine, keys: Sequence[str]) -> dict[str, CheckOutcome]:
    """By day, whether the live intervals of each coin and horizon covered 88 to 92 % over the 7 days that it ends."""
    return {key: _covered(rows) for key, rows in live_weeks(PREDICTION_ACCURACY, engine, keys, COVERED).items()}


def live_weeks(
    table: Table, engine: Engine, keys: Sequence[str], columns: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """By day, the rows of live forecasts of the 7 days that it ends.

    Args:
        table: A table that scores forecasts by day.
        engine: Engine whose store is read.
        keys: Days.
        columns: Wanted, `day_start` and `mode` among them.
    """
    made: dict[str, list[dict[str, Any]]] = {}
    for slice_, days in pieces(keys, "day"):
        span = slice_.extend(before=(WEEK_DAYS - 1) * DAY)
        rows = engine.store.read_arrow(table.full_name, span, columns=list(columns)).to_pylist()
        for key in days:
            end = key_slice(key, "day").end
            made[key] = [r for r in rows if end - WEEK_DAYS * DAY <= r["day_start"] < end and r["mode"] == "live"]
    return made


def _covered(rows: Sequence[Mapping[str, Any]]) -> CheckOutcome:
    """Check of a week's rows, pooled over versions; groups with fewer than 6 days' forecasts are not judged."""
    groups: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for r in rows:
        if r["coverage_90"] is not None:
            groups.setdefault((r["coin_id"], r["horizon"]), []).append((r["coverage_90"], r["forecasts"]))
    shares = {
        group: sum(share * n for share, n in found) / total
        for group, found in groups.items()
        if (total := sum(n for _, n in found)) >= LEAST_COVERED
    }
    off = {group: share for group, share in sorted(shares.items()) if abs(share - PROMISED) > TOLERANCE}
    named = ", ".join(f"{coin} {horizon} {share:.1%}" for (coin, horizon), share in off.items())
    said = (
        f"live coverage over 7 days is off by more than 2 points: {named}"
        if off
        else (
            f"{len(shares)} coins and horizons covered 88 to 92 % over 7 days"
            if shares
            else "no coin has 6 days of live forecasts with outcomes within the 7 days yet"
        )
    )
    return CheckOutcome(COVERAGE, not off, said, "warn", {"judged": len(shares), "off": len(off)})
