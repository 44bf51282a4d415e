"""The pipeline's own metrics and alerts."""

from __future__ import annotations

import dagster as dg

from crypto_assets.assets.shell import Step, asset_spec, dep
from crypto_assets.steps import metrics

STEPS = (
    Step(
        "ops_pipeline_metrics",
        metrics.work,
        ["ops.pipeline_metrics"],
        deps=[
            dep("bronze/raw_prices"),
            dep("silver/prices"),
            dep("silver/quarantine"),
            dep("ops/polls"),
            dep("gold/anomalies"),
        ],
    ),
)


def alerts_spec() -> dg.AssetSpec:
    """`ops/alerts` is written by the alert sensor, which reports its materializations."""
    return asset_spec("ops.alerts", deps=(), partitions_def=None, freshness=None, table_uri=None)
