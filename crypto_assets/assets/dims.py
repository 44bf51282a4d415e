"""The two dimensions: coins from the registry, days from the calendar."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from crypto_assets.assets.card import Step
from crypto_assets.assets.publishing import publish_whole
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.tables import DIM_COIN, DIM_DATE
from crypto_assets.engine.base import Engine, Result, StepInputs
from crypto_assets.transforms.dim_coin import dim_coin, dim_date


@Step("gold_dim_coin", [DIM_COIN], moved_by="daily", role="transform")
def work_dim_coin(engine: Engine, _keys: Sequence[Any], inputs: StepInputs) -> Result:
    """Make `gold.dim_coin` equal to the present registry. Unpartitioned."""
    return _write(engine, DIM_COIN, inputs, dim_coin(inputs.coins))


@Step("gold_dim_date", [DIM_DATE], moved_by="daily", role="transform")
def work_dim_date(engine: Engine, _keys: Sequence[Any], inputs: StepInputs) -> Result:
    """Make `gold.dim_date` cover the first partition to the end of next year."""
    last = date(inputs.now.year + 1, 12, 31)
    return _write(engine, DIM_DATE, inputs, dim_date(inputs.partitions_start.date(), last))


def _write(engine: Engine, table: Table, inputs: StepInputs, rows: list[dict[str, Any]]) -> Result:
    import pyarrow as pa

    frame = pa.Table.from_pylist(rows, schema=arrow_schema(table))
    return Result({table.full_name: publish_whole(engine, table, inputs, frame)})
