"""The event log with kept connections stores and answers as Dagster's own does, also under several writers."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.test_utils import create_run_for_test
from dagster._serdes import deserialize_value

from crypto_assets.orchestration.event_log import KEPT_RUNS, KeptSqliteEventLogStorage, together

DAYS = dg.StaticPartitionsDefinition(["mon", "tue"])
KEY = dg.AssetKey("toy")
CHECK = dg.AssetCheckKey(KEY, "toy_check")


@dg.asset(partitions_def=DAYS, check_specs=[dg.AssetCheckSpec("toy_check", asset=KEY)])
def toy(context):
    """An asset whose check is red on Tuesdays."""
    context.log.info("a log line")
    passed = context.partition_key != "tue"
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=passed)], metadata={"rows": 3})


@contextmanager
def instance(folder: Path, *, kept: bool = True) -> Iterator[dg.DagsterInstance]:
    """An instance whose storage lies in `folder`; both kinds use the same files."""
    folder.mkdir(exist_ok=True)
    text = "telemetry: {enabled: false}\n"
    if kept:
        text += textwrap.dedent(f"""\
            event_log_storage:
              module: crypto_assets.orchestration.event_log
              class: KeptSqliteEventLogStorage
              config: {{dagster_home: {folder}}}
            """)
    (folder / "dagster.yaml").write_text(text, encoding="utf-8")
    with dg.DagsterInstance.from_config(str(folder)) as found:
        expected = KeptSqliteEventLogStorage if kept else SqliteEventLogStorage
        assert type(found.event_log_storage) is expected
        yield found


def fill(found: dg.DagsterInstance) -> list[str]:
    """Run the job for two days; ids of the runs."""
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    return [dg.materialize([toy], partition_key=day, instance=found, run_config=quiet).run_id for day in ("mon", "tue")]


def told(found: Any, runs: list[str]) -> dict[str, Any]:
    """What both kinds must agree on, without ids and times."""
    history = found.event_log_storage.get_asset_check_execution_history(CHECK, limit=10)
    materializations = found.fetch_materializations(KEY, limit=10).records
    return {
        "events": [[e.dagster_event_type for e in found.all_logs(run)] for run in runs],
        "messages": [[e.user_message for e in found.all_logs(run) if not e.is_dagster_event] for run in runs],
        "checks": [(r.status, r.evaluation and (r.evaluation.passed, r.evaluation.partition)) for r in history],
        "partitions": sorted(found.get_materialized_partitions(KEY)),
        "rows": [(r.partition_key, r.asset_materialization.metadata["rows"].value) for r in materializations],
        "run statuses": [found.get_run_by_id(run).status for run in runs],
        "succeeded": [found.get_run_stats(run).steps_succeeded for run in runs],
        "latest": found.get_latest_materialization_event(KEY).asset_materialization.partition,
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, tuple[Path, list[str], dict]]:
    """By kind: a folder that it has filled, the ids of the runs, and what it told of them."""
    made = {}
    for kept in (True, False):
        folder = tmp_path_factory.mktemp("kept" if kept else "own") / "home"
        with instance(folder, kept=kept) as found:
            runs = fill(found)
            made[kept] = (folder, runs, told(found, runs))
    return made


def test_the_same_is_stored_and_read_back_as_with_dagsters_own(both):
    answers = {kept: answer for kept, (_, _, answer) in both.items()}
    assert answers[True] == answers[False]
    assert answers[True]["partitions"] == ["mon", "tue"]
    assert [passed for _, (passed, _) in answers[True]["checks"]] == [False, True]


@pytest.mark.parametrize("kept", [True, False])
def test_each_kind_reads_the_files_of_the_other(both, kept):
    folder, runs, answer = both[not kept]
    with instance(folder, kept=kept) as found:
        assert told(found, runs) == answer


def test_a_deleted_run_is_gone_and_the_others_stay(both):
    """The last to use these folders."""
    answers = {}
    for kept, (folder, runs, _) in both.items():
        with instance(folder, kept=kept) as found:
            assert list(found.all_logs(runs[0]))
            found.delete_run(runs[0])
            assert found.get_run_by_id(runs[0]) is None
            assert list(found.all_logs(runs[0])) == []
            answers[kept] = (len(found.all_logs(runs[1])), sorted(found.get_materialized_partitions(KEY)))
    assert answers[True] == answers[False]
    assert answers[True][0] > 0


def reported(found: dg.DagsterInstance) -> Counter[str]:
    """Partitions that were reported, as often as they are in the log."""
    records = found.fetch_materializations(KEY, limit=1000).records
    return Counter(str(r.partition_key) for r in records)


def report(found: dg.DagsterInstance, name: str, count: int) -> None:
    for i in range(count):
        found.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=f"{name}-{i}"))


def test_threads_of_one_process_lose_nothing(tmp_path):
    """Sensors tick in threads, and report what they saw."""
    with instance(tmp_path / "home") as found:
        failures: list[BaseException] = []
        start = threading.Barrier(3)

        def write(name: str) -> None:
            try:
                start.wait()
                report(found, name, 40)
            except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=write, args=(f"thread{i}",), daemon=True) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert reported(found) == Counter(f"thread{t}-{i}" for t in range(3) for i in range(40))


WRITER = """
import sys
import dagster as dg
with dg.DagsterInstance.from_config(sys.argv[1]) as found:
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(40):
        found.report_runless_asset_event(dg.AssetMaterialization("toy", partition=f"{sys.argv[2]}-{i}"))
"""


@pytest.mark.slow
def test_processes_write_at_once_and_see_each_other(tmp_path):
    folder = tmp_path / "home"
    with instance(folder) as found:
        report(found, "before", 1)
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(folder), f"process{i}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for i in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        report(found, "here", 40)
        assert [writer.communicate(timeout=60) and writer.returncode for writer in writers] == [0, 0]
        names = [f"{n}-{i}" for n in ("process0", "process1", "here") for i in range(40)]
        assert reported(found) == Counter([*names, "before-0"])


def new_file(storage: SqliteEventLogStorage) -> tuple[list[str], str]:
    """Content of the file that a storage makes for a run, and its journal mode."""
    with storage.run_connection("run"):
        pass
    storage.dispose()
    with closing(sqlite3.connect(storage.path_for_shard("run"))) as file:
        return list(file.iterdump()), file.execute("PRAGMA journal_mode").fetchone()[0]


@pytest.mark.parametrize("script", [None, "BEGIN; CREATE TABLE event_logs (id); CREATE TABLE event_logs (id); COMMIT;"])
def test_a_new_runs_file_is_as_dagster_makes_it(tmp_path, script, monkeypatch):
    """Also when another process makes the tables in the same moment: the script then fails at the first of them."""
    if script:
        monkeypatch.setattr(KeptSqliteEventLogStorage, "_tables_as_sql", script)
    kept = KeptSqliteEventLogStorage(str(tmp_path / "kept"))
    assert new_file(kept) == new_file(SqliteEventLogStorage(str(tmp_path / "dagsters")))


def runs_with_an_event(found: dg.DagsterInstance, count: int) -> list[str]:
    """Runs that have one event each in a file of their own."""
    runs = [create_run_for_test(found) for _ in range(count)]
    for run in runs:
        found.report_engine_event("something happened", run)
    return [run.run_id for run in runs]


def test_after_a_wipe_events_go_into_new_files(tmp_path):
    folder = tmp_path / "home"
    with instance(folder) as found:
        report(found, "before", 1)
        (wiped,) = runs_with_an_event(found, 1)
        found.wipe()
        assert list(found.all_logs(wiped)) == []
        report(found, "after", 2)
    with instance(folder, kept=False) as found:
        assert reported(found) == Counter(["after-0", "after-1"])


def test_connections_of_few_runs_are_kept_and_closed_in_the_end(tmp_path):
    with instance(tmp_path / "home") as found:
        store = found.event_log_storage
        assert isinstance(store, KeptSqliteEventLogStorage)
        report(found, "before", 1)
        runs = runs_with_an_event(found, KEPT_RUNS + 3)
        assert len(store._engines) == KEPT_RUNS + 1  # and the index
        assert [[e.message for e in found.all_logs(run)] for run in runs] == [["something happened"]] * len(runs)
        assert len(store._engines) == KEPT_RUNS + 1
    assert len(store._engines) == 0


def test_a_failed_statement_leaves_the_connection_usable(tmp_path):
    from sqlalchemy import text
    from sqlalchemy.exc import OperationalError

    with instance(tmp_path / "home") as found:
        report(found, "before", 1)
        store = found.event_log_storage
        assert isinstance(store, KeptSqliteEventLogStorage)

        def fail() -> None:
            with store.index_connection() as connection:
                connection.execute(text("DELETE FROM event_logs"))
                connection.execute(text("SELECT * FROM no_such_table"))

        with pytest.raises(OperationalError):
            fail()
        report(found, "after", 1)
        assert reported(found) == Counter(["before-0", "after-0"])


def newest_of(found: dg.DagsterInstance, day: str) -> Any:
    """Rows that the newest materialization of a day reported, asked as Dagster asks for every check it stores."""
    wanted = dg.AssetRecordsFilter(asset_key=KEY, asset_partitions=[day])
    records = found.fetch_materializations(wanted, limit=1).records
    found_one = records[0].asset_materialization if records else None
    return found_one and found_one.metadata["rows"].value


def materialized(found: dg.DagsterInstance, day: str, rows: int) -> None:
    found.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=day, metadata={"rows": rows}))


def test_the_newest_materialization_is_known_whoever_wrote_it(tmp_path):
    with instance(tmp_path) as mine, instance(tmp_path) as other:
        assert newest_of(mine, "mon") is None
        materialized(mine, "mon", 1)
        assert newest_of(mine, "mon") == 1
        assert newest_of(mine, "mon") == 1
        materialized(other, "mon", 2)
        assert newest_of(mine, "mon") == 2
        materialized(mine, "tue", 3)
        assert (newest_of(mine, "mon"), newest_of(mine, "tue"), newest_of(other, "tue")) == (2, 3, 3)


@pytest.mark.parametrize("by", ["mine", "other"])
def test_a_wiped_materialization_is_not_the_newest(tmp_path, by):
    with instance(tmp_path) as mine, instance(tmp_path) as other:
        materialized(mine, "mon", 1)
        assert newest_of(mine, "mon") == 1
        {"mine": mine, "other": other}[by].wipe_assets([KEY])
        assert newest_of(mine, "mon") is None


def test_a_deleted_run_takes_its_newest_materialization_along(tmp_path):
    with instance(tmp_path) as mine:
        first, second = (dg.materialize([toy], partition_key="mon", instance=mine).run_id for _ in range(2))
        wanted = dg.AssetRecordsFilter(asset_key=KEY, asset_partitions=["mon"])
        before = mine.fetch_materializations(wanted, limit=1).records[0].run_id
        mine.delete_run(second)
        after = mine.fetch_materializations(wanted, limit=1).records
        with instance(tmp_path, kept=False) as dagsters:
            assert [r.run_id for r in after] == [
                r.run_id for r in dagsters.fetch_materializations(wanted, limit=1).records
            ]
        assert before == second != first


@dg.asset(
    partitions_def=DAYS,
    check_specs=[dg.AssetCheckSpec("toy_check", asset=KEY, partitions_def=DAYS)],
    backfill_policy=dg.BackfillPolicy.single_run(),
    key=KEY,
)
def ranged(context):
    """An asset of both days at once, whose check is red on Tuesdays."""
    with together():
        for day in context.partition_keys:
            context.log_event(
                dg.AssetCheckEvaluation(KEY, "toy_check", day != "tue", metadata={"day": day}, partition=day)
            )
        context.log.info("after the evaluations")
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=False)])


def run_both_days(found: dg.DagsterInstance) -> str:
    days = {"dagster/asset_partition_range_start": "mon", "dagster/asset_partition_range_end": "tue"}
    return dg.materialize([ranged], instance=found, tags=days).run_id


def evaluations(found: Any, run: str) -> list[Any]:
    """Evaluations of single days that a run has stored."""
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    events: list[Any] = [e for e in found.all_logs(run) if e.dagster_event_type == kind]
    return [e for e in events if e.dagster_event.asset_check_evaluation_data.partition is not None]


def executions(found: Any) -> list[tuple[Any, ...]]:
    """Rows of the table of checks, each with the event that it names by its id."""
    with found.event_log_storage.index_connection() as connection:
        rows = connection.exec_driver_sql(
            "SELECT c.execution_status, c.partition, c.evaluation_event = e.event, c.run_id = e.run_id, e.event "
            "FROM asset_check_executions c JOIN event_logs e ON e.id = c.evaluation_event_storage_id ORDER BY c.id"
        ).fetchall()
    told = []
    for status, partition, same, of_run, text in rows:
        entry: Any = deserialize_value(text)
        data = entry.dagster_event.asset_check_evaluation_data
        told.append((status, partition, same, of_run, data.partition, data.passed, dict(data.metadata)))
    return told


def indexed(found: Any) -> dict[str, Any]:
    """What the index holds of a run's assets, without ids and times: events in order, tags, the asset's newest."""
    with found.event_log_storage.index_connection() as connection:
        tables = {
            "events": "SELECT dagster_event_type, asset_key, partition FROM event_logs ORDER BY id",
            "tags": "SELECT t.key, e.partition FROM asset_event_tags t JOIN event_logs e ON e.id = t.event_id",
            "newest": "SELECT last_materialization, last_run_id, asset_key FROM asset_keys",
        }
        rows = {name: connection.exec_driver_sql(sql).fetchall() for name, sql in tables.items()}
    rows["tags"].sort()
    newest: list[Any] = [deserialize_value(row[0]) for row in rows["newest"]]
    rows["newest"] = [(entry.partition_key, row[2]) for entry, row in zip(newest, rows["newest"], strict=True)]
    return rows


def test_events_stored_together_are_those_stored_one_by_one(tmp_path):
    found = {}
    for kept in (True, False):
        with instance(tmp_path / str(kept), kept=kept) as made:
            run = run_both_days(made)
            events = [e.dagster_event_type for e in made.all_logs(run)]
            found[kept] = events, sorted(executions(made), key=str), len(evaluations(made, run)), indexed(made)
    assert found[True] == found[False]
    ((newest, asset),) = found[True][3]["newest"]
    assert (newest in {"mon", "tue"}, asset) == (True, '["toy"]')  # Dagster stores them in the order of a set
    told = {row[:6] for row in found[True][1]}
    assert told == {
        ("SUCCEEDED", "mon", 1, 1, "mon", True),
        ("FAILED", "tue", 1, 1, "tue", False),
        ("FAILED", None, 1, 1, None, False),
    }


def test_a_retried_step_updates_its_evaluations(tmp_path):
    with instance(tmp_path) as found:
        run = run_both_days(found)
        before = executions(found)
        with together():
            for event in evaluations(found, run):
                found.handle_new_event(event)
        assert executions(found) == before


def test_an_error_within_the_block_loses_no_evaluation(tmp_path):
    with instance(tmp_path) as found:
        event = evaluations(found, run_both_days(found))[0]
        run = create_run_for_test(found, job_name="broken").run_id

        def breaks() -> None:
            with together():
                found.handle_new_event(event._replace(run_id=run))
                assert not evaluations(found, run)
                raise RuntimeError("the disk")

        with pytest.raises(RuntimeError, match="the disk"):
            breaks()
        assert len(evaluations(found, run)) == 1
