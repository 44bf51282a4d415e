"""The one reader of hours of a log: appends their missing records exactly once, and reports.

Belongs here: the order of reading, verification and commit, and the report common to both logs. Does not belong here:
which offsets an hour lacks (`assets.log_slices.kafka`, `assets.log_slices.landing`), rows from records
(`assets.log_slices.rows`), the write protocol (`storage`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from crypto_assets.assets.log_slices import report as log_report
from crypto_assets.assets.log_slices.rows import RowMaker, gap_rows, gather
from crypto_assets.assets.publishing import has_rows, summary
from crypto_assets.checks import rules
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import Slice, hour_key
from crypto_assets.engine.base import (
    CheckOutcome,
    Engine,
    PartitionResult,
    Result,
    StepFailed,
    StepInputs,
    TableResult,
)
from crypto_assets.log.errors import LogError
from crypto_assets.log.protocol import Log, LogHour, Ranges
from crypto_assets.storage.base import AppendBatch, SliceAppend, StorageError, StoredRanges, WriteResult
from crypto_assets.storage.store import ROWS_TOGETHER

CONTIGUOUS = "offsets_contiguous"


def ingest(log: Log, engine: Engine, table: Table, name: str, maker: RowMaker, inputs: StepInputs) -> Result:
    """Bring hours of an append-once table up to the end of a log.

    Args:
        log: Log that supplies the hours.
        engine: Engine whose store is written.
        table: `bronze.raw_prices` or `ops.polls`.
        name: First part of app ids.
        maker: Builder of the table's rows.
        inputs: `now`, `run_id`.

    Returns:
        Per requested hour: rows stored and appended, data version, touched event hours, checks.

    Raises:
        StepFailed: The log cannot be read, or is not the one that the table was filled from.
    """
    result, writes = TableResult(), list[WriteResult]()
    try:
        with closing(log.hours()) as hours:
            most = engine.store.slices_together if log.together else 1
            for some in _neighbours((HourReader(engine, table, name, maker, inputs, h) for h in hours), most):
                for stored in _commits(some):
                    writes += [reader.write for reader in stored if reader.write is not None]
                    result.partitions.update(_reports([reader for reader in stored if reader.hour.asked]))
    except LogError as error:
        raise StepFailed(f"{table.full_name}: {error}") from error
    result.metadata = {**summary(writes), "run_rows_appended": sum(w.rows for w in writes)}
    if log.late:
        result.metadata["late_hours"] = log.late
    return Result({table.full_name: result})


def _neighbours(readers: Iterable[HourReader], most: int) -> Iterator[list[HourReader]]:
    """Hours that may share a commit: of one incarnation, without another hour between them."""
    some: list[HourReader] = []
    for reader in readers:
        if some and (some[-1].hour.slice.end, some[-1].topic_id) != (reader.hour.slice.start, reader.topic_id):
            yield some
            some = []
        some.append(reader)
        if len(some) == most:
            yield some
            some = []
    if some:
        yield some


def _commits(readers: Sequence[HourReader]) -> Iterator[Sequence[HourReader]]:
    """Append to hours, to as many in one commit as `DeltaStore.append_together` does; gives those of each commit."""
    most = len(readers)
    while readers:
        store, table = readers[0].engine.store, readers[0].table
        writes = store.append_together(
            table.full_name,
            [reader.slice_append() for reader in readers[:most]],
            sound=partial(rules.keeps_all, table),
            describe=_described,
        )
        done, readers = readers[: len(writes)], readers[len(writes) :]
        most = 1 if writes[0].retries else 2 * most  # beside another writer, a long attempt is done in vain
        for reader, write in zip(done, writes, strict=True):
            reader.written(write)
        yield done


def _described(batches: Sequence[AppendBatch]) -> dict[str, str]:
    """What a commit of several hours records: what each lists, and the newest time."""
    named = [batch.commit_metadata for batch in batches]
    described = dict(named[-1])
    described["touched_hours"] = json.dumps(
        sorted({key for each in named for key in json.loads(each["touched_hours"])})
    )
    described["covers"] = json.dumps([piece for each in named for piece in json.loads(each["covers"])])
    if stamps := [each["max_kafka_timestamp"] for each in named if "max_kafka_timestamp" in each]:
        described["max_kafka_timestamp"] = max(stamps, key=datetime.fromisoformat)
    return described


def _reports(readers: Sequence[HourReader]) -> dict[str | None, PartitionResult]:
    """Reports of hours that follow each other, with their checks; as many as are not too large are read together."""
    if not readers:
        return {}
    most, rows = 1, readers[0].rows
    while most < len(readers) and rows + readers[most].rows <= ROWS_TOGETHER:
        rows += readers[most].rows
        most += 1
    some, first = readers[:most], readers[0]
    assert first.write is not None
    span = Slice(first.hour.slice.start, some[-1].hour.slice.end)
    try:
        checked, found = log_report.read_back(first.engine, first.table, span, first.topic_id)
    except StorageError as error:
        if most > 1:  # each by itself, since some may be readable
            return {key: report for reader in readers for key, report in _reports([reader]).items()}
        reports: dict[str | None, PartitionResult] = {
            first.key: log_report.not_reported(first.write, first.topic_id, error)
        }
    else:
        outcomes = rules.evaluate(first.table, checked, [reader.key for reader in some])
        reports = {r.key: r.report(*found.get(r.hour.slice.start, (0, [])), outcomes[r.key]) for r in some}
    return reports | _reports(readers[most:])


@dataclass
class HourReader:
    """One hour of one table: its part of a commit, and its report.

    Args:
        engine: Engine whose store is written.
        table: The append-once table.
        name: First part of app ids.
        maker: Builder of the table's rows.
        inputs: `now`, `run_id`.
        hour: The hour.
        write: Its part of a write, once done.
        appended: Details of what was built, for the report.
        rows: Rows that the table has of it when what was built is stored.
        made: What was built last, until it is written.
    """

    engine: Engine
    table: Table
    name: str
    maker: RowMaker
    inputs: StepInputs
    hour: LogHour
    write: WriteResult | None = None
    appended: dict[str, Any] = field(default_factory=dict)
    rows: int = 0
    made: AppendBatch | None = None

    @property
    def key(self) -> str:
        """Partition key of the hour."""
        return hour_key(self.hour.slice.start)

    @property
    def topic_id(self) -> str:
        """Incarnation of the hour's topic."""
        return self.hour.bounds.topic_id

    def append(self, committed: Callable[[Slice, AppendBatch, str], None] | None = None) -> WriteResult:
        """Append the hour's missing records, in at most one commit.

        Args:
            committed: Receives the hour, the rows and the `batch_id` of the commit.

        Raises:
            LogError: The log cannot be read, or another one was stored.
            StepFailed: The log went backwards, or offsets are gone that were never stored.
        """
        one = self.slice_append()
        write = self.engine.store.append_once(self.table.full_name, one.slice, one.app_id, one.build, audit=one.audit)
        self.written(write, committed)
        return write

    def slice_append(self) -> SliceAppend:
        """The hour's part of a commit: its missing records."""

        def build(stored: StoredRanges) -> AppendBatch | None:
            self.made = self._batch(stored)
            self.rows = stored.rows + (self.made.rows.num_rows if self.made else 0)
            return self.made

        app_id = f"{self.name}/{self.topic_id}/{self.key}"
        return SliceAppend(self.hour.slice, app_id, build, rules.audit(self.table, [self.key]))

    def written(self, write: WriteResult, committed: Callable[[Slice, AppendBatch, str], None] | None = None) -> None:
        """Note the hour's part of a write."""
        self.write, made, self.made = write, self.made, None
        if write.committed and made:
            self.hour.committed(made, write)
            if committed is not None:
                committed(self.hour.slice, made, str(write.metadata["batch_id"]))

    def _batch(self, stored: StoredRanges) -> AppendBatch | None:
        """Read missing records, verify that they continue the stored ones, and build the rows of one commit."""
        hour, now = self.hour, self.inputs.now
        lacking = hour.lacking(stored)
        if lacking is None:
            return None
        rows, newest_at = gather(
            self.table,
            gap_rows(self.table, hour.bounds, hour.slice, lacking.gaps, now),
            hour.read(lacking) if lacking.reads else (),
            lambda chunk: self.maker.rows(self.table, hour.bounds, hour.slice, lacking.reads, chunk, now),
            now,
        )
        hour.prove(lacking, stored)
        touched = self.maker.touched(rows)
        newest = None if newest_at is None else newest_at.isoformat()
        self.appended = {"touched_hours": touched, "max_kafka_timestamp": newest, **lacking.shown}
        metadata = {"run_id": self.inputs.run_id, "touched_hours": json.dumps(touched), **lacking.recorded}
        if newest is not None:
            metadata["max_kafka_timestamp"] = newest
        return AppendBatch(rows, (*lacking.gaps, *lacking.reads), metadata)

    def report(self, rows: int, ranges: Ranges, outcomes: Sequence[CheckOutcome]) -> PartitionResult:
        """Report of the hour.

        Args:
            rows: Rows that the table holds of it.
            ranges: Their ranges.
            outcomes: Of the contract's rules.
        """
        assert self.write is not None
        held = self.hour.held(ranges)
        text = "; ".join(held.problems) or held.unfinished or f"{len(ranges)} range(s) follow each other"
        severity = "warn" if held.unfinished and not held.problems else "error"
        good = not held.problems and not held.unfinished
        return PartitionResult(
            rows=rows,
            data_version=held.version,
            metadata={
                "rows_appended": self.write.rows if self.write.committed else 0,
                "delta_version": self.write.version_after,
                "topic_id": self.topic_id,
                **held.metadata,
                **(self.appended if self.write.committed else {}),
            },
            checks=[
                has_rows(rows, held.why_empty),
                *outcomes,
                CheckOutcome(CONTIGUOUS, good, text, severity, held.figures),
            ],
        )
