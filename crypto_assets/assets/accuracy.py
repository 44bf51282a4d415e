"""`gold.prediction_accuracy`: a day's forecasts against outcomes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from crypto_assets.assets.card import Reads, Step
from crypto_assets.assets.publishing import publish
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import HOUR, Slice, floor_day, key_slice
from crypto_assets.contracts.tables import PREDICTION_ACCURACY
from crypto_assets.engine.base import Engine, Result, StepInputs

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = ("day", "coin_id", "horizon", "model_name", "model_version", "mode")


@Step(
    "gold_prediction_accuracy",
    [PREDICTION_ACCURACY],
    reads=[Reads("gold/price_predictions", back=1), Reads("gold/bars_5m")],
    moved_by="daily",
    role="serve",
    restated=True,
)
def work(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Score the forecasts whose target lies in the given days.

    Args:
        engine: Engine whose store is read and written.
        partition_keys: Days.
        inputs: `now`, `run_id`.
    """

    def not_yet(key: str) -> str | None:
        end = key_slice(key, "day").end
        earlier = engine.store.read_arrow(
            "gold.price_predictions", columns=["target_at"], where=f"target_at <= '{end:%Y-%m-%dT%H:%M:%SZ}'"
        )
        return None if earlier.num_rows else "no forecast was made whose outcome was due by the end of this day"

    done = publish(
        engine,
        PREDICTION_ACCURACY,
        partition_keys,
        inputs,
        lambda slice_: _accuracy(engine, slice_),
        why_empty="no forecast has its target on this day, though earlier days have some",
        not_yet=not_yet,
    )
    return Result({PREDICTION_ACCURACY.full_name: done})


def _accuracy(engine: Engine, slice_: Slice) -> pa.Table:
    import pyarrow as pa

    span = slice_.extend(before=2 * HOUR)
    made = engine.store.read_arrow("gold.price_predictions", span).to_pylist()
    bars = engine.store.read_arrow("gold.bars_5m", span, columns=["coin_id", "window_end", "close", "is_closed"])
    closes = {(b["coin_id"], b["window_end"]): float(b["close"]) for b in bars.to_pylist() if b["is_closed"]}
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for f in made:
        # A target on midnight belongs to the day that ends there, like its bar.
        at = f["target_at"] - timedelta(microseconds=1)
        if slice_.start <= at < slice_.end:
            day = floor_day(at)
            groups.setdefault((day, *(f[n] for n in GROUP[1:])), []).append(f)
    rows = [_score(key, fs, closes) for key, fs in sorted(groups.items(), key=lambda g: tuple(map(str, g[0])))]
    return pa.Table.from_pylist(rows, schema=arrow_schema(PREDICTION_ACCURACY))


def _score(key: tuple[Any, ...], forecasts: Sequence[Mapping[str, Any]], closes: Mapping[Any, float]) -> dict[str, Any]:
    """Measures of one group: errors of log returns, in percent; skill against forecasting no change."""
    pairs = []
    for f in forecasts:
        came = closes.get((f["coin_id"], f["target_at"]))
        if came is not None:
            pairs.append((math.log(came / f["price"]), f["predicted_return"], f["lower_90"] <= came <= f["upper_90"]))
    n = len(pairs)
    model = sum((o - p) ** 2 for o, p, _ in pairs)
    base = sum(o**2 for o, _, _ in pairs)
    signs = [(o > 0) == (p > 0) for o, p, _ in pairs if o != 0 and p != 0]
    day = key[0]
    return {
        "day": day.date(),
        "day_start": day,
        **dict(zip(GROUP[1:], key[1:], strict=True)),
        "forecasts": n,
        "without_outcome": len(forecasts) - n,
        "mae_pct": sum(abs(o - p) for o, p, _ in pairs) / n * 100 if n else None,
        "rmse_pct": math.sqrt(model / n) * 100 if n else None,
        "skill": 1 - model / base if base > 0 else None,
        "direction_hit": sum(signs) / len(signs) if signs else None,
        "coverage_90": sum(inside for *_, inside in pairs) / n if n else None,
    }
