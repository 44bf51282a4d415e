"""Forecasts with the version effective at the time, as rows of `gold.price_predictions`.

Belongs here: from features and a loaded version to rows. Does not belong here: choice of the version
(`ml.baselines.effective`), reading or writing tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from crypto_assets.ml.baselines import BASELINE, HORIZONS
from crypto_assets.ml.calibration import COVERAGE_DAYS
from crypto_assets.ml.intervals import FEATURES, HAR, Intervals, bounds
from crypto_assets.ml.panel import FIELDS, SLOT_S, Panel, slot_of
from crypto_assets.ml.price import NOT_EVALUATED, PRICE_INPUTS, Forecaster
from crypto_assets.ml.scoring import Version

if TYPE_CHECKING:
    import numpy as np

CLOCK = "window_end"
TRACKED = ("tracked_lower", "tracked_upper")
"""Columns with the log factors by which tracking has widened the halves of an interval."""


def forecaster(version: Version, horizon: str) -> Forecaster:
    """The forecaster of a loaded version."""
    return Forecaster.of(version.parameters, version.model, HORIZONS[horizon])


def needed(version: Version, horizon: str) -> tuple[str, ...]:
    """Columns of a feature row that a version forecasts from."""
    made = forecaster(version, horizon)
    clock = (CLOCK,) if made.scale.name == HAR else ()
    names = ("price", *FEATURES[made.scale.name], *(() if made.model is None else PRICE_INPUTS), *clock)
    return tuple(dict.fromkeys(names))


def forecasts(
    rows: Sequence[Mapping[str, Any]], data: Panel, version: Version, horizon: str, now: datetime
) -> list[dict[str, Any]]:
    """Forecast rows of `gold.price_predictions` for feature rows with a price and a scale.

    Args:
        rows: Feature rows to forecast from.
        data: Panel that holds these rows, from midnight of their UTC day on: there an interval's tracking begins.
        version: Version of the horizon's model.
        horizon: `5m` or `1h`.
        now: Time of writing: live when before the target.
    """
    made = forecaster(version, horizon)
    if not data.slots:
        return []
    drift, found = made.drift(data), made.intervals(data)
    index = {c: i for i, c in enumerate(data.coins)}
    places = [(index[r["coin_id"]], slot_of(r["window_end"]) - data.first_slot) for r in rows]
    all_rows = (_row(r, p, drift, found, made, version, horizon, now) for r, p in zip(rows, places, strict=True))
    return [row for row in all_rows if row is not None]


def on_request(
    rows: Sequence[Mapping[str, Any]], version: Version, horizon: str, now: datetime
) -> list[dict[str, Any] | None]:
    """Forecasts from single rows, which bring what tracking had come to; None for rows without price or scale.

    Args:
        rows: Features by name; `window_end` where the version reads the clock. Without `TRACKED`, the state of the
            version at its cut-off stands in.
        version: Version of the horizon's model.
        horizon: `5m` or `1h`.
        now: Time of the request.

    Returns:
        Outputs in the order of the rows, equal to those of `gold.price_predictions`.
    """
    import numpy as np

    made = forecaster(version, horizon)
    values = {
        name: np.array([[math.nan if row.get(name) is None else float(row[name])] for row in rows]) for name in FIELDS
    }
    coins = [str(row.get("coin_id")) for row in rows]
    slot = np.array([[slot_of(row["window_end"]) if row.get("window_end") else 0] for row in rows])
    at_cutoff = [made.scale.tracked.get(c, (0.0, 0.0)) for c in coins]
    given = list(zip(rows, at_cutoff, strict=True))
    tracked = np.array(
        [
            [[begun[side] if row.get(name) is None else float(row[name])] for row, begun in given]
            for side, name in enumerate(TRACKED)
        ]
    )
    drift = made.drift(Panel(tuple(coins), 0, values))
    found = bounds(made.scale, values, coins, slot, tracked).shifted(drift)
    dated = [{**row, "window_end": row.get("window_end") or now, "day": None, "hour": None} for row in rows]
    return [_row(row, (n, 0), drift, found, made, version, horizon, now) for n, row in enumerate(dated)]


def _row(
    row: Mapping[str, Any],
    place: tuple[int, int],
    drift: np.ndarray,
    found: Intervals,
    made: Forecaster,
    version: Version,
    horizon: str,
    now: datetime,
) -> dict[str, Any] | None:
    """Row of the ledger from a feature row, whose coin and slot in the arrays are `place`; None without an interval."""
    lower, median, upper = (float(part[place]) for part in (found.lower, found.median, found.upper))
    if row["price"] is None or not math.isfinite(lower):
        return None
    change, price = float(drift[place]), float(row["price"])
    week, month = made.scale.coverage.get(row.get("coin_id") or "", (None, None))
    return {
        **stamped(row, version, horizon, HORIZONS[horizon], now),
        "price": row["price"],
        "predicted_return": change,
        "predicted_price": price * math.exp(change),
        "lower_90": price * math.exp(lower),
        "median": price * math.exp(median),
        "upper_90": price * math.exp(upper),
        **{name: float(side[place]) for name, side in zip(TRACKED, found.tracked, strict=True)},
        "coverage_7d": week,
        "coverage_28d": month,
        "skill_verdict": version.parameters.get("verdict", NOT_EVALUATED),
        "null_reason": _reason(version, week, month),
    }


def stamped(row: Mapping[str, Any], version: Version, horizon: str, slots: int, now: datetime) -> dict[str, Any]:
    """Columns that every ledger of forecasts has: of what, when, for when and by which version.

    Args:
        row: Feature row.
        version: Version that forecasts.
        horizon: As the ledger names it.
        slots: The horizon in slots.
        now: Time of writing.
    """
    target_at = row["window_end"] + timedelta(seconds=SLOT_S * slots)
    return {
        "coin_id": row.get("coin_id"),
        "window_end": row["window_end"],
        "horizon": horizon,
        "target_at": target_at,
        "model_name": version.promotion["model"],
        "model_version": version.name,
        "mode": "live" if now < target_at else "backfill",
        "predicted_at": now,
        "day": row["day"],
        "hour": row["hour"],
    }


def _reason(version: Version, week: float | None, month: float | None) -> str | None:
    """Why a coverage is null."""
    missing = [days for days, share in zip(COVERAGE_DAYS, (week, month), strict=True) if share is None]
    if not missing:
        return None
    if version.name == BASELINE:
        return "coverage: the baseline was not measured"
    days = " and ".join(f"{days} d" for days in missing)
    return f"coverage over {days}: too few days of this coin lie before the version's cut-off"
