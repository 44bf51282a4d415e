"""Executes runs, a bounded number at a time, each task in a process group of its own that never outlives the workspace.

Belongs here: processes, their environment, life cycle. What the process sees as a cluster is in `remote`.
"""

from __future__ import annotations

import json
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from crypto_assets_tests.databricks_standin.cluster import runtime_version
from crypto_assets_tests.databricks_standin.libraries import LibraryFailure, install
from crypto_assets_tests.databricks_standin.processes import end_group, kept
from crypto_assets_tests.databricks_standin.runs import Run, TaskRun
from crypto_assets_tests.databricks_standin.state import State

SECRET = re.compile(r"\{\{secrets/([^/}]+)/([^}]+)\}\}")


class Executor:
    """A queue and its workers; `close` kills everything that runs."""

    def __init__(self, workspace: State, workers: int) -> None:
        self._workspace = workspace
        self._waiting: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        self._idle = workers
        self._lock = threading.Lock()
        for thread in self._threads:
            thread.start()

    def submit(self, run: Run) -> None:
        """Take a run: PENDING when a worker is free, otherwise QUEUED."""
        with self._lock:
            self._idle -= 1
            busy = self._idle < 0
        state = "QUEUED" if busy else "PENDING"
        for stage in (run, *run.tasks):
            stage.enter(state)
        self._waiting.put(run)

    def cancel(self, run: Run) -> None:
        """Stop a run: at once while it waits in the queue, otherwise as soon as its worker has killed the task."""
        with self._lock:
            waiting = run.state == "QUEUED"
            run.cancel()
            if waiting:
                for stage in (*run.tasks, run):
                    stage.enter("TERMINATED", result="CANCELED", message="Run cancelled.", code="USER_CANCELED")

    def close(self) -> None:
        """Cancel everything and wait until no process is left."""
        for run in self._workspace.runs:
            self.cancel(run)
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join(30)

    def _work(self) -> None:
        while (run := self._waiting.get()) is not None:
            try:
                self._run(run)
            except Exception as error:  # noqa: BLE001 - a defect of the stand-in ends the run, and the test sees it
                message = f"stand-in: {type(error).__name__}: {error}"
                self._workspace.defects.append(message)
                for stage in (*run.tasks, run):
                    stage.enter("INTERNAL_ERROR", result="FAILED", message=message)
            finally:
                with self._lock:
                    self._idle += 1

    def _pause(self, run: Run, state: str) -> None:
        run.cancelled.wait(self._workspace.delays.get(state, 0))

    def _run(self, run: Run) -> None:
        with self._lock:
            if run.final:
                return
            if run.state == "QUEUED":
                for stage in (run, *run.tasks):
                    stage.enter("PENDING")
        for task in run.tasks:
            task.cluster_id = task.spec.get("existing_cluster_id") or self._workspace.clusters.launch(task.cluster)
        self._pause(run, "PENDING")
        if run.fault is not None and not run.fault.executes:
            self._end_by_fault(run)
            return
        if not run.cancelled.is_set():
            run.enter("RUNNING", message="In run")
        seconds = run.request.get("timeout_seconds") or 0
        deadline = time.monotonic() + seconds if seconds else None
        for task in run.tasks:
            self._task(run, task, deadline)
        run.enter("TERMINATING")
        self._pause(run, "TERMINATING")
        if run.fault is not None:
            self._end_by_fault(run)
        else:
            self._end(run)

    def _end_by_fault(self, run: Run) -> None:
        fault = run.fault
        assert fault is not None
        for stage in (*run.tasks, run):
            stage.enter(
                fault.life_cycle_state,
                result=fault.result_state,
                message=fault.state_message,
                code=fault.termination_code
                or ("CLUSTER_ERROR" if fault.life_cycle_state == "INTERNAL_ERROR" else None),
            )

    @staticmethod
    def _end(run: Run) -> None:
        results = {t.result_state: t for t in reversed(run.tasks)}
        if "TIMEDOUT" in results:
            run.enter("TERMINATED", result="TIMEDOUT", message="Run timed out.", code="RUN_EXECUTION_ERROR")
        elif "CANCELED" in results:
            run.enter("TERMINATED", result="CANCELED", message="Run cancelled.", code="USER_CANCELED")
        elif bad := results.get("FAILED"):
            # Also for a failure of the code the *run* ends with INTERNAL_ERROR; only the task says TERMINATED.
            message = f"Task {bad.key} failed with message: {bad.message}."
            run.enter("INTERNAL_ERROR", result="FAILED", message=message, code=bad.code)
        else:
            run.enter("TERMINATED", result="SUCCESS", code="SUCCESS")

    def _task(self, run: Run, task: TaskRun, deadline: float | None) -> None:
        ended = {t.key: t.result_state for t in run.tasks if t.final}
        needs = [d["task_key"] for d in task.spec.get("depends_on") or []]
        if run.cancelled.is_set():
            task.enter("TERMINATED", result="CANCELED", message="Run cancelled.", code="USER_CANCELED")
            return
        if any(ended.get(key) != "SUCCESS" for key in needs):
            task.enter("SKIPPED", result="UPSTREAM_FAILED", message="An upstream task failed.")
            return
        try:
            spec = self._prepare(run, task)
        except LibraryFailure as error:
            task.error = str(error)
            task.enter("INTERNAL_ERROR", result="FAILED", message=str(error), code="LIBRARY_INSTALLATION_ERROR")
            return
        task.enter("RUNNING", message="In run")
        reason = self._process(run, task, spec, deadline)
        task.enter("TERMINATING")
        self._deliver_logs(task)
        if reason == "cancelled":
            task.enter("TERMINATED", result="CANCELED", message="Run cancelled.", code="USER_CANCELED")
        elif reason == "timeout":
            task.enter("TERMINATED", result="TIMEDOUT", message="Run timed out.", code="RUN_EXECUTION_ERROR")
        elif task.error is None:
            task.enter("TERMINATED", result="SUCCESS", code="SUCCESS")
        else:
            message = "Workload failed, see run output for details"
            task.enter("TERMINATED", result="FAILED", message=message, code="RUN_EXECUTION_ERROR")

    def _prepare(self, run: Run, task: TaskRun) -> dict[str, Any]:
        workspace = self._workspace
        task.folder = workspace.root / "runs" / str(task.run_id)
        (task.folder / "tmp").mkdir(parents=True)
        (task.folder / "home").mkdir()
        paths = install(workspace, run, task, task.folder / "libraries")
        serverless = not task.cluster
        spec: dict[str, Any] = {
            "parameters": task.parameters,
            "result": str(task.folder / "result.json"),
            "paths": [str(p) for p in paths],
            "site": str(workspace.site),
            "dbfs": str(workspace.dbfs) if task.single_user and workspace.dbfs_api.enabled else None,
            "volumes": str(workspace.volumes),
            "spark_context": task.single_user,
            "serverless": serverless,
            "secrets": {scope: dict(values) for scope, values in workspace.secrets.items()},
            "catalog": workspace.catalog,
            "lake": str(workspace.lake),
            "forbidden": str(workspace.checkout),
            "allowed": [str(workspace.root), str(workspace.site_packages), sys.prefix, sys.base_prefix],
            "spark_conf": workspace.spark.conf(task.cluster.get("spark_conf") or {}, task.folder),
            "jvm": {
                "url": f"{workspace.host}/api/2.0/standin/jvm",
                "token": workspace.issue_token(),
                "run": str(task.folder),
            },
        }
        if task.kind == "spark_python_task":
            spec["main"] = str(workspace.workspace_file(task.spec[task.kind]["python_file"]))
        else:
            wheel = task.spec[task.kind]
            spec["entry_point"] = [wheel["package_name"], wheel["entry_point"]]
            spec["parameters"] += [f"--{k}={v}" for k, v in (wheel.get("named_parameters") or {}).items()]
        return spec

    def _environment(self, task: TaskRun) -> dict[str, str]:
        """What a cluster would have, and `spark_env_vars` with their secrets put in."""
        workspace, folder = self._workspace, task.folder
        given = task.cluster.get("spark_env_vars") or {}

        def secret(found: re.Match[str]) -> str:
            return workspace.secrets[found[1]][found[2]]

        return {
            **kept(),
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DATABRICKS_RUNTIME_VERSION": runtime_version(task.cluster),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_CONF_DIR": str(workspace.spark.conf_dir),
            "PYSPARK_PYTHON": str(workspace.runtime / "worker.sh"),
            "STANDIN_SPEC": str(folder / "spec.json"),
            **{k: SECRET.sub(secret, v) for k, v in given.items()},
        }

    def _process(self, run: Run, task: TaskRun, spec: dict[str, Any], deadline: float | None) -> str | None:
        """Run the task's process to its end; why it was ended from outside, if it was."""
        task.environment = self._environment(task)
        (task.folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        (task.folder / "spec.json").chmod(0o600)
        command = [
            sys.executable,
            "-I",
            "-S",
            str(self._workspace.runtime / "prelude.py"),
            task.environment["STANDIN_SPEC"],
        ]
        with (task.folder / "stdout").open("wb") as out, (task.folder / "stderr").open("wb") as err:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # never written to: its end tells the task that the stand-in is gone
                stdout=out,
                stderr=err,
                env=task.environment,
                cwd=task.folder / "home",
                start_new_session=True,
            )
        task.pid = process.pid
        reason = self._watch(run, process, deadline)
        end_group(process)
        told = Path(spec["result"])
        self._workspace.jvms.give_back(str(task.folder), in_order=reason is None and told.exists())
        (task.folder / "spec.json").unlink()  # it has the secrets
        shutil.rmtree(task.folder / "tmp", ignore_errors=True)
        result = json.loads(told.read_text(encoding="utf-8")) if told.exists() else {}
        if process.returncode != 0 or not result.get("ended"):
            task.error = result.get("error") or f"The Python process exited with exit code {process.returncode}."
            task.trace = result.get("trace")
        return reason

    @staticmethod
    def _watch(run: Run, process: subprocess.Popen[bytes], deadline: float | None) -> str | None:
        done = threading.Event()

        def reap() -> None:
            process.wait()
            done.set()
            run.cancelled_or_done.set()

        run.cancelled_or_done.clear()
        if run.cancelled.is_set():
            return "cancelled"
        threading.Thread(target=reap, daemon=True).start()
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        woken = run.cancelled_or_done.wait(left)
        if done.is_set():
            return None
        return "cancelled" if woken else "timeout"

    def _deliver_logs(self, task: TaskRun) -> None:
        """Cluster log delivery to a volume or DBFS, when the cluster asks for it."""
        asked = task.cluster.get("cluster_log_conf") or {}
        if not task.cluster_id:
            return
        if "volumes" in asked:
            root = self._workspace.volumes_api.path(asked["volumes"]["destination"])
        elif "dbfs" in asked and self._workspace.dbfs_api.enabled:
            root = self._workspace.dbfs_api.path(asked["dbfs"]["destination"])
        else:
            return
        folder = root / task.cluster_id / "driver"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("stdout", "stderr"):
            shutil.copy(task.folder / name, folder / name)
