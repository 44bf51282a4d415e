"""Printing for people and for scripts: rich on a terminal, plain lines otherwise, JSON on request."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

PLAIN_WIDTH = 120
"""Columns of tables where there is no terminal to ask."""


class _Console(Console):
    """Leaves a reader that has gone (`| head`) to whoever ends the command."""

    def on_broken_pipe(self) -> None:
        """Rich would end the process with exit code 1."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


_terminal = _Console(highlight=False, soft_wrap=True)
console = _terminal if _terminal.is_terminal else _Console(highlight=False, soft_wrap=True, width=PLAIN_WIDTH)
errors = _Console(stderr=True, highlight=False, soft_wrap=True)

PRINT_AT_MOST_S = 1.0
"""Seconds for printing a line to what may be a stopped terminal."""


def say(text: str = "", style: str | None = None) -> None:
    """One line for people."""
    console.print(text, style=style, markup=False)


def anyway(say: Callable[[str], None], text: str) -> None:
    """Print where there may be no terminal any more, or a stopped one, and work must go on without it."""

    def attempt() -> None:
        with suppress(OSError, ValueError, SystemExit):  # rich ends the program when a pipe is broken
            say(text)

    printing = threading.Thread(target=attempt, daemon=True)
    printing.start()
    printing.join(PRINT_AT_MOST_S)


def notice(text: str) -> None:
    """One line beside the output proper, on standard error."""
    errors.print(text, style="dim" if errors.is_terminal else None, markup=False)


def fail(text: str) -> None:
    """One line of trouble on standard error."""
    errors.print(f"error: {text.rstrip()}", style="red" if errors.is_terminal else None, markup=False)


def as_json(value: object) -> None:
    """JSON on standard output, for scripts; nothing else is printed there."""
    print(json.dumps(value, indent=2, default=str))


def table(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Rows as a table; numbers to the right."""
    if not rows:
        say(f"{title}: none")
        return
    names = list(columns or rows[0])
    grid = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        pad_edge=False,
    )
    for name in names:
        numeric = all(isinstance(r.get(name), (int, float)) or r.get(name) is None for r in rows)
        grid.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(_cell(row.get(n)) for n in names))
    console.print(grid)
    say()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return str(value).replace("[", "\\[")


@contextmanager
def progress(text: str, total: int) -> Iterator[Any]:
    """A progress bar; yields `advance(n)`. Off a terminal it prints the start and nothing more."""
    if not console.is_terminal:
        say(f"{text} ...")
        yield lambda _n=1: None
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(text, total=total)
        yield lambda n=1: bar.advance(task, n)
