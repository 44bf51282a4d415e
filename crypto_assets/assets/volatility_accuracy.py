"""`gold.volatility_accuracy`: a day's volatility forecasts against what was realised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from crypto_assets.assets.accuracy import NEEDED, Forecast, due, live_weeks, mean, scored
from crypto_assets.assets.card import Reads, Step
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import DAY, HOUR, Slice
from crypto_assets.contracts.tables import VOLATILITY_ACCURACY, VOLATILITY_FORECASTS
from crypto_assets.engine.base import CheckOutcome, Engine, Result, StepInputs
from crypto_assets.ml.baselines import VOLATILITY_HORIZONS
from crypto_assets.ml.volatility import LEAST_VOLATILITY, REALISED

if TYPE_CHECKING:
    import pyarrow as pa

LOSS = "qlike_7d"
TOLERANCE = 1.05
LEAST_DAYS = 6
"""Days with live outcomes from which a week's loss is judged."""

ARMS = ("volatility_pct", "ewma_pct", "last_value_pct")
JUDGED = ("day_start", "coin_id", "horizon", "mode", "forecasts", "qlike", "qlike_ewma")
Outcomes = Mapping[tuple[str, datetime], float]
"""Realised volatility in percent by coin and target."""


@Step(
    "gold_volatility_accuracy",
    [VOLATILITY_ACCURACY],
    reads=[Reads("gold/volatility_forecasts", back=1), Reads("features/price_features")],
    moved_by="daily",
    role="serve",
    checks={
        LOSS: "Over 7 days, live forecasts of each horizon had at most 1.05 times the loss of the exponential average."
    },
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
        VOLATILITY_ACCURACY,
        VOLATILITY_FORECASTS,
        engine,
        partition_keys,
        inputs,
        lambda slice_: _accuracy(engine, slice_),
    )
    for key, rows in live_weeks(VOLATILITY_ACCURACY, engine, partition_keys, JUDGED).items():
        done.partitions[key].checks.append(_judged(rows))
    return Result({VOLATILITY_ACCURACY.full_name: done})


def _accuracy(engine: Engine, slice_: Slice) -> pa.Table:
    import pyarrow as pa

    span = slice_.extend(before=DAY + HOUR)
    made = engine.store.read_arrow(VOLATILITY_FORECASTS.full_name, span, columns=[*NEEDED, *ARMS]).to_pylist()
    columns = ["coin_id", "window_end", *REALISED.values()]
    features = engine.store.read_arrow("features.price_features", slice_, columns=columns).to_pylist()
    outcomes: dict[str, Outcomes] = {
        horizon: {
            (r["coin_id"], r["window_end"]): 100 * max(came, math.sqrt(slots) * LEAST_VOLATILITY)
            for r in features
            if (came := r[REALISED[slots]]) is not None
        }
        for horizon, slots in VOLATILITY_HORIZONS.items()
    }
    rows = [{**group, **_score(forecasts, outcomes[group["horizon"]])} for group, forecasts in due(made, slice_)]
    return pa.Table.from_pylist(rows, schema=arrow_schema(VOLATILITY_ACCURACY))


def _score(forecasts: Sequence[Forecast], outcomes: Outcomes) -> dict[str, Any]:
    """Measures of one group."""
    known = [(f, outcomes[at]) for f in forecasts if (at := (f["coin_id"], f["target_at"])) in outcomes]

    def loss(name: str) -> float | None:
        return mean([_qlike(came, f[name]) for f, came in known if f[name] is not None])

    served, average, last = map(loss, ARMS)
    best = min((value for value in (average, last) if value is not None), default=None)
    return {
        "forecasts": len(known),
        "without_outcome": len(forecasts) - len(known),
        "qlike": served,
        "qlike_ewma": average,
        "qlike_last_value": last,
        "qlike_ratio": served / best if served is not None and best else None,
        "volatility_pct": mean([f["volatility_pct"] for f, _ in known]),
        "outcome_pct": mean([came for _, came in known]),
    }


def _qlike(came: float, forecast: float) -> float:
    """QLIKE of the variances of two volatilities."""
    ratio = (came / forecast) ** 2
    return max(0.0, ratio - math.log(ratio) - 1)


def _judged(rows: Sequence[Mapping[str, Any]]) -> CheckOutcome:
    """Check of a week's rows, pooled over coins and versions; horizons with fewer than 6 days are not judged."""
    judged: dict[str, tuple[float, float]] = {}
    for horizon in VOLATILITY_HORIZONS:
        known = [r for r in rows if r["horizon"] == horizon and r["forecasts"]]
        if len({r["day_start"] for r in known}) >= LEAST_DAYS:
            total = sum(r["forecasts"] for r in known)
            losses = (sum(r[name] * r["forecasts"] for r in known) / total for name in ("qlike", "qlike_ewma"))
            judged[horizon] = tuple(losses)  # type: ignore[assignment]
    worse = {h for h, (served, average) in judged.items() if served > TOLERANCE * average}
    figures = ", ".join(f"{h} {served:.3f} ({average:.3f})" for h, (served, average) in judged.items())
    said = (
        f"live forecasts of 7 days had more than 1.05 times the loss of the exponential average: {figures}"
        if worse
        else f"loss over 7 days, and that of the exponential average: {figures}"
        if judged
        else "no horizon has 6 days of live forecasts with outcomes within the 7 days yet"
    )
    return CheckOutcome(LOSS, not worse, said, "warn", {"judged": len(judged), "worse": len(worse)})
