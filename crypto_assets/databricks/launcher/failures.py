"""Why a launched run failed, and what of its output may be shown.

Belongs here: failure classes and redaction, pure. Does not belong here: asking the workspace (`step_launcher`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from crypto_assets.redaction import redact

FailureClass = Literal["packaging", "cluster", "code", "timeout", "cancelled", "skipped"]

MOST_OUTPUT = 4 * 1024
"""Bytes of a run's output that are kept with a failure: its end, where the error is."""

HINTS: Mapping[str, str] = {
    "packaging": "the code or its libraries did not load on the cluster: compare the [cluster] libraries with the "
    "runtime, and see the output",
    "cluster": "the cluster did not start or was lost: see the run's page; quota, node type, policy or pool",
    "code": "the step's own code failed on the cluster: see the error and the output",
    "timeout": "the run took too long: raise CRYPTO_ASSETS_DATABRICKS_RUN_TIMEOUT_S and "
    "CRYPTO_ASSETS_DATABRICKS_WAIT_S, or take a shorter range",
    "cancelled": "somebody or something cancelled the run in the workspace; launch it again",
    "skipped": "the workspace did not run it: too many concurrent runs, or an unknown result; launch it again",
}

_PACKAGING = re.compile(r"\b(ModuleNotFoundError|ImportError|LIBRARY_INSTALLATION|[Ll]ibrary installation)\b")
_CLUSTER_CODES = re.compile(r"CLUSTER|CLOUD|DRIVER|SPARK_STARTUP|INTERNAL_ERROR|RESOURCE|STORAGE_ACCESS|WORKSPACE")


@dataclass(frozen=True)
class RunEnd:
    """Outcome of a run and its only task, as reported by the workspace; None = not reported.

    Args:
        life_cycle: Life cycle state of the run.
        result: Result state of the run.
        task_life_cycle: Life cycle state of the task.
        task_result: Result state of the task.
        code: Termination code.
        message: State messages of run and task.
        events: Whether the step's first event arrived.
        output: Output of the task, redacted.
        gave_up: Whether the driver stopped waiting.
    """

    life_cycle: str | None
    result: str | None
    task_life_cycle: str | None = None
    task_result: str | None = None
    code: str | None = None
    message: str = ""
    events: bool = False
    output: str = ""
    gave_up: bool = False

    @property
    def succeeded(self) -> bool:
        """True if the run succeeded; unknown states count as failures."""
        return self.life_cycle == "TERMINATED" and self.result == "SUCCESS"


def classify(end: RunEnd) -> FailureClass:
    """The class of a failed run.

    A failure of the step's code also ends the *run* with INTERNAL_ERROR; only its task distinguishes the two.
    """
    results = {end.result, end.task_result}
    if end.gave_up or "TIMEDOUT" in results:
        return "timeout"
    if results & {"CANCELED", "CANCELLED"}:
        return "cancelled"
    if end.life_cycle == "SKIPPED" or end.task_life_cycle == "SKIPPED":
        return "skipped"
    if end.events:
        lost = end.task_life_cycle == "INTERNAL_ERROR" or (end.code and _CLUSTER_CODES.search(end.code))
        return "cluster" if lost else "code"
    if _PACKAGING.search(f"{end.code} {end.message} {end.output}"):
        return "packaging"
    if "FAILED" in results and end.task_life_cycle == "TERMINATED":
        return "packaging"  # before the step's first event there is only unpacking and importing
    if end.life_cycle == "INTERNAL_ERROR" or end.task_life_cycle == "INTERNAL_ERROR":
        return "cluster"
    return "packaging" if "FAILED" in results else "skipped"


def shown(text: str, secrets: Mapping[str, str]) -> str:
    """The end of a run's output as it may be stored: redacted, and at most `MOST_OUTPUT` bytes of UTF-8."""
    whole = redact(text.strip(), secrets).encode()
    if len(whole) <= MOST_OUTPUT:
        return whole.decode()
    mark = "[...]\n"
    return mark + whole[-(MOST_OUTPUT - len(mark)) :].decode(errors="ignore")
