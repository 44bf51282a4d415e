"""`gold.leaderboard_24h`: coins by their change over 24 hours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from crypto_assets.assets.card import Reads, Step
from crypto_assets.assets.log_slices.coverage import covered_until
from crypto_assets.assets.plots import lines
from crypto_assets.assets.publishing import publish_whole
from crypto_assets.contracts.slices import HOUR, Slice, floor_hour
from crypto_assets.contracts.tables import LEADERBOARD
from crypto_assets.engine.base import Engine, Markdown, Result, StepInputs
from crypto_assets.transforms.leaderboard import leaderboard_24h


@Step("gold_leaderboard_24h", [LEADERBOARD], reads=[Reads("gold/bars_5m")], moved_by="slot", role="transform")
def work(engine: Engine, _keys: Sequence[Any], inputs: StepInputs) -> Result:
    """Make the board show the last 24 hours that the log covers. Unpartitioned."""
    end = floor_hour(covered_until(engine) or inputs.now) + HOUR
    bars = engine.store.read("gold.bars_5m", Slice(end - 27 * HOUR, end))
    rows = leaderboard_24h(bars).toArrow()
    done = publish_whole(engine, LEADERBOARD, inputs, rows)
    done.metadata["plot"] = _changes(engine, Slice(end - 25 * HOUR, end))
    return Result({LEADERBOARD.full_name: done})


def _changes(engine: Engine, slice_: Slice) -> Markdown | None:
    """Change of every coin since its first bar of the span, in percent."""
    columns = ["symbol", "window_end", "close"]
    bars = engine.store.read_arrow("gold.bars_5m", slice_, columns=columns).sort_by("window_end").to_pylist()
    first: dict[str, float] = {}
    series: dict[str, list[tuple[datetime, float]]] = {}
    for bar in bars:
        close = float(bar["close"])
        start = first.setdefault(bar["symbol"], close)
        series.setdefault(bar["symbol"], []).append((bar["window_end"], (close / start - 1) * 100))
    return lines("change over 24 hours", "%", dict(sorted(series.items())))
