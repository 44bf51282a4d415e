"""What moves the one asset that no job moves, evaluated on the real definitions and a home's real instance."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
import pytest

if TYPE_CHECKING:
    from crypto_assets_tests.home_fixtures import SmallHome

LEADERBOARD = dg.AssetKey(["gold", "leaderboard_24h"])
BARS = dg.AssetKey(["gold", "bars_5m"])
SLOT = timedelta(minutes=5)


class Ticks:
    """Ticks of the conditions sensor, one after the other, each some time after the last."""

    def __init__(self, home: SmallHome) -> None:
        self.home = home
        self.cursor = None
        self.now = datetime.now(UTC).replace(minute=1, second=0, microsecond=0) + timedelta(days=1)

    def requested(self, later: timedelta) -> list[str]:
        """Assets that a tick asks for."""
        self.now += later
        result = dg.evaluate_automation_conditions(
            self.home.defs, self.home.instance, evaluation_time=self.now, cursor=self.cursor
        )
        self.cursor = result.cursor
        return [r.key.to_user_string() for r in result.results if not r.true_subset.is_empty]


@pytest.fixture
def ticks(small_home: SmallHome) -> Ticks:
    """Ticks that have begun: the first one handles what lies before it."""
    found = Ticks(small_home)
    found.requested(timedelta(0))
    return found


def bars_updated(home: SmallHome) -> None:
    home.instance.report_runless_asset_event(dg.AssetMaterialization(BARS, partition=home.hour(0)))


def test_only_the_leaderboard_has_a_condition(small_home):
    graph = small_home.graph
    having = [k for k in graph.get_all_asset_keys() if graph.get(k).automation_condition is not None]
    assert having == [LEADERBOARD]


def test_a_board_that_was_never_made_waits_for_its_first_run(ticks, small_home):
    assert small_home.instance.get_latest_materialization_event(LEADERBOARD) is None
    bars_updated(small_home)
    assert ticks.requested(SLOT) == []


def board_made(home: SmallHome, ticks: Ticks) -> None:
    """The board is written, and a tick has seen it."""
    home.run("gold/leaderboard_24h", [])
    assert ticks.requested(timedelta(seconds=30)) == []


def test_new_bars_move_it_once_a_slot(ticks, small_home):
    board_made(small_home, ticks)
    assert ticks.requested(SLOT) == []  # a slot ended, and no bar came
    bars_updated(small_home)
    assert ticks.requested(timedelta(seconds=30)) == ["gold/leaderboard_24h"]

    board_made(small_home, ticks)
    bars_updated(small_home)
    assert ticks.requested(timedelta(seconds=30)) == []  # bars came, and the slot has not ended
    assert ticks.requested(SLOT) == ["gold/leaderboard_24h"]
    assert ticks.requested(timedelta(seconds=30)) == []  # what was asked for is not asked for again


@pytest.mark.parametrize("busy", [BARS, LEADERBOARD])
def test_it_waits_while_bars_or_the_board_are_being_written(ticks, small_home, busy):
    """A run in progress is known by what it plans to materialize."""
    board_made(small_home, ticks)
    bars_updated(small_home)
    run = small_home.instance.create_run_for_job(
        job_def=small_home.defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={busy}),
        tags={"dagster/partition": small_home.hour(0)} if busy == BARS else {},
        asset_selection=frozenset({busy}),
        status=dg.DagsterRunStatus.STARTED,
    )
    assert ticks.requested(SLOT) == []
    small_home.instance.report_run_canceled(run)
    assert ticks.requested(timedelta(seconds=30)) == ["gold/leaderboard_24h"]
