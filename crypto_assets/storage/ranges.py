"""Offset ranges that append-once tables hold, however a store asks for them.

Belongs here: app ids, what a slice covers, and the lazy search for its neighbours. Does not belong here: handles,
sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import HOUR, Slice
from crypto_assets.storage.backend import Snapshot
from crypto_assets.storage.base import StoredRanges
from crypto_assets.storage.delta_files import literal


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


def stored_ranges(snapshot: Snapshot, table: Table, slice_: Slice, topic_id: str, near: int) -> StoredRanges:
    """Ranges of a slice and of its neighbours, of one topic incarnation, all of one snapshot.

    Args:
        snapshot: Version of the table.
        table: Contract of an append-once table.
        slice_: The arrival hour.
        topic_id: The incarnation.
        near: Hours on either side that are asked for together with the slice.
    """
    column = table.time_column
    assert column is not None
    first, last = slice_.start - near * HOUR, slice_.end - HOUR + near * HOUR
    values = {"end": "max(range_end)", "start": "min(range_start)", "seq": "max(seq)"}

    def by(names: Sequence[str], span: Sequence[datetime]) -> list[dict[str, Any]]:
        return snapshot.aggregate(values, names, within(column, topic_id, span)).to_pylist()

    found = sorted(by([column, "partition"], [first, last]), key=itemgetter(column))
    mine = [r for r in found if slice_.start <= r[column] < slice_.end]
    hours = cache(snapshot.hours)
    return StoredRanges(
        ends={r["partition"]: r["end"] for r in mine},
        max_seq=max((r["seq"] for r in mine), default=0),
        previous_ends=Neighbours(
            lambda: [h for h in reversed(hours()) if h < first],
            lambda some: ((r["partition"], r["end"]) for r in by(["partition"], some)),
            {r["partition"]: r["end"] for r in found if r[column] < slice_.start},
        ),
        next_starts=Neighbours(
            lambda: [h for h in hours() if h > last],
            lambda some: ((r["partition"], r["start"]) for r in by(["partition"], some)),
            {r["partition"]: r["start"] for r in reversed(found) if r[column] >= slice_.end},
        ),
    )


def within(column: str, topic_id: str, hours: Sequence[datetime]) -> str:
    """SQL of the rows of one topic incarnation between the first and the last of some hours."""
    span = f"{column} >= '{min(hours):%Y-%m-%dT%H:%M:%SZ}' AND {column} <= '{max(hours):%Y-%m-%dT%H:%M:%SZ}'"
    return f"topic_id = {literal(topic_id)} AND {span}"
