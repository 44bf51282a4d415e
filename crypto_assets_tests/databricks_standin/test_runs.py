"""Runs: life cycle, results, output, cancelling, and every way to go wrong that a client must know."""

from __future__ import annotations

import threading

import psutil
import pytest
import requests
from databricks.sdk.errors import BadRequest, InvalidParameterValue, OperationFailed, ResourceDoesNotExist
from databricks.sdk.service import compute, iam, jobs

from crypto_assets_tests.databricks_standin import Workspace

pytestmark = pytest.mark.jvm

HANGS = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
print("hanging", flush=True)
time.sleep(600)
"""


def _wait_for_file(path, run):
    for _ in range(600):
        if path.exists() and path.read_text():
            return int(path.read_text())
        run.cancelled.wait(0.05)
    raise AssertionError(f"{run.state}: {run.stderr}")


def _gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def _request(ws, **extra):
    """One submit by plain HTTP, without the retries of the SDK."""
    cluster = {"spark_version": "19.0.x-scala2.13", "node_type_id": "i3.xlarge", "num_workers": 0}
    task = {"task_key": "main", "new_cluster": cluster, "spark_python_task": {"python_file": "dbfs:/main.py"}}
    head = {"Authorization": f"Bearer {ws.token}"}
    return requests.post(
        f"{ws.host}/api/2.1/jobs/runs/submit", json={"tasks": [task], **extra}, headers=head, timeout=10
    )


def test_a_run_succeeds(ws, client, submit):
    run = submit("import sys; print('hello', sys.argv[1:])", "a", "b c", run_name="step")
    assert run.wait_for() == "TERMINATED"
    assert (run.result_state, run.name, run.parameters) == ("SUCCESS", "step", ["a", "b c"])
    assert run.history == ["PENDING", "RUNNING", "TERMINATING", "TERMINATED"]
    assert run.stdout == "hello ['a', 'b c']\n"
    told = client.jobs.get_run(run.run_id)
    assert told.state.life_cycle_state == jobs.RunLifeCycleState.TERMINATED
    assert told.state.result_state == jobs.RunResultState.SUCCESS
    assert told.status.termination_details.code == jobs.TerminationCodeCode.SUCCESS
    assert told.run_page_url.startswith(ws.host)
    assert told.end_time >= told.start_time > 0
    assert client.clusters.get(told.tasks[0].cluster_instance.cluster_id).spark_version == "19.0.x-scala2.13"


def test_output_belongs_to_the_task_and_not_to_the_run(client, submit):
    run = submit("print('out'); raise ValueError('broken')")
    run.wait_for()
    with pytest.raises(InvalidParameterValue, match="each individual task run"):
        client.jobs.get_run_output(run.run_id)
    task = client.jobs.get_run(run.run_id).tasks[0]
    output = client.jobs.get_run_output(task.run_id)
    assert output.error == "ValueError: broken"
    assert "raise ValueError('broken')" in output.logs
    assert output.logs.startswith("out\n")
    assert "Traceback" in output.error_trace


def test_a_failure_of_the_code_ends_the_run_internal_error_and_the_task_terminated(client, submit):
    run = submit("import sys; sys.exit(3)")
    assert run.wait_for() == "INTERNAL_ERROR"
    told = client.jobs.get_run(run.run_id)
    assert told.state.result_state == jobs.RunResultState.FAILED
    assert told.state.state_message == "Task main failed with message: Workload failed, see run output for details."
    assert told.tasks[0].state.life_cycle_state == jobs.RunLifeCycleState.TERMINATED
    assert client.jobs.get_run_output(told.tasks[0].run_id).error == "SystemExit: 3"
    assert "RUNNING" in run.history


@pytest.mark.parametrize("code", ["import os; os._exit(0)", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_process_that_just_disappears_has_failed(submit, code):
    run = submit(code)
    run.wait_for()
    assert run.result_state == "FAILED"
    assert "exited with exit code" in run.tasks[0].error


def test_exit_0_is_a_success(submit):
    run = submit("import sys; sys.exit(0)")
    run.wait_for()
    assert run.result_state == "SUCCESS"


def test_an_idempotency_token_gives_the_same_run(ws, submit):
    first = submit("", idempotency_token="one")
    assert submit("", idempotency_token="one") is first
    assert submit("", idempotency_token="two") is not first
    assert submit("") is not first
    assert len(ws.runs) == 3


def test_503_after_an_accepted_submit_gives_one_run_with_a_token_and_two_without(ws, client, submit):
    ws.faults.next("submit", status=503, after_accept=True, retry_after=0)
    run = submit("print('once')", idempotency_token="one")
    assert len(ws.runs) == 1
    run.wait_for()
    assert [s for _, path, s in ws.requests if path.endswith("submit")] == [503, 200]
    ws.faults.next("submit", status=503, after_accept=True, retry_after=0)
    submit("print('twice')")
    assert len(ws.runs) == 3


def test_429_and_503_before_a_submit_leave_no_run(ws):
    ws.faults.next("submit", status=429, retry_after=1)
    ws.faults.next("submit", status=503)
    refused = _request(ws)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert refused.json()["error_code"] == "RESOURCE_EXHAUSTED"
    assert _request(ws).status_code == 503
    assert ws.runs == []


@pytest.mark.parametrize(
    ("fault", "history", "executed"),
    [
        ({"life_cycle_state": "SKIPPED", "state_message": "Skipped."}, ["PENDING", "SKIPPED"], False),
        ({"life_cycle_state": "INTERNAL_ERROR", "result_state": "FAILED"}, ["PENDING", "INTERNAL_ERROR"], False),
        ({"result_state": "EXPLODED"}, ["PENDING", "RUNNING", "TERMINATING", "TERMINATED"], True),
        ({"result_state": "SUCCESS_WITH_FAILURES"}, ["PENDING", "RUNNING", "TERMINATING", "TERMINATED"], True),
    ],
)
def test_runs_that_end_as_they_are_told(ws, client, submit, fault, history, executed):
    ws.faults.next("run", **fault)
    run = submit("print('executed')")
    run.wait_for()
    assert run.history == history
    assert (run.stdout == "executed\n") is executed
    head = {"Authorization": f"Bearer {ws.token}"}
    url = f"{ws.host}/api/2.2/jobs/runs/get?run_id={run.run_id}"
    told = requests.get(url, headers=head, timeout=10).json()["state"]
    assert told["life_cycle_state"] == history[-1]
    assert told.get("result_state") == fault.get("result_state")
    known = {s.value for s in jobs.RunResultState}
    state = client.jobs.get_run(run.run_id).state.result_state
    assert (state.value if state else None) == (
        fault.get("result_state") if fault.get("result_state") in known else None
    )


def test_cancelling_kills_the_task_and_its_children(ws, client, submit, tmp_path):
    run = submit(HANGS, str(tmp_path / "pid"))
    child = _wait_for_file(tmp_path / "pid", run)
    client.jobs.cancel_run(run.run_id)
    assert run.wait_for() == "TERMINATED"
    assert (run.result_state, run.history[-2:]) == ("CANCELED", ["TERMINATING", "TERMINATED"])
    assert client.jobs.get_run(run.run_id).state.user_cancelled_or_timedout
    assert _gone(child)
    assert _gone(run.tasks[0].pid)
    client.jobs.cancel_run(run.run_id)
    assert run.result_state == "CANCELED"


def test_a_run_times_out(submit, tmp_path):
    run = submit(HANGS, str(tmp_path / "pid"), timeout_seconds=1)
    run.wait_for()
    assert run.result_state == "TIMEDOUT"
    assert _gone(run.tasks[0].pid)


def test_more_runs_than_workers_are_queued(tmp_path):
    from databricks.sdk import WorkspaceClient

    with Workspace(tmp_path / "ws", spark=False, workers=1) as ws:
        client = WorkspaceClient(host=ws.host, token=ws.token)
        ws.delays["PENDING"] = 600
        assert [_request(ws).status_code for _ in range(3)] == [200] * 3
        first, second, third = ws.runs
        assert (first.state, second.state, third.state) == ("PENDING", "QUEUED", "QUEUED")
        assert client.jobs.get_run(second.run_id).as_dict()["state"]["life_cycle_state"] == "QUEUED"
        assert [r.run_id for r in client.jobs.list_runs(active_only=True)] == [r.run_id for r in reversed(ws.runs)]
        client.jobs.cancel_run(second.run_id)
        assert (second.state, second.result_state) == ("TERMINATED", "CANCELED")
        client.jobs.cancel_run(first.run_id)
        first.wait_for()
        third.wait_for("PENDING")
    assert [r.result_state for r in ws.runs] == ["CANCELED"] * 3


def test_closing_the_workspace_leaves_no_process(tmp_path, ws, submit):
    run = submit(HANGS, str(tmp_path / "pid"))
    child = _wait_for_file(tmp_path / "pid", run)
    ws.close()
    assert _gone(child)
    assert _gone(run.tasks[0].pid)
    assert not [t for t in threading.enumerate() if "serve_forever" in t.name]


def test_a_workspace_that_is_started_again_goes_on(tmp_path):
    from databricks.sdk import WorkspaceClient

    seen = []
    for _ in range(2):
        with Workspace(tmp_path / "ws", spark=False, dbfs=True) as ws:
            client = WorkspaceClient(host=ws.host, token=ws.token)
            with client.dbfs.open("/main.py", write=True, overwrite=True) as out:
                out.write(b"print('up')")
            ws.clusters.add("c-1")
            python = jobs.SparkPythonTask(python_file="dbfs:/main.py")
            client.jobs.submit(tasks=[jobs.SubmitTask("main", existing_cluster_id="c-1", spark_python_task=python)])
            ws.runs[0].wait_for()
            assert (ws.runs[0].result_state, ws.defects) == ("SUCCESS", [])
            seen.append(ws.runs[0].run_id)
    assert seen[0] < seen[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spark_version": "1.0.x-scala2.10"}, "Invalid spark version"),
        ({"node_type_id": "abacus"}, "Node type abacus is not supported"),
        ({"policy_id": "absent"}, "cluster policy"),
        ({"instance_pool_id": "absent"}, "instance pool"),
    ],
)
def test_clusters_that_cannot_be_are_refused(ws, submit, change, message):
    with pytest.raises(BadRequest, match=message):
        submit("", cluster=change)
    assert ws.runs == []


def test_what_cannot_be_submitted(ws, client):
    with pytest.raises(BadRequest, match="exactly one"):
        client.jobs.submit(tasks=[jobs.SubmitTask(task_key="a", notebook_task=jobs.NotebookTask("/x"))])
    python = jobs.SparkPythonTask(python_file="dbfs:/main.py")
    with pytest.raises(BadRequest, match="existing_cluster_id"):
        client.jobs.submit(tasks=[jobs.SubmitTask(task_key="a", spark_python_task=python)])
    with pytest.raises(BadRequest, match="64"):
        client.jobs.submit(tasks=[], idempotency_token="x" * 65)
    with pytest.raises(ResourceDoesNotExist, match="Run 7 does not exist"):
        client.jobs.get_run(7)
    assert ws.runs == []


def test_a_library_that_is_not_there_fails_before_the_task_starts(client, submit):
    library = [{"pypi": {"package": "dagster==0.0.1"}}]
    run = submit("print('executed')", task={"libraries": library})
    assert run.wait_for() == "INTERNAL_ERROR"
    assert "Library installation failed" in run.message
    assert (run.stdout, run.tasks[0].history) == ("", ["PENDING", "INTERNAL_ERROR"])


def test_a_task_after_a_failed_one_is_skipped(client, put):
    cluster = compute.ClusterSpec(spark_version="19.0.x-scala2.13", node_type_id="i3.xlarge", num_workers=0)
    files = {"good": put("/good.py", "print('good')"), "bad": put("/bad.py", "1 / 0")}
    tasks = [
        jobs.SubmitTask(
            task_key=key,
            new_cluster=cluster,
            spark_python_task=jobs.SparkPythonTask(python_file=files[file]),
            depends_on=[jobs.TaskDependency(task_key=n) for n in needs],
        )
        for key, file, needs in (("a", "good", []), ("b", "bad", ["a"]), ("c", "good", ["b"]))
    ]
    submitted = client.jobs.submit(tasks=tasks)
    with pytest.raises(OperationFailed, match="Task b failed"):
        submitted.result()
    told = client.jobs.get_run(submitted.run_id)
    assert [t.state.result_state.value for t in told.tasks] == ["SUCCESS", "FAILED", "UPSTREAM_FAILED"]


def test_permissions(ws, client, submit):
    run = submit("")
    run.wait_for()
    rights = [iam.AccessControlRequest(group_name="ops", permission_level=iam.PermissionLevel.CAN_VIEW)]
    client.permissions.update("jobs", str(run.job_id), access_control_list=rights)
    assert ws.permissions[f"jobs/{run.job_id}"] == [{"group_name": "ops", "permission_level": "CAN_VIEW"}]
    with pytest.raises(ResourceDoesNotExist):
        client.permissions.update("clusters", "absent", access_control_list=rights)


@pytest.mark.parametrize("kind", ["volumes", "dbfs"])
def test_cluster_logs_are_delivered(ws, submit, dbfs, kind):
    volume = {"volumes": "/Volumes/crypto_analytics/ops/staging/logs", "dbfs": "dbfs:/logs"}
    run = submit("print('hello')", cluster={"cluster_log_conf": {kind: {"destination": volume[kind]}}})
    run.wait_for()
    root = {"volumes": ws.volumes / "crypto_analytics/ops/staging", "dbfs": ws.dbfs}[kind]
    assert (root / "logs" / run.tasks[0].cluster_id / "driver" / "stdout").read_text() == "hello\n"
