"""Memory and processor time of `crypto-assets up` when nothing is asked of it: all of its processes, between refreshes.

Memory is the proportional set size, by which pages that processes share count once; where the system has none
(macOS), the unique set size.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench.report import Measure, Part
from bench.serving import free_port
from bench.spent import BROKER, crypto_assets, scrubbed_environment
from crypto_assets.cli import output

if TYPE_CHECKING:
    import psutil

NAME = "idle"
START_S = 300.0
STOP_S = 90.0
EVERY_S = 2.0
ROLES = {
    BROKER: "broker",
    "execute_run": "run",
    "dagster_webserver": "webserver",
    "dagster-webserver": "webserver",
    "dagster._daemon": "daemon",
    "dagster-daemon": "daemon",
    "daemon run": "daemon",
    "grpc": "code server",
    "serve": "API",
}
"""Words of a command line by which a process is known, in the order in which they are tried."""


def run(*, settle: int, seconds: int) -> Part:
    """Start `up` on the simulator, let it settle, and watch it.

    Args:
        settle: Seconds from the first answer of the UI until it is watched.
        seconds: Seconds for which it is watched.
    """
    with tempfile.TemporaryDirectory(prefix="crypto-assets-bench-", ignore_cleanup_errors=True) as folder:
        environment = scrubbed_environment() | {
            "CRYPTO_ASSETS_PARTITIONS_START": datetime.now(UTC).date().isoformat(),
            "PYTHONUNBUFFERED": "1",
        }
        given = ("up", "--source", "simulator", "--home", str(Path(folder) / "home"), "--port", str(free_port()))
        process = subprocess.Popen(
            crypto_assets(*given),
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            _await_ui(process)
            output.say(f"up answers; settling for {settle} s ...", style="dim")
            time.sleep(settle)
            return _part(_watched(process.pid, seconds), seconds)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _await_ui(process: subprocess.Popen[str]) -> None:
    """Wait for the line that names the UI; keep reading afterwards, so that no pipe fills up."""
    ready, said = threading.Event(), []

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            said.append(line)
            if line.startswith("ui "):
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    if not ready.wait(START_S) or process.poll() is not None:
        raise AssertionError(f"up did not start: {''.join(said)[-2000:]}")


def _watched(pid: int, seconds: int) -> list[dict[str, tuple[float, float]]]:
    """By role, (bytes, processor seconds so far), every two seconds."""
    import psutil

    samples, until = [], time.monotonic() + seconds
    root = psutil.Process(pid)
    while time.monotonic() < until:
        found: dict[str, tuple[float, float]] = {}
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                role = "up" if process.pid == pid else _role(process)
                memory, processor = found.get(role, (0.0, 0.0))
                found[role] = (memory + _memory(process), processor + sum(process.cpu_times()[:4]))
        samples.append(found)
        time.sleep(EVERY_S)
    return samples


def _role(process: psutil.Process) -> str:
    line = " ".join(process.cmdline())
    return next((role for word, role in ROLES.items() if word in line), "other")


def _memory(process: psutil.Process) -> float:
    full = process.memory_full_info()
    return float(getattr(full, "pss", full.uss))


def _part(samples: list[dict[str, tuple[float, float]]], seconds: int) -> Part:
    """Medians of the samples without a run; without any such, of all."""
    quiet = [s for s in samples if "run" not in s] or samples
    totals = [sum(memory for memory, _ in s.values()) for s in quiet]
    roles = list(dict.fromkeys(role for s in samples for role in s))
    memory = {role: median(s[role][0] for s in quiet if role in s) for role in roles if any(role in s for s in quiet)}
    lasting = [role for role in roles if role in samples[0] and role in samples[-1]]
    processor = {role: max(0.0, samples[-1][role][1] - samples[0][role][1]) for role in lasting}
    working = sum(spent for role, spent in processor.items() if role != "broker")
    part = Part(
        "Idle `up`: simulator, ten coins, automation on, between refreshes",
        [
            Measure("memory of all processes", median(totals) / 1e6, "MB", note=f"median of {len(quiet)} samples"),
            Measure(
                "processor time a minute, without the broker", working * 60 / seconds, "s", note="refreshes included"
            ),
        ],
    )
    part.tables["By process"] = [
        {
            "process": role,
            "MB": round(memory[role] / 1e6) if role in memory else None,
            "processor s a minute": round(processor[role] * 60 / seconds, 2) if role in processor else None,
        }
        for role in roles
    ]
    part.notes = [f"{len(samples) - len(quiet)} of {len(samples)} samples fell into a refresh and are not counted"]
    part.costs = {
        "idle up": {"memory": median(totals), "processor": working},
        **{f"idle up, {role}": {"memory": found} for role, found in memory.items() if role != "run"},
    }
    return part
