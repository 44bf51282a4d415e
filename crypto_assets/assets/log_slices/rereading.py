"""Rebuilds hours of a log table whose files are lost, from a log that still has the records.

Belongs here: which offsets an hour lacks, and its rows afterwards. Does not belong here: finding damaged files
(`storage.damage`), new records (`assets.bronze`).

One commit replaces an hour by the rows of its intact files, the reread records, and a gap for what the log no longer
has. Its ranges then follow each other as before the loss, one batch from gap to gap.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from crypto_assets.assets.log_slices.rows import RowMaker, gap_rows
from crypto_assets.contracts.arrow import arrow_schema, compute, conform
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import key_slice
from crypto_assets.storage.base import LogBounds, OffsetRange
from crypto_assets.storage.staging import FILLED_BY_STORE

if TYPE_CHECKING:
    import pyarrow as pa

    from crypto_assets.storage.damage import DataFile, Diagnosis

ReadLog = Callable[[str, Sequence[OffsetRange]], Iterator["pa.Table"]]


@dataclass(frozen=True)
class Stored:
    """One stored range: hour, incarnation of the topic, offsets."""

    hour: datetime
    topic_id: str
    piece: OffsetRange


@dataclass
class HourPlan:
    """Plan of one hour's repair.

    Attributes:
        key: The hour.
        reads: Ranges that the log still has.
        gaps: Ranges that are lost, with the incarnation of the topic that had them.
    """

    key: str
    reads: list[OffsetRange] = field(default_factory=list)
    gaps: list[tuple[str, OffsetRange]] = field(default_factory=list)


def stored_ranges(diagnosis: Diagnosis) -> list[Stored]:
    """Ranges in the intact files of a table."""
    import pyarrow.parquet as pq

    found: set[Stored] = set()
    names = ["topic_id", "partition", "range_start", "range_end"]
    for file in diagnosis.files:
        if file.problem is None:
            rows = pq.ParquetFile(diagnosis.path / file.file).read(columns=names)
            for r in rows.group_by(names).aggregate([]).to_pylist():
                piece = OffsetRange(r["partition"], r["range_start"], r["range_end"])
                found.add(Stored(file.partition["arrival_hour"], r["topic_id"], piece))
    return sorted(found, key=lambda s: (s.hour, s.topic_id, s.piece.partition, s.piece.start))


def plan(stored: list[Stored], keys: Sequence[str], bounds: Mapping[str, LogBounds]) -> list[HourPlan]:
    """Plan what each of some hours lacks, in order.

    Args:
        stored: Ranges of the intact files; planned ranges are added.
        keys: Hours with lost files.
        bounds: Offsets of these hours in the log.
    """
    plans = []
    for key in sorted(keys):
        found, hour = HourPlan(key), key_slice(key, "hour").start
        current = bounds[key]
        later = [k for k in keys if k > key]
        for b in current.partitions:
            before, mine, after = _around(stored, hour, current.topic_id, b.partition)
            start = before if before is not None else b.start
            if before is None and b.log_start and b.start <= b.log_start:
                start = b.log_start  # the beginning of the hour is no longer known
            if mine:
                start = min(start, mine[0].start)
            end = b.end if after is None else after[1]
            if after is not None and any(key_slice(k, "hour").start < after[0] for k in later):
                end = min(end, b.end)
            end = max([end, *(p.end for p in mine)])
            for hole in _holes(b.partition, start, end, mine):
                lost = min(max(hole.start, b.log_start), hole.end)
                if hole.start < lost:
                    found.gaps.append((current.topic_id, OffsetRange(b.partition, hole.start, lost)))
                if lost < hole.end:
                    found.reads.append(OffsetRange(b.partition, lost, hole.end))
        found.gaps += _holes_of_former_topics(stored, hour, current.topic_id)
        stored += [Stored(hour, current.topic_id, piece) for piece in found.reads]
        stored += [Stored(hour, topic_id, piece) for topic_id, piece in found.gaps]
        plans.append(found)
    return plans


def hour_rows(
    table: Table,
    diagnosis: Diagnosis,
    todo: HourPlan,
    bounds: LogBounds,
    *,
    maker: RowMaker,
    read_log: ReadLog,
    first_seq: int,
    now: datetime,
) -> tuple[pa.Table, int]:
    """All rows of an hour, and the highest sequence number of the present topic.

    Args:
        table: Contract.
        diagnosis: Diagnosis with the intact files.
        todo: Ranges to read, and to record as lost.
        bounds: Offsets of the hour.
        maker: Builds rows from records.
        read_log: Reads ranges of a topic.
        first_seq: Sequence number of the first batch.
        now: Present time (UTC).

    Raises:
        LogError: The records cannot be read.
    """
    import pyarrow as pa

    slice_ = key_slice(todo.key, "hour")
    names = [n for n in table.column_names if n not in FILLED_BY_STORE]
    files = [f for f in diagnosis.files if f.problem is None and f.partition["arrival_hour"] == slice_.start]
    kept = pa.concat_tables([arrow_schema(table).empty_table(), *(_rows_of(table, diagnosis, f) for f in files)])
    others = kept.filter(compute().not_equal(kept.column("topic_id"), bounds.topic_id))
    mine = [kept.filter(compute().equal(kept.column("topic_id"), bounds.topic_id)).select(names)]
    for piece in todo.reads:  # one by one, because a row names its range
        mine += [maker.rows(table, bounds, slice_, [piece], chunk, now) for chunk in read_log(bounds.topic, [piece])]
    gaps_now = [piece for topic_id, piece in todo.gaps if topic_id == bounds.topic_id]
    mine.append(gap_rows(table, bounds, slice_, gaps_now, now))
    rows, last = _batched(table, pa.concat_tables(mine), todo, first_seq)
    former = [(topic_id, piece) for topic_id, piece in todo.gaps if topic_id != bounds.topic_id]
    for topic_id in dict.fromkeys(t for t, _ in former):
        was = LogBounds(bounds.topic, topic_id, ())
        gaps = gap_rows(table, was, slice_, [piece for t, piece in former if t == topic_id], now)
        seqs = others.filter(compute().equal(others.column("topic_id"), topic_id)).column("seq")
        made, _ = _batched(table, gaps, todo, (compute().max(seqs).as_py() or 0) + 1)
        others = pa.concat_tables([others, made])
    return pa.concat_tables([others, rows]), last


# --- inside -----------------------------------------------------------------------------------------------------------


def _around(
    stored: Sequence[Stored], hour: datetime, topic_id: str, partition: int
) -> tuple[int | None, list[OffsetRange], tuple[datetime, int] | None]:
    """Highest end of earlier hours, ranges of the hour in order, nearest later hour and its lowest start."""
    same = [s for s in stored if s.topic_id == topic_id and s.piece.partition == partition]
    before = max((s.piece.end for s in same if s.hour < hour), default=None)
    mine = sorted((s.piece for s in same if s.hour == hour), key=lambda p: p.start)
    after = min(((s.hour, s.piece.start) for s in same if s.hour > hour), default=None)
    return before, mine, after


def _holes(partition: int, start: int, end: int, held: Sequence[OffsetRange]) -> list[OffsetRange]:
    """Uncovered parts of [start, end)."""
    holes, at = [], start
    for piece in held:
        if at < piece.start:
            holes.append(OffsetRange(partition, at, piece.start))
        at = max(at, piece.end)
    if at < end:
        holes.append(OffsetRange(partition, at, end))
    return holes


def _holes_of_former_topics(stored: Sequence[Stored], hour: datetime, now: str) -> list[tuple[str, OffsetRange]]:
    """Gaps between stored ranges of earlier topic incarnations, lost with them."""
    found = []
    for topic_id, partition in sorted({(s.topic_id, s.piece.partition) for s in stored if s.topic_id != now}):
        before, mine, after = _around(stored, hour, topic_id, partition)
        start = before if before is not None else mine[0].start if mine else None
        end = after[1] if after is not None else mine[-1].end if mine else None
        if start is not None and end is not None:
            found += [(topic_id, hole) for hole in _holes(partition, start, end, mine)]
    return found


def _rows_of(table: Table, diagnosis: Diagnosis, file: DataFile) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.ParquetFile(diagnosis.path / file.file).read()
    hour = pa.repeat(pa.scalar(file.partition["arrival_hour"], pa.timestamp("us", "UTC")), rows.num_rows)
    return conform(table, rows.append_column("arrival_hour", hour).select(table.column_names))


def _batched(table: Table, rows: pa.Table, todo: HourPlan, first_seq: int) -> tuple[pa.Table, int]:
    """Rows with one range and one batch from gap to gap, numbered in offset order."""
    import pyarrow as pa

    spans: dict[int, list[list[int]]] = {}  # by partition: [start, end, is a gap]
    names = ["partition", "range_start", "range_end", "kind"]
    ranges = rows.select(names).group_by(names).aggregate([]).to_pylist()
    planned = [{"partition": p.partition, "range_start": p.start, "range_end": p.end, "kind": ""} for p in todo.reads]
    for r in sorted([*ranges, *planned], key=lambda r: (r["partition"], r["range_start"])):
        mine, is_gap = spans.setdefault(r["partition"], []), int(r["kind"] == "gap")
        if mine and not is_gap and not mine[-1][2] and r["range_start"] <= mine[-1][1]:
            mine[-1][1] = max(mine[-1][1], r["range_end"])
        else:
            mine.append([r["range_start"], r["range_end"], is_gap])
    batches: dict[int, str] = {}
    starts, ends, seqs, ids = [], [], [], []
    for partition, offset in zip(rows.column("partition").to_pylist(), rows.column("offset").to_pylist(), strict=True):
        number, span = next((i, s) for i, s in enumerate(spans[partition]) if s[0] <= offset < s[1])
        seq = first_seq + number
        starts.append(span[0])
        ends.append(span[1])
        seqs.append(seq)
        ids.append(batches.setdefault(seq, uuid.uuid4().hex))
    new = {
        "range_start": pa.array(starts, pa.int64()),
        "range_end": pa.array(ends, pa.int64()),
        "seq": pa.array(seqs, pa.int64()),
        "batch_id": pa.array(ids, pa.string()),
    }
    columns = [new[n] if n in new else rows.column(n) for n in table.column_names]
    return conform(table, pa.table(columns, names=table.column_names)), max(seqs, default=first_seq - 1)
