"""Publishes slices for all step bodies: audit, rules and data versions in one place.

Belongs here: turning a build function and keys into writes and a `TableResult`. Does not belong here: the logic of any
table, or Dagster.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from crypto_assets.checks import rules
from crypto_assets.contracts.arrow import compute
from crypto_assets.contracts.model import Grain, Table
from crypto_assets.contracts.slices import DAY, HOUR, Slice, contiguous, key_slice
from crypto_assets.engine.base import CheckOutcome, Engine, PartitionResult, StepInputs, TableResult
from crypto_assets.storage.base import WriteResult

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

LONGEST_SLICE = 8 * DAY
"""Longest slice computed at once, which bounds the memory of a range run; longer ranges are written in pieces."""
MOST_ROWS = 350_000
"""Rows of the source of a slice of several partitions, for the same reason: a million take half a gigabyte more."""

EVENT_COLUMNS = ("last_updated_at", "last_event_at", "kafka_timestamp", "window_end", "decided_at", "at")
"""Event time columns, best first; a table without one is measured by its slices."""
NEWEST_EVENT = "run_newest_event"
"""Metadata key of a run."""

Build = Callable[[Slice], "DataFrame | pa.Table"]
ExtraChecks = Callable[[Slice, "pa.Table"], Mapping[str, Sequence[CheckOutcome]]]


def pieces(
    keys: Sequence[str], grain: Grain, rows: Callable[[Slice], float] = lambda _slice: 0
) -> list[tuple[Slice, list[str]]]:
    """Contiguous runs of keys in time order, none longer than `LONGEST_SLICE` nor of several keys above `MOST_ROWS`.

    Args:
        keys: Partition keys, in any order.
        grain: Names their format.
        rows: About how many rows a partition is computed from.
    """
    cut: list[tuple[Slice, list[str]]] = []
    for _, run in contiguous(keys, grain):
        part: list[str] = []
        held = 0.0
        for key in run:
            own = rows(key_slice(key, grain))
            if part and (held + own > MOST_ROWS or key_slice(key, grain).end - _start(part, grain) > LONGEST_SLICE):
                cut.append((Slice(_start(part, grain), key_slice(key, grain).start), part))
                part, held = [], 0.0
            part.append(key)
            held += own
        cut.append((Slice(_start(part, grain), key_slice(part[-1], grain).end), part))
    return cut


def _start(keys: Sequence[str], grain: Grain) -> datetime:
    return key_slice(keys[0], grain).start


def _rows_of(engine: Engine, source: Table | None, keys: Sequence[str]) -> Callable[[Slice], float]:
    """About how many rows of a table lie in a slice, by the statistics of its log; unknown ones count as none."""
    if source is None or len(keys) < 2:
        return lambda _slice: 0
    known = engine.store.rows_by_partition(source.full_name)

    def rows(slice_: Slice) -> float:
        hours = [slice_.start + n * HOUR for n in range(int((slice_.end - slice_.start) / HOUR))]
        return sum(known.get(hour, known.get(hour.date(), 0) / 24) for hour in hours)

    return rows


def has_rows(rows: int, why_empty: str, not_yet: str | None = None) -> CheckOutcome:
    """Check that a partition is not empty; an empty one is materialized all the same, and red.

    Args:
        rows: Rows of the partition.
        why_empty: Reason if there are none.
        not_yet: Reason why there cannot be any yet, which makes an empty partition no fault.
    """
    if rows:
        return CheckOutcome("has_rows", True, f"{rows:,} rows", metadata={"rows": rows})
    if not_yet:
        return CheckOutcome("has_rows", True, f"no rows yet: {not_yet}", metadata={"rows": 0})
    return CheckOutcome("has_rows", False, f"no rows: {why_empty}", "warn", {"rows": 0})


def publish(
    engine: Engine,
    table: Table,
    keys: Sequence[str],
    inputs: StepInputs,
    build: Build,
    *,
    source: Table | None = None,
    input_retention_days: int | None = None,
    extra_checks: ExtraChecks | None = None,
    volatile: Sequence[str] = (),
    why_empty: str = "the inputs hold nothing for this partition",
    not_yet: Callable[[str], str | None] = lambda _key: None,
    commit_metadata: dict[str, str] | None = None,
) -> TableResult:
    """Write partitions of a `replace_slice` table and report on each.

    Every contiguous run of keys is one slice: staged, audited by the contract's blocking rules, committed, and then
    reported by partition (rules, `has_rows`, `extra_checks`, content hash as data version).

    Args:
        engine: Engine whose store is written.
        table: Contract of the target; its grain names the keys' format.
        keys: Partition keys, in any order, possibly with holes.
        inputs: The step's inputs; `now`, `run_id` and `rebuild` are used here.
        build: Returns all rows of a slice. It reads its sources itself and may be called again after a conflict.
        source: Table of the rows that a slice is made from one by one, which limits how many partitions are at once;
            None where the engine sums them up.
        input_retention_days: Shortest retention of the sources, or None if they are kept for ever.
        extra_checks: More outcomes by partition key, from the rows written.
        volatile: Columns of processing time, left out of the data version.
        why_empty: Reason given by `has_rows` when a partition is empty.
        not_yet: Returns why an empty partition cannot have rows yet, None if it should.
        commit_metadata: Recorded in the Delta commit; `build` may add to it.

    Raises:
        AuditFailed: A blocking rule failed; nothing of that slice was committed.
        SliceRefused: See `DeltaStore.replace_slice`.
    """
    assert table.grain is not None, f"{table.full_name} has no partitions"
    result = TableResult()
    writes: list[WriteResult] = []
    newest: dict[str, object] = {}
    for slice_, piece in pieces(keys, table.grain, _rows_of(engine, source, keys)):
        staged: list[pa.Table] = []
        audit = rules.audit(table, piece)

        def keep(rows: pa.Table, staged: list[pa.Table] = staged, audit: Callable = audit) -> None:
            staged[:] = [rows]
            audit(rows)

        def build_slice(slice_: Slice = slice_) -> DataFrame | pa.Table:
            return build(slice_)

        write = engine.store.replace_slice(
            table.full_name,
            slice_,
            build_slice,
            audit=keep,
            now=inputs.now,
            input_retention_days=input_retention_days,
            rebuild=inputs.rebuild,
            commit_metadata=ChainMap({"run_id": inputs.run_id}, {} if commit_metadata is None else commit_metadata),
        )
        writes.append(write)
        rows = staged[0]
        newest |= newest_event(rows)  # slices are in time order
        extra = extra_checks(slice_, rows) if extra_checks else {}
        result.partitions |= reports(table, rows, piece, write, volatile, why_empty, extra, not_yet)
    result.metadata = summary(writes) | newest
    return result


def publish_whole(
    engine: Engine,
    table: Table,
    inputs: StepInputs,
    rows: pa.Table,
    *,
    volatile: Sequence[str] = (),
) -> TableResult:
    """Write an unpartitioned table by `merge` and report on it.

    Raises:
        AuditFailed: A blocking rule failed; nothing was committed.
    """
    write = engine.store.merge(
        table.full_name,
        rows,
        mode="replace_all",
        audit=rules.audit(table, [None]),
        commit_metadata={"run_id": inputs.run_id},
    )
    done = reports(table, rows, [None], write, volatile, "nothing to write")
    return TableResult(done, summary([write]) | newest_event(rows))


def reports(
    table: Table,
    rows: pa.Table,
    keys: Sequence[str | None],
    write: WriteResult,
    volatile: Sequence[str],
    why_empty: str,
    extra: Mapping[Any, Sequence[CheckOutcome]] = MappingProxyType({}),
    not_yet: Callable[[str], str | None] = lambda _key: None,
) -> dict[str | None, PartitionResult]:
    """Report on partitions of one write, from all the rows that they hold now; arguments as for `publish`."""
    outcomes = rules.evaluate(table, rows, keys)
    versions = rules.content_version(table, rows, keys, volatile)
    counts = {key: found[0].metadata["rows"] for key, found in outcomes.items()}
    facts = {"written": write.committed, "delta_version": write.version_after}
    facts |= {name: write.metadata[name] for name in ("read_versions",) if name in write.metadata}
    return {
        key: PartitionResult(
            rows=counts[key],
            data_version=versions[key],
            metadata=dict(facts),
            checks=[
                has_rows(counts[key], why_empty, None if counts[key] else not_yet(str(key))),
                *outcomes.get(key, []),
                *extra.get(key, []),
            ],
        )
        for key in keys
    }


def newest_event(rows: pa.Table) -> dict[str, object]:
    """Newest time in the first of `EVENT_COLUMNS` among the rows, as run metadata; empty without one."""
    for column in EVENT_COLUMNS:
        if column in rows.column_names and (found := compute().max(rows.column(column)).as_py()) is not None:
            return {NEWEST_EVENT: found}
    return {}


def summary(writes: Sequence[WriteResult]) -> dict[str, object]:
    """Totals of several writes of one table, for run metadata."""
    befores = [w.version_before for w in writes if w.version_before is not None]
    afters = [w.version_after for w in writes if w.version_after is not None]
    return {
        "run_rows": sum(w.rows for w in writes),
        "run_commits": len({w.version_after for w in writes if w.committed}),
        "run_conflicts_retried": sum(w.retries for w in writes),
        "delta_version_before": min(befores, default=None),
        "delta_version_after": max(afters, default=None),
    }
