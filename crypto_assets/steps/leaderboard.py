"""`gold.leaderboard_24h`: coins by their change over 24 hours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crypto_assets.compute.base import Engine, Result, StepInputs
from crypto_assets.contracts.slices import HOUR, Slice, floor_hour
from crypto_assets.contracts.tables import LEADERBOARD
from crypto_assets.steps.base import publish_whole
from crypto_assets.steps.bronze_coverage import covered_until
from crypto_assets.transforms.leaderboard import leaderboard_24h


def work(engine: Engine, partition_keys: Sequence[Any], inputs: StepInputs) -> Result:
    """Make the board show the last 24 hours that the log covers. Unpartitioned: `partition_keys` is ignored."""
    del partition_keys
    end = floor_hour(covered_until(engine) or inputs.now) + HOUR
    bars = engine.store.read("gold.bars_5m", Slice(end - 27 * HOUR, end))
    rows = leaderboard_24h(bars).toArrow()
    return Result({LEADERBOARD.full_name: publish_whole(engine, LEADERBOARD, inputs, rows)})
