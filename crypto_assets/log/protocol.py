"""A log as the tables that are filled from it see it: hours of offsets, whatever the records lie in.

Kafka's topics and folders of landed files implement it (`assets.log_slices.kafka`, `assets.log_slices.landing`), and
one reader stores them exactly once (`assets.log_slices.hours`). Does not belong here: either log, or any table.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from crypto_assets.contracts.slices import Slice
from crypto_assets.storage.base import AppendBatch, LogBounds, OffsetRange, StoredRanges, WriteResult

if TYPE_CHECKING:
    import pyarrow as pa

Ranges = Sequence[tuple[int, int, int]]
"""Ranges as rows of a table record them, sorted: Kafka partition, start, end."""


@dataclass(frozen=True)
class Lacking:
    """Ranges that one commit of an hour covers.

    Args:
        reads: Ranges to read, at most one a Kafka partition.
        gaps: Ranges that were lost and are recorded as lost.
        shown: Details of the commit for the hour's report.
        recorded: What the commit itself records.
    """

    reads: tuple[OffsetRange, ...]
    gaps: tuple[OffsetRange, ...] = ()
    shown: Mapping[str, Any] = field(default_factory=dict)
    recorded: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Held:
    """Rows of an hour in a table, in terms of its log.

    Args:
        version: Data version.
        metadata: Figures for the hour's report.
        why_empty: The reason to give when there is no record.
        problems: Holes and overlaps of the ranges.
        unfinished: What is not read yet although the hour has ended; a warning.
        figures: Metadata of the check that judges the ranges.
    """

    version: str
    metadata: Mapping[str, Any]
    why_empty: str
    problems: Sequence[str]
    unfinished: str
    figures: Mapping[str, Any]


class LogHour(Protocol):
    """One hour of a log, on its way into one table.

    `asked` is whether the hour was asked for and is reported; of another only what it lacks is stored.
    """

    slice: Slice
    bounds: LogBounds
    asked: bool

    def lacking(self, stored: StoredRanges) -> Lacking | None:
        """Records of the hour missing from the snapshot to commit on; None = nothing. Hours are asked in order."""
        ...

    def read(self, lacking: Lacking) -> Iterable[pa.Table]:
        """The records of `lacking.reads`, in chunks as `Engine.read_log` gives them.

        Raises:
            LogError: They cannot be read.
        """
        ...

    def prove(self, lacking: Lacking, stored: StoredRanges) -> None:
        """Prove, after reading and before committing, that the log still is the one that the table was filled from.

        Raises:
            LogReplaced: It holds other records.
            LogError: It has another id.
        """
        ...

    def committed(self, batch: AppendBatch, write: WriteResult) -> None:
        """Note what was stored just now."""
        ...

    def held(self, ranges: Ranges) -> Held:
        """Judge the ranges that the table holds of the hour."""
        ...


class Log(Protocol):
    """The hours of one step; `late` are those that were not asked for and got records, where the log can have any.

    `together` is whether an hour may be taken before the one before it is stored, so that one commit stores both.
    """

    late: list[str]
    together: bool

    def hours(self) -> Generator[LogHour]:
        """The hours asked for and those beside them that may lack something, in order.

        Unless `together`, each is to be stored, and reported if it was asked for, before the next one is taken. Close
        it when done.

        Raises:
            LogError: The log cannot be asked.
        """
        ...
