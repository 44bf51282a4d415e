"""Silver: typed quotes, and the records that did not become any."""

from __future__ import annotations

from crypto_assets.assets import silver
from crypto_assets.orchestration.partitions import DAY_IF_THERE
from crypto_assets.orchestration.shell import Step, dep

STEPS = (
    Step(
        "silver_prices",
        silver.work,
        ["silver.prices"],
        deps=[dep("bronze/raw_prices"), dep("bronze/market_history", DAY_IF_THERE)],
        extra_checks=silver.EXTRA_CHECKS,
    ),
    Step(
        "silver_quarantine",
        silver.work_quarantine,
        ["silver.quarantine"],
        deps=[dep("bronze/raw_prices")],
        extra_checks=silver.QUARANTINE_CHECKS,
    ),
)
