"""The demo in a new folder, and the same command again: what a second run saves."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.report import Measure, Part
from bench.spent import command_spent, crypto_assets, scrubbed_environment
from bench.targets import SECOND_DEMO
from crypto_assets.cli import output

NAME = "demo"
RUNS = ("first demo", "second demo")


def run(*, source: str) -> Part:
    """Run the demo twice.

    Args:
        source: Its source.
    """
    part = Part(f"Demo: two days of source {source}, the whole process without its broker")
    with tempfile.TemporaryDirectory(prefix="crypto-assets-bench-", ignore_cleanup_errors=True) as folder:
        command = crypto_assets("demo", "--source", source, "--home", str(Path(folder) / "home"))
        for name in RUNS:
            output.say(f"{name} ...", style="dim")
            taken = command_spent(command, environment=scrubbed_environment(), folder=Path(folder))
            part.costs[name] = dict(vars(taken))
            part.measures += [
                Measure(f"{name}, time", taken.wall, "s"),
                Measure(f"{name}, processor time", taken.processor, "s"),
            ]
    first, second = (part.costs[name] for name in RUNS)
    for quantity in ("wall", "processor"):
        part.measures.append(
            Measure(f"second : first, {quantity}", second[quantity] / first[quantity], "x", SECOND_DEMO)
        )
    return part
