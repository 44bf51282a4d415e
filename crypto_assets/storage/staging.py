"""Rows on their way into a table: what a store refuses, compares and completes before it commits.

Belongs here: pure functions of Arrow tables and contracts that every store shares. Does not belong here: opening or
writing tables, rules on values (`checks.rules`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from crypto_assets.contracts.arrow import ContractViolation, arrow_schema, compute, conform
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import DAY, Slice, day_key, floor_day, floor_hour, hour_key
from crypto_assets.storage.base import AppendBatch, OffsetRange, SliceRefused, StoredRanges

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

VOLATILE = frozenset({"scored_at", "refreshed_at", "bronze_ingested_at", "latency_s", "inference_ms"})
"""Columns with the time of writing; rows that differ in these alone are not rewritten."""

FILLED_BY_STORE = ("seq", "batch_id")
_BATCH_ROWS = 64 * 1024


def loaded(rows: DataFrame | pa.Table) -> pa.Table:
    """The rows of a frame, computed; Arrow tables as they are.

    Before a query, `toArrow` of Spark Connect has the plan analysed for a schema to cast the reply to (measured: a
    sixth of the query). Here the caller casts to its contract.
    """
    import pyarrow as pa

    if isinstance(rows, pa.Table):
        return rows
    reply = getattr(type(rows), "_to_table", None)
    return rows.toArrow() if reply is None else reply(rows)[0]


def completed_frame(contract: Table, frame: DataFrame) -> DataFrame:
    """A stored ledger with columns that the contract gained after the table was made, null in every row."""
    from pyspark.sql import functions as F

    if not contract.chain:
        return frame
    stored = set(frame.columns)
    later = [c for c in contract.columns if c.nullable and c.name not in stored]
    return frame.withColumns({c.name: F.lit(None).cast(c.type) for c in later}) if later else frame


def completed(contract: Table, batches: Sequence[tuple[pa.Table, int, str]]) -> pa.RecordBatchReader:
    """Rows of batches with the seq and batch_id of each, as a stream in the contract's form."""
    import pyarrow as pa

    schema = arrow_schema(contract)

    def chunks() -> Iterator[pa.RecordBatch]:
        for rows, seq, batch_id in batches:
            for batch in rows.to_batches(max_chunksize=_BATCH_ROWS):
                chunk = pa.table(batch)
                chunk = chunk.append_column("seq", pa.repeat(pa.scalar(seq, pa.int64()), chunk.num_rows))
                chunk = chunk.append_column("batch_id", pa.repeat(pa.scalar(batch_id), chunk.num_rows))
                yield from conform(contract, chunk).to_batches()

    return pa.RecordBatchReader.from_batches(schema, chunks())


def check_batch(contract: Table, slice_: Slice, app_id_topic: str, stored: StoredRanges, batch: AppendBatch) -> None:
    """Refuse a batch whose rows do not lie in the slice, the incarnation and the ranges covered.

    Args:
        contract: Contract of an append-once table.
        slice_: The arrival hour.
        app_id_topic: Topic incarnation that the app id names.
        stored: What the slice covers already.
        batch: Rows without `FILLED_BY_STORE`.

    Raises:
        ContractViolation: Lists every problem found.
    """
    rows, names = batch.rows, batch.rows.column_names
    problems = [f"column {name} is filled in by the store" for name in FILLED_BY_STORE if name in names]
    wanted = [n for n in contract.column_names if n not in FILLED_BY_STORE]
    problems += [f"column {name} is missing" for name in wanted if name not in names]
    if problems:
        raise ContractViolation(contract.full_name, problems)
    identity = ["topic_id", "partition", "range_start", "range_end"]
    for row in rows.select(identity).group_by(identity).aggregate([]).to_pylist():
        piece = OffsetRange(row["partition"], row["range_start"], row["range_end"])
        if row["topic_id"] != app_id_topic:
            problems.append(f"rows of topic incarnation {row['topic_id']}, not {app_id_topic}")
        if piece not in batch.covers:
            problems.append(f"rows name the range {piece}, which is not among those covered")
    for piece in batch.covers:
        end = stored.ends.get(piece.partition)
        if end is not None and piece.start < end:
            problems.append(f"{piece} begins before {end}, up to which the slice is stored")
    if problems:
        raise ContractViolation(contract.full_name, problems)
    refuse_outside(contract, slice_, rows)


def refuse_outside(contract: Table, slice_: Slice, rows: pa.Table) -> None:
    """Refuse rows whose time column is outside the slice.

    Raises:
        ContractViolation: Says how many, and their span.
    """
    pc = compute()
    assert contract.time_column is not None
    times = rows.column(contract.time_column)
    outside = pc.or_(pc.less(times, slice_.start), pc.greater_equal(times, slice_.end))
    count = pc.sum(outside).as_py() or 0
    if count:
        found = pc.min_max(times.filter(outside))
        span = f"{found['min'].as_py().isoformat()} to {found['max'].as_py().isoformat()}"
        limits = f"[{slice_.start.isoformat()}, {slice_.end.isoformat()})"
        problem = f"{count:,} row(s) have {contract.time_column} outside {limits}: {span}"
        raise ContractViolation(contract.full_name, [problem])


def refuse_expired(contract: Table, slice_: Slice, now: datetime, input_retention_days: int | None) -> None:
    """Refuse a slice that is older than the shortest input retention but one day: its inputs may be incomplete.

    Raises:
        SliceRefused: Names the span that cannot be replaced.
    """
    if input_retention_days is None:
        return
    horizon = now - timedelta(days=input_retention_days) + DAY
    if slice_.start < horizon:
        end = min(slice_.end, floor_hour(horizon) + timedelta(hours=1))
        raise SliceRefused(
            f"{contract.full_name}: [{slice_.start.isoformat()}, {end.isoformat()}) cannot be replaced, because its "
            f"inputs are kept for {input_retention_days} days and may be incomplete before {horizon.isoformat()}. "
            "The stored rows stay as they are; choose later partitions"
        )


def refuse_shrinking(contract: Table, stored: pa.Table, staged: pa.Table) -> None:
    """Refuse when an hour (or day) that has rows would have none.

    Raises:
        SliceRefused: Names every such partition and the way to allow it.
    """
    assert contract.time_column is not None
    floor = floor_day if contract.grain == "day" else floor_hour
    key = day_key if contract.grain == "day" else hour_key
    had = {floor(t) for t in stored.column(contract.time_column).unique().to_pylist()}
    has = {floor(t) for t in staged.column(contract.time_column).unique().to_pylist()}
    lost = sorted(had - has)
    if lost:
        raise SliceRefused(
            f"{contract.full_name}: {len(lost)} partition(s) have rows and would become empty: "
            f"{', '.join(key(t) for t in lost)}. If that is right, materialize them with rebuild = true"
        )


def refuse_doubled_keys(contract: Table, rows: pa.Table) -> None:
    """Refuse rows of which two have the same key.

    Raises:
        ContractViolation: Lists every such key.
    """
    pc = compute()
    counts = rows.select(list(contract.key)).group_by(list(contract.key)).aggregate([([], "count_all")])
    doubled = counts.filter(pc.greater(counts.column("count_all"), 1))
    if doubled.num_rows:
        listed = [f"key {dict(list(row.items())[:-1])} occurs {row['count_all']} times" for row in doubled.to_pylist()]
        raise ContractViolation(contract.full_name, listed)


def key_scope(contract: Table, rows: pa.Table) -> str | None:
    """Condition that holds every stored row that could have one of the rows' keys; None = the whole table.

    A key fixes its day, so a table partitioned by day need not be read beyond the days of the rows, nor beyond the span
    of their keys' times: of a long day only what may hold one of them is read.
    """
    if "day" not in contract.partition_by or rows.num_rows == 0:
        return None
    days = sorted(rows.column("day").unique().to_pylist())
    parts = [f"day >= '{days[0].isoformat()}' AND day <= '{days[-1].isoformat()}'"]
    for name in contract.key:
        if contract.column(name).type == "timestamp":
            found = compute().min_max(rows.column(name))
            first, last = (f"'{found[end].as_py():%Y-%m-%dT%H:%M:%S.%fZ}'" for end in ("min", "max"))
            parts.append(f"{name} >= {first} AND {name} <= {last}")
    return " AND ".join(parts)


def without_keys(contract: Table, rows: pa.Table, others: pa.Table) -> pa.Table:
    """Rows whose key is not among the others'."""
    import pyarrow as pa

    key = list(contract.key)
    numbered = rows.select(key).append_column("__row", pa.array(range(rows.num_rows), pa.int64()))
    kept = numbered.join(others.select(key), keys=key, join_type="left anti")
    return rows.take(kept.column("__row").sort())


def same_rows(contract: Table, one: pa.Table, other: pa.Table) -> bool:
    """True if two tables have exactly the same rows in any order, ignoring volatile columns."""
    if one.num_rows != other.num_rows:
        return False
    names = [c.name for c in contract.columns if c.name not in VOLATILE]
    scalar = [c.name for c in contract.columns if c.name in names and not c.type.startswith("array")]
    # The key first: it decides nearly always, and the other columns only order rows that share it.
    order = [(n, "ascending") for n in dict.fromkeys([*(k for k in contract.key if k in scalar), *scalar])]
    return one.select(names).sort_by(order).equals(other.select(names).sort_by(order))
