"""Offset ranges that append-once tables hold, however a store asks for them.

Belongs here: app ids, and the lazy search for a slice's neighbours. Does not belong here: SQL, handles, sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime


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
        hours: Stored slices, nearest first.
        search: (partition, offset) pairs that some slices hold, one a partition.
    """

    _WINDOWS = (4, 32, 256)

    def __init__(
        self, hours: Sequence[datetime], search: Callable[[Sequence[datetime]], Iterable[tuple[int, int]]]
    ) -> None:
        self._search = search
        self._windows: list[Sequence[datetime]] = []
        at = 0
        for size in (*self._WINDOWS, len(hours)):
            if at < len(hours):
                self._windows.append(hours[at : at + size])
            at += size
        self._found: dict[int, int] = {}

    def __getitem__(self, partition: int) -> int:
        while partition not in self._found and self._windows:
            self._look(self._windows.pop(0))
        return self._found[partition]

    def __iter__(self) -> Iterator[int]:
        while self._windows:
            self._look(self._windows.pop(0))
        return iter(sorted(self._found))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _look(self, hours: Sequence[datetime]) -> None:
        for partition, offset in self._search(hours):
            self._found.setdefault(partition, offset)


def within(column: str, topic_id: str, hours: Sequence[datetime]) -> str:
    """SQL of the rows of one topic incarnation between the first and the last of some hours."""
    span = f"{column} >= '{min(hours):%Y-%m-%dT%H:%M:%SZ}' AND {column} <= '{max(hours):%Y-%m-%dT%H:%M:%SZ}'"
    return f"topic_id = {literal(topic_id)} AND {span}"


def literal(text: str) -> str:
    """Text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
