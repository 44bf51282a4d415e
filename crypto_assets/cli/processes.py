"""Child processes that must not outlive us: started in sessions apart from the terminal's, and ended together.

Whatever this process starts carries its name in the environment and hands it on, so that the whole family is found
whoever started whom and whoever has died in between. A guard ends what is left of it when this process dies, also by
SIGKILL. What is meant to stay (`broker start`) is started without the name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psutil

from crypto_assets.process_identity import started_after_boot

OWNER = "_CRYPTO_ASSETS_OWNER"
"""Environment variable of the children: process id and start of the process that they must not outlive."""
ROUNDS = 5
"""Looks for processes that others started while those were being ended."""

_KEPT: list[subprocess.Popen[bytes]] = []
"""Guards that are needed until this process ends; Popen objects warn when they are dropped before their child."""


def name_of(process: psutil.Process) -> str:
    """Identity that distinguishes a process from a later one with the same id."""
    return f"{process.pid}:{started_after_boot(process):.2f}"


def _own_name() -> str:
    return _name_by_id(os.getpid())


@cache
def _name_by_id(pid: int) -> str:
    """Read once: where the boot is known as a time of day, it moves with the clock."""
    return name_of(psutil.Process(pid))


@contextmanager
def owned_children() -> Iterator[None]:
    """Processes started within, and their descendants, end with this process, however it ends."""
    from crypto_assets.settings import environment, environment_with

    owner = _own_name()
    if environment().get(OWNER) == owner:
        yield
        return
    guard, pipe = _start_guard(owner)
    try:
        with environment_with(OWNER, owner):
            yield
    finally:
        # What still runs ends with this process, as the JVM of a session does: until then the guard is needed.
        if family(owner):
            _KEPT.append(guard)
        else:
            os.close(pipe)
            guard.wait()


def _start_guard(owner: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start the process that waits for our end at a pipe; only we have its other end, which is given."""
    reading, writing = os.pipe()
    try:
        guard = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "crypto_assets.cli.guard", owner],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    return guard, writing


def family(owner: str) -> list[psutil.Process]:
    """Living processes that carry the name of an owner, this process not among them."""
    return [
        process
        for process in psutil.process_iter(["environ", "status"])  # what may not be seen is None
        if (process.info["environ"] or {}).get(OWNER) == owner
        and process.info["status"] != psutil.STATUS_ZOMBIE
        and process.pid != os.getpid()
    ]


def kill_family() -> None:
    """Kill all that this process has started."""
    for _ in range(ROUNDS):
        left = family(_own_name())
        if not left:
            return
        _each(left, psutil.Process.kill)
        psutil.wait_procs(left, timeout=5)


def end_family(owner: str, *, grace_s: float) -> None:
    """Ask all of a family to end, the broker after all that writes to it, and kill what has not within the grace."""
    for _ in range(ROUNDS):
        left = family(owner)
        if not left:
            return
        brokers = [p for p in left if _is_broker(p)]
        asked = [p for p in left if p not in brokers] or brokers
        _each(asked, psutil.Process.terminate)
        _, deaf = psutil.wait_procs(asked, timeout=grace_s)
        _each(deaf, psutil.Process.kill)
        psutil.wait_procs(deaf, timeout=5)


def _is_broker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "kafka.Kafka" in process.cmdline()
    return False


def _each(processes: Sequence[psutil.Process], do: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            do(process)


class Supervised:
    """One child and everything it started.

    It leads a session, so that neither a Ctrl-C in our terminal nor its end reaches it before we decide.
    """

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
        """True if the child itself is running."""
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
        _each(members, psutil.Process.terminate)
        _, left = psutil.wait_procs(members, timeout=5)
        _each(left, psutil.Process.kill)
        psutil.wait_procs(left, timeout=5)


def stop_all(children: Sequence[Supervised]) -> None:
    """Stop children side by side: each may use its grace."""
    with ThreadPoolExecutor(max(1, len(children))) as pool:
        list(pool.map(Supervised.stop, children))
