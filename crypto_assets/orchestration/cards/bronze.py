"""Bronze: records as they came."""

from __future__ import annotations

from crypto_assets.assets import bronze
from crypto_assets.orchestration.shell import Step, dep

STEPS = (
    Step(
        "bronze_raw_prices",
        bronze.work,
        ["bronze.raw_prices"],
        deps=[dep("kafka/crypto_prices_raw")],
        reads_log="prices",
        extra_checks=bronze.EXTRA_CHECKS,
    ),
    Step(
        "ops_polls",
        bronze.work_polls,
        ["ops.polls"],
        deps=[dep("kafka/crypto_polls")],
        reads_log="polls",
        extra_checks=bronze.EXTRA_CHECKS,
    ),
)
