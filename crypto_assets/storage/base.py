"""Arguments, results and errors of the store's verbs. Does not belong here: the store (`storage.store`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from crypto_assets.contracts.slices import Slice
from crypto_assets.errors import CANNOT, ReportedError

if TYPE_CHECKING:
    import pyarrow as pa


class SliceRefused(ReportedError):
    """A slice may not be written: its inputs have expired, or a closed slice would shrink to nothing. Says the fix."""


class WriteConflict(ReportedError):
    """Other writers committed between each of many attempts; nothing of this write was committed."""


class StorageError(ReportedError):
    """A table cannot be read or written as it lies there; names the table, every damaged file and what repairs it."""

    exit_code = CANNOT


class AuditFailed(ReportedError):
    """A blocking rule failed on the staged frame; nothing was committed. `outcomes` holds every evaluation."""

    def __init__(self, message: str, outcomes: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.outcomes = list(outcomes)


@dataclass(frozen=True)
class OffsetRange:
    """Offsets [start, end) of one Kafka partition."""

    partition: int
    start: int
    end: int

    def __str__(self) -> str:
        return f"partition {self.partition}: [{self.start}, {self.end})"


@dataclass(frozen=True)
class PartitionBounds:
    """Bounds of one Kafka partition for one hour: [start, end) by time, as `log.kafka.reading` computed them.

    Args:
        partition: Kafka partition.
        start: b(H), the offset of the first record at or after the hour's start.
        end: b(H+1), likewise of its end; a high watermark when no such record exists yet.
        provisional: Whether `end` is only a watermark.
        log_start: First offset still retained.
        adopted_from: First offset of the incarnation when the log was adopted after a cut; -1 = it never was.
    """

    partition: int
    start: int
    end: int
    provisional: bool
    log_start: int
    adopted_from: int = -1


@dataclass(frozen=True)
class LogBounds:
    """Bounds of every Kafka partition for one hour of one topic incarnation."""

    topic: str
    topic_id: str
    partitions: tuple[PartitionBounds, ...]


@dataclass(frozen=True)
class StoredRanges:
    """Ranges already covered in a slice of an append-once table, on the snapshot to commit on.

    Args:
        ends: Highest `range_end` per Kafka partition.
        max_seq: Highest `seq` of the slice, 0 when empty.
        previous_ends: Highest `range_end` per Kafka partition of all earlier slices of the same topic incarnation.
        next_starts: Lowest `range_start` per Kafka partition of all later slices of it: what lies there is stored.
        rows: Rows of the slice that are of this incarnation.
        staged: Kafka partitions whose previous end is that of rows which the same commit appends.
    """

    ends: dict[int, int]
    max_seq: int
    previous_ends: Mapping[int, int]
    next_starts: Mapping[int, int] = field(default_factory=dict)
    rows: int = 0
    staged: frozenset[int] = frozenset()


@dataclass(frozen=True)
class AppendBatch:
    """Rows for one `append_once` commit: everything but `seq` and `batch_id`, which the store fills in.

    `covers` are the ranges recorded by the rows; `commit_metadata` goes into the commit info (touched event hours).
    """

    rows: pa.Table
    covers: tuple[OffsetRange, ...]
    commit_metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SliceAppend:
    """What one slice of an append-once table is to gain.

    Args:
        slice: The arrival hour.
        app_id: `<name>/<topic_id>/<hour>`; ranges are those of this topic incarnation. The commit records it with the
            rows' `seq`, the highest of the slice plus one.
        build: Makes the rows for the ranges stored so far, None = nothing to append; runs again after a conflict.
        audit: Sees the rows, without what the store fills in, before they are committed.
    """

    slice: Slice
    app_id: str
    build: Callable[[StoredRanges], AppendBatch | None]
    audit: Callable[[pa.Table], None] | None


@dataclass(frozen=True)
class WriteResult:
    """Result of a write. `committed` is False for a no-op; versions are Delta versions of the table."""

    table: str
    committed: bool
    rows: int
    version_before: int | None
    version_after: int | None
    retries: int = 0
    metadata: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Commit:
    """One Delta commit: version, wall time (UTC) and the metadata that the writer put in it."""

    version: int
    at: datetime
    operation: str
    metadata: dict[str, str]


def replace_app_id(table: str) -> str:
    """App id of the transactions by which replacing writers of a table exclude each other, whatever their store."""
    return f"replace/{table}"
