"""Printing for people and for scripts: rich on a terminal, plain lines otherwise, JSON on request.

On a terminal lines and cells are wrapped between words; otherwise a line stays whole, for those who search it. Nothing
is cut, and no word is broken: a table that is too wide for the terminal is printed as one block per row.
"""

from __future__ import annotations

import errno
import json
import os
import re
import textwrap
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from decimal import Decimal
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 120
"""Columns of tables where there is no terminal to ask."""
GAP = 3
"""Columns between those of a table."""


class _Console(Console):
    """Leaves a reader that has gone (`| head`) to whoever ends the command."""

    def on_broken_pipe(self) -> None:
        """Rich would end the process with exit code 1."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


_terminal = _Console(highlight=False, emoji=False)
console = _terminal if _terminal.is_terminal else _Console(highlight=False, emoji=False, width=PLAIN_WIDTH)
errors = _Console(stderr=True, highlight=False, emoji=False)

PRINT_AT_MOST_S = 1.0
"""Seconds for printing a line to what may be a stopped terminal."""


def say(text: str = "", style: str | None = None) -> None:
    """One line for people."""
    _line(console, text, style)


def _line(to: Console, text: str, style: str | None) -> None:
    if to.is_terminal:
        text = "\n".join(_wrapped(line, to.width) for line in text.split("\n"))
    to.print(text, style=style, markup=False, soft_wrap=True)


def _wrapped(text: str, width: int, first: str = "", then: str = "") -> str:
    """Lines that break between words; a word that is longer than the width stays whole."""
    return textwrap.fill(
        text, width, initial_indent=first, subsequent_indent=then, break_long_words=False, break_on_hyphens=False
    )


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
    _line(errors, text, "dim" if errors.is_terminal else None)


def fail(text: str) -> None:
    """One line of trouble on standard error."""
    _line(errors, f"error: {text.rstrip()}", "red" if errors.is_terminal else None)


def as_json(value: object) -> None:
    """JSON on standard output, for scripts; nothing else is printed there."""
    print(json.dumps(value, indent=2, default=str))


def exact_json(value: object) -> None:
    """JSON on standard output with times as `2026-11-29T12:00:00Z` and decimals as numbers of exactly their digits."""
    text = json.dumps(value, indent=2, default=_exact, ensure_ascii=False)
    print(_DIGITS.sub(r"\1", text))


_DIGITS = re.compile(r'"\\u0000(-?[\d.]+)"')
"""A decimal as `_exact` marks it, in JSON text."""


def _exact(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Decimal):
        return f"\0{plain(value)}"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)


def plain(amount: Decimal) -> str:
    """A decimal in plain digits, never scientific, without zeros at its end."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(seconds: float | None) -> str:
    """Seconds in the unit that suits them, `unknown` for None."""
    if seconds is None:
        return "unknown"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def table(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str] | None = None,
    *,
    right: Collection[str] = (),
    style: Callable[[str], str] = lambda _cell: "",
) -> None:
    """Rows as a table. On a terminal that is too narrow for it, a block of lines per row.

    Args:
        title: Title.
        rows: Cells by column.
        columns: Columns, in order; None = those of the first row.
        right: Columns to the right besides those of numbers.
        style: Returns the style of a cell.
    """
    if not rows:
        say(f"{title}: none")
        return
    names = list(columns or rows[0])
    cells = [[_cell(row.get(n)) for n in names] for row in rows]
    widths = _widths(list(zip(names, *cells, strict=True)))
    if widths is None:
        _blocks(title, names, cells)
        return
    grid = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        pad_edge=False,
    )
    for name, width in zip(names, widths, strict=True):
        numeric = all(isinstance(r.get(name), (int, float)) or r.get(name) is None for r in rows)
        grid.add_column(name, justify="right" if numeric or name in right else "left", width=width)
    for row in cells:
        grid.add_row(*(Text(cell, style=style(cell)) for cell in row))
    grid.width = sum(widths) + GAP * len(widths) - 1 if console.is_terminal else sum(widths) + 2 * len(widths) - 2
    console.print(grid, crop=False)
    say()


def _widths(columns: Sequence[Sequence[str]]) -> list[int] | None:
    """Width of each column, none narrower than its longest word; None when the terminal has no room for them."""
    least = [max((cell_len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    widths = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]
    room = console.width - GAP * len(columns)
    if sum(least) > room:
        return None if console.is_terminal else least
    while (excess := sum(widths) - room) > 0:
        widest = max(range(len(widths)), key=lambda i: widths[i] if widths[i] > least[i] else 0)
        widths[widest] = max(least[widest], widths[widest] - excess, widths[widest] * 3 // 4)
    return widths


def _blocks(title: str, names: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """The same rows below each other: the first column's value, and under it the others with their names."""
    say(title, style="bold")
    for first, *others in cells:
        say(first)
        for name, cell in zip(names[1:], others, strict=True):
            if cell:
                console.print(_wrapped(f"{name}: {cell}", console.width, "  ", "    "), markup=False, soft_wrap=True)
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
    return str(value)


@contextmanager
def progress(text: str, total: int) -> Iterator[Any]:
    """A progress bar; yields `advance(n)`. Off a terminal it prints the start and nothing more."""
    if not console.is_terminal:
        say(f"{text} ...")
        yield lambda _n=1: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    room = console.width - cell_len(text) - 2 * len(str(total)) - len("/ 0:00:00   ")
    bar = Progress(
        TextColumn("{task.description}"),
        *([BarColumn(min(40, room))] if room > 0 else []),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(text, total=total)
        yield lambda n=1: bar.advance(task, n)
