"""Child processes that must not outlive us: started in their own session, stopped together.

A shell that starts a command in the background ignores SIGINT for it, and Dagster's children would inherit that;
a child started here has the default handling, and everything in its session is ended with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil


class Supervised:
    """One child and everything it started."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.name, self.log = name, log
        with log.open("ab") as handle:
            self.process = subprocess.Popen(  # noqa: S603
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                start_new_session=True,
            )

    def alive(self) -> bool:
        """Whether the child itself runs."""
        return self.process.poll() is None

    def members(self) -> list[psutil.Process]:
        """All processes of the child's session, and their descendants."""
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(process.pid) == self.process.pid:
                    found[process.pid] = process
        for process in list(found.values()):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.update({child.pid: child for child in process.children(recursive=True)})
        return list(found.values())

    def stop(self, grace_s: float = 15) -> None:
        """Ask the child to stop, wait, and end what is left of its session."""
        members = self.members()
        for step in (signal.SIGINT, signal.SIGTERM):
            if not self.alive():
                break
            self.process.send_signal(step)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_s)
        members = list({p.pid: p for p in (*members, *self.members())}.values())
        for process in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, left = psutil.wait_procs(members, timeout=5)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, also when the shell had made us ignore SIGINT."""
    event = threading.Event()
    before = {s: signal.signal(s, lambda *_: event.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
