"""What a person does in the UI, as the UI sends it, until the daemons have run it: the tables must stay as they were.

The webserver's GraphQL schema, the home's own instance, the real backfill and queue daemons; only the launcher is
another one, which runs a run at once and in this process.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.instance.ref import InstanceRef
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._daemon.sensor import execute_sensor_iteration
from dagster_graphql.client.query import LAUNCH_PARTITION_BACKFILL_MUTATION, LAUNCH_PIPELINE_EXECUTION_MUTATION
from dagster_graphql.test.utils import execute_dagster_graphql

from crypto_assets.contracts.slices import HOUR, Slice, hour_key, hour_keys, key_slice
from crypto_assets.market.quotes import Poll
from crypto_assets.orchestration import backfill
from crypto_assets.producer.loop import open_producer

if TYPE_CHECKING:
    from crypto_assets_tests.home_fixtures import SmallHome

LOCATION = "crypto_assets"
LAUNCHER = {"module": "dagster._core.launcher.sync_in_memory_run_launcher", "class": "SyncInMemoryRunLauncher"}
MOST_WAVES = 12


class Ui:
    """A browser's requests and the daemons behind them."""

    def __init__(self, home: SmallHome, instance: dg.DagsterInstance, process: WorkspaceProcessContext) -> None:
        self.home, self.instance, self._process = home, instance, process

    def ask(self, mutation: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The one answer of a mutation."""
        result = execute_dagster_graphql(self._process.create_request_context(), mutation, dict(variables))
        assert not result.errors
        (answer,) = result.data.values()
        return answer

    def dequeue(self) -> None:
        """What the queue daemon does in one go; the launcher has run the runs when it returns."""
        errors = [e for e in QueuedRunCoordinatorDaemon(interval_seconds=1).run_iteration(self._process) if e]
        assert errors == []

    def switch_on(self, sensor: str) -> None:
        """The switch of a sensor."""
        location = self._process.create_request_context().get_code_location(LOCATION)
        self.instance.start_sensor(location.get_repository("__repository__").get_sensor(sensor))

    def tick(self) -> None:
        """One round of the sensor daemon over all sensors that are on."""
        done = execute_sensor_iteration(
            self._process, logging.getLogger("sensors"), threadpool_executor=None, submit_threadpool_executor=None
        )
        assert [error for error in done if error] == []

    def finish(self, backfill_id: str) -> list[dg.DagsterRun]:
        """Let the daemons work until the backfill has ended; its runs, oldest first."""
        found = self.instance.get_backfill(backfill_id)
        for _ in range(MOST_WAVES):
            errors = [e for e in execute_backfill_iteration(self._process, logging.getLogger("backfill")) if e]
            assert errors == []
            found = self.instance.get_backfill(backfill_id)
            assert found is not None
            if found.status != BulkActionStatus.REQUESTED:
                break
            self.dequeue()
        assert found is not None
        assert found.status == BulkActionStatus.COMPLETED_SUCCESS
        runs = self.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
        assert {r.status for r in runs} == {dg.DagsterRunStatus.SUCCESS}
        return list(reversed(runs))

    def materialized_by(self, runs: Sequence[dg.DagsterRun], asset: str) -> list[str]:
        """Partitions of an asset that these runs materialized, sorted."""
        ids = {r.run_id for r in runs}
        records = self.instance.fetch_materializations(dg.AssetKey(asset.split("/")), limit=500).records
        return sorted(str(r.partition_key) for r in records if r.run_id in ids)


@pytest.fixture(scope="module")
def ui(small_home: SmallHome) -> Iterator[Ui]:
    reference = InstanceRef.from_dir(str(small_home.home.dagster), overrides={"run_launcher": LAUNCHER})
    target = InProcessWorkspaceLoadTarget(
        InProcessCodeLocationOrigin(
            LoadableTargetOrigin(module_name="crypto_assets.definitions", attribute="defs"), location_name=LOCATION
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(small_home.home.dagster))
        patch.setattr("crypto_assets.definitions.defs", small_home.defs)
        with (
            dg.DagsterInstance.from_ref(reference) as instance,
            WorkspaceProcessContext(instance, target) as process,
        ):
            yield Ui(small_home, instance, process)


def asset_job(ui: Ui, assets: Sequence[str], tags: Mapping[str, str], config: str = "{}") -> dict[str, Any]:
    """Parameters of "Materialize" on selected assets: with them go their checks."""
    nodes = [ui.home.graph.get(dg.AssetKey(a.split("/"))) for a in assets]
    return {
        "executionParams": {
            "mode": "default",
            "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
            "runConfigData": config,
            "selector": {
                "repositoryLocationName": LOCATION,
                "repositoryName": "__repository__",
                "pipelineName": "__ASSET_JOB",
                "assetSelection": [{"path": a.split("/")} for a in assets],
                "assetCheckSelection": [
                    {"assetKey": {"path": list(node.key.path)}, "name": key.name}
                    for node in nodes
                    for key in sorted(node.check_keys)
                ],
            },
        }
    }


def unchanged(before: Mapping[str, list], after: Mapping[str, list], *, but_for: set[str]) -> None:
    """No row was lost or changed; some tables have new rows, of hours that were not materialized before."""
    assert {name for name in after if after[name] != before[name]} <= but_for
    for name in but_for:
        assert set(map(repr, before[name])) <= set(map(repr, after[name])), name


def launched(ui: Ui, variables: Mapping[str, Any]) -> dg.DagsterRun:
    """The run of a launch, when it has ended."""
    answer = ui.ask(LAUNCH_PIPELINE_EXECUTION_MUTATION, variables)
    assert answer["__typename"] == "LaunchRunSuccess", answer
    ui.dequeue()
    run = ui.instance.get_run_by_id(answer["run"]["runId"])
    assert run is not None
    return run


@pytest.mark.parametrize("asset", ["bronze/raw_prices", "gold/bars_5m", "features/price_features"])
def test_materializing_one_partition_again_changes_nothing(ui: Ui, asset: str):
    home, key = ui.home, ui.home.hour(1)
    before = home.everything()
    run = launched(ui, asset_job(ui, [asset], {"dagster/partition": key}))
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert ui.materialized_by([run], asset) == [key]
    assert ui.materialized_by([run], "gold/bars_1m") == []  # one of a step's three assets can be chosen alone
    assert home.everything() == before


def test_config_of_the_launchpad_reaches_the_step(ui: Ui):
    """`as_of` before the hour: Silver knows nothing yet, and refuses to shrink a closed hour to nothing."""
    home, key = ui.home, ui.home.hour(1)
    before = home.rows("silver.prices")
    config = f"ops: {{silver_prices: {{config: {{as_of: '{home.event_hour.isoformat()}'}}}}}}"
    run = launched(ui, asset_job(ui, ["silver/prices"], {"dagster/partition": key}, config))
    assert run.status == dg.DagsterRunStatus.FAILURE
    (failure,) = ui.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    error = failure.get_dagster_event().step_failure_data.user_failure_data
    assert error is not None
    assert "rebuild" in str(error.description)
    assert key in str(error.description)
    assert home.rows("silver.prices") == before


def test_a_backfill_of_a_range_of_partitions_changes_nothing(ui: Ui):
    home, keys = ui.home, ui.home.hours[3:6]
    assets = ["silver/prices", "gold/bars_5m", "features/price_features"]
    before = home.everything()
    answer = ui.ask(
        LAUNCH_PARTITION_BACKFILL_MUTATION,
        {
            "backfillParams": {
                "assetSelection": [{"path": a.split("/")} for a in assets],
                "partitionNames": keys,
                "fromFailure": False,
                "tags": [],
            }
        },
    )
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    runs = ui.finish(answer["backfillId"])
    assert ui.materialized_by(runs, "silver/prices") == keys
    assert ui.materialized_by(runs, "gold/bars_5m") == keys
    # The UI follows the mappings: with the bars go the features of the 26 hours that look back on them.
    first, last = (key_slice(k, "hour") for k in (keys[0], keys[-1]))
    assert ui.materialized_by(runs, "features/price_features") == hour_keys(Slice(first.start, last.end + 26 * HOUR))
    assert len(runs) == 2  # Silver and bars as one run, and features, which look back, as another
    unchanged(before, home.everything(), but_for={"features.price_features"})


@pytest.mark.slow
def test_the_backfill_of_a_day_changes_no_hour_that_was_there(ui: Ui):
    home = ui.home
    (day, _), now = home.days, datetime.now(UTC)
    first = key_slice(day, "day").start.date()
    chosen = backfill.plan(
        first,
        first,
        "log",
        now=now,
        start=home.settings.partitions_start,
        coins=3,
        history=home.settings.source_facts.history,
    )
    before = home.everything()
    backfill_id = backfill.submit(ui.instance, home.graph, chosen, now=now, tags={"crypto_assets/why": "backfill"})
    runs = ui.finish(backfill_id)
    assert len(ui.materialized_by(runs, "silver/prices")) == 24
    assert ui.materialized_by(runs, "gold/bars_1d") == [day]
    # Hours without a record have no rows, but for tables with a row for every slot or hour.
    unchanged(before, home.everything(), but_for={"features.price_features", "gold.anomalies", "ops.pipeline_metrics"})


def test_the_restatement_sensor_switched_on_restates_a_late_record_by_itself(ui: Ui, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAGSTER_HOME", str(ui.home.home.dagster))  # as every process of a home has it
    home, price = ui.home, Decimal("9995.5")
    event, arrival = home.event_hour + HOUR + timedelta(minutes=20) - timedelta(milliseconds=500), home.next_hour()
    home.send_late(event, arrival, str(price))
    run = launched(ui, asset_job(ui, ["bronze/raw_prices"], {"dagster/partition": hour_key(arrival)}))
    assert run.status == dg.DagsterRunStatus.SUCCESS
    known = {b.backfill_id for b in ui.instance.get_backfills()}
    before = home.everything()

    ui.switch_on("restatement")
    ui.tick()
    (made,) = [b for b in ui.instance.get_backfills() if b.backfill_id not in known]
    assert made.tags["restate"] == str(home.engine.store.version("bronze.raw_prices"))
    runs = ui.finish(made.backfill_id)

    assert ui.materialized_by(runs, "silver/prices") == [home.hour(1)]
    bars = home.engine.store.read_arrow("gold.bars_1h").to_pylist()
    assert [hour_key(b["window_start"]) for b in bars if b["high"] == price] == [home.hour(1)]
    after = home.everything()
    differing = set(map(repr, before["silver.prices"])) ^ set(map(repr, after["silver.prices"]))
    assert len(differing) == 1
    assert not {n for n in after if after[n] != before[n]} & {"bronze.raw_prices", "silver.quarantine", "ops.polls"}


class OneUnusable:
    """The home's source, where the price of a coin cannot be read."""

    def __init__(self, source: Any, coin: str) -> None:
        self._source, self._coin = source, coin
        self.name = source.name

    def poll(self, coin_ids: Sequence[str], now: datetime) -> Poll:
        poll = self._source.poll(coin_ids, now)
        ticks = tuple(t for t in poll.ticks if t.coin_id != self._coin)
        return replace(poll, ticks=ticks, problems=(f"{self._coin}: null price",))


def test_execute_on_the_topics_checks_repeats_the_sensors_verdict_red_or_green(ui: Ui):
    keys = [dg.AssetKey(["kafka", name]) for name in ("crypto_prices_raw", "crypto_polls")]
    variables = asset_job(ui, ["/".join(k.path) for k in keys], {})
    variables["executionParams"]["selector"]["assetSelection"] = []  # as *Execute* sends it: the checks alone
    at = ui.home.next_hour() + 2 * HOUR
    with open_producer(ui.home.settings) as producer:
        plain, known = producer.source, {}
        for minute, (coin, red) in enumerate([(None, set()), ("bitcoin", {"no_coin_missing"}), (None, set())]):
            producer.source = OneUnusable(plain, coin) if coin else plain
            known |= producer.tick(at + timedelta(minutes=minute)).checks()
            run = launched(ui, variables)
            assert run.status == dg.DagsterRunStatus.SUCCESS
            events = ui.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
            data = [e.get_dagster_event().asset_check_evaluation_data for e in events]
            assert {d.check_name: (d.passed, str(d.description)) for d in data} == known
            assert {name for name, (passed, _) in known.items() if not passed} == red
