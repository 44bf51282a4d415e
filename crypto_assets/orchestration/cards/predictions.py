"""Forecasts written before their outcome, and how they turned out."""

from __future__ import annotations

from crypto_assets.assets import accuracy, predictions
from crypto_assets.orchestration.partitions import SERVING_MODEL, look_back
from crypto_assets.orchestration.shell import Step, dep

STEPS = (
    Step(
        "gold_price_predictions",
        predictions.work,
        ["gold.price_predictions"],
        deps=[dep("features/price_features"), dep("ml/price_model", SERVING_MODEL)],
        extra_checks=predictions.EXTRA_CHECKS,
    ),
    Step(
        "gold_prediction_accuracy",
        accuracy.work,
        ["gold.prediction_accuracy"],
        deps=[dep("gold/price_predictions", look_back(1)), dep("gold/bars_5m")],
        grain="day",
    ),
)
