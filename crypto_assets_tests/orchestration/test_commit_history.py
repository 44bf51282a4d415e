"""Late records as Dagster's events tell of them: the same hours as the tables say, whatever run was killed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from crypto_assets.assets import bronze, commit_report
from crypto_assets.contracts.slices import HOUR, hour_key
from crypto_assets.contracts.tables import RAW_PRICES
from crypto_assets.definitions import build_definitions
from crypto_assets.engine.base import PartitionResult, Result, StepInputs, TableResult
from crypto_assets.engine.inputs import StepInputBuilder
from crypto_assets.orchestration import commit_history
from crypto_assets.orchestration.commit_history import BRONZE, SILVER, EventHistory, TableHistory
from crypto_assets.storage.base import Commit
from crypto_assets_tests.orchestration.test_restatement import bronze_version, target, tick

if TYPE_CHECKING:
    from crypto_assets_tests.home_fixtures import SmallHome

MINUTE = timedelta(minutes=1)
NOW = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)


class Telling(StepInputBuilder):
    """Inputs as the driver of a Databricks target makes them, as far as commits go."""

    def build(self, **given: Any) -> StepInputs:
        inputs = super().build(**given)
        return replace(inputs, params={**inputs.params, commit_report.WANTED: True})


@pytest.fixture(scope="module")
def home(small_home: SmallHome) -> SmallHome:
    """A home whose runs tell of commits: both histories can be had of it."""
    told = dg.ResourceDefinition.hardcoded_resource(Telling(small_home.settings))
    return replace(small_home, defs=build_definitions(small_home.settings, {"step_inputs": told}))


def killed_bronze(home: SmallHome, key: str) -> None:
    """What a run leaves that is killed between its commit and its event."""
    inputs = Telling(home.settings).build(now=datetime.now(UTC), run_id="killed", keys=[key], reads_log="prices")
    bronze.work(home.engine, [key], inputs)


def newest_events(home: SmallHome, key: dg.AssetKey, count: int) -> dict[str | None, dict[str, Any]]:
    records = home.instance.fetch_materializations(key, limit=count).records
    return {
        r.partition_key: {k: v.value for k, v in r.asset_materialization.metadata.items()}
        for r in records
        if r.asset_materialization is not None
    }


def test_events_and_tables_ask_for_the_same_after_a_killed_run(home):
    cursor, arrival = bronze_version(home), home.next_hour()
    home.send_late(home.event_hour + 20 * MINUTE, arrival, "9999.5")
    killed_bronze(home, hour_key(arrival))
    nobody = tick(home, str(cursor), "databricks")
    assert not nobody.run_requests, "no event tells of the commit yet"
    assert nobody.cursor == str(cursor)

    following = home.next_hour()
    home.send_late(home.event_hour + 2 * HOUR + 20 * MINUTE, following, "9998.5")
    keys = [hour_key(following), hour_key(following + HOUR)]
    home.run("bronze/raw_prices", keys)
    events = newest_events(home, BRONZE, 2)
    assert commit_report.METADATA not in events[keys[0]], "one partition of a range tells it"
    assert events[keys[1]][commit_report.METADATA][-2:] == [
        [cursor + 1, cursor + 1, [home.hour(0)]],
        [cursor + 2, cursor + 2, [home.hour(2)]],
    ]

    tables, told = tick(home, str(cursor)), tick(home, str(cursor), "databricks")
    wanted = target(told.run_requests[0])
    assert wanted == target(tables.run_requests[0])
    assert wanted["silver/prices"] == [home.hour(0), home.hour(2)]
    assert told.run_requests[0].tags == tables.run_requests[0].tags
    assert (told.cursor, tables.cursor) == (str(cursor + 2), str(cursor + 2))

    home.run_partitions({SILVER: [home.hour(0)]})
    assert newest_events(home, SILVER, 1)[home.hour(0)]["bronze_version"] == cursor + 2
    tables, told = tick(home, str(cursor)), tick(home, str(cursor), "databricks")
    assert target(told.run_requests[0]) == target(tables.run_requests[0])
    assert target(told.run_requests[0])["silver/prices"] == [home.hour(2)]
    home.run_partitions({SILVER: [home.hour(2)]})
    for again in (tick(home, str(cursor)), tick(home, str(cursor), "databricks")):
        assert not again.run_requests
        assert again.cursor == str(cursor + 2)


def test_both_histories_know_the_same_of_silver(home):
    asked = [home.hour(n) for n in (0, 2, 25, 77)]
    known = EventHistory(home.instance).silver_read(asked)
    assert set(known) == set(asked[:3]), "the last one was never materialized"
    assert known == TableHistory(home.engine.store).silver_read(asked)


def test_a_refresh_in_progress_comes_first(home):
    cursor = str(bronze_version(home) - 1)
    run = create_run_for_test(home.instance, job_name="refresh", status=dg.DagsterRunStatus.STARTED)
    waiting = tick(home, cursor, "databricks")
    assert "refresh is in progress" in waiting.skip_message
    assert waiting.cursor == cursor
    assert "in progress" not in tick(home, cursor).skip_message
    home.instance.report_run_canceled(run)
    assert "in progress" not in tick(home, cursor, "databricks").skip_message


@pytest.mark.parametrize(
    ("before", "span", "first"),
    [
        pytest.param((1, 2), timedelta(0), 0, id="a few before the run's own"),
        pytest.param((1, 2), timedelta(days=3650), -1, id="more where commits are frequent"),
        pytest.param((10_000, 10_000), timedelta(0), None, id="all of a young table"),
    ],
)
def test_a_run_tells_its_own_commits_and_some_before(home, monkeypatch, before, span, first):
    """Counted from the version that the run found."""
    monkeypatch.setattr(commit_report, "BEFORE", before)
    monkeypatch.setattr(commit_report, "SPAN", span)
    newest = bronze_version(home)
    found = newest - 1
    partitions: dict[str | None, PartitionResult] = {"2024-05-01-12:00": PartitionResult(1, "v")}
    done = TableResult(partitions, {"delta_version_before": found, "delta_version_after": newest})
    inputs = Telling(home.settings).build(now=datetime.now(UTC), run_id="r")
    commit_report.with_commits(home.engine, RAW_PRICES, Result({RAW_PRICES.full_name: done}), inputs)
    rows = partitions["2024-05-01-12:00"].metadata[commit_report.METADATA]
    assert rows[0][0] == (0 if first is None else found + first)
    assert rows[-1][1] == newest


def commits(*touched: Sequence[str]) -> list[Commit]:
    return [Commit(4 + i, NOW, "WRITE", {"touched_hours": json.dumps(list(t))}) for i, t in enumerate(touched)]


def test_neighbours_that_touched_the_same_are_told_as_one():
    seven, eight = hour_key(NOW - 5 * HOUR), hour_key(NOW - 4 * HOUR)
    given = [*commits([seven], [seven], [seven, eight], [], [eight]), Commit(11, NOW, "OPTIMIZE", {})]
    rows = commit_report.to_rows(given)
    assert rows == [[4, 5, [seven]], [6, 6, [seven, eight]], [7, 7, []], [8, 8, [eight]], [11, 11, []]]
    back = commit_report.from_rows(rows, NOW)
    assert [c.version for c in back] == [c.version for c in given]
    assert commit_report.to_rows(back) == rows


def test_commits_that_the_log_no_longer_holds_are_told_with_their_late_hours():
    cleaned = {"missing_from": "2", "missing_to": "9", "touched_hours": '["2024-05-01-07:00"]'}
    assert commit_report.to_rows([Commit(9, NOW, "HISTORY CLEANED", cleaned)]) == [[2, 9, ["2024-05-01-07:00"]]]


def tell(instance: dg.DagsterInstance, rows: list[list[Any]] | None) -> None:
    metadata = {} if rows is None else {commit_report.METADATA: dg.MetadataValue.json(rows)}
    instance.report_runless_asset_event(dg.AssetMaterialization(BRONZE, metadata=metadata))


def test_what_nobody_tells_of_is_said_to_be_unknown():
    with dg.DagsterInstance.ephemeral() as instance:
        history = EventHistory(instance)
        assert history.bronze_after(-1) == []
        assert history.silver_read([]) == {}
        tell(instance, [[0, 4, []]])
        tell(instance, [[9, 12, ["2024-05-01-07:00"]]])
        tell(instance, None)
        found = history.bronze_after(2)
        assert [(c.version, c.operation) for c in found] == [
            *[(3, "REPORTED"), (4, "REPORTED"), (8, commit_history.UNKNOWN)],
            *[(v, "REPORTED") for v in (9, 10, 11, 12)],
        ]
        assert commit_history.unknown(found) == "5..8"
        assert commit_history.unknown(history.bronze_after(8)) == ""


def test_older_events_are_read_until_the_version_is_reached():
    with dg.DagsterInstance.ephemeral() as instance:
        for version in range(250):
            tell(instance, [[version, version, []]])
        history = EventHistory(instance)
        assert [c.version for c in history.bronze_after(-1)] == list(range(250))
        assert [c.version for c in history.bronze_after(200)] == list(range(201, 250))


def test_the_sensor_says_which_commits_are_unknown_and_goes_on(home, capsys):
    with dg.DagsterInstance.ephemeral() as instance:
        tell(instance, [[0, 4, []]])
        tell(instance, [[9, 12, []]])
        result = tick(replace(home, instance=instance), "2", "databricks")
    assert result.cursor == "12"
    said = capsys.readouterr().err
    assert "no run reports which hours the Bronze commits 5..8 touched" in said
    assert "crypto-assets backfill" in said
