"""Looking at processes that may end, or become zombies, while they are looked at."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import psutil


def command_line(process: psutil.Process) -> str:
    """A process's arguments, joined by spaces; empty once it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie has none either
        return ""


def still_running(processes: Iterable[psutil.Process], within_s: float = 0) -> list[str]:
    """Command lines of those that have not ended within some seconds; a zombie has ended."""
    pause, until = threading.Event(), time.monotonic() + within_s
    left = [p for p in processes if _runs(p)]
    while left and time.monotonic() < until:
        pause.wait(0.05)
        left = [p for p in left if _runs(p)]
    return [f"{process.pid}: {command_line(process)[:120]}" for process in left]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
