"""The event log with kept connections stores and answers as Dagster's own does, also under several writers."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from crypto_assets.automation.event_log import KEPT_RUNS, KeptSqliteEventLogStorage

DAYS = dg.StaticPartitionsDefinition(["mon", "tue", "wed"])
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
              module: crypto_assets.automation.event_log
              class: KeptSqliteEventLogStorage
              config: {{dagster_home: {folder}}}
            """)
    (folder / "dagster.yaml").write_text(text, encoding="utf-8")
    with dg.DagsterInstance.from_config(str(folder)) as found:
        expected = KeptSqliteEventLogStorage if kept else SqliteEventLogStorage
        assert type(found.event_log_storage) is expected
        yield found


def fill(found: dg.DagsterInstance) -> list[str]:
    """Run the job for three days; ids of the runs."""
    return [dg.materialize([toy], partition_key=day, instance=found).run_id for day in ("mon", "tue", "wed")]


def told(found: dg.DagsterInstance, runs: list[str]) -> dict[str, object]:
    """What both kinds must agree on, without ids and times."""
    history = found.event_log_storage.get_asset_check_execution_history(CHECK, limit=10)
    materializations = found.fetch_materializations(KEY, limit=10).records
    return {
        "events": [[e.dagster_event_type for e in found.all_logs(run)] for run in runs],
        "messages": [[e.user_message for e in found.all_logs(run) if not e.is_dagster_event] for run in runs],
        "checks": [(r.status, r.evaluation and (r.evaluation.passed, r.evaluation.partition)) for r in history],
        "partitions": sorted(found.get_materialized_partitions(KEY)),
        "materializations": [(r.partition_key, r.asset_materialization.metadata["rows"].value) for r in materializations],
        "run statuses": [found.get_run_by_id(run).status for run in runs],
        "succeeded": [found.get_run_stats(run).steps_succeeded for run in runs],
        "latest": found.get_latest_materialization_event(KEY).asset_materialization.partition,
    }


def test_the_same_is_stored_and_read_back_as_with_dagsters_own(tmp_path):
    answers = {}
    for kept in (True, False):
        with instance(tmp_path / str(kept), kept=kept) as found:
            answers[kept] = told(found, fill(found))
    assert answers[True] == answers[False]
    assert answers[True]["partitions"] == ["mon", "tue", "wed"]
    assert [c[1][0] for c in answers[True]["checks"]] == [True, False, True]


def test_each_kind_reads_the_files_of_the_other(tmp_path):
    folder = tmp_path / "home"
    with instance(folder) as found:
        runs = fill(found)
        before = told(found, runs)
    with instance(folder, kept=False) as found:
        assert told(found, runs) == before
        more = [*runs, *fill(found)]
        both = told(found, more)
    with instance(folder) as found:
        assert told(found, more) == both


def reported(found: dg.DagsterInstance) -> Counter[str]:
    """Partitions that were reported, as often as they are in the log."""
    records = found.fetch_materializations(KEY, limit=1000).records
    return Counter(str(r.partition_key) for r in records)


def report(found: dg.DagsterInstance, name: str, count: int) -> None:
    for i in range(count):
        found.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=f"{name}-{i}"))


def test_threads_of_one_process_lose_nothing(tmp_path):
    with instance(tmp_path / "home") as found:
        failures: list[BaseException] = []
        start = threading.Barrier(3)

        def write(name: str) -> None:
            try:
                start.wait()
                report(found, name, 40)
                dg.materialize([toy], partition_key="mon", instance=found)
            except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=write, args=(f"thread{i}",)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        expected = Counter(f"thread{t}-{i}" for t in range(3) for i in range(40)) + Counter({"mon": 3})
        assert reported(found) == expected


WRITER = """
import sys
import dagster as dg
with dg.DagsterInstance.from_config(sys.argv[1]) as found:
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(40):
        found.report_runless_asset_event(dg.AssetMaterialization("toy", partition=f"{sys.argv[2]}-{i}"))
"""


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


def test_a_deleted_run_is_gone_and_the_others_stay(tmp_path):
    answers = {}
    for kept in (True, False):
        with instance(tmp_path / str(kept), kept=kept) as found:
            runs = fill(found)
            found.delete_run(runs[0])
            assert found.get_run_by_id(runs[0]) is None
            answers[kept] = (
                list(found.all_logs(runs[0])),
                [len(found.all_logs(run)) for run in runs[1:]],
                sorted(found.get_materialized_partitions(KEY)),
            )
    assert answers[True] == answers[False]
    assert answers[True][0] == []


def test_after_a_wipe_events_go_into_new_files(tmp_path):
    folder = tmp_path / "home"
    with instance(folder) as found:
        wiped = fill(found)
        found.wipe()
        assert list(found.all_logs(wiped[0])) == []
        report(found, "after", 2)
    with instance(folder, kept=False) as found:
        assert reported(found) == Counter(["after-0", "after-1"])


def test_connections_of_few_runs_are_kept_and_closed_in_the_end(tmp_path):
    with instance(tmp_path / "home") as found:
        runs = [dg.materialize([toy], partition_key="mon", instance=found).run_id for _ in range(KEPT_RUNS + 4)]
        store = found.event_log_storage
        assert isinstance(store, KeptSqliteEventLogStorage)
        assert len(store._engines) == KEPT_RUNS + 1  # and the index
        lengths = {len(found.all_logs(run)) for run in runs}
        assert len(lengths) == 1
        assert len(store._engines) == KEPT_RUNS + 1
    assert len(store._engines) == 0


def test_a_failed_statement_leaves_the_connection_usable(tmp_path):
    from sqlalchemy import text
    from sqlalchemy.exc import OperationalError

    with instance(tmp_path / "home") as found:
        report(found, "before", 1)
        store = found.event_log_storage
        assert isinstance(store, KeptSqliteEventLogStorage)
        with pytest.raises(OperationalError), store.index_connection() as connection:
            connection.execute(text("DELETE FROM event_logs"))
            connection.execute(text("SELECT * FROM no_such_table"))
        report(found, "after", 1)
        assert reported(found) == Counter(["before-0", "after-0"])
