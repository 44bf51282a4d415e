"""Tables of a run written into a Markdown page, between `<!-- NAME:begin -->` and `<!-- NAME:end -->`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report import Part, formatted


class NoPlaceError(Exception):
    """The page has no markers of that name; names them."""


def write(page: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what stands between a page's markers.

    Raises:
        NoPlaceError: They are missing.
    """
    page.write_text(between(page.read_text(encoding="utf-8"), name, lines), encoding="utf-8")


def between(text: str, name: str, lines: Sequence[str]) -> str:
    """The text with these lines between the markers of a name.

    Raises:
        NoPlaceError: They are missing, or in the wrong order.
    """
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise NoPlaceError(f"no place for {name}: add the lines {begin.strip()} and {end} where its table belongs")
    return before + begin + "".join(f"{line}\n" for line in lines) + end + after


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows as a Markdown table; empty columns are left out."""
    names = [n for n in (rows[0] if rows else ()) if any(row[n] not in ("", None) for row in rows)]
    cells = [names, ["---"] * len(names), *([_cell(row[n]) for n in names] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in cells]


def _cell(value: object) -> str:
    text = "" if value is None else formatted(value) if isinstance(value, (int, float)) else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def of_part(part: Part) -> list[str]:
    """A part's figures, further tables and notes."""
    rows = [
        {
            "measured": m.name,
            "value": f"{formatted(m.measured)} {m.unit}",
            "target": m.row()["target"],
            "met": m.row()["met"],
            "reference": m.row()["reference"],
            "how": m.note,
        }
        for m in part.measures
    ]
    lines = [part.title + ".", ""]
    if rows:
        lines += [*table(rows), ""]
    for title, of_it in part.tables.items():
        lines += [f"{title}:", "", *table(of_it), ""]
    return [*lines, *(f"- {note}" for note in part.notes)]
