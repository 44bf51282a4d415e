"""Wall time, processor time and memory of this process and of commands, children included and the broker excluded."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

_CODE = "import sys; from crypto_assets.cli.main import app; sys.argv[0] = 'crypto-assets'; app()"
_CONFIGURES = ("CRYPTO_ASSETS_", "KAFKA_", "DAGSTER_", "COINGECKO_", "PYTHONDONTWRITEBYTECODE")
BROKER = "kafka.Kafka"
"""Main class of the embedded broker, by which its process is recognized."""
STOPPING_S = 90.0
"""Longest wait for a command to clean up after an interrupt."""
EVERY_S = 0.2
"""Between looks at the processor time of a broker that a command has started."""


@dataclass
class Spent:
    """What a piece of work took.

    Args:
        wall: Seconds.
        processor: Seconds of processor time, of children too; the broker's excluded.
    """

    wall: float = 0.0
    processor: float = 0.0


@contextlib.contextmanager
def spent() -> Iterator[Spent]:
    """What the body takes, in this process and its children; filled in at its end."""
    found, began, before = Spent(), time.perf_counter(), processor_seconds()
    yield found
    found.wall = time.perf_counter() - began
    found.processor = processor_seconds() - before


def processor_seconds() -> float:
    """Processor time of this process, of its children that have ended and of those that run, without the broker's."""
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system + sum(map(_seconds, _workers()))


def _workers() -> list[psutil.Process]:
    """Running descendants of this process but for brokers."""
    import psutil

    return [p for p in psutil.Process().children(recursive=True) if not is_broker(p)]


def is_broker(process: psutil.Process) -> bool:
    """Whether a process is an embedded broker."""
    import psutil

    try:
        return BROKER in process.cmdline()
    except psutil.Error:
        return False


def _seconds(process: psutil.Process) -> float:
    """Processor time of a process and of its ended children; 0 when it has ended."""
    import psutil

    with contextlib.suppress(psutil.Error):
        return float(sum(process.cpu_times()[:4]))
    return 0.0


def crypto_assets(*arguments: str) -> list[str]:
    """Command line of `crypto-assets`."""
    return [sys.executable, "-c", _CODE, *arguments]


def scrubbed_environment() -> dict[str, str]:
    """This process's environment without what configures the product or Dagster."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_CONFIGURES)}


def command_spent(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    codes: Collection[int] = (0,),
) -> Spent:
    """What a command takes from its start to its end; its output is thrown away.

    Args:
        command: Program and arguments.
        environment: Its environment; this process's if absent.
        folder: Its working directory.
        codes: Exit codes that are no failure.

    Raises:
        AssertionError: It ended with another exit code or a traceback; contains the end of its output.
    """
    brokers: dict[int, float] = {}
    ended = threading.Event()
    before = os.times()
    began = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    watch = threading.Thread(target=_watch_brokers, args=(process.pid, brokers, ended), daemon=True)
    watch.start()
    try:
        out, _ = process.communicate()
    except BaseException:
        process.terminate()
        process.communicate()
        raise
    finally:
        ended.set()
        watch.join()
    wall, after = time.perf_counter() - began, os.times()
    if process.returncode not in codes or "Traceback (most recent call last)" in out:
        raise AssertionError(f"{' '.join(command)} ended with code {process.returncode}: {out[-2000:]}")
    children = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return Spent(wall, children - sum(brokers.values()))


def _watch_brokers(pid: int, brokers: dict[int, float], ended: threading.Event) -> None:
    """Note the processor time of the brokers that a process starts until it ends."""
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        while not ended.wait(EVERY_S):
            for child in process.children(recursive=True):
                if child.pid in brokers or is_broker(child):
                    brokers[child.pid] = max(_seconds(child), brokers.get(child.pid, 0.0))


def exit_code(command: Sequence[str], **started: Any) -> int:
    """Run a command to its end; after an interrupt let it stop its broker and remove its home, then go on interrupting.

    It is in a separate session, so that one signal ends it: a second would interrupt its cleaning up.

    Args:
        command: Program and arguments.
        started: Further arguments of `subprocess.Popen`.
    """
    process = subprocess.Popen(command, start_new_session=True, **started)
    try:
        return process.wait()
    except BaseException:
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.terminate()
            process.wait(STOPPING_S)
        process.kill()
        process.wait()
        raise


def reason_of(text: str) -> str:
    """The line of a program's output that says why it failed: the last that names an error, or the last."""
    said = [line.strip() for line in text.splitlines() if line.strip()] or ["nothing said"]
    named = [line for line in said if "Error" in line or "Exception" in line]
    return (named or said)[-1][:300]
