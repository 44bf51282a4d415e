"""From Silver to bars: the bodies of gold/bars_1m, bars_5m, bars_1h and bars_1d.

Belongs here: reading Silver and the lake's coverage, writing bars. Does not belong here: how a bar is made
(`transforms.bars`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crypto_assets.compute.base import Engine, Result, StepInputs, TableResult
from crypto_assets.contracts.slices import Slice
from crypto_assets.contracts.tables import SILVER_PRICES, TABLES
from crypto_assets.steps.base import publish
from crypto_assets.steps.bronze_coverage import covered_until
from crypto_assets.transforms.bars import Width, bars

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

HOURLY: dict[str, Width] = {"gold.bars_1m": "1m", "gold.bars_5m": "5m", "gold.bars_1h": "1h"}
DAILY = "gold.bars_1d"


def work(
    engine: Engine, partition_keys: Sequence[str], inputs: StepInputs, tables: Sequence[str] = tuple(HOURLY)
) -> Result:
    """Write hours of the bars of one minute, five minutes and one hour, or of some of them.

    Args:
        engine: Engine whose store is read and written.
        partition_keys: Hours, in any order.
        inputs: `now`, `run_id`, `rebuild`, `as_of`.
        tables: Tables to write, of `HOURLY`.

    Raises:
        SliceRefused: An hour is older than Silver's retention less one day.
        AuditFailed: A blocking rule failed; nothing of that slice was committed.
    """
    return Result({name: _publish(engine, name, HOURLY[name], partition_keys, inputs) for name in tables})


def work_day(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Write days of `gold.bars_1d`, from the day's samples: a deviation cannot be had from bars of hours.

    Raises:
        SliceRefused: A day is older than Silver's retention less one day.
        AuditFailed: A blocking rule failed; nothing of that slice was committed.
    """
    return Result({DAILY: _publish(engine, DAILY, "1d", partition_keys, inputs)})


def _publish(engine: Engine, name: str, width: Width, keys: Sequence[str], inputs: StepInputs) -> TableResult:
    def build(slice_: Slice) -> DataFrame:
        from pyspark.sql import functions as F

        # Coverage first: what is read afterwards reaches at least as far.
        as_of = covered_until(engine, inputs.as_of)
        silver = engine.store.read(SILVER_PRICES.full_name, slice_)
        if inputs.as_of is not None:
            silver = silver.where(F.col("available_at") <= F.lit(inputs.as_of))
        return bars(silver, width, as_of)

    return publish(
        engine,
        TABLES[name],
        keys,
        inputs,
        build,
        input_retention_days=SILVER_PRICES.retention_days,
        why_empty="Silver holds no sample of this partition; see the checks of silver/prices and bronze/raw_prices",
    )
