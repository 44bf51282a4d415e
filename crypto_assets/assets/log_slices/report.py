"""Reads append-once hours back for their report; shared by Kafka's hours and landed ones.

Does not belong here: what an hour lacks (`assets.log_slices.kafka`, `assets.log_slices.landing`).
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import Slice
from crypto_assets.engine.base import Engine, PartitionResult
from crypto_assets.log.protocol import Ranges
from crypto_assets.storage.base import StorageError, WriteResult

if TYPE_CHECKING:
    import pyarrow as pa

_LOG = logging.getLogger(__name__)


def read_back(
    engine: Engine, table: Table, slice_: Slice, topic_id: str
) -> tuple[pa.Table, dict[datetime, tuple[int, list[tuple[int, int, int]]]]]:
    """Read hours back with one query.

    Returns:
        Their rows with the columns that rules use (the others, all nullable, stay null); and by hour that has any, the
        number of rows, and the distinct (partition, range_start, range_end) of one topic incarnation, sorted.
    """
    import pyarrow as pa

    sql = " ".join(rule.sql for rule in table.rules)
    needed = [c.name for c in table.columns if not c.nullable or c.name in table.key or c.name in sql]
    ranges, hour = ["partition", "range_start", "range_end"], str(table.time_column)
    columns = list(dict.fromkeys([*needed, "topic_id", hour, *ranges]))
    rows = engine.store.read_arrow(table.full_name, slice_, columns=columns)
    schema = arrow_schema(table)
    checked = pa.table(
        [rows.column(f.name) if f.name in needed else pa.nulls(rows.num_rows, f.type) for f in schema],
        schema=schema,
    )
    found: dict[datetime, tuple[int, list[tuple[int, int, int]]]] = {}
    for r in (
        rows.group_by([hour, "topic_id", *ranges])
        .aggregate([([], "count_all")])
        .sort_by([(name, "ascending") for name in ranges])
        .to_pylist()
    ):
        count, mine = found.get(r[hour], (0, []))
        piece = [(r["partition"], r["range_start"], r["range_end"])] if r["topic_id"] == topic_id else []
        found[r[hour]] = count + r["count_all"], [*mine, *piece]
    return checked, found


def not_reported(write: WriteResult, topic_id: str, error: StorageError) -> PartitionResult:
    """Report of an hour whose commit stands although its rows cannot be read back.

    Its checks are then omitted, which makes them red.

    Raises:
        StorageError: Nothing was committed.
    """
    if not write.committed:
        raise error
    _LOG.warning("%s: version %s is committed; it cannot be reported: %s", write.table, write.version_after, error)
    stored: Any = write.metadata.get("ends", {})
    return PartitionResult(
        rows=write.rows,
        data_version=f"{topic_id}@" + ",".join(f"{p}:{end}" for p, end in sorted(stored.items())),
        metadata={
            "rows_appended": write.rows,
            "delta_version": write.version_after,
            "topic_id": topic_id,
            "not_reported": str(error),
        },
    )


def ends(ranges: Ranges) -> dict[int, int]:
    """Highest end by Kafka partition, sorted."""
    return {p: max(r[2] for r in ranges if r[0] == p) for p in sorted({r[0] for r in ranges})}
