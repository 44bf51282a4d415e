"""The `TableStore` protocol: five verbs on tables, and what they take and return.

Every store keeps the same promises (see `docs/architecture.md`, "Writing"): what a write covers is recorded in the
same Delta commit and checked on the same snapshot before writing. Does not belong here: any store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol

from crypto_assets.contracts.slices import Slice
from crypto_assets.errors import CANNOT, ReportedError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame


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
    """What a slice of an append-once table already covers, read on the snapshot that the write will commit on.

    Args:
        ends: Highest `range_end` per Kafka partition.
        starts: Lowest `range_start` per Kafka partition.
        max_seq: Highest `seq` of the slice, 0 when empty.
        previous_ends: Highest `range_end` per Kafka partition of all earlier slices of the same topic incarnation.
        next_starts: Lowest `range_start` per Kafka partition of all later slices of it: what lies there is stored.
    """

    ends: dict[int, int]
    starts: dict[int, int]
    max_seq: int
    previous_ends: Mapping[int, int]
    next_starts: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class AppendBatch:
    """Rows for one `append_once` commit: everything but `seq` and `batch_id`, which the store fills in.

    `covers` are the ranges recorded by the rows; `commit_metadata` goes into the commit info (touched event hours).
    """

    rows: pa.Table
    covers: tuple[OffsetRange, ...]
    commit_metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WriteResult:
    """What one write did. `committed` is False for a no-op; versions are Delta versions of the table."""

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


class TableStore(Protocol):
    """Reading and writing tables by their `schema.table` name.

    Tables are created from their contract at first write; reading a table that does not exist yet gives an empty
    frame with the contract's schema.
    """

    def exists(self, table: str) -> bool:
        """Whether the table has been created."""
        ...

    def version(self, table: str) -> int | None:
        """Current Delta version, or None when the table does not exist."""
        ...

    def read(self, table: str, slice_: Slice | None = None, *, version: int | None = None) -> DataFrame:
        """A lazy frame of the whole table or of one slice, pinned to the version current at the call (or `version`)."""
        ...

    def read_arrow(
        self,
        table: str,
        slice_: Slice | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """The same, loaded; `where` is extra portable SQL. For small results and for tests."""
        ...

    def append_once(
        self,
        table: str,
        slice_: Slice,
        app_id: str,
        build: Callable[[StoredRanges], AppendBatch | None],
        *,
        audit: Callable[[pa.Table], None] | None = None,
    ) -> WriteResult:
        """Append what `build` returns for the ranges stored so far, exactly once.

        `build` runs again from the start after a conflict; returning None writes nothing. The rows carry
        range_start, range_end and `seq = max + 1`; the commit carries the app transaction (app_id, seq). `audit` sees
        the staged rows without what the store fills in and may raise `AuditFailed`.

        Raises:
            AuditFailed: From `audit`; nothing was committed.
        """
        ...

    def replace_slice(
        self,
        table: str,
        slice_: Slice,
        build: Callable[[], DataFrame | pa.Table],
        *,
        audit: Callable[[pa.Table], None] | None = None,
        now: datetime,
        input_retention_days: int | None = None,
        rebuild: bool = False,
        commit_metadata: dict[str, str] | None = None,
    ) -> WriteResult:
        """Replace exactly one slice by what `build` returns.

        The target's snapshot is opened before `build` reads any source and the commit is made on that handle; after
        a conflict everything restarts from the sources. `audit` sees the staged rows and may raise `AuditFailed`.
        Rows equal to the stored slice are not written again (`committed` is False).

        Raises:
            SliceRefused: The slice is older than `input_retention_days` - 1 day before `now`, or has rows stored and
                would become empty, without `rebuild`.
            AuditFailed: From `audit`; nothing was committed.
        """
        ...

    def merge(
        self,
        table: str,
        rows: DataFrame | pa.Table,
        *,
        mode: Literal["insert_if_absent", "upsert", "replace_all"],
        audit: Callable[[pa.Table], None] | None = None,
        commit_metadata: dict[str, str] | None = None,
    ) -> WriteResult:
        """Merge on the contract's key: insert only absent keys, insert or update, or make the table equal to `rows`."""
        ...

    def maintain(self, table: str, *, now: datetime, closed_before: datetime, dry_run: bool) -> dict[str, object]:
        """Compact closed slices, expire rows past retention, vacuum, checkpoint, clean the log; counts of each."""
        ...

    def commits_after(self, table: str, version: int, limit: int) -> list[Commit]:
        """Commits with a higher version, oldest first, at most `limit`."""
        ...
