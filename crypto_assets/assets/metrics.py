"""`ops.pipeline_metrics`: the pipeline's own metrics by arrival hour."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from crypto_assets.assets.card import Reads, Step
from crypto_assets.assets.publishing import publish
from crypto_assets.contracts.arrow import compute
from crypto_assets.contracts.slices import DAY, Slice
from crypto_assets.contracts.tables import PIPELINE_METRICS, RAW_PRICES
from crypto_assets.engine.base import Engine, Result, StepInputs
from crypto_assets.source_facts import facts_of
from crypto_assets.transforms.metrics import pipeline_metrics

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@Step(
    "ops_pipeline_metrics",
    [PIPELINE_METRICS],
    reads=[
        Reads("bronze/raw_prices"),
        Reads("silver/prices"),
        Reads("silver/quarantine"),
        Reads("ops/polls"),
        Reads("gold/anomalies"),
    ],
    moved_by="refresh",
    role="transform",
)
def work(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Write the metrics of arrival hours.

    Args:
        engine: Engine whose store is read and written.
        partition_keys: Arrival hours.
        inputs: `source` decides whether arrivals are virtual.

    Raises:
        SliceRefused: An hour is older than Bronze's retention less one day: its figures stay as they were.
    """

    def build(slice_: Slice) -> DataFrame:
        version = engine.store.version(RAW_PRICES.full_name)
        bronze = engine.store.read(RAW_PRICES.full_name, slice_, version=version)
        return pipeline_metrics(
            slice_.hours(),
            bronze=bronze,
            silver=engine.store.read("silver.prices", _event_span(engine, version, slice_, inputs)),
            quarantine=engine.store.read("silver.quarantine", slice_),
            polls=engine.store.read("ops.polls", slice_),
            anomalies=engine.store.read("gold.anomalies", slice_),
            virtual_time=not facts_of(inputs.source).live,
        )

    done = publish(
        engine, PIPELINE_METRICS, partition_keys, inputs, build, input_retention_days=RAW_PRICES.retention_days
    )
    return Result({PIPELINE_METRICS.full_name: done})


def _event_span(engine: Engine, version: int | None, slice_: Slice, inputs: StepInputs) -> Slice:
    """Event hours that the slice's records may lie in; late ones reach further back."""
    hours = engine.store.read_arrow(RAW_PRICES.full_name, slice_, columns=["event_hour"], version=version)
    oldest = compute().min(hours.column(0)).as_py()
    start = slice_.start - timedelta(hours=1)
    if oldest is not None:
        start = min(start, oldest)
    return Slice(max(start, inputs.partitions_start - DAY), slice_.end + timedelta(hours=1))
