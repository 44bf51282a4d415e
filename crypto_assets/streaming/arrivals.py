"""Rows that a micro-batch brings to Bronze, and Bronze rows that Silver has not seen yet.

Belongs here: the next piece of the log (cut at hours and at a size), and the rows of Bronze commits, whoever made them.
Does not belong here: how Bronze is written (`assets.bronze`), what becomes of the rows (`streaming.silver`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING

from crypto_assets.contracts.clock import is_ahead_ms
from crypto_assets.contracts.slices import HOUR, Slice, floor_hour, hour_key, key_slice
from crypto_assets.contracts.tables import RAW_PRICES
from crypto_assets.engine.base import Engine, StepFailed
from crypto_assets.home import first_day
from crypto_assets.log.errors import LogUnavailable
from crypto_assets.log.kafka import reading
from crypto_assets.settings import Settings
from crypto_assets.storage.base import LogBounds, OffsetRange, PartitionBounds
from crypto_assets.storage.ranges import batches_of

if TYPE_CHECKING:
    import pyarrow as pa

BRONZE = RAW_PRICES.full_name
MOST_OFFSETS = 200_000
"""Offsets per micro-batch; bounds its memory and the work repeated after a crash."""
HOURS_AHEAD = 48
"""Hours queried together after a long silence of the log."""
WITHOUT_RECORDS = ("CREATE TABLE", "CREATE", "OPTIMIZE", "VACUUM START", "VACUUM END", "DELETE", "SET TBLPROPERTIES")
"""Operations of Bronze commits that bring no records."""
MOST_COMMITS = 200
"""Maximum number of foreign commits read one by one; beyond, the hours are rebuilt."""


@dataclass(frozen=True)
class Arrival:
    """Rows of one Bronze commit.

    Args:
        slice: Arrival hour.
        rows: Rows, without `seq` and `batch_id`.
        covers: Recorded ranges.
    """

    slice: Slice
    rows: pa.Table
    covers: tuple[OffsetRange, ...]


def arrivals_after(engine: Engine, version: int, own: Mapping[str, Arrival]) -> tuple[list[Arrival], bool]:
    """Rows of the Bronze commits after a version, whoever made them.

    Args:
        engine: Engine whose Bronze is read.
        version: The last version whose rows are known.
        own: Cached rows by `batch_id`.

    Returns:
        The rows, and whether they are complete: False when commits are gone from the log, too many,
        or without a list of their rows.
    """
    found: list[Arrival] = []
    commits = engine.store.commits_after(BRONZE, version, MOST_COMMITS + 1)
    known = len(commits) <= MOST_COMMITS
    for commit in commits[:MOST_COMMITS]:
        batches = batches_of(commit.metadata)
        if not batches and commit.operation not in WITHOUT_RECORDS:
            known = False
        for app_id, _, batch_id in batches:
            if batch_id in own:
                found.append(own[batch_id])
            elif known:
                found.append(_stored(engine, key_slice(app_id.rpartition("/")[2], "hour"), batch_id))
    return found, known


def _stored(engine: Engine, piece: Slice, batch_id: str) -> Arrival:
    names = [n for n in RAW_PRICES.column_names if n not in ("seq", "batch_id")]
    rows = engine.store.read_arrow(BRONZE, piece, columns=names, where=f"batch_id = '{batch_id}'")
    distinct = rows.select(["partition", "range_start", "range_end"]).group_by(
        ["partition", "range_start", "range_end"]
    )
    covers = tuple(
        OffsetRange(r["partition"], r["range_start"], r["range_end"]) for r in distinct.aggregate([]).to_pylist()
    )
    return Arrival(piece, rows, covers)


@dataclass(frozen=True)
class Piece:
    """Offsets that the next micro-batch reads.

    Args:
        hour: Arrival hour.
        bounds: Offsets, cut to `MOST_OFFSETS`.
        begins: Whether it is the first of its hour in this process.
    """

    hour: datetime
    bounds: LogBounds
    begins: bool

    @property
    def key(self) -> str:
        """Partition key of the hour."""
        return hour_key(self.hour)


class Cursor:
    """Position of the stream in the log. Only a hint that saves queries: stored ranges decide what is read.

    Args:
        settings: Settings of the home: topic and broker.
        ends: End offsets that Bronze holds, by Kafka partition.
        topic_id: Incarnation of the topic.
        hour: Arrival hour to begin with; None = that of the oldest record.

    Attributes:
        lag: Unstored offsets of the hour queried last.
    """

    def __init__(
        self, settings: Settings, ends: Mapping[int, int], topic_id: str | None, hour: datetime | None
    ) -> None:
        self.ends = dict(ends)
        self.topic_id = topic_id
        self.hour = hour
        self.lag = 0
        self._settings = settings
        self._topic = settings.prices_topic
        self._begun: datetime | None = None

    def next(self, now: datetime) -> Piece | None:
        """The next piece that Bronze lacks; None when Bronze is up to date.

        Args:
            now: Present time (UTC): records stamped later close no hour.

        Raises:
            StepFailed: The log cannot be queried; the message names the fix.
        """
        try:
            if self.hour is None:
                self.hour = self._first_hour(now)
                if self.hour is None:
                    return None
            bounds = reading.bounds(self._settings, self._topic, [self.hour], now)[hour_key(self.hour)]
            if self.topic_id is not None and self.topic_id != bounds.topic_id:
                self.ends = {}  # offsets of another incarnation
            self.topic_id = bounds.topic_id
            if not self._lacks(bounds) and not all(b.provisional for b in bounds.partitions):
                bounds = self._later(bounds, now)
        except LogUnavailable as error:
            raise StepFailed(str(error)) from error
        self.lag = sum(max(0, b.end - self._stored(b)) for b in bounds.partitions)
        if not self._lacks(bounds):
            return None
        begins, self._begun = self._begun != self.hour, self.hour
        return Piece(self.hour, self._cut(bounds), begins)

    def reached(self, ends: Mapping[int, int]) -> None:
        """Raise the stored end offsets; none falls."""
        for partition, end in ends.items():
            self.ends[partition] = max(self.ends.get(partition, 0), end)

    def _first_hour(self, now: datetime) -> datetime | None:
        """Hour of the oldest record that is complete: once retention has removed records, the following one."""
        start = reading.lag_start(self._settings, self._topic, {}, now)
        if start.oldest is None:
            return None
        trimmed = any(first for first, _ in reading.end_offsets(self._settings, self._topic).values())
        oldest = floor_hour(start.oldest) + (HOUR if trimmed else 0 * HOUR)
        return max(oldest, datetime.combine(first_day(self._settings), time(), UTC))

    def _lacks(self, bounds: LogBounds) -> bool:
        """Whether Bronze lacks offsets; a log that ends before what is stored is Bronze's to refuse."""
        return any(b.end > self._stored(b) or (b.provisional and b.end < self._stored(b)) for b in bounds.partitions)

    def _stored(self, b: PartitionBounds) -> int:
        # A partition without rows, in a topic that has some, was added later: it is stored from its beginning.
        return self.ends.get(b.partition, b.log_start if self.ends else b.start)

    def _later(self, bounds: LogBounds, now: datetime) -> LogBounds:
        """Bounds of the next hour that Bronze lacks, else of the newest record's hour."""
        newest = reading.newest_timestamp_ms(self._settings, self._topic)
        # Records stamped ahead lie in no later hour than the present.
        last = floor_hour(now if is_ahead_ms(newest, now) else datetime.fromtimestamp(newest / 1000, UTC))
        assert self.hour is not None
        while self.hour < last:
            count = min(HOURS_AHEAD, int((last - self.hour) / HOUR))
            hours = [self.hour + (i + 1) * HOUR for i in range(count)]
            found = reading.bounds(self._settings, self._topic, hours, now)
            for hour in hours:
                self.hour, bounds = hour, found[hour_key(hour)]
                if self._lacks(bounds):
                    return bounds
        return bounds

    def _cut(self, bounds: LogBounds) -> LogBounds:
        """Limit bounds to `MOST_OFFSETS` offsets; unused shares go to Kafka partitions that lack more."""
        lacking = {b.partition: max(0, b.end - max(b.start, self.ends.get(b.partition, 0))) for b in bounds.partitions}
        taken, room = {}, MOST_OFFSETS
        for done, partition in enumerate(sorted(lacking, key=lacking.__getitem__)):
            taken[partition] = min(lacking[partition], max(1, room // (len(lacking) - done)))
            room -= taken[partition]
        return replace(
            bounds,
            partitions=tuple(
                replace(b, end=min(b.end, max(b.start, self.ends.get(b.partition, 0)) + taken[b.partition]))
                for b in bounds.partitions
            ),
        )
