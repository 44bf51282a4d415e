"""The one reader of hours of a log: appends the missing records of an hour exactly once, and reports.

Belongs here: the order of reading, verification and commit, and the report common to both logs. Does not belong here:
which offsets an hour lacks (`assets.log_slices.kafka`, `assets.log_slices.landing`), rows from records
(`assets.log_slices.rows`), the write protocol (`storage`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
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
from crypto_assets.log.protocol import Log, LogHour
from crypto_assets.storage.base import AppendBatch, StoredRanges, WriteResult

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
            for hour in hours:
                reader = HourReader(engine, table, name, maker, inputs, hour)
                writes.append(reader.append())
                if hour.asked:
                    result.partitions[reader.key] = log_report.of_a_commit(
                        writes[-1], hour.bounds.topic_id, reader.report
                    )
    except LogError as error:
        raise StepFailed(f"{table.full_name}: {error}") from error
    result.metadata = {**summary(writes), "run_rows_appended": sum(w.rows for w in writes)}
    if log.late:
        result.metadata["late_hours"] = log.late
    return Result({table.full_name: result})


@dataclass
class HourReader:
    """One hour of one table: its commit and its report."""

    engine: Engine
    table: Table
    name: str
    maker: RowMaker
    inputs: StepInputs
    hour: LogHour
    appended: dict[str, Any] = field(default_factory=dict)
    write: WriteResult | None = None

    @property
    def key(self) -> str:
        """Partition key of the hour."""
        return hour_key(self.hour.slice.start)

    def append(self, committed: Callable[[Slice, AppendBatch, str], None] | None = None) -> WriteResult:
        """Append the hour's missing records, in at most one commit.

        Args:
            committed: Receives the hour, the rows and the `batch_id` of the commit.

        Raises:
            LogError: The log cannot be read, or another one was stored.
            StepFailed: The log went backwards, or offsets are gone that were never stored.
        """
        made: list[AppendBatch] = []

        def build(stored: StoredRanges) -> AppendBatch | None:
            made.clear()
            made.extend(self._batch(stored))
            return made[0] if made else None

        hour = self.hour
        app_id = f"{self.name}/{hour.bounds.topic_id}/{self.key}"
        audit = rules.audit(self.table, [self.key])
        self.write = self.engine.store.append_once(self.table.full_name, hour.slice, app_id, build, audit=audit)
        if self.write.committed and made:
            hour.committed(made[0], self.write)
            if committed is not None:
                committed(hour.slice, made[0], str(self.write.metadata["batch_id"]))
        return self.write

    def _batch(self, stored: StoredRanges) -> list[AppendBatch]:
        """Read missing records, verify that they continue the stored ones, and build the rows of one commit."""
        hour, now = self.hour, self.inputs.now
        lacking = hour.lacking(stored)
        if lacking is None:
            return []
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
        return [AppendBatch(rows, (*lacking.gaps, *lacking.reads), metadata)]

    def report(self) -> PartitionResult:
        """Report the hour's content, with its checks."""
        assert self.write is not None
        topic_id = self.hour.bounds.topic_id
        rows, ranges = log_report.read_back(self.engine, self.table, self.hour.slice, topic_id)
        held = self.hour.held(ranges)
        text = "; ".join(held.problems) or held.unfinished or f"{len(ranges)} range(s) follow each other"
        severity = "warn" if held.unfinished and not held.problems else "error"
        good = not held.problems and not held.unfinished
        return PartitionResult(
            rows=rows.num_rows,
            data_version=held.version,
            metadata={
                "rows_appended": self.write.rows if self.write.committed else 0,
                "delta_version": self.write.version_after,
                "topic_id": topic_id,
                **held.metadata,
                **(self.appended if self.write.committed else {}),
            },
            checks=[
                has_rows(rows.num_rows, held.why_empty),
                *rules.evaluate(self.table, rows, [self.key])[self.key],
                CheckOutcome(CONTIGUOUS, good, text, severity, held.figures),
            ],
        )
