"""Watching what a driver's process tree consists of, while it runs: whether there is a JVM among it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from crypto_assets_tests.processes import command_line

EVERY_S = 0.2
"""Between two looks. A JVM that does anything lives for longer; `LaunchedHome` catches those that are only asked."""


@dataclass
class Watched:
    """What was seen of a process tree.

    Attributes:
        processes: Command lines by process id and start time, also of those that have ended or left the tree.
        jvms: Command lines of those whose executable is a java, wherever it lies.
    """

    processes: dict[tuple[int, float], str] = field(default_factory=dict)
    jvms: list[str] = field(default_factory=list)

    def look(self, root: psutil.Process) -> None:
        """Add what the tree consists of now. What was a script a moment ago may have become a JVM."""
        try:
            family = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in family:
            try:
                key, line = (process.pid, process.create_time()), command_line(process)
                java = "java" in {process.name(), process.exe().rsplit("/", 1)[-1]}
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if line:  # one that has ended has none any more
                self.processes[key] = line
            if java and line not in self.jvms:
                self.jvms.append(line)


@contextmanager
def watched(driver: subprocess.Popen[str]) -> Iterator[Watched]:
    """Look at the tree of a process again and again until the block ends."""
    found, done, root = Watched(), threading.Event(), psutil.Process(driver.pid)

    def watch() -> None:
        while not done.is_set():
            found.look(root)
            done.wait(EVERY_S)

    thread = threading.Thread(target=watch, daemon=True, name="driver-watch")
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
        found.look(root)
