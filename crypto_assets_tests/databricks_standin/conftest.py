"""A workspace, a client of it, and short ways to put a script there and run it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crypto_assets_tests.databricks_standin import Run, Workspace

CLUSTER: dict[str, Any] = {
    "spark_version": "19.0.x-scala2.13",
    "node_type_id": "i3.xlarge",
    "num_workers": 0,
    "data_security_mode": "SINGLE_USER",
}


@pytest.fixture
def ws(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Workspace]:
    """A workspace; at its end nothing unknown was called and it had no defect of its own."""
    slow = request.node.get_closest_marker("slow") is not None
    with Workspace(tmp_path / "ws", spark=slow, dbfs="dbfs" in request.fixturenames) as workspace:
        workspace.volumes_api.create("crypto_analytics.ops.staging")
        yield workspace
    assert workspace.unknown == []
    assert workspace.defects == []


@pytest.fixture
def client(ws: Workspace) -> Any:
    """The real SDK client."""
    from databricks.sdk import WorkspaceClient

    return WorkspaceClient(host=ws.host, token=ws.token)


@pytest.fixture
def dbfs(client: Any) -> Any:
    """DBFS of the workspace, which has one then."""
    return client.dbfs


@pytest.fixture
def put(client: Any) -> Callable[[str, str], str]:
    """Write a text to the volume `ops.staging`; gives its path."""

    def write(path: str, text: str) -> str:
        full = f"/Volumes/crypto_analytics/ops/staging{path}"
        client.files.upload(full, io.BytesIO(text.encode()), overwrite=True)
        return full

    return write


@pytest.fixture
def submit(ws: Workspace, client: Any, put: Callable[[str, str], str]) -> Callable[..., Run]:
    """Submit a script as the only task; gives the run without waiting for it."""
    from databricks.sdk.service import jobs

    def run(code: str, *parameters: str, cluster: dict[str, Any] | None = None, **request: Any) -> Run:
        number = len(ws.runs)
        python = {"python_file": put(f"/staging/{number}/main.py", code), "parameters": list(parameters)}
        task = {"task_key": "main", "new_cluster": {**CLUSTER, **(cluster or {})}, "spark_python_task": python}
        task |= request.pop("task", {})
        answer = client.jobs.submit(tasks=[jobs.SubmitTask.from_dict(task)], **request).bind()
        return next(r for r in ws.runs if r.run_id == answer["run_id"])

    return run
