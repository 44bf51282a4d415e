"""One submitted run: its identity, outcome and output, and cancellation.

Belongs here: questions to the workspace about one run, for any way of launching. Does not belong here: what the answers
mean (`failures`), or submitting.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crypto_assets.databricks.launcher.failures import RunEnd, shown

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.jobs import Run

FINAL = ("TERMINATED", "SKIPPED", "INTERNAL_ERROR")
CANCEL_S = 20.0
"""Seconds that a cancelled run is watched."""


def idempotency_token(run_id: str, step_key: str, attempt: int) -> str:
    """Token of one attempt of a step; 64 characters, the most that the Jobs API takes."""
    return hashlib.sha256(f"{run_id}/{step_key}/{attempt}".encode()).hexdigest()


def run_name(run_id: str, step_key: str, attempt: int, keys: Sequence[Any]) -> str:
    """Name of a run: the step, its partitions ([None] without), the Dagster run, the attempt counted from 1."""
    spans = "" if list(keys) == [None] else f" {keys[0]}" + (f"..{keys[-1]}" if len(keys) > 1 else "")
    return f"crypto_assets {step_key}{spans} ({run_id[:8]}, attempt {attempt + 1})"


def value(field: Any) -> str | None:
    """Text of a state; one that this SDK does not know is given as it is."""
    return None if field is None else str(getattr(field, "value", field))


def life_cycle(run: Run) -> str | None:
    """Life cycle state of a run."""
    return value(run.state and run.state.life_cycle_state)


def task_logs(workspace: WorkspaceClient, run: Run) -> tuple[str, str]:
    """Output, and error with its trace, of a run's one task, not redacted. Never raises: the run's own end counts."""
    task = run.tasks[0] if run.tasks else None
    if task is None or task.run_id is None:
        return "", ""
    try:
        # The run's own id would be refused.
        output = workspace.jobs.get_run_output(task.run_id)
    except Exception as error:  # noqa: BLE001
        return "", f"the output could not be read: {type(error).__name__}"
    return output.logs or "", "\n".join(t for t in (output.error_trace, output.error) if t)


def end_of(run: Run, secrets: Mapping[str, str], *, events: bool, gave_up: bool, output: str = "") -> RunEnd:
    """How a run ended.

    Args:
        run: As reported by the workspace.
        secrets: Secret values in force here.
        events: True if the step reported any event.
        gave_up: Whether the driver stopped waiting.
        output: What its task wrote, not redacted.
    """
    task_state = run.tasks[0].state if run.tasks else None
    details = run.status.termination_details if run.status else None
    messages = dict.fromkeys(s.state_message for s in (task_state, run.state) if s and s.state_message)
    return RunEnd(
        life_cycle=life_cycle(run),
        result=value(run.state and run.state.result_state),
        task_life_cycle=value(task_state and task_state.life_cycle_state),
        task_result=value(task_state and task_state.result_state),
        code=value(details and details.code),
        message=shown(" ".join(messages), secrets),
        events=events,
        gave_up=gave_up,
        output=shown(output, secrets),
    )


def failure_metadata(run: Run, end: RunEnd, kind: str) -> dict[str, Any]:
    """Dagster metadata of a failed run: class, id, result, URL."""
    import dagster as dg

    found: dict[str, Any] = {
        "databricks_failure_class": kind,
        "databricks_run_id": str(run.run_id),
        "databricks_result": f"{end.life_cycle}/{end.result}",
    }
    return found | ({"databricks_run_url": dg.MetadataValue.url(run.run_page_url)} if run.run_page_url else {})


def cancel(workspace: WorkspaceClient, run_id: int, log: Any, poll_s: float) -> None:
    """Cancel a run and see it end, for a while. What goes wrong is logged: the cause of the cancel counts."""
    try:
        workspace.jobs.cancel_run(run_id)
        log.warning(f"cancelled Databricks run {run_id}")
        deadline = time.monotonic() + CANCEL_S
        while life_cycle(workspace.jobs.get_run(run_id)) not in FINAL and time.monotonic() < deadline:
            time.sleep(min(1.0, poll_s))
    except Exception as error:  # noqa: BLE001
        log.error(f"Databricks run {run_id} could not be cancelled: {error}; cancel it in the workspace")
