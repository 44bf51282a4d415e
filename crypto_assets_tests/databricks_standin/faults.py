"""What goes wrong on request, each fault a fixed number of times.

Two kinds. A fault of a *call* is named by the call (`submit`, `get`, `get-output`, `cancel`, `dbfs/read`, ... or the
full `jobs/runs/submit`) and answers with an HTTP status. A fault of a *run* has the name `run` and sets how the next
submitted run ends, whether its task is executed or not.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

MESSAGES = {
    400: ("INVALID_PARAMETER_VALUE", "The request is invalid."),
    403: ("PERMISSION_DENIED", "The caller may not do this."),
    429: ("RESOURCE_EXHAUSTED", "Too many requests; try again later."),
    500: ("INTERNAL_ERROR", "The server hit an internal error."),
    503: ("TEMPORARILY_UNAVAILABLE", "The service is temporarily unavailable."),
    504: ("DEADLINE_EXCEEDED", "The deadline expired before the operation could complete."),
}


@dataclass
class CallFault:
    """One HTTP answer in place of the real one; with `after_accept` the call takes effect all the same."""

    call: str
    status: int
    after_accept: bool = False
    retry_after: int | None = None
    error_code: str | None = None
    message: str | None = None
    times: int = 1

    @property
    def body(self) -> dict[str, str]:
        """The error in Databricks' form."""
        code, message = MESSAGES.get(self.status, ("UNKNOWN", "Injected."))
        return {"error_code": self.error_code or code, "message": self.message or message}

    def hits(self, call: str) -> bool:
        """Whether the fault is meant for this call (its full name or the end of it)."""
        return call == self.call or call.endswith("/" + self.call)


@dataclass
class RunFault:
    """How the next run ends.

    Attributes:
        life_cycle_state: Final life cycle, such as INTERNAL_ERROR or SKIPPED.
        result_state: Final result, any text: also one that no client knows; None = none is told.
        state_message: What the run says about it.
        execute: Whether the task is executed first; by default only if the life cycle ends TERMINATED.
        termination_code: `status.termination_details.code`.
    """

    life_cycle_state: str = "TERMINATED"
    result_state: str | None = None
    state_message: str = "Injected."
    execute: bool | None = None
    termination_code: str | None = None
    times: int = 1

    @property
    def executes(self) -> bool:
        """Whether the task runs before the end that was asked for."""
        return self.life_cycle_state == "TERMINATED" if self.execute is None else self.execute


class Faults:
    """The queue of faults of a workspace; thread safe."""

    def __init__(self) -> None:
        self._calls: list[CallFault] = []
        self._runs: list[RunFault] = []
        self._lock = threading.Lock()

    def next(self, call: str, **options: Any) -> None:
        """Let the next call (or, with `run`, the next submitted run) go wrong.

        Args:
            call: Name of the call, or `run`.
            **options: Fields of CallFault or RunFault; `times` = how often, 1 by default.

        Raises:
            TypeError: An option does not exist.
        """
        with self._lock:
            if call == "run":
                self._runs.append(RunFault(**options))
            else:
                self._calls.append(CallFault(call, **options))

    def clear(self) -> None:
        """Forget what has not happened yet."""
        with self._lock:
            self._calls.clear()
            self._runs.clear()

    @property
    def pending(self) -> int:
        """Faults that have not happened yet: a test asserts 0 to know that all of them did."""
        with self._lock:
            return sum(f.times for f in (*self._calls, *self._runs))

    def take_call(self, call: str) -> CallFault | None:
        """The fault for this call, used up."""
        with self._lock:
            return self._take(self._calls, [f for f in self._calls if f.hits(call)])

    def take_run(self) -> RunFault | None:
        """The fault for this run, used up."""
        with self._lock:
            return self._take(self._runs, self._runs)

    @staticmethod
    def _take(queue: list[Any], fitting: list[Any]) -> Any:
        if not fitting:
            return None
        fault = fitting[0]
        fault.times -= 1
        if fault.times <= 0:
            queue.remove(fault)
        return fault
