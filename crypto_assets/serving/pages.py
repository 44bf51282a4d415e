"""Cuts of rows in time order: the newest ones, or from a time on, page by page.

Belongs here: limits and cursors. Does not belong here: parameters (`routes`), where rows are (`held`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from crypto_assets.serving.answers import Problem, iso
from crypto_assets.serving.as_of import Chosen
from crypto_assets.serving.held import NEVER, Having, Keep, Row, Snapshot, micros, moment


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


def page(chosen: Chosen, groups: Sequence[str], wanted: Page, having: Having | None = None) -> Cut:
    """Rows of groups.

    With a start the first rows from it on, and a cursor when there are more. Rows with the time of the last row of a
    page are all on it, so a page of several coins may be longer than the limit. Without a start the newest rows.

    Args:
        chosen: Snapshot, and by when rows must have been there.
        groups: Coins.
        wanted: Range and limit.
        having: Only rows that this filter wants.

    Raises:
        FileGone: A file of an older day was removed.
    """
    condition = _condition(chosen, having)
    if wanted.start is None:
        rows = chosen.snapshot.newest(groups, wanted.end, wanted.limit + 1, condition, having)
        return Cut(rows[-wanted.limit :], None, len(rows) > wanted.limit)
    rows = chosen.snapshot.oldest(groups, wanted.start, wanted.end, wanted.limit, condition, having)
    last = wanted.limit
    while 0 < last < len(rows) and rows[last].at == rows[last - 1].at:
        last += 1
    following = iso(moment(rows[last].at)) if last < len(rows) else None
    return Cut(rows[:last], following, following is not None)


def reads_older_days(snapshot: Snapshot, groups: Sequence[str], wanted: Page, having: Having | None = None) -> bool:
    """True if a page may need files of days that are not in memory."""
    if wanted.start is not None:
        return not snapshot.reaches_back(wanted.start)
    return bool(having) or not snapshot.has_newest(groups, wanted.end, wanted.limit + 1)


def _condition(chosen: Chosen, having: Having | None) -> Keep:
    """Rows that were there at the time asked for, and that are wanted; None = all."""
    if chosen.kind != "available":
        return having or None
    return lambda row: row.known <= chosen.known_by and (not having or having(row))
