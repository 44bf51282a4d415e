"""Offset ranges that append-once tables hold, however a store asks for them.

Belongs here: app ids, and the lazy search for a slice's neighbours. Does not belong here: SQL, handles, sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType


def incarnation(app_id: str) -> str:
    """Topic incarnation named by an app id.

    Raises:
        ValueError: The app id is not `<name>/<topic_id>/<slice>`.
    """
    parts = app_id.split("/")
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"app id {app_id!r} must be <name>/<topic_id>/<slice>: ranges are kept by topic incarnation")
    return parts[1]


class Neighbours(Mapping[int, int]):
    """Nearest stored offset of other slices by Kafka partition, searched outwards and only when asked for.

    Offsets grow with arrival, so the nearest slice that holds a partition has its highest end (or lowest start).
    Most partitions have rows in the next slice; reading all of 90 days' files takes over a second.

    Args:
        hours: Gives the stored slices to search, nearest first; asked once, when `found` does not do.
        search: (partition, offset) pairs that some slices hold, one a partition.
        found: Offsets that are known without a search, from slices nearer than all of `hours`.
    """

    _WINDOWS = (4, 32, 256)

    def __init__(
        self,
        hours: Callable[[], Sequence[datetime]],
        search: Callable[[Sequence[datetime]], Iterable[tuple[int, int]]],
        found: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self._search = search
        self._hours = hours
        self._windows: list[Sequence[datetime]] | None = None
        self._found = dict(found)

    def __getitem__(self, partition: int) -> int:
        while partition not in self._found and self._look():
            pass
        return self._found[partition]

    def __iter__(self) -> Iterator[int]:
        while self._look():
            pass
        return iter(sorted(self._found))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _look(self) -> bool:
        """Search the next window; whether there was one."""
        if self._windows is None:
            self._windows = list(self._cut(self._hours()))
        if not self._windows:
            return False
        for partition, offset in self._search(self._windows.pop(0)):
            self._found.setdefault(partition, offset)
        return True

    def _cut(self, hours: Sequence[datetime]) -> Iterator[Sequence[datetime]]:
        at = 0
        for size in (*self._WINDOWS, len(hours)):
            if at < len(hours):
                yield hours[at : at + size]
            at += size


def within(column: str, topic_id: str, hours: Sequence[datetime]) -> str:
    """SQL of the rows of one topic incarnation between the first and the last of some hours."""
    span = f"{column} >= '{min(hours):%Y-%m-%dT%H:%M:%SZ}' AND {column} <= '{max(hours):%Y-%m-%dT%H:%M:%SZ}'"
    return f"topic_id = {literal(topic_id)} AND {span}"


def literal(text: str) -> str:
    """Text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def verbatim(statement: str) -> str:
    """A statement whose literals may hold a path such as `/${x}/lake`: Spark would replace `${x}` in its text."""
    return statement.replace("${", "\\u0024{")
