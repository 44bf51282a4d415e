"""Gold: bars, dimensions, and what a board shows first."""

from __future__ import annotations

import dagster as dg

from crypto_assets.assets import bars, dims, latest, leaderboard
from crypto_assets.orchestration.shell import Step, dep

LEADERBOARD_MOVES = (
    dg.AutomationCondition.any_deps_updated().with_label("bars were updated").since_last_handled()
    & dg.AutomationCondition.cron_tick_passed("*/5 * * * *").with_label("a 5-minute slot ended").since_last_handled()
    & ~dg.AutomationCondition.missing().with_label("the first run was made by `demo` or `up`")
    & ~dg.AutomationCondition.any_deps_in_progress().with_label("no refresh is writing bars")
    & ~dg.AutomationCondition.in_progress().with_label("not running already")
)
"""No job moves the leaderboard: it follows bars_5m, at most once a slot."""

STEPS = (
    Step(
        "gold_bars",
        bars.work,
        ["gold.bars_1m", "gold.bars_5m", "gold.bars_1h"],
        deps=[dep("silver/prices")],
        subset=True,
    ),
    Step(
        "gold_bars_1d",
        bars.work_day,
        ["gold.bars_1d"],
        deps=[dep("silver/prices"), dep("gold/bars_1h")],
        grain="day",
    ),
    Step("gold_latest_prices", latest.work, ["gold.latest_prices"], deps=[dep("silver/prices")], grain=None),
    Step(
        "gold_leaderboard_24h",
        leaderboard.work,
        ["gold.leaderboard_24h"],
        deps=[dep("gold/bars_5m")],
        grain=None,
        automation_condition=LEADERBOARD_MOVES,
    ),
    Step("gold_dim_coin", dims.work_dim_coin, ["gold.dim_coin"], grain=None),
    Step("gold_dim_date", dims.work_dim_date, ["gold.dim_date"], grain=None),
)
