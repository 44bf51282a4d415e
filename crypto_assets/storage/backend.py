"""Protocol between an engine and `DeltaStore`: open a version of a table, read it, commit on it.

Belongs here: the two protocols and the change that a commit makes. Does not belong here: why a write is safe
(`storage.store`), any engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import Slice
from crypto_assets.storage.attempts import Patience
from crypto_assets.storage.base import Commit
from crypto_assets.storage.conditions import Condition
from crypto_assets.storage.maintenance import Keeper

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

EVERYTHING = "true"
"""SQL of all rows of a table."""


@dataclass(frozen=True)
class Change:
    """Description of one commit.

    Args:
        rows: Rows to write, in the contract's form; a stream is read once.
        metadata: What the commit records; its value `write_id` occurs in no other commit.
        transactions: App ids and versions that the commit records.
        condition: Precondition on the table; None = none, or implied by the snapshot committed on.
        replaces: SQL of the rows that are replaced; None = the rows are appended.
    """

    rows: pa.Table | pa.RecordBatchReader
    metadata: Mapping[str, str]
    transactions: Sequence[tuple[str, int]]
    condition: Condition | None
    replaces: str | None = None


class Snapshot(Protocol):
    """One version of a table, which a write is made on: what it depends on is read through it."""

    @property
    def version(self) -> int:
        """Delta version."""
        ...

    def rows(self, slice_: Slice | None, columns: Sequence[str] | None, where: str | None) -> pa.Table:
        """Rows with the contract's types; None = all, `columns` also gives the order."""
        ...

    def stored(self, where: str | None) -> tuple[pa.Table, Condition | None]:
        """Rows that a write depends on, and the condition that they are still those when it commits."""
        ...

    def aggregate(self, values: Mapping[str, str], by: Sequence[str], where: str) -> pa.Table:
        """SQL aggregates by name over the rows of a condition, by the values of some columns."""
        ...

    def hours(self) -> list[datetime]:
        """Slices of which an append-once table has rows, sorted."""
        ...

    def rows_by_partition(self) -> dict[Any, int]:
        """Rows by value of the Delta partition, as far as the log tells; empty otherwise."""
        ...

    def write(self, change: Change) -> int | None:
        """Commit; the new version, or None when a transaction of the change had been used and nothing was written.

        Raises:
            Overtaken: Another commit came first. Other errors may be conflicts too: see `Backend.is_conflict`.
        """
        ...


class Backend(Protocol):
    """How an engine opens, reads and commits tables. Absent tables are None."""

    engine: str
    """Name that commits record."""
    patience: Patience
    """How often a write is tried, and how long it waits."""
    answers_at_once: bool
    """Whether a small query takes milliseconds rather than a job on a cluster."""
    near: int
    """Hours on either side of a slice that are asked for together with it."""
    slices_together: int
    """Maximum number of slices that one commit appends to."""

    def session(self) -> SparkSession:
        """The session of frames."""
        ...

    def folder(self, contract: Table) -> str | None:
        """Folder of a table; None when the catalog keeps it."""
        ...

    def version(self, contract: Table) -> int | None:
        """Current Delta version."""
        ...

    def frame(self, contract: Table, version: int, slice_: Slice | None, /) -> DataFrame:
        """A lazy frame of a version; it may leave out rows outside of the slice."""
        ...

    def open(self, contract: Table, version: int | None = None) -> Snapshot | None:
        """The current or a given version."""
        ...

    def create(self, contract: Table) -> bool:
        """Create the table unless it exists; whether it was this call that created it."""
        ...

    def writable(self, contract: Table) -> Snapshot:
        """The current version of a table that exists, once it has the columns that the contract gained later.

        Raises:
            ContractViolation: Its columns differ from the contract's otherwise.
        """
        ...

    def committed(self, contract: Table, version: int, /) -> None:
        """Post-commit work; its failure does not affect the commit."""
        ...

    def version_of(self, contract: Table, mark: str, after: int) -> int | None:
        """Version of the commit after a version whose metadata holds a mark."""
        ...

    def is_conflict(self, error: Exception, contract: Table, read: Mapping[str, int], /) -> bool:
        """True if an error means that another writer committed first; `read` are the versions read of other tables."""
        ...

    def commits(self, contract: Table, after: int, limit: int) -> list[Commit]:
        """Retained commits after a version, oldest first, at most `limit`."""
        ...

    def keeper(self, contract: Table) -> Keeper | None:
        """The table, for housekeeping."""
        ...
