"""`/api/2.1` and `/api/2.2` of jobs: submit, get, get-output, cancel, list. Nothing used here differs between them."""

from __future__ import annotations

import itertools
import threading
from typing import Any

from crypto_assets_tests.databricks_standin.errors import ApiError, absent, invalid
from crypto_assets_tests.databricks_standin.routes import Call, Routes
from crypto_assets_tests.databricks_standin.runs import TASK_KINDS, Run, TaskRun
from crypto_assets_tests.databricks_standin.state import State

TOKEN_LENGTH = 64


class Jobs:
    """Calls on runs."""

    def __init__(self, workspace: State) -> None:
        self._workspace = workspace
        # A workspace that is started again on its folder goes on counting: folders of runs have these names.
        before = [int(p.name) for p in (workspace.root / "runs").glob("*")]
        self._ids = itertools.count(max(before, default=100_000) + 1)
        self._lock = threading.Lock()

    def register(self, routes: Routes) -> None:
        """Add the calls."""
        routes.add("POST", "jobs/runs/submit", self.submit)
        routes.add("POST", "jobs/runs/cancel", self.cancel)
        routes.add("GET", "jobs/runs/get", self.get)
        routes.add("GET", "jobs/runs/get-output", self.get_output)
        routes.add("GET", "jobs/runs/list", self.list)

    def submit(self, call: Call) -> dict[str, Any]:
        """Take a run, once for each idempotency token."""
        request = call.body
        token = request.get("idempotency_token")
        if token and len(token) > TOKEN_LENGTH:
            raise invalid(f"idempotency_token must have at most {TOKEN_LENGTH} characters")
        with self._lock:
            for run in self._workspace.runs:
                if token and run.idempotency_token == token:
                    return {"run_id": run.run_id}
            run = Run(next(self._ids), job_id=next(self._ids), request=request)
            run.tasks = [self._task(request, spec) for spec in request.get("tasks") or [request]]
            run.fault = self._workspace.faults.take_run()
            self._workspace.runs.append(run)
            self._workspace.executor.submit(run)
        return {"run_id": run.run_id}

    def _task(self, request: dict[str, Any], spec: dict[str, Any]) -> TaskRun:
        fields = ("spark_python_task", "python_wheel_task", "new_cluster", "existing_cluster_id", "libraries")
        if spec is request:  # the single-task form of 2.0
            spec = {k: v for k, v in request.items() if k in fields}
        kinds = [k for k in spec if k.endswith("_task")]
        if len(kinds) != 1 or kinds[0] not in TASK_KINDS:
            raise invalid(f"A task needs exactly one of {', '.join(TASK_KINDS)}; this one has {kinds or 'none'}")
        clusters = self._workspace.clusters
        cluster: dict[str, Any] = {}
        if existing := spec.get("existing_cluster_id"):
            if existing not in clusters.known:
                raise invalid(f"Cluster {existing} does not exist")
            cluster = clusters.known[existing]
        elif "new_cluster" in spec:
            cluster = spec["new_cluster"]
            clusters.check(cluster)
        elif key := spec.get("environment_key"):
            if key not in [e["environment_key"] for e in request.get("environments") or []]:
                raise invalid(f"The environment_key {key} is not defined in environments")
        else:
            raise invalid("A task needs existing_cluster_id, new_cluster or (serverless) environment_key")
        return TaskRun(next(self._ids), key=spec.get("task_key") or "main", spec=spec, cluster=cluster)

    def _run_id(self, call: Call) -> int:
        text = str(call.need("run_id"))
        if not text.isdigit():
            raise invalid(f"run_id must be a number, not {text}")
        return int(text)

    def _find(self, run_id: int) -> tuple[Run, TaskRun | None]:
        for run in self._workspace.runs:
            if run.run_id == run_id:
                return run, None
            for task in run.tasks:
                if task.run_id == run_id:
                    return run, task
        raise invalid(f"Run {run_id} does not exist.")

    def get(self, call: Call) -> dict[str, Any]:
        """A run, or a task's run."""
        run, task = self._find(self._run_id(call))
        host = self._workspace.host
        if task is None:
            return run.as_run(host)
        return {**run.as_run(host), **task.told(), "run_id": task.run_id, "tasks": [task.as_task(run.url(host))]}

    def get_output(self, call: Call) -> dict[str, Any]:
        """Output of a task's run; a parent run has none."""
        run, task = self._find(self._run_id(call))
        if task is None:
            raise invalid(
                "Retrieving the output of runs with multiple tasks is not supported. "
                "Please retrieve the output of each individual task run instead."
            )
        return task.as_output(run.url(self._workspace.host))

    def cancel(self, call: Call) -> None:
        """Cancel; a run that has ended stays as it is."""
        run, _ = self._find(self._run_id(call))
        self._workspace.executor.cancel(run)

    def list(self, call: Call) -> dict[str, Any]:
        """Runs, newest first."""
        active = call.query.get("active_only") == "true"
        runs = [r for r in reversed(self._workspace.runs) if not (active and r.final)]
        return {"runs": [r.as_run(self._workspace.host) for r in runs[: int(call.query.get("limit") or 20)]]}


def permissions(routes: Routes, workspace: State) -> None:
    """`/api/2.0/permissions/<kind>/<id>`: kept as given, refused for what does not exist."""
    kept: dict[str, list[dict[str, Any]]] = workspace.permissions

    def change(call: Call) -> dict[str, Any]:
        kind, _, name = call.rest.partition("/")
        known = {
            "jobs": {str(r.job_id) for r in workspace.runs},
            "clusters": set(workspace.clusters.known),
            "cluster-policies": set(workspace.clusters.policies),
            "instance-pools": set(workspace.clusters.pools),
        }
        if kind not in known:
            raise ApiError(400, "BAD_REQUEST", f"'{kind}' is not a supported object type.")
        if name not in known[kind]:
            raise absent(f"{kind} {name} does not exist.")
        given = call.body.get("access_control_list") or [] if call.method != "GET" else []
        kept[call.rest] = given if call.method == "PUT" else [*kept.get(call.rest, []), *given]
        return {"object_id": f"/{call.rest}", "object_type": kind.rstrip("s"), "access_control_list": kept[call.rest]}

    for method in ("GET", "PATCH", "PUT"):
        routes.add(method, "permissions/*", change)
