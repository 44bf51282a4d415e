"""Processes of the stand-in: what they get from this machine's environment, and ending them with all they started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading

import psutil

from crypto_assets.cli.processes import OWNER

GRACE_S = 2.0
"""Between asking a process to end and killing it."""
FROM_MACHINE = ("PATH", "LANG", "LC_ALL", "JAVA_HOME", "TZ", "LD_LIBRARY_PATH", OWNER)
"""All that a process gets from the environment of the stand-in."""


def kept() -> dict[str, str]:
    """That part of the environment."""
    return {name: os.environ[name] for name in FROM_MACHINE if name in os.environ}


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started: ask, wait a little, kill; afterwards nothing of its group is left."""
    if process.poll() is None:
        _signal(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    _signal(process.pid, signal.SIGKILL)
    process.wait()
    # What is not our child is not waited for by `wait`, and a kill takes effect a moment later.
    pause = threading.Event()
    for _ in range(500):
        if not _members(process.pid):
            break
        pause.wait(0.01)
    if process.stdin:
        process.stdin.close()


def _members(group: int) -> list[int]:
    """Processes of a group that still run."""
    found = []
    for other in psutil.process_iter():
        try:
            if os.getpgid(other.pid) == group and other.status() != psutil.STATUS_ZOMBIE:
                found.append(other.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
