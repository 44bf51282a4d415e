"""Features per coin on the 5-minute grid."""

from __future__ import annotations

from crypto_assets.assets import features
from crypto_assets.orchestration.partitions import FEATURES_LOOK_BACK
from crypto_assets.orchestration.shell import Step, dep

STEPS = (
    Step(
        "price_features",
        features.work,
        ["features.price_features"],
        deps=[dep("gold/bars_5m", FEATURES_LOOK_BACK)],
        extra_checks=features.EXTRA_CHECKS,
    ),
)
