"""Rows of `ops.polls` from records of the polls topic.

Does not belong here: reading one message (`market.polls`), columns that every log table has (`assets.log_slices.rows`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from crypto_assets.assets.log_slices.rows import common_columns, rows_table
from crypto_assets.contracts.arrow import arrow_type
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import Slice
from crypto_assets.market.polls import read_poll
from crypto_assets.storage.base import LogBounds, OffsetRange

if TYPE_CHECKING:
    import pyarrow as pa


class PollRows:
    """Builds rows of `ops.polls` (a `RowMaker`): the message's fields as columns, null where they cannot be held."""

    def rows(
        self,
        table: Table,
        bounds: LogBounds,
        slice_: Slice,
        ranges: Sequence[OffsetRange],
        chunk: pa.Table,
        now: datetime,
    ) -> pa.Table:
        """Rows of one chunk, one per record, whatever its value."""
        import pyarrow as pa

        columns = common_columns(bounds, slice_, ranges, chunk, now)
        polls = [read_poll(text) for text in columns["raw_json"].to_pylist()]
        for name in read_poll(None):
            columns[name] = pa.array([poll[name] for poll in polls], arrow_type(table.column(name).type))
        return rows_table(table, columns)

    def touched(self, rows: pa.Table) -> list[str]:  # noqa: ARG002
        """No event hours: polls are read by their arrival alone."""
        return []
