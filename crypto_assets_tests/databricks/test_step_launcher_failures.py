"""Failed launches: what each is called, what is shown of it, red on both sides, cancel passed on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from crypto_assets_tests.databricks.launched.toys import FOLDER, environment, failure, failure_metadata

pytestmark = pytest.mark.jvm

FAULTS = {
    "cluster": {"life_cycle_state": "INTERNAL_ERROR", "result_state": "FAILED", "state_message": "no capacity"},
    "cancelled": {"life_cycle_state": "TERMINATED", "result_state": "CANCELED", "execute": False},
    "skipped": {"life_cycle_state": "SKIPPED", "state_message": "too many runs"},
    "timeout": {"life_cycle_state": "TERMINATED", "result_state": "TIMEDOUT", "execute": False},
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_run_that_ends_badly_is_a_failure_with_its_class_and_address(toys, kind):
    toys.workspace.faults.next("run", **FAULTS[kind])
    result = toys.launch()
    assert not result.success
    metadata = failure_metadata(result)
    assert metadata["databricks_failure_class"] == kind
    assert metadata["databricks_run_url"].startswith(toys.workspace.host)
    assert metadata["databricks_run_id"] == str(toys.workspace.runs[-1].run_id)


def test_an_unknown_result_is_a_failure(toys):
    toys.workspace.faults.next("run", life_cycle_state="TERMINATED", result_state="MAYBE", execute=False)
    result = toys.launch()
    assert not result.success
    assert failure_metadata(result)["databricks_failure_class"] == "skipped"


@pytest.mark.parametrize(("plan", "said"), [("fail", "the toy was asked to fail"), ("crash", "ZeroDivisionError")])
def test_a_failed_step_is_red_on_both_sides(toys, plan, said):
    result = toys.launch(plan=plan)
    assert not result.success
    assert said in repr(failure(result))
    metadata = failure_metadata(result)
    assert metadata["databricks_failure_class"] == "code"
    assert toys.uploaded().keys() >= {"code.zip", "step_run_ref.pkl", "config.pkl"}
    assert toys.staged() == [], "what was uploaded is gone after a failure too"
    assert metadata["databricks_run_url"].startswith(toys.workspace.host)
    assert "STEP_FAILURE" in metadata["databricks_output"]
    assert toys.workspace.runs[-1].result_state == "FAILED"


@pytest.mark.parametrize(("plan", "kind"), [("exit", "code"), ("die", "packaging")])
def test_a_process_that_dies_is_code_after_its_first_event_and_packaging_before(toys, plan, kind):
    result = toys.launch(plan=plan)
    assert not result.success
    metadata = failure_metadata(result)
    assert metadata["databricks_failure_class"] == kind
    assert "exit code 3" in metadata["databricks_output"]


def test_code_that_cannot_be_imported_is_packaging(toys):
    result = toys.launch(plan="import")
    assert not result.success
    metadata = failure_metadata(result)
    assert metadata["databricks_failure_class"] == "packaging"
    assert "a_library_that_nobody_installed" in metadata["databricks_output"]
    assert len(metadata["databricks_output"].encode()) <= 4096


def test_a_library_that_cannot_be_installed_is_packaging(toys):
    absent = [{"pypi": {"package": "a-library-that-nobody-published==1.0"}}]
    result = toys.launch(launcher={"run_config": {"libraries": absent}})
    assert not result.success
    metadata = failure_metadata(result)
    assert metadata["databricks_failure_class"] == "packaging"
    assert "a-library-that-nobody-published" in metadata["databricks_output"]
    assert toys.workspace.runs[-1].tasks[0].stdout == "", "the task never ran"


def test_a_run_that_takes_too_long_is_cancelled(toys):
    result = toys.launch(plan="sleep", launcher={"max_completion_wait_time_seconds": 1})
    assert not result.success
    assert failure_metadata(result)["databricks_failure_class"] == "timeout"
    run = toys.workspace.runs[-1]
    run.wait_for()
    assert run.result_state == "CANCELED"


@pytest.mark.slow
@pytest.mark.parametrize("processes", [False, True])
def test_an_interrupted_run_cancels_the_remote_one_and_leaves_nothing_staged(toys, tmp_path, processes):
    before = len(toys.workspace.runs)
    home = tmp_path / "dagster"
    home.mkdir()
    config = tmp_path / "config.yaml"
    config.write_text("resources: {step_launcher: {config: {overrides: {env_variables: {TOY_PLAN: sleep}}}}}")
    env = {**os.environ, **environment(toys.workspace, tmp_path / "home"), "DAGSTER_HOME": str(home)}
    env |= {"TOY_PROCESSES": "1"} if processes else {}
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "ml/plain"]
    command += ["-m", "toy_assets.definitions", "-d", str(FOLDER), "-c", str(config)]
    quiet = subprocess.DEVNULL
    with (
        tempfile.TemporaryDirectory(prefix="driver-") as temporary,  # short: sockets lie in it
        subprocess.Popen(command, env=env | {"TMPDIR": temporary}, stdout=quiet, stderr=quiet) as driver,
    ):
        submitted = None
        while submitted is None and driver.poll() is None:
            submitted = next(iter(toys.workspace.runs[before:]), None)
        assert submitted is not None, "the driver ended before it submitted"
        submitted.wait_for("RUNNING")
        assert toys.staged() != []
        driver.send_signal(signal.SIGINT)
        assert driver.wait(60) != 0
        assert list(Path(temporary).glob("crypto-assets-*")) == []
    submitted.wait_for()
    assert submitted.result_state == "CANCELED"
    assert toys.staged() == []
