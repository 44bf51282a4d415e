"""Housekeeping on a real SQLite instance: what is shown of partitions and checks is the same before and after."""

# Annotations are not postponed: Dagster looks at those of `context` when it decorates.

import contextlib
import os
import sqlite3
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.asset_key import AssetCheckKey
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.run_coordinator import QueuedRunCoordinator

from crypto_assets.cli.instance import open_instance, packaged_yaml
from crypto_assets.contracts.slices import DAY
from crypto_assets.contracts.tables import LATEST_PRICES
from crypto_assets.definitions import build_definitions
from crypto_assets.engine import wire
from crypto_assets.engine.base import StepInputs
from crypto_assets.engine.inputs import StepInputBuilder
from crypto_assets.home import Home
from crypto_assets.orchestration import event_store, maintenance, maintenance_job, tidying
from crypto_assets.settings import Settings
from crypto_assets.storage.delta_rs import DeltaRsStore
from crypto_assets_tests.serving.lakes import price
from crypto_assets_tests.storage.rows import ALERTS, BRONZE, FIVE, alert, app_id, hour, table, up_to

HOURS = dg.StaticPartitionsDefinition([f"h{i:02}" for i in range(12)])
ASSETS = [dg.AssetKey(["toy", "raw"]), dg.AssetKey(["toy", "latest"])]


@dg.asset(
    key=ASSETS[0],
    partitions_def=HOURS,
    check_specs=[dg.AssetCheckSpec("even", asset=ASSETS[0]), dg.AssetCheckSpec("has_rows", asset=ASSETS[0])],
)
def raw(context: dg.AssetExecutionContext):
    keys = context.partition_keys
    if "h11" in keys:
        raise dg.Failure("no input", allow_retries=False)
    for key in keys:
        context.add_asset_metadata({"rows": 1}, partition_key=key)
        for name, passed in (("even", int(key[1:]) % 2 == 0), ("has_rows", True)):
            context.log_event(
                dg.AssetCheckEvaluation(asset_key=ASSETS[0], check_name=name, passed=passed, partition=key)
            )
    yield dg.MaterializeResult(
        check_results=[dg.AssetCheckResult(check_name=n, passed=True) for n in ("even", "has_rows")]
    )


@dg.asset(key=ASSETS[1], check_specs=[dg.AssetCheckSpec("fresh", asset=ASSETS[1])])
def latest():
    yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=False)])


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", "simulator", date(2024, 1, 1))


@pytest.fixture
def instance(home: Home):
    with open_instance(home) as made:
        yield made


class Jobs:
    """`refresh` and `daily`, run in this process."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        jobs = [
            dg.define_asset_job("refresh", selection=dg.AssetSelection.assets(raw, latest)),
            dg.define_asset_job("daily", selection=dg.AssetSelection.assets(latest)),
        ]
        definitions = dg.Definitions(assets=[raw, latest], jobs=jobs, executor=dg.in_process_executor)
        self.refresh = definitions.resolve_job_def("refresh")
        self.daily = definitions.resolve_job_def("daily")
        self.instance = instance

    def run(self, name: str, partition: str | None = None) -> str:
        job = getattr(self, name)
        return job.execute_in_process(instance=self.instance, partition_key=partition, raise_on_error=False).run_id


def shown(instance: dg.DagsterInstance) -> dict[str, Any]:
    """What the UI shows of partitions and checks."""
    store: Any = instance.event_log_storage
    checks = [AssetCheckKey(ASSETS[0], "even"), AssetCheckKey(ASSETS[0], "has_rows"), AssetCheckKey(ASSETS[1], "fresh")]
    latest = {k.name: instance.get_latest_asset_check_evaluation_record(k) for k in checks}
    return {
        "materialized": instance.get_materialized_partitions(ASSETS[0]),
        "status": instance.get_status_by_partition(ASSETS[0], HOURS.get_partition_keys(), HOURS),
        "events": {
            k.to_user_string(): event.run_id if (event := instance.get_latest_materialization_event(k)) else None
            for k in ASSETS
        },
        "storage_ids": dict(
            instance.get_latest_storage_id_by_partition(ASSETS[0], dg.DagsterEventType.ASSET_MATERIALIZATION)
        ),
        "latest_checks": {n: (r.run_id, r.status, r.partition) for n, r in latest.items() if r is not None},
        "checks_by_partition": sorted(
            (i.check_key.name, i.partition_key or "", i.latest_execution_status.value, i.latest_planned_run_id)
            for i in store.get_asset_check_partition_info(checks)
        ),
        "observation": [e.run_id for e in instance.fetch_observations(dg.AssetKey("topic"), limit=1).records],
    }


def later(days: float = 0, hours: float = 0) -> datetime:
    return datetime.now(UTC) + timedelta(days=days, hours=hours)


@pytest.mark.slow
def test_pruning_leaves_partition_status_and_check_states_as_they_were(instance, home):
    jobs = Jobs(instance)
    runs = [jobs.run("refresh", f"h{i // 4:02}") for i in range(16)]
    failed = jobs.run("refresh", "h11")
    daily = [jobs.run("daily") for _ in range(2)]
    for _ in range(30):
        instance.report_runless_asset_event(dg.AssetObservation(dg.AssetKey("topic"), metadata={"sent": 10}))
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=dg.AssetKey("topic"), check_name="delivered", passed=False)
        )
    before, size = shown(instance), event_store.event_log_bytes(instance)
    now = later(hours=25)

    rehearsal = maintenance.housekeeping(_NoTables(), instance, home, now, dry_run=True)
    assert shown(instance) == before
    assert len(instance.get_runs()) == 19
    assert "12 would go, 5 old ones kept" in _result(rehearsal, "dagster runs")

    done = maintenance.housekeeping(_NoTables(), instance, home, now, dry_run=False)
    assert not [row for row in done if row["failed"]], done
    assert "12 deleted, 5 old ones kept" in _result(done, "dagster runs")
    assert _result(done, "dagster events of sensors") == "58 deleted"
    after = shown(instance)
    assert after == before
    assert len(after["materialized"]) == 4
    # the newest run of each hour, the failure that nothing has made good, and runs of other jobs
    assert {r.run_id for r in instance.get_runs()} == {*runs[3::4], failed, *daily}
    small = event_store.event_log_bytes(instance)
    assert small is not None
    assert size is not None
    assert size - small > 12 * 100_000
    _only_living_runs_have_files(instance)

    again = maintenance.housekeeping(_NoTables(), instance, home, now, dry_run=False)
    assert "0 deleted" in _result(again, "dagster runs")
    assert shown(instance) == before

    much_later = maintenance.housekeeping(_NoTables(), instance, home, later(days=15), dry_run=False)
    assert "1 deleted" in _result(much_later, "dagster runs")  # the older daily run
    assert shown(instance) == before


def _only_living_runs_have_files(instance: dg.DagsterInstance) -> None:
    living = {r.run_id for r in instance.get_runs()}
    store: Any = instance.event_log_storage
    assert set(store.get_all_run_ids()) == living
    storage = Path(instance.storage_directory())
    assert {p.name for p in storage.iterdir() if p.is_dir()} <= living


def _result(rows: list[dict[str, Any]], part: str) -> str:
    return next(row["result"] for row in rows if row["part"] == part)


class _NoTables:
    """A store without any table yet."""

    def exists(self, _table: str) -> bool:
        return False


def test_young_runs_stay_and_the_newest_event_id_is_never_given_up(instance):
    jobs = Jobs(instance)
    first = jobs.run("refresh", "h00")
    second = jobs.run("refresh", "h00")
    lost = instance.create_run_for_job(jobs.daily)
    instance.report_run_failed(lost, "lost")
    assert maintenance.prune_runs(instance, later(hours=5), dry_run=False) == (0, 0)
    assert maintenance.prune_runs(instance, later(days=20), dry_run=False) == (1, 2)
    assert {r.run_id for r in instance.get_runs()} == {second, lost.run_id}
    assert first not in {second, lost.run_id}


def test_stray_files_go_after_a_day(instance, home):
    jobs = Jobs(instance)
    kept = jobs.run("daily")
    store: Any = instance.event_log_storage
    orphan = Path(store.path_for_shard("00000000-0000-0000-0000-000000000000"))
    orphan.write_bytes(b"x")
    left = home.path / "state" / ".producer.json.77.tmp"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text("{")
    young = home.path / "state" / ".credits.json.78.tmp"
    young.write_text("{")
    for path in (orphan, left):
        os.utime(path, (0, 0))
    rows = maintenance.housekeeping(_NoTables(), instance, home, datetime.now(UTC), dry_run=True)
    assert orphan.exists()
    assert left.exists()
    rows = maintenance.housekeeping(_NoTables(), instance, home, datetime.now(UTC), dry_run=False)
    assert _result(rows, "stray files") == "1 deleted"
    assert _result(rows, "dagster event files of deleted runs") == "1 deleted"
    assert not orphan.exists()
    assert not left.exists()
    assert young.exists()
    assert Path(store.path_for_shard(kept)).exists()


class _OneBrokenTable:
    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []

    def exists(self, table: str) -> bool:
        return table in ("silver.prices", "gold.bars_1m")

    def maintain(
        self, table: str, *, as_of: datetime | None, closed_before: datetime, dry_run: bool
    ) -> dict[str, object]:
        self.asked.append((table, dry_run))
        assert closed_before == datetime(2024, 5, 1, 11, tzinfo=UTC)
        if table == "silver.prices":
            raise OSError("disk full")
        return {
            "exists": True,
            "files_compacted": 1200,
            "expired_rows": 0,
            "bytes": 2_500_000,
            "log_files_before": 40,
            "log_files_after": 3,
        }


def test_a_part_that_fails_is_told_and_the_others_are_done(home):
    store, said = _OneBrokenTable(), []
    now = datetime(2024, 5, 1, 12, 40, tzinfo=UTC)
    rows = maintenance.housekeeping(store, None, home, now, dry_run=False, progress=said.append)
    assert [(r["part"], r["result"], r["failed"]) for r in rows] == [
        ("silver.prices", "OSError: disk full", True),
        ("gold.bars_1m", "1,200 files compacted, 2.5 MB, log files 40 → 3", False),
        ("places of models", "0 absolute ones were rewritten", False),
        ("stray files", "0 deleted", False),
    ]
    assert said[0] == "tidying silver.prices"
    table = maintenance.markdown(rows)
    assert "| silver.prices | **failed** OSError: disk full |" in table


def test_retention_counts_from_the_newest_quote_where_the_clock_is_ahead(tmp_path):
    store = DeltaRsStore(str(tmp_path / "lake"), lambda: None)  # type: ignore[arg-type]
    store.append_once(BRONZE, hour(), app_id(), up_to(3))
    store.merge(ALERTS, table(ALERTS, [alert("a")]), mode="upsert")
    clock = FIVE + 200 * DAY

    def tidied(now: datetime = clock) -> dict[str, str]:
        return {row["part"]: row["result"] for row in tidying.tidy(tidying.table_parts(store, now, dry_run=False))}

    def quoted(at: datetime) -> None:
        rows = table(LATEST_PRICES.full_name, [price("bitcoin", "1", at)])
        store.merge(LATEST_PRICES.full_name, rows, mode="upsert")

    assert tidied()[BRONZE].endswith("; nothing expires before there is a quote in gold.latest_prices")
    quoted(FIVE + 80 * DAY)
    told = tidied()
    assert told[BRONZE].endswith("quote, 2024-03-21 05:00Z, 120.0 days before this machine's clock"), told
    assert "retention" not in told[ALERTS]
    assert store.read_arrow(BRONZE).num_rows == 3
    quoted(FIVE + 300 * DAY)  # the source's clock is ahead: this machine's counts
    assert tidied(FIVE + 80 * DAY)[BRONZE].count("expired") == 0
    assert "3 expired rows" in tidied()[BRONZE]
    assert store.read_arrow(BRONZE).num_rows == 0


def test_the_job_reports_a_table_and_fails_when_a_part_fails(instance, home):
    def run(store: Any):
        job = maintenance_job.build()
        return job.execute_in_process(instance=instance, resources=_resources(home, store), raise_on_error=False)

    good = run(_NoTables())
    assert good.success
    output = next(e for e in good.all_events if e.is_successful_output)
    text = output.step_output_data.metadata["housekeeping"].value
    assert text.startswith("| part | result | seconds |")
    assert "| dagster runs | 0 deleted" in text

    class Broken(_OneBrokenTable):
        def maintain(self, table: str, **_kwargs: Any) -> dict[str, object]:
            raise OSError("disk full")

    bad = run(Broken())
    assert not bad.success
    failure = next(e for e in bad.all_events if e.is_step_failure)
    assert "silver.prices: OSError: disk full" in failure.step_failure_data.user_failure_data.description


def _resources(home: Home, store: Any, **settings: Any) -> dict[str, Any]:
    """Resources of both jobs; the home's own settings, or others."""

    engine = SimpleNamespace(store=store)
    chosen = Settings(_env_file=None, source="simulator", home_path=home.path, **settings)  # type: ignore[call-arg]
    given = {"engine": engine, "step_inputs": StepInputBuilder(chosen), "step_launcher": None}
    return {name: dg.ResourceDefinition.hardcoded_resource(value) for name, value in given.items()}


def _reported(result: dg.ExecuteInProcessResult) -> str:
    (output,) = (e for e in result.all_events if e.is_successful_output)
    return output.step_output_data.metadata["housekeeping"].value


def test_a_driver_without_the_tables_says_who_tidies_them_and_when(instance, home):
    def run(job: dg.JobDefinition, store: Any):
        resources = _resources(home, store, target="databricks", catalog="prices_prod")
        return job.execute_in_process(instance=instance, resources=resources)

    before = _reported(run(maintenance_job.build(), _NoTables()))
    assert "| tables of catalog prices_prod | not tidied here: job maintain_tables does that in the workspace" in before
    assert "not yet done" in before
    assert "| dagster runs | 0 deleted" in before

    class Whole(_OneBrokenTable):
        def maintain(self, table: str, **kwargs: Any) -> dict[str, object]:
            self.asked.append((table, kwargs["dry_run"]))
            return {"exists": True, "expired_rows": 7}

    store, job = Whole(), maintenance_job.build_tables_job(3600)
    done = _reported(run(job, store))
    assert "| silver.prices | 7 expired rows; nothing expires before" in done
    assert store.asked == [("silver.prices", False), ("gold.bars_1m", False)]
    after = _reported(run(maintenance_job.build(), _NoTables()))
    assert f"last done {datetime.now(UTC):%Y-%m-%d}" in after


def test_the_job_of_the_workspaces_tables_fails_when_one_fails_or_none_is_there(instance, home):
    def why(store: Any) -> str:
        job, resources = maintenance_job.build_tables_job(3600), _resources(home, store, target="databricks")
        result = job.execute_in_process(instance=instance, resources=resources, raise_on_error=False)
        failure = next(e for e in result.all_events if e.is_step_failure)
        return failure.step_failure_data.user_failure_data.description

    class Broken(_OneBrokenTable):
        def maintain(self, table: str, **_kwargs: Any) -> dict[str, object]:
            raise OSError("disk full")

    assert "failed for 2 of 2 parts: silver.prices: OSError: disk full" in why(Broken())
    assert "no table to tidy" in why(_NoTables())


def test_what_tidied_the_tables_elsewhere_can_be_sent_there_and_back():
    work = wire.work_at(wire.address_of(tidying.work))
    now = datetime(2024, 5, 1, 12, 40, tzinfo=UTC)
    inputs = StepInputs(now=now, run_id="r", source="simulator", partitions_start=now)
    store = _OneBrokenTable()
    engine: Any = SimpleNamespace(store=store)
    result = wire.result_from_json(wire.result_to_json(work(engine, [None], inputs, mode=(tidying.DRY_RUN,))))
    rows = {name: table.metadata for name, table in result.tables.items()}
    assert (rows["silver.prices"]["failed"], rows["silver.prices"]["result"]) == (True, "OSError: disk full")
    assert rows["gold.bars_1m"]["result"].startswith("1,200 files compacted")
    assert store.asked == [("silver.prices", True), ("gold.bars_1m", True)]


@pytest.mark.parametrize(("target", "there"), [("local", False), ("spark", False), ("databricks", True)])
def test_only_where_tables_are_in_a_workspace_there_is_a_job_for_them(target, there, tmp_path):
    settings = Settings(_env_file=None, home_path=tmp_path, target=target, automation=True)  # type: ignore[call-arg]
    repository = build_definitions(settings).get_repository_def()
    assert repository.has_job("maintain_tables") is there
    assert [s.cron_schedule for s in repository.schedule_defs if s.name == "tidy_tables"] == ["40 3 * * *"] * there


def test_free_space_of_the_shared_files_goes_back_to_the_disk(instance):
    store: Any = instance.event_log_storage
    path = Path(store.path_for_shard("index"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE ballast AS SELECT zeroblob(5000000) AS b")
        connection.execute("DROP TABLE ballast")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    freed = event_store.reclaim(instance, dry_run=True)
    assert freed is not None
    assert freed > 4_900_000
    assert path.stat().st_size == size
    assert event_store.reclaim(instance, dry_run=False) == freed
    assert path.stat().st_size <= size - 4_900_000
    assert event_store.reclaim(instance, dry_run=False) == 0


def test_an_instance_without_files_has_nothing_to_tidy_on_disk():
    with dg.DagsterInstance.ephemeral() as memory:
        assert event_store.event_log_bytes(memory) is None
        assert event_store.reclaim(memory, dry_run=False) is None
        assert event_store.stray_files(memory, datetime.now(UTC)) == []


def test_the_packaged_instance_is_what_operations_need(instance):
    assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
    assert instance.run_coordinator.dequeue_interval_seconds == 1
    config = instance.get_concurrency_config()
    assert config.run_queue_config.max_concurrent_runs == 3
    assert instance.run_monitoring_enabled
    assert instance.get_settings("run_retries")["max_retries"] == 1
    for kind in ("sensors", "schedules"):
        assert instance.get_settings(kind)["use_threads"] is True
    skipped = {s.value: d for s, d in instance.get_tick_retention_settings(InstigatorType.SENSOR).items()}
    assert skipped["SKIPPED"] == 1
    assert yaml.safe_load(packaged_yaml())["telemetry"] == {"enabled": False}
