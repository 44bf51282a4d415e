"""Steps by Pipes on a workspace that really executes them: the same events as here, classes of failure, secrets."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from crypto_assets.engine.base import NotEnoughData, PartitionResult, Result, TableResult
from crypto_assets.engine.wire import (
    WireError,
    address_of,
    failure_from_json,
    failure_to_json,
    opened,
    result_to_json,
    sealed,
)
from crypto_assets.settings import Settings, load_settings
from crypto_assets_tests.databricks_standin import Workspace

pytestmark = pytest.mark.jvm

FOLDER = Path(__file__).parent / "piped"
VOLUME = "/Volumes/crypto_analytics/ops/staging"
SECRET = 'hunter2"of\\the-kafka'
HOURS = ("2026-01-01-00:00", "2026-01-01-01:00", "2026-01-01-02:00")
TOY = dg.AssetKey(["ml", "toy"])


class Piped:
    """The toy steps against a workspace."""

    def __init__(self, workspace: Workspace, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.workspace = workspace
        self.monkeypatch = monkeypatch
        self.given: dict[str, Any] = {
            "target": "databricks-serverless",
            "home_path": home,
            "databricks_host": workspace.host,
            "databricks_token": workspace.token,
            "databricks_poll_s": 0.2,
        }

    def launch(
        self,
        plan: str = "",
        *,
        keys: Sequence[str] = (),
        tables: Sequence[str] = ("bars_1m", "bars_5m", "bars_1h"),
        options: Mapping[str, Any] | None = None,
        instance: dg.DagsterInstance,
        wait_s: int | None = None,
        **changed: Any,
    ) -> dg.ExecuteInProcessResult:
        """Materialize the toy model, or with keys the toy bars."""
        from toy_steps import definitions  # pyright: ignore[reportMissingImports]

        settings = Settings(**{**self.given, **changed})  # type: ignore[arg-type]
        if wait_s is not None:  # shorter than anybody may set it
            settings = settings.model_copy(update={"databricks_wait_s": wait_s})
        tags = {ASSET_PARTITION_RANGE_START_TAG: keys[0], ASSET_PARTITION_RANGE_END_TAG: keys[-1]} if keys else {}
        single = len(keys) == 1
        selection = [dg.AssetKey(["gold", t]) for t in tables] if keys else [TOY]
        return dg.materialize(
            definitions.assets(),
            selection=selection,
            instance=instance,
            partition_key=keys[0] if single else None,
            tags={} if single else tags,
            raise_on_error=False,
            resources=definitions.resources(settings, plan),
            run_config={"ops": {"toy_bars" if keys else "toy_model": {"config": dict(options or {})}}},
        )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    with Workspace(tmp_path_factory.mktemp("workspace"), spark=False) as found:
        found.volumes_api.create("crypto_analytics.ops.staging")
        yield found
        assert found.unknown == []
        assert found.defects == []


@pytest.fixture
def piped(workspace, tmp_path, monkeypatch):
    workspace.faults.clear()
    workspace.uploads.clear()
    workspace.secrets.clear()
    workspace.secrets["crypto-assets"] = {"kafka-sasl-password": SECRET}
    monkeypatch.syspath_prepend(str(FOLDER))
    yield Piped(workspace, tmp_path / "home", monkeypatch)
    load_settings.cache_clear()
    assert workspace.faults.pending == 0
    left = [p for p in workspace.volumes.rglob("*") if p.is_file() and "wheels" not in p.parts]
    assert left == []


@pytest.fixture
def instance(tmp_path):
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as found:
        yield found


def failure(result: Any) -> Any:
    """Data of the one failure of a run."""
    (event,) = [e for e in result.all_events if e.is_step_failure]
    return event.step_failure_data.user_failure_data


def metadata_of(result: Any) -> dict[str, Any]:
    return {k: v.value for k, v in failure(result).metadata.items()}


def happened(instance: dg.DagsterInstance, result: Any) -> list[Any]:
    """Stored materializations and evaluations of a run in a form that two runs share."""
    found: list[Any] = []
    for record in instance.get_records_for_run(result.run_id).records:
        event: Any = record.event_log_entry.dagster_event
        if event is None:
            continue
        if event.event_type_value == "ASSET_MATERIALIZATION":
            made = event.event_specific_data.materialization
            tags = {k: v for k, v in made.tags.items() if "input_event" not in k and "run_id" not in k}
            found.append((str(made.asset_key), str(made.partition), dict(made.metadata), tags))
        if event.event_type_value == "ASSET_CHECK_EVALUATION":
            seen = event.event_specific_data
            told = (seen.passed, seen.severity, seen.description, dict(seen.metadata), seen.blocking)
            found.append((str(seen.asset_key), seen.check_name, str(seen.partition), *told))
    return found


CASES = {
    "unpartitioned": {},
    "single": {"keys": HOURS[:1]},
    "range": {"keys": HOURS},
    "subset": {"keys": HOURS, "tables": ("bars_5m",)},
    "options": {"keys": HOURS[1:], "options": {"rebuild": True, "accept_gap": True, "as_of": "2026-02-01T00:00:00Z"}},
    "skipped": {"plan": "skip"},
}


@pytest.mark.parametrize("case", CASES)
def test_the_events_are_those_of_a_local_run(piped, instance, case):
    with dg.DagsterInstance.ephemeral() as other:
        here = piped.launch(**CASES[case], instance=other, target="local")
        expected = happened(other, here)
    there = piped.launch(**CASES[case], instance=instance)
    assert here.success
    assert there.success
    assert happened(instance, there) == expected
    assert expected != []
    assert piped.workspace.runs[-1].result_state == "SUCCESS"


def test_the_step_runs_from_the_wheel_without_dagster_and_without_a_session(piped, instance):
    result = piped.launch("look", instance=instance, kafka_sasl_password=SECRET)
    assert result.success
    (record,) = instance.fetch_materializations(TOY, limit=2).records
    seen = {k: v.value for k, v in record.asset_materialization.metadata.items()}
    shipped = f"{piped.workspace.runs[-1].tasks[0].folder}/libraries/"
    assert seen["package"].startswith(shipped), "the code that ran is that of the wheel"
    assert (seen["dagster"], seen["pyspark"], seen["role"]) == (False, False, "remote")
    assert seen["secret"] == len(SECRET)
    assert seen["run_id"] == result.run_id
    assert seen["coins"] > 0
    (task,) = piped.workspace.runs[-1].tasks
    assert task.cluster == {}
    request = piped.workspace.runs[-1].request
    assert request["run_name"].startswith("crypto_assets toy_model (")
    assert request["idempotency_token"] == hashlib.sha256(f"{result.run_id}/toy_model/0".encode()).hexdigest()
    assert request["environments"][0]["spec"]["environment_version"] == "4"


def test_the_checkout_cannot_be_read_from_the_step(piped, instance):
    result = piped.launch(f"peek {piped.workspace.checkout}", instance=instance)
    assert "PermissionError" in failure(result).description
    assert "the checkout does not exist on a cluster" in failure(result).description


def test_a_failed_audit_shows_its_evaluations_and_is_red_on_both_sides(piped, instance):
    with dg.DagsterInstance.ephemeral() as other:
        here = piped.launch("audit", keys=HOURS, tables=("bars_1h",), instance=other, target="local")
        expected = happened(other, here)
    there = piped.launch("audit", keys=HOURS, tables=("bars_1h",), instance=instance)
    assert happened(instance, there) == expected
    assert {e[2] for e in expected if not e[3]} == {HOURS[1]}
    assert failure(there).description == failure(here).description
    assert failure(there).description.startswith("nothing was committed: 1 tables")
    metadata = metadata_of(there)
    assert metadata["databricks_failure_class"] == "code"
    assert metadata["databricks_run_url"].startswith(piped.workspace.host)
    assert piped.workspace.runs[-1].result_state == "FAILED"
    assert instance.fetch_materializations(dg.AssetKey(["gold", "bars_1h"]), limit=1).records == []


@pytest.mark.parametrize(("plan", "said"), [("fail", "start it"), ("refuse", "set rebuild")])
def test_what_a_step_refuses_is_said_as_it_is_locally(piped, instance, plan, said):
    with dg.DagsterInstance.ephemeral() as other:
        here = piped.launch(plan, instance=other, target="local")
    there = piped.launch(plan, instance=instance)
    assert failure(there).description == failure(here).description
    assert said in failure(there).description
    assert metadata_of(there)["databricks_failure_class"] == "code"
    assert piped.workspace.runs[-1].result_state == "FAILED"


def test_a_crash_names_its_class_run_and_place(piped, instance):
    result = piped.launch("crash", instance=instance)
    assert "ZeroDivisionError: the toy crashed" in failure(result).description
    metadata = metadata_of(result)
    assert metadata["databricks_failure_class"] == "code"
    assert metadata["databricks_run_id"] == str(piped.workspace.runs[-1].run_id)
    assert metadata["databricks_run_url"].startswith(piped.workspace.host)
    assert "_raise_as_planned" in metadata["databricks_output"]
    assert len(metadata["databricks_output"].encode()) <= 4096
    assert piped.workspace.runs[-1].result_state == "FAILED"


FAULTS = {
    "cluster": {"life_cycle_state": "INTERNAL_ERROR", "result_state": "FAILED", "state_message": "no capacity"},
    "cancelled": {"life_cycle_state": "TERMINATED", "result_state": "CANCELED", "execute": False},
    "skipped": {"life_cycle_state": "SKIPPED", "state_message": "too many runs"},
    "timeout": {"life_cycle_state": "TERMINATED", "result_state": "TIMEDOUT", "execute": False},
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_run_that_ends_badly_is_a_failure_with_its_class(piped, instance, kind):
    piped.workspace.faults.next("run", **FAULTS[kind])
    result = piped.launch(instance=instance)
    assert metadata_of(result)["databricks_failure_class"] == kind


def test_a_run_that_is_lost_after_the_work_is_a_failure(piped, instance):
    lost = {"life_cycle_state": "INTERNAL_ERROR", "result_state": "FAILED", "execute": True}
    piped.workspace.faults.next("run", **lost)
    result = piped.launch(instance=instance)
    assert metadata_of(result)["databricks_failure_class"] == "cluster"


def test_a_run_that_takes_too_long_is_cancelled(piped, instance):
    result = piped.launch("sleep", instance=instance, wait_s=1)
    assert metadata_of(result)["databricks_failure_class"] == "timeout"
    run = piped.workspace.runs[-1]
    run.wait_for()
    assert run.result_state == "CANCELED"


def test_a_process_that_dies_is_a_failure_of_the_code(piped, instance):
    result = piped.launch("die", instance=instance)
    metadata = metadata_of(result)
    assert metadata["databricks_failure_class"] == "code"
    assert "exit code 3" in metadata["databricks_output"]


def test_a_broken_wheel_is_packaging(piped, instance):
    assert piped.launch(instance=instance).success
    (wheel,) = [p for p in piped.workspace.volumes.rglob("*.whl") if p.parent.name in wheels_of(piped.workspace)[-1]]
    whole = wheel.read_bytes()
    wheel.write_bytes(b"not a wheel")
    try:
        result = piped.launch(instance=instance)
    finally:
        wheel.write_bytes(whole)
    assert metadata_of(result)["databricks_failure_class"] == "packaging"


def wheels_of(workspace: Workspace) -> list[str]:
    """Paths of the wheels that the runs named, in order."""
    specs = [r.request["environments"][0]["spec"]["dependencies"] for r in workspace.runs]
    return [next(d for d in dependencies if d.endswith(".whl")) for dependencies in specs]


def test_the_same_code_is_uploaded_once_and_other_wheels_are_named_not_deleted(piped, instance):
    assert piped.launch(instance=instance).success
    placed = piped.workspace.volumes.joinpath(*wheels_of(piped.workspace)[-1].removeprefix("/Volumes/").split("/"))
    old = placed.parents[1] / "0000"
    old.mkdir()
    (old / "crypto_assets-0.0.1-py3-none-any.whl").write_bytes(b"old")
    placed.unlink()
    piped.workspace.uploads.clear()
    first, second = piped.launch(instance=instance), piped.launch(instance=instance)
    assert first.success
    assert second.success
    (upload,) = [u for u in piped.workspace.uploads if u.path.endswith(".whl")]
    assert wheels_of(piped.workspace)[-2:] == [upload.path, upload.path]
    names = zipfile.ZipFile(io.BytesIO(upload.data)).namelist()
    assert {n.split("/")[0] for n in names} == {"crypto_assets", "toy_steps", "crypto_assets-0.1.0.dist-info"}
    assert {n.rsplit(".", 1)[-1] for n in names if "dist-info" not in n} <= {"py", "typed", "yaml", "toml", "json"}
    logged = "\n".join(r.event_log_entry.user_message for r in instance.get_records_for_run(first.run_id).records)
    assert f"databricks fs rm -r dbfs:{VOLUME}/wheels/0000" in logged
    assert old.is_dir()


@pytest.mark.parametrize("plan", ["leak", "quote"])
def test_a_secret_is_read_on_the_far_side_and_shown_nowhere(piped, instance, plan, capfd):
    result = piped.launch(plan, instance=instance, kafka_sasl_password=SECRET)
    assert result.success == (plan == "quote")
    forms = (SECRET, SECRET.encode().hex(), repr(SECRET)[1:-1], SECRET.replace("\\", "\\\\").replace('"', '\\"'))
    for upload in piped.workspace.uploads:
        data = upload.data
        if upload.path.endswith(".whl"):
            archive = zipfile.ZipFile(io.BytesIO(data))
            data = b"".join(archive.read(n) for n in archive.namelist())
        for hidden in (*forms, piped.workspace.token):
            assert hidden.encode() not in data, upload.path
    run = piped.workspace.runs[-1]
    logged = repr([r.event_log_entry for r in instance.get_records_for_run(result.run_id).records])
    shown = [logged, repr(run.request), run.stdout, run.stderr, run.tasks[0].error or "", *capfd.readouterr()]
    for hidden in (*forms, piped.workspace.token):
        assert [s for s in shown if hidden in s] == []
    assert "**********" in logged
    assert ("the password is **********" in run.stdout) == (plan == "leak")


def test_a_missing_secret_an_old_environment_and_an_absent_volume_are_said_together(piped, instance):
    before = len(piped.workspace.runs)
    result = piped.launch(
        instance=instance,
        databricks_host=piped.workspace.host.replace("127.0.0.1", "127.1"),
        kafka_bootstrap_servers="127.0.0.1:9092",
        coingecko_api_key="a-key-that-the-scope-lacks",
        databricks_environment_version=3,
        databricks_staging="/Volumes/crypto_analytics/ops/absent",
    )
    said = failure(result).description
    for part in (
        "secret crypto-assets/coingecko-api-key is missing",
        "CRYPTO_ASSETS_DATABRICKS_ENVIRONMENT_VERSION=4",
        "volume crypto_analytics.ops.absent does not exist",
        "Kafka at 127.0.0.1:9092 is a loopback or private address",
    ):
        assert part in said
    assert "a-key-that-the-scope-lacks" not in said
    assert len(piped.workspace.runs) == before
    assert [p for _, p, _ in piped.workspace.requests if "dbfs" in p] == []


def test_dbfs_for_a_serverless_step_is_refused(piped, instance):
    result = piped.launch(instance=instance, databricks_staging="dbfs:/tmp/mine")
    assert "serverless compute has no DBFS" in failure(result).description


def test_settings_that_would_travel_with_a_secret_are_refused(piped, instance):
    before = len(piped.workspace.runs)
    result = piped.launch(instance=instance, kafka_sasl_password=SECRET, kafka_sasl_username=f"me:{SECRET}")
    assert "KAFKA_SASL_PASSWORD" in failure(result).description
    assert SECRET not in failure(result).description
    assert len(piped.workspace.runs) == before


def test_a_503_after_an_accepted_submit_gives_one_run(piped, instance):
    before = len(piped.workspace.runs)
    piped.workspace.faults.next("submit", status=503, after_accept=True, retry_after=0)
    piped.workspace.faults.next("get", status=429, retry_after=0)
    assert piped.launch(instance=instance).success
    assert len(piped.workspace.runs) == before + 1


def test_a_refused_submit_is_a_failure_that_says_so(piped, instance):
    piped.workspace.faults.next("submit", status=403, message="no serverless here")
    result = piped.launch(instance=instance)
    assert "PERMISSION_DENIED: no serverless here" in failure(result).description


@pytest.mark.slow
def test_an_interrupted_run_cancels_the_remote_one(piped, tmp_path):
    before, calls = len(piped.workspace.runs), len(piped.workspace.requests)
    home = tmp_path / "dagster"
    home.mkdir()
    env = {
        **os.environ,
        "CRYPTO_ASSETS_TARGET": "databricks-serverless",
        "CRYPTO_ASSETS_HOME": str(tmp_path / "home"),
        "DATABRICKS_HOST": piped.workspace.host,
        "DATABRICKS_TOKEN": piped.workspace.token,
        "CRYPTO_ASSETS_DATABRICKS_POLL_S": "0.2",
        "DAGSTER_HOME": str(home),
        "TOY_PLAN": "sleep",
    }
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "ml/toy"]
    command += ["-m", "toy_steps.definitions", "-d", str(FOLDER)]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as driver:
        submitted = None
        while submitted is None and driver.poll() is None:
            submitted = next(iter(piped.workspace.runs[before:]), None)
        assert submitted is not None, driver.communicate()[1][-3000:]
        submitted.wait_for("RUNNING")
        # Only when the driver has seen the run does it know what to cancel.
        while not any(path.endswith("jobs/runs/get") for _, path, _ in workspace_requests(piped)[calls:]):
            assert driver.poll() is None
        driver.send_signal(signal.SIGINT)
        told = driver.communicate(timeout=60)[1]
    submitted.wait_for(timeout_s=30)
    assert submitted.result_state == "CANCELED", told[-3000:]
    assert driver.returncode != 0


def workspace_requests(piped: Piped) -> list[tuple[str, str, int]]:
    return list(piped.workspace.requests)


def test_a_value_that_cannot_be_sent_is_named():
    result = Result({"ml.toy": TableResult({None: PartitionResult(1, "v", {"share": {"now": b"bytes"}})})})
    with pytest.raises(WireError, match=r"ml.toy metadata share.now is a bytes"):
        result_to_json(result)


def test_a_damaged_message_is_refused():
    message = sealed("result", "whole")
    assert opened(message) == "whole"
    with pytest.raises(WireError, match="arrived damaged"):
        opened({**message, "text": "who"})


def test_a_function_without_a_name_of_its_own_cannot_be_sent():
    with pytest.raises(WireError, match="make it a function of a module"):
        address_of(lambda *_: Result())


def test_too_little_data_arrives_with_what_is_there():
    told = failure_from_json(failure_to_json(NotEnoughData("two of seven days", {"days": 2}), str))
    assert isinstance(told, NotEnoughData)
    assert (str(told), told.metadata) == ("two of seven days", {"days": 2})
