"""What an append-once hour holds, read back for its report; shared by Kafka's hours and landed ones.

Does not belong here: deciding what an hour lacks (`steps.bronze`, `steps.landing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crypto_assets.compute.base import Engine
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import Slice

if TYPE_CHECKING:
    import pyarrow as pa


def checked_columns(engine: Engine, table: Table, slice_: Slice) -> pa.Table:
    """The hour's rows as far as rules look at them; the other columns, all nullable, are left null."""
    import pyarrow as pa

    from crypto_assets.contracts.arrow import arrow_schema

    said = " ".join(rule.sql for rule in table.rules)
    needed = [c.name for c in table.columns if not c.nullable or c.name in table.key or c.name in said]
    rows = engine.store.read_arrow(table.full_name, slice_, columns=needed)
    schema = arrow_schema(table)
    return pa.table(
        [rows.column(f.name) if f.name in needed else pa.nulls(rows.num_rows, f.type) for f in schema],
        schema=schema,
    )


def ranges(engine: Engine, table: Table, slice_: Slice, topic_id: str) -> list[tuple[int, int, int]]:
    """Distinct (partition, start, end) stored for a slice of one incarnation, sorted."""
    columns = ["partition", "range_start", "range_end"]
    where = "topic_id = '" + topic_id.replace("'", "''") + "'"
    rows = engine.store.read_arrow(table.full_name, slice_, columns=columns, where=where)
    found = rows.group_by(columns).aggregate([]).to_pylist()
    return sorted((r["partition"], r["range_start"], r["range_end"]) for r in found)
