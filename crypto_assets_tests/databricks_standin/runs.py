"""Runs and their tasks: what is known about them, and how the API tells it. Executing them is in `executor`."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crypto_assets_tests.databricks_standin.faults import RunFault

FINAL = ("TERMINATED", "SKIPPED", "INTERNAL_ERROR")
TASK_KINDS = ("spark_python_task", "python_wheel_task")
LOG_BYTES = 5 * 1024 * 1024
"""More of a task's output is not given by `get-output`."""


def _now_ms() -> int:
    return int(time.time() * 1000)


@dataclass
class Stage:
    """Life cycle of a run or of one of its tasks.

    Attributes:
        state: Life cycle; `history` has all of them in order.
        result_state: How it ended; None before, and when a fault says so.
    """

    run_id: int
    state: str = "PENDING"
    result_state: str | None = None
    message: str = ""
    code: str | None = None
    history: list[str] = field(default_factory=list)
    started_ms: int = field(default_factory=_now_ms)
    ended_ms: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def enter(self, state: str, *, result: str | None = None, message: str = "", code: str | None = None) -> None:
        """Go on to another life cycle state."""
        with self.changed:
            self.state, self.message = state, message
            self.history.append(state)
            if state in FINAL:
                self.result_state, self.code, self.ended_ms = result, code, _now_ms()
            self.changed.notify_all()

    def wait_for(self, *states: str, timeout_s: float = 120) -> str:
        """Block until one of the states was entered, and give the present one.

        Raises:
            TimeoutError: None was; says where it stands.
        """
        wanted = states or FINAL
        with self.changed:
            if not self.changed.wait_for(lambda: any(s in self.history for s in wanted), timeout_s):
                raise TimeoutError(f"run {self.run_id} is {self.state} after {timeout_s} s, not {' or '.join(wanted)}")
            return self.state

    @property
    def final(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in FINAL

    def told(self) -> dict[str, Any]:
        """`state`, `status` and times as the API gives them."""
        state: dict[str, Any] = {"life_cycle_state": self.state, "state_message": self.message}
        status: dict[str, Any] = {"state": "TERMINATED" if self.final else self.state}
        if self.final:
            if self.result_state is not None:
                state["result_state"] = self.result_state
            state["user_cancelled_or_timedout"] = self.result_state in ("CANCELED", "TIMEDOUT")
            code = self.code or ("SUCCESS" if self.result_state == "SUCCESS" else "RUN_EXECUTION_ERROR")
            kind = "SUCCESS" if code == "SUCCESS" else "CLOUD_FAILURE" if code == "CLUSTER_ERROR" else "CLIENT_ERROR"
            status["termination_details"] = {"code": code, "type": kind, "message": self.message}
        return {"state": state, "status": status, "start_time": self.started_ms, "end_time": self.ended_ms}


@dataclass
class TaskRun(Stage):
    """One task of a run, with what its process had and said."""

    key: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    cluster: dict[str, Any] = field(default_factory=dict)
    cluster_id: str | None = None
    folder: Path = Path()
    environment: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    trace: str | None = None
    pid: int | None = None

    @property
    def kind(self) -> str:
        """Which of the task kinds it is."""
        return next(k for k in TASK_KINDS if k in self.spec)

    @property
    def parameters(self) -> list[str]:
        """Command line arguments of the task."""
        return list(self.spec[self.kind].get("parameters") or [])

    @property
    def single_user(self) -> bool:
        """Whether the cluster gives `sc` and `/dbfs`, as dedicated access mode does."""
        return self.cluster.get("data_security_mode") in ("SINGLE_USER", "DATA_SECURITY_MODE_DEDICATED")

    def _text(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @property
    def stdout(self) -> str:
        """What the process wrote so far."""
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        """What the process wrote so far."""
        return self._text("stderr")

    def as_task(self, url: str) -> dict[str, Any]:
        """The task as an element of `tasks`."""
        link = {"run_id": self.run_id, "task_key": self.key, "run_page_url": url, "attempt_number": 0}
        cluster = {"cluster_instance": {"cluster_id": self.cluster_id}} if self.cluster_id else {}
        return {**self.spec, **link, **cluster, **self.told()}

    def as_output(self, url: str) -> dict[str, Any]:
        """The task as `get-output` gives it."""
        logs = self.stdout + self.stderr
        told: dict[str, Any] = {"metadata": self.as_task(url), "logs": logs[-LOG_BYTES:], "logs_truncated": False}
        told["logs_truncated"] = len(logs) > LOG_BYTES
        if self.error:
            told |= {"error": self.error, "error_trace": self.trace or ""}
        return told


@dataclass
class Run(Stage):
    """A submitted run."""

    job_id: int = 0
    request: dict[str, Any] = field(default_factory=dict)
    tasks: list[TaskRun] = field(default_factory=list)
    fault: RunFault | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    cancelled_or_done: threading.Event = field(default_factory=threading.Event)
    """Set when the present task's process ended or the run was cancelled: what the worker waits for."""

    def cancel(self) -> None:
        """Stop the run; its worker kills the task."""
        self.cancelled.set()
        self.cancelled_or_done.set()

    @property
    def name(self) -> str:
        """`run_name`."""
        return self.request.get("run_name") or "Untitled"

    @property
    def idempotency_token(self) -> str | None:
        """The token it was submitted with."""
        return self.request.get("idempotency_token")

    @property
    def parameters(self) -> list[str]:
        """Arguments of the first task."""
        return self.tasks[0].parameters

    @property
    def stdout(self) -> str:
        """Output of all tasks."""
        return "".join(t.stdout for t in self.tasks)

    @property
    def stderr(self) -> str:
        """Error output of all tasks."""
        return "".join(t.stderr for t in self.tasks)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the first task's process, as it was started."""
        return self.tasks[0].environment

    def url(self, host: str) -> str:
        """Page of the run."""
        return f"{host}/?o=1#job/{self.job_id}/run/{self.run_id}"

    def as_run(self, host: str) -> dict[str, Any]:
        """The run as `get` gives it."""
        url = self.url(host)
        told = {"job_id": self.job_id, "run_id": self.run_id, "run_name": self.name, "run_page_url": url}
        told |= {"run_type": "SUBMIT_RUN", "number_in_job": self.run_id, "creator_user_name": "standin@example.com"}
        tasks = {"format": "MULTI_TASK", "tasks": [t.as_task(url) for t in self.tasks]}
        if len(self.tasks) == 1 and self.tasks[0].cluster_id:
            tasks["cluster_instance"] = {"cluster_id": self.tasks[0].cluster_id}
        return {**told, **tasks, **self.told()}
