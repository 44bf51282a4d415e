"""Anomalies: every closed slot scored by the version that was effective then."""

from __future__ import annotations

from crypto_assets.assets import anomalies
from crypto_assets.orchestration.partitions import SERVING_MODEL
from crypto_assets.orchestration.shell import Step, dep

STEPS = (
    Step(
        "gold_anomalies",
        anomalies.work,
        ["gold.anomalies"],
        deps=[dep("features/price_features"), dep("ml/anomaly_model", SERVING_MODEL)],
        extra_checks=anomalies.EXTRA_CHECKS,
    ),
)
