"""Offset ranges that append-once tables hold, however a store asks for them.

Belongs here: app ids, what slices cover, and the lazy search for their neighbours. Does not belong here: handles,
sessions.
"""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from operator import itemgetter
from typing import Any

from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import HOUR, Slice
from crypto_assets.storage.backend import Snapshot
from crypto_assets.storage.base import OffsetRange, StoredRanges
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


def commit_metadata(appends: Sequence[tuple[str, int, str]]) -> dict[str, str]:
    """What a commit records of its batches: app id, sequence number and batch id, or a list of them."""
    if len(appends) > 1:
        return {"appends": json.dumps(appends)}
    ((app_id, seq, batch_id),) = appends
    return {"app_id": app_id, "seq": str(seq), "batch_id": batch_id}


def batches_of(metadata: Mapping[str, str]) -> list[tuple[str, int, str]]:
    """App id, sequence number and batch id of every batch of a commit; none for a commit of something else."""
    if "appends" in metadata:
        return [(app_id, int(seq), batch_id) for app_id, seq, batch_id in json.loads(metadata["appends"])]
    if "batch_id" in metadata:
        return [(metadata["app_id"], int(metadata["seq"]), metadata["batch_id"])]
    return []


class Neighbours(Mapping[int, int]):
    """Nearest stored offset of other slices by Kafka partition, searched outwards and only when asked for.

    Offsets grow with arrival, so the nearest slice that holds a partition has its highest end (or lowest start).
    Most partitions have rows in the next slice; reading all of 90 days' files takes over a second.

    Args:
        hours: Gives the stored slices to search, nearest first; asked once, with the first question.
        search: (partition, offset) pairs that some slices hold, one a partition.
    """

    _WINDOWS = (4, 32, 256)

    def __init__(
        self,
        hours: Callable[[], Sequence[datetime]],
        search: Callable[[Sequence[datetime]], Iterable[tuple[int, int]]],
    ) -> None:
        self._search = search
        self._hours = hours
        self._windows: list[Sequence[datetime]] | None = None
        self._found: dict[int, int] = {}

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


class RangesBySlice:
    """Ranges of slices and of their neighbours, of one topic incarnation, all of one snapshot.

    Args:
        snapshot: Version of the table.
        table: Contract of an append-once table.
        slices: Arrival hours, in order.
        topic_id: The incarnation.
        near: Hours on either side that are asked for together with the slices.
    """

    def __init__(self, snapshot: Snapshot, table: Table, slices: Sequence[Slice], topic_id: str, near: int) -> None:
        assert table.time_column is not None
        column = self._column = table.time_column
        first, last = slices[0].start - near * HOUR, slices[-1].end - HOUR + near * HOUR
        values = {"end": "max(range_end)", "start": "min(range_start)", "seq": "max(seq)", "rows": "count(*)"}

        def by(names: Sequence[str], span: Sequence[datetime]) -> list[dict[str, Any]]:
            return snapshot.aggregate(values, names, within(column, topic_id, span)).to_pylist()

        self._found = sorted(by([column, "partition"], [first, last]), key=itemgetter(column))
        self._staged: dict[int, tuple[datetime, int]] = {}
        hours = cache(snapshot.hours)
        self._before = Neighbours(
            lambda: [h for h in reversed(hours()) if h < first],
            lambda some: ((r["partition"], r["end"]) for r in by(["partition"], some)),
        )
        self._after = Neighbours(
            lambda: [h for h in hours() if h > last],
            lambda some: ((r["partition"], r["start"]) for r in by(["partition"], some)),
        )

    def of(self, slice_: Slice) -> StoredRanges:
        """What is stored of a slice and beside it; before it, also what was staged."""
        column = self._column
        mine = [r for r in self._found if slice_.start <= r[column] < slice_.end]
        previous = {r["partition"]: (r[column], r["end"]) for r in self._found if r[column] < slice_.start}
        staged = {p: at for p, at in self._staged.items() if at[0] < slice_.start and at >= previous.get(p, at)}
        ends = {p: end for p, (_, end) in (previous | staged).items()}
        starts = {r["partition"]: r["start"] for r in reversed(self._found) if r[column] >= slice_.end}
        return StoredRanges(
            ends={r["partition"]: r["end"] for r in mine},
            max_seq=max((r["seq"] for r in mine), default=0),
            previous_ends=ChainMap(ends, self._before),  # type: ignore[arg-type]  # only read
            next_starts=ChainMap(starts, self._after),  # type: ignore[arg-type]
            rows=sum(r["rows"] for r in mine),
            staged=frozenset(staged),
        )

    def stage(self, slice_: Slice, covers: Iterable[OffsetRange]) -> None:
        """Note ranges of a slice that the same commit appends; slices in order."""
        for piece in covers:
            self._staged[piece.partition] = max(
                (slice_.start, piece.end), self._staged.get(piece.partition, (slice_.start, 0))
            )


def within(column: str, topic_id: str, hours: Sequence[datetime]) -> str:
    """SQL of the rows of one topic incarnation between the first and the last of some hours."""
    span = f"{column} >= '{min(hours):%Y-%m-%dT%H:%M:%SZ}' AND {column} <= '{max(hours):%Y-%m-%dT%H:%M:%SZ}'"
    return f"topic_id = {literal(topic_id)} AND {span}"
