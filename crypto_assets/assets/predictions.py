"""`gold.price_predictions`: forecasts, inserted once and never rewritten."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from crypto_assets.assets import forecast_ledgers
from crypto_assets.assets.card import Reads, Step
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import Slice, floor_day
from crypto_assets.contracts.tables import PRICE_PREDICTIONS, PROMOTIONS
from crypto_assets.engine.base import Engine, Result, StepInputs
from crypto_assets.ml import forecasts
from crypto_assets.ml.baselines import HORIZONS
from crypto_assets.ml.panel import FIELDS

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = (*forecast_ledgers.ROW, *FIELDS)


@Step(
    "gold_price_predictions",
    [PRICE_PREDICTIONS],
    reads=[Reads("features/price_features", back=23), Reads("ml/price_model", day_before=True)],
    moved_by="refresh",
    role="serve",
    checks=forecast_ledgers.CHECKS,
    also_writes=[PROMOTIONS],
)
def work(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Forecast from every slot of hours whose key is not in the ledger yet.

    Args:
        engine: Engine whose store is read and written.
        partition_keys: Hours.
        inputs: `now` decides whether a forecast is live or a backfill.

    Returns:
        Rows that the ledger holds for each hour, and its checks.
    """

    def forecast(slice_: Slice, decided: Sequence[dict[str, Any]]) -> pa.Table:
        return _forecasts(engine, slice_, decided, inputs)

    why_empty = "no slot of this hour has a price and a scale yet"
    return forecast_ledgers.insert(PRICE_PREDICTIONS, engine, partition_keys, inputs, forecast, why_empty)


def _forecasts(engine: Engine, slice_: Slice, decided: Sequence[dict[str, Any]], inputs: StepInputs) -> pa.Table:
    """Forecasts of a slice; features are read from midnight on, where the tracking of intervals begins."""
    import pyarrow as pa

    span = Slice(floor_day(slice_.start), slice_.end)
    features = engine.store.read_arrow("features.price_features", span, columns=list(COLUMNS))
    wanted = features.select([*forecast_ledgers.PLACE, "price"])
    made: list[dict[str, Any]] = []
    for horizon in HORIZONS:
        forecast = partial(forecasts.forecasts, horizon=horizon, now=inputs.now)
        made += forecast_ledgers.by_version(
            f"price_{horizon}", wanted, features, slice_, decided, inputs, floor_day, forecast
        )
    return pa.Table.from_pylist(made, schema=arrow_schema(PRICE_PREDICTIONS))
