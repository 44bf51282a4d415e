"""Hours of landed files: which files of an hour a table lacks, and their lines as ranges of offsets.

Does not belong here: files and lines (`crypto_assets.log.files`), the commit (`assets.log_slices.hours`).

How files become ranges (docs/decisions/0006-landed-files-as-ranges.md). Every hour's folder is a separate incarnation,
`topic_id = landing:2024-01-05-10`, with one partition 0 that begins at offset 0. Files are numbered into it as they are
picked up: a commit takes all new files of the hour, covers [stored end, stored end + their lines), and is the hour's
next seq under the one app id of topic and hour. So chains and `append_once` work as for Kafka. `topic` names the file,
`landing:2024-01-05/10/<sha256>`, which identifies it: the set of stored identities is read after the snapshot that the
commit is based on, so a file stored concurrently is either in the set or makes the commit fail. Within a file, offsets
follow its lines; empty lines leave holes.

A requested hour is examined file by file. The seven days before it, where a file may have come late, are examined by
modification time; late files are appended to their own hour, and the event hours are in that commit's `touched_hours`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import DAY, HOUR, Slice, floor_hour, hour_key, key_slice
from crypto_assets.engine.base import StepFailed, StepInputs
from crypto_assets.log.files import folder as landed
from crypto_assets.log.protocol import Held, Lacking, Ranges
from crypto_assets.storage.base import AppendBatch, LogBounds, OffsetRange, StoredRanges, WriteResult
from crypto_assets.storage.store import DeltaStore

if TYPE_CHECKING:
    import pyarrow as pa

LOOK_BACK = 7 * DAY
"""How far before the requested hours late files are searched for, and how far around them copies are recognised: as
long as Kafka's topics are kept. A file in an older folder is picked up when its hour is materialized."""
CLOCK_SLACK = timedelta(minutes=10)
"""Allowed clock difference between the machine that writes files and the one that runs steps."""


@dataclass
class LandedLog:
    """Hours of a topic's folder, and earlier ones with late files; see `log.protocol.Log`.

    Args:
        store: The tables.
        table: The append-once table.
        inputs: `landing_folder`, and `now`.
        keys: Hours, in any order.
        late: Unrequested hours that received records, as partition keys.
    """

    store: DeltaStore
    table: Table
    inputs: StepInputs
    keys: Sequence[str]
    late: list[str] = field(default_factory=list)
    together = False  # whether a file is a copy is known once those before it are stored

    def hours(self) -> Generator[LandedHour]:
        """The hours in order; unrequested ones only if they may have a new file.

        Raises:
            StepFailed: The folder does not exist.
            LogUnavailable: It cannot be listed.
        """
        place = Path(str(self.inputs.landing_folder))
        if not place.is_dir():
            raise StepFailed(
                f"{self.table.full_name}: landing folder {place} does not exist here. The producer makes it "
                "(crypto-assets produce --once); or set CRYPTO_ASSETS_LANDING to the folder or volume that has it"
            )
        asked = [key_slice(k, "hour").start for k in sorted(set(self.keys))]
        known = StoredFiles(self.store, self.table, Slice(asked[0] - LOOK_BACK, asked[-1] + HOUR + LOOK_BACK))
        for start in _hours(place, asked):
            hour = LandedHour(place, start, known, self.inputs.now, start in asked, self.late)
            if hour.asked or hour.changed_recently():
                yield hour


@dataclass(frozen=True)
class Pending:
    """Landed records that a reader has not covered.

    Args:
        oldest: Arrival of the oldest (UTC); None without any.
        records: Number of records.
        waiting: Names of files that cannot be read yet, because their last line has no newline.
    """

    oldest: datetime | None
    records: int
    waiting: tuple[str, ...]


def pending(store: DeltaStore, table: Table, place: Path, covered_until: datetime | None, now: datetime) -> Pending:
    """Landed records of the last seven days that are not covered: unstored files, and stored records after a time.

    Args:
        store: The tables.
        table: The append-once table.
        place: The topic's folder.
        covered_until: Newest arrival (UTC) that the reader covers; None = nothing.
        now: Present time (UTC).

    Raises:
        LogUnavailable: A folder or a file cannot be read.
    """
    first = floor_hour(now) - LOOK_BACK
    span = Slice(first, floor_hour(now) + HOUR)
    known = StoredFiles(store, table, span)
    known.refresh()
    arrivals: list[datetime] = []
    waiting: list[str] = []
    for start in landed.hours(place, first):
        hour = LandedHour(place, start, known, now, asked=False)
        for file, what in hour.new_files():
            lines = (line for _, line in landed.lines_of(file, what, start))
            arrivals += [landed.arrival_of(line, file, start, now) for line in lines]
        waiting += hour.waiting
    after = "" if covered_until is None else f" AND kafka_timestamp > '{covered_until:%Y-%m-%dT%H:%M:%S.%fZ}'"
    where = f"topic_id LIKE '{landed.SCHEME}%'{after}"
    arrivals += store.read_arrow(table.full_name, span, columns=["kafka_timestamp"], where=where).column(0).to_pylist()
    return Pending(min(arrivals, default=None), len(arrivals), tuple(waiting))


def _hours(place: Path, asked: Sequence[datetime]) -> list[datetime]:
    """The requested hours, and those before them in which a late file may lie, in order."""
    first = asked[0] - LOOK_BACK
    return sorted({*asked, *(h for h in landed.hours(place, first) if first <= h < asked[-1])})


class StoredFiles:
    """Stored files around the hours of a step, by identity; reread when others have written.

    Args:
        store: The tables.
        table: The append-once table.
        span: Arrival hours in which files are recognised.
    """

    def __init__(self, store: DeltaStore, table: Table, span: Slice) -> None:
        self._store, self._table, self._span = store, table, span
        self._version: int | None = -1
        self._hours: dict[str, datetime] = {}
        self._newest: dict[datetime, datetime] = {}

    def refresh(self) -> None:
        """Read the stored identities unless they are those of the current version."""
        current = self._store.version(self._table.full_name)
        if current == self._version:
            return
        from pyspark.sql import functions as F

        self._hours, self._newest, self._version = {}, {}, current
        if current is None:
            return
        frame = self._store.read(self._table.full_name, self._span, version=current)
        files = frame.where(F.col("topic_id").startswith(landed.SCHEME))
        found = files.groupBy("topic").agg(F.max("bronze_ingested_at").alias("at")).toArrow()
        for row in found.to_pylist():
            hour, sha256 = landed.read_topic(row["topic"])
            self._add(hour, sha256, row["at"])

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._hours

    def of_hour(self, hour: datetime) -> list[str]:
        """Identities stored for one hour, sorted."""
        return sorted(sha for sha, h in self._hours.items() if h == hour)

    def newest_at(self, hour: datetime) -> datetime | None:
        """Storage time of the newest file of an hour (UTC); None if none is stored."""
        return self._newest.get(hour)

    def stored(self, hour: datetime, files: Sequence[str], at: datetime, write: WriteResult) -> None:
        """Add the files of an own commit, unless others committed concurrently: then `refresh` rereads."""
        if self._version is None or write.version_after != self._version + 1:
            self._version = -1
            return
        self._version = write.version_after
        for sha256 in files:
            self._add(hour, sha256, at)

    def _add(self, hour: datetime, sha256: str, at: datetime) -> None:
        self._hours[sha256] = hour
        self._newest[hour] = max(at, self._newest.get(hour, at))


@dataclass
class LandedHour:
    """One hour's folder; see `log.protocol.LogHour`. Unless `asked`, only files that may be new are read."""

    place: Path
    start: datetime
    known: StoredFiles
    now: datetime
    asked: bool
    late: list[str] = field(default_factory=list)
    listing: landed.Listing = field(default_factory=landed.Listing)
    waiting: list[str] = field(default_factory=list)
    copies: int = 0

    def __post_init__(self) -> None:
        self.slice = Slice(self.start, self.start + HOUR)
        self.bounds = LogBounds(landed.topic_id_of(self.start), landed.topic_id_of(self.start), ())
        self._contents: dict[landed.LandedFile, landed.Content | None] = {}
        self._taken: list[tuple[landed.LandedFile, landed.Content]] = []

    def changed_recently(self) -> bool:
        """Return whether a file of the folder may have come after the newest commit of the hour."""
        self.known.refresh()
        return any(self._is_recent(f) for f in landed.list_hour(self.place, self.start).files)

    def _is_recent(self, file: landed.LandedFile) -> bool:
        newest = self.known.newest_at(self.start)
        return newest is None or file.changed_at >= newest - CLOCK_SLACK

    def lacking(self, stored: StoredRanges) -> Lacking | None:
        """Lines of complete files that are not stored, numbered from the stored end."""
        self.known.refresh()  # after the snapshot of `stored`
        self._taken = self.new_files()
        if not self._taken:
            return None
        start, files = stored.ends.get(0, 0), len(self._taken)
        piece = OffsetRange(0, start, start + sum(c.lines - c.known_lines for _, c in self._taken))
        return Lacking((piece,), shown={"files_picked_up": files}, recorded={"files": str(files)})

    def prove(self, lacking: Lacking, stored: StoredRanges) -> None:
        """Nothing to verify: a file is identified by its contents."""

    def committed(self, batch: AppendBatch, write: WriteResult) -> None:  # noqa: ARG002
        """Record the stored files."""
        self.known.stored(self.start, [c.sha256 for _, c in self._taken], self.now, write)
        if not self.asked:
            self.late.append(hour_key(self.start))

    def new_files(self) -> list[tuple[landed.LandedFile, landed.Content]]:
        """Complete files that are not stored, each once."""
        self.listing = landed.list_hour(self.place, self.start)
        files = [f for f in self.listing.files if self.asked or self._is_recent(f)]
        found: dict[str, landed.LandedFile] = {}
        self.waiting, self.copies = [], 0
        for file in files:
            if file not in self._contents:
                self._contents[file] = landed.content(file)
            what = self._contents[file]
            if what is None:
                continue
            if what.sha256 in self.known or what.sha256 in found:
                self.copies += 1
            elif what.whole:
                found[what.sha256] = file
            else:
                self.waiting.append(file.path.name)
        # A file that grew in place begins with what was already read: only the rest is new.
        beginnings = {*self.known.of_hour(self.start), *found}
        grown = [(file, landed.content(file, beginnings - {sha})) for sha, file in found.items()]
        return [(file, what) for file, what in grown if what is not None and what.sha256 in found]

    def read(self, lacking: Lacking) -> Iterator[pa.Table]:
        """The records of the files, numbered."""
        start = lacking.reads[0].start
        rows: list[tuple[int, str, datetime, landed.Line]] = []
        for file, what in self._taken:
            topic = landed.topic_of(self.start, what.sha256)
            for number, line in landed.lines_of(file, what, self.start):
                at = landed.arrival_of(line, file, self.start, self.now)
                rows.append((start + number - what.known_lines, topic, at, line))
                if len(rows) >= landed.CHUNK_ROWS:
                    yield landed.chunk(rows)
                    rows = []
            start += what.lines - what.known_lines
        if rows:
            yield landed.chunk(rows)

    def held(self, ranges: Ranges) -> Held:
        """See `Held`; the version is a hash of the files' identities, and ranges follow each other from 0."""
        self.known.refresh()
        place, files = landed.hour_folder(self.place, self.start), self.known.of_hour(self.start)
        problems, end, unfinished = [], 0, ""
        for _, start, stop in ranges:
            if start != end:
                what = "stored twice" if start < end else "absent"
                problems.append(f"[{min(start, end)}, {max(start, end)}) is {what}")
            end = stop
        if self.waiting and self.now >= self.slice.end:
            unfinished = (
                f"{len(self.waiting)} file(s) of the closed hour are not read, because their last line has no newline: "
                f"{', '.join(self.waiting[:10])}. Deliver them whole (write to *.part, then rename), or remove them"
            )
        return Held(
            version=f"{self.bounds.topic_id}@{hashlib.sha256(' '.join(files).encode()).hexdigest()[:16]}",
            metadata={
                "folder": str(place),
                "files_stored": len(files),
                "copies_ignored": self.copies,
                "files_waiting": [*self.waiting, *self.listing.parts],
                "other_files": list(self.listing.others),
            },
            why_empty=f"folder {place} holds no whole file with a record",
            problems=problems,
            unfinished=unfinished,
            figures={"ranges": len(ranges), "files_waiting": list(self.waiting)},
        )
