"""Models: trained by day before a cut-off, gated, and the ledger of promotions."""

from __future__ import annotations

from crypto_assets.assets import anomaly_model, price_model
from crypto_assets.orchestration.partitions import ANOMALY_MODEL_LOOK_BACK, PRICE_MODEL_LOOK_BACK
from crypto_assets.orchestration.shell import Described, Step, dep

ANOMALY_MODEL = Described(
    ("ml", "anomaly_model"),
    "Anomaly detector of day D: trained and calibrated on features before the end of D, compared with the champion on "
    "injected faults, and promoted only if it finds at least as many at the same flag rate. Serves from D + 1.",
    "team:ml",
    "ml",
    ("scikitlearn", "mlflow"),
)
PRICE_MODEL = Described(
    ("ml", "price_model"),
    "Price forecasters (5 min and 1 h) of day D: walk-forward evaluation before the end of D, promoted only if their "
    "skill over persistence is above zero with 95 % confidence. Serves from D + 1.",
    "team:ml",
    "ml",
    ("scikitlearn", "mlflow"),
)

STEPS = (
    Step(
        "anomaly_model",
        anomaly_model.work,
        [ANOMALY_MODEL],
        deps=[dep("features/price_features", ANOMALY_MODEL_LOOK_BACK)],
        grain="day",
        extra_checks=anomaly_model.EXTRA_CHECKS,
        skippable=True,
    ),
    Step(
        "price_model",
        price_model.work,
        [PRICE_MODEL],
        deps=[dep("features/price_features", PRICE_MODEL_LOOK_BACK)],
        grain="day",
        extra_checks=price_model.EXTRA_CHECKS,
        skippable=True,
    ),
)
