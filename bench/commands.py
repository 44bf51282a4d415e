"""Processor time of commands that people type, beside the imports without which none of them can answer."""

from __future__ import annotations

import sys

from bench.homes import polled_home
from bench.report import Measure, Part, formatted, middle
from bench.spent import Spent, command_spent, crypto_assets, scrubbed_environment
from bench.targets import COMMANDS
from crypto_assets.cli import output
from crypto_assets.contracts.slices import hour_keys
from crypto_assets.errors import FAILED, SUCCESS

NAME = "commands"
READING = "import deltalake, pyarrow"
DAGSTER = "import dagster"
ASKED: dict[str, tuple[tuple[str, ...], str]] = {
    "--help": (("--help",), READING),
    "prices": (("prices", "--home", "{home}"), READING),
    "alerts": (("alerts", "--home", "{home}"), READING),
    "query": (("query", "SELECT count(*) FROM gold.bars_5m", "--home", "{home}"), READING),
    "status": (("status", "--home", "{home}"), DAGSTER),
}
"""Arguments of each command, and the imports in a process of their own that it is compared with."""


def run(*, hours: int, repeats: int) -> Part:
    """Run every command in a filled home, its reference beside it.

    Args:
        hours: Hours polled and materialized before.
        repeats: Processes of each command.
    """
    tries: dict[str, list[Spent]] = {}
    with polled_home(hours) as pipeline:
        pipeline.run("refresh", hour_keys(pipeline.span))
        home = str(pipeline.settings.home)
        commands = {name: crypto_assets(*(a.format(home=home) for a in given)) for name, (given, _) in ASKED.items()}
        commands |= {code: [sys.executable, "-c", code] for code in (READING, DAGSTER)}
        for number in range(repeats + 1):
            for name, command in commands.items():
                output.say(f"{name} ...", style="dim")
                # `status` of a home that is not served may say that its promise is broken: an answer, not a failure.
                taken = command_spent(command, environment=scrubbed_environment(), codes=(SUCCESS, FAILED))
                if number:
                    tries.setdefault(name, []).append(taken)
    part = Part("Commands: processor time of the whole process")
    for name, found in tries.items():
        wall, processor = middle([t.wall for t in found]), middle([t.processor for t in found])
        part.costs[name] = {"wall": wall, "processor": processor}
    for name, (_, code) in ASKED.items():
        own, reference = part.costs[name]["processor"], part.costs[code]["processor"]
        times = [t.processor for t in tries[name]]
        note = f"{own:.2f} s and {reference:.2f} s; {formatted(min(times))} to {formatted(max(times))} s"
        part.measures.append(
            Measure(f"{name} : python -c '{code}'", own / reference, "x", target=COMMANDS.get(name, 1.5), note=note)
        )
    part.notes = [f"each command ran {repeats} times after one that is not counted, by turns with the imports"]
    return part
