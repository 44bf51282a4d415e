"""Market history: days fetched from the source, for what was never polled. On demand, never scheduled."""

from __future__ import annotations

from crypto_assets.assets import market_history
from crypto_assets.orchestration.shell import Step

STEPS = (
    Step(
        "bronze_market_history",
        market_history.work,
        ["bronze.market_history"],
        grain="day",
        extra_checks=market_history.EXTRA_CHECKS,
    ),
)
