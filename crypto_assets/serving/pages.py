"""Cuts of rows in time order: the newest ones, or from a time on, page by page.

Belongs here: limits and cursors. Does not belong here: parameters (`routes`), where rows are (`held`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from crypto_assets.serving.answers import Problem, iso
from crypto_assets.serving.as_of import Chosen
from crypto_assets.serving.held import NEVER, Row, Snapshot, micros, moment


@dataclass(frozen=True)
class Page:
    """What is asked for.

    Args:
        start: First place in the order (µs); None = the newest rows.
        end: Last place, inclusive.
        limit: Rows at most.
    """

    start: int | None
    end: int
    limit: int

    @classmethod
    def of(cls, start: datetime | None, to: datetime | None, limit: int, cursor: datetime | None = None) -> Page:
        """The page of a request's parameters.

        Raises:
            Problem: 422 when the range is empty.
        """
        begin = cursor or start
        if begin is not None and to is not None and begin > to:
            raise Problem(422, f"from ({iso(begin)}) is later than to ({iso(to)})")
        return cls(micros(begin) if begin else None, micros(to) if to else NEVER, limit)


class Cut(NamedTuple):
    """Rows in time order, cursor of the next page, and whether there are more rows than these."""

    rows: Sequence[Row]
    following: str | None
    truncated: bool


def page(chosen: Chosen, groups: Sequence[str], wanted: Page, keep: Callable[[Row], bool] | None = None) -> Cut:
    """Rows of groups.

    With a start the first rows from it on, and a cursor when there are more. Rows with the time of the last row of a
    page are all on it, so a page of several coins may be longer than the limit. Without a start the newest rows.

    Args:
        chosen: Snapshot, and by when rows must have been there.
        groups: Coins.
        wanted: Range and limit.
        keep: Only rows for which this is true.

    Raises:
        FileGone: A file of an older day was removed.
    """
    condition = _condition(chosen, keep)
    parts: list[Sequence[Row]] = []
    for group in groups:
        if wanted.start is None:
            parts.append(chosen.snapshot.newest(group, wanted.end, wanted.limit + 1, condition))
        else:
            parts.append(chosen.snapshot.oldest(group, wanted.start, wanted.end, wanted.limit + 1, condition))
    rows = parts[0] if len(parts) == 1 else sorted(chain.from_iterable(parts), key=attrgetter("at"))
    if wanted.start is None:
        return Cut(rows[-wanted.limit :], None, len(rows) > wanted.limit)
    last = wanted.limit
    while 0 < last < len(rows) and rows[last].at == rows[last - 1].at:
        last += 1
    following = iso(moment(rows[last].at)) if last < len(rows) else None
    return Cut(rows[:last], following, following is not None)


def reads_older_days(snapshot: Snapshot, groups: Sequence[str], wanted: Page, *, filtered: bool = False) -> bool:
    """True if a page may need files of days that are not in memory."""
    if wanted.start is not None:
        return not snapshot.reaches_back(wanted.start)
    return filtered or not all(snapshot.has_newest(group, wanted.limit + 1) for group in groups)


def _condition(chosen: Chosen, keep: Callable[[Row], bool] | None) -> Callable[[Row], bool] | None:
    """Rows that were there at the time asked for, and that are wanted; None = all."""
    if chosen.kind != "available":
        return keep
    return lambda row: row.known <= chosen.known_by and (keep is None or keep(row))
