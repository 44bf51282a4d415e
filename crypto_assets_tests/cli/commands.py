"""Every command of the command line, found by walking it: a new one is in every test that takes them all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from typer.testing import CliRunner, Result

from crypto_assets.cli.main import app

ARGUMENTS = {
    "backfill": ["2024-05-01"],
    "parity": ["--hours", "2024-05-01-00:00"],
    "alerts enable": ["move"],
    "alerts disable": ["move"],
    "alerts test-channel": ["webhook"],
    "query": ["SELECT 1 AS one"],
    "evaluate": ["--from", "home", "--days", "2024-05-01"],
    "models promote": ["price_5m", "v0", "--why", "tried by hand"],
    "models rollback": ["price_5m", "--why", "tried by hand"],
    "coins add": ["bitcoin"],
    "coins retire": ["bitcoin"],
}
"""What a command cannot do without."""


def _walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        if command.invoke_without_command:
            yield " ".join(words), command
        for name, one in command.commands.items():
            yield from _walk(one, (*words, name))
    else:
        yield " ".join(words), command


COMMANDS = dict(_walk(typer.main.get_command(app)))
OF_A_HOME = sorted(name for name, one in COMMANDS.items() if any(p.name == "home" for p in one.params))


def invoke(name: str, *more: str) -> Result:
    """Run one command with what it needs, in this process."""
    return CliRunner().invoke(app, [*name.split(), *ARGUMENTS.get(name, ()), *more])


def one_line(done: Result) -> str:
    """The only line that a refused command printed on standard error; nothing was printed before it."""
    assert isinstance(done.exception, SystemExit), f"{done.exception!r}: {done.output[-2000:]}"
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.output
    assert lines[0].startswith("error: ")
    assert not lines[0].rstrip(".").rstrip().endswith(":"), lines[0]
    assert "Traceback" not in done.output
    return lines[0]
