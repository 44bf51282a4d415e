"""`gold.volatility_forecasts`: forecasts of realised volatility, inserted once and never rewritten."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from crypto_assets.assets import forecast_ledgers
from crypto_assets.assets.card import Reads, Step
from crypto_assets.contracts.arrow import arrow_schema, compute
from crypto_assets.contracts.slices import DAY, HOUR, Slice
from crypto_assets.contracts.tables import PROMOTIONS, VOLATILITY_FORECASTS
from crypto_assets.engine.base import Engine, Result, StepInputs
from crypto_assets.ml.baselines import VOLATILITY_HORIZONS
from crypto_assets.ml.volatility import FIELDS, LOOK_BACK_DAYS
from crypto_assets.ml.volatility_forecasts import forecasts

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = (*forecast_ledgers.ROW, *FIELDS)
LOOK_BACK = LOOK_BACK_DAYS * DAY


@Step(
    "gold_volatility_forecasts",
    [VOLATILITY_FORECASTS],
    reads=[Reads("features/price_features", back=LOOK_BACK // HOUR), Reads("ml/volatility_model", day_before=True)],
    moved_by="refresh",
    role="serve",
    checks=forecast_ledgers.CHECKS,
    also_writes=[PROMOTIONS],
)
def work(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Forecast from the slots of hours whose key is not in the ledger yet.

    Args:
        engine: Engine whose store is read and written.
        partition_keys: Hours.
        inputs: `now` decides whether a forecast is live or a backfill.

    Returns:
        Rows that the ledger holds for each hour, and its checks.
    """

    def forecast(slice_: Slice, decided: Sequence[dict[str, Any]]) -> pa.Table:
        return _forecasts(engine, slice_, decided, inputs)

    why_empty = "no slot of this hour has returns of half a day before it yet"
    return forecast_ledgers.insert(VOLATILITY_FORECASTS, engine, partition_keys, inputs, forecast, why_empty)


def _forecasts(engine: Engine, slice_: Slice, decided: Sequence[dict[str, Any]], inputs: StepInputs) -> pa.Table:
    import pyarrow as pa

    span = Slice(slice_.start - LOOK_BACK, slice_.end)
    features = engine.store.read_arrow("features.price_features", span, columns=list(COLUMNS))
    slots = features.select(forecast_ledgers.PLACE)
    full_hours = slots.filter(compute().equal(compute().minute(slots.column("window_end")), 0))
    wanted = {"1h": slots, "24h": full_hours}
    made: list[dict[str, Any]] = []
    for horizon in VOLATILITY_HORIZONS:
        forecast = partial(forecasts, horizon=horizon, now=inputs.now)
        made += forecast_ledgers.by_version(
            f"volatility_{horizon}",
            wanted[horizon],
            features,
            slice_,
            decided,
            inputs,
            lambda at: at - LOOK_BACK,
            forecast,
        )
    return pa.Table.from_pylist(made, schema=arrow_schema(VOLATILITY_FORECASTS))
