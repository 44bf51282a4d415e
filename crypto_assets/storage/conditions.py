"""Preconditions of a write on Spark, evaluated by the write itself.

Belongs here: conditions on the table that is written, and the query that fails when one is not met. Does not belong
here: why they suffice, and what a store does after such a failure (`storage.delta_spark`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crypto_assets.storage.base import OffsetRange
from crypto_assets.storage.delta_files import literal

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

OVERTAKEN = "crypto_assets: the table is no longer as it was read"
"""Message of the error by which a write fails whose condition is not met."""

FILE = "xxhash64(_metadata.file_path)"
"""SQL of a number that stands for the file of a row."""


@dataclass(frozen=True)
class Condition:
    """Precondition of a write on a table.

    Args:
        where: SQL of the rows that matter.
        value: SQL of an aggregate of them.
        expected: The value that it must have.
    """

    where: str
    value: str
    expected: str

    def guard(self, rows: DataFrame, count: int, table: DataFrame) -> DataFrame:
        """The rows, as a query that fails with `OVERTAKEN` where the table does not meet the condition.

        Args:
            rows: The rows.
            count: How many they are: of a join with none the other side would not be computed.
            table: The table that they are written to, not pinned to a version: Delta reads it in the write's
                transaction, and notes what was read.
        """
        from pyspark.sql import functions as F

        state = table.where(self.where).agg(F.expr(self.value).cast("string").alias("_found"))
        refused = F.raise_error(F.lit(OVERTAKEN))
        checked = state.select(F.when(F.col("_found") == self.expected, F.lit(True)).otherwise(refused).alias("_met"))
        if count:
            return rows.crossJoin(checked).where("_met").drop("_met")
        return checked.where("NOT _met").select(*[F.lit(None).cast(f.dataType).alias(f.name) for f in rows.schema])


def ranges_free(topic_id: str, covers: Sequence[OffsetRange]) -> Condition:
    """No stored range of a topic incarnation, in whatever hour, shares an offset with these."""
    same = [f"(`partition` = {c.partition} AND range_start < {c.end} AND range_end > {c.start})" for c in covers]
    return Condition(f"topic_id = {literal(topic_id)} AND ({' OR '.join(same)})", "count(*)", "0")


def newest_commit_is(number: int) -> Condition:
    """The newest commit of rows to a ledger is still this one (0: none). A filter, so that the rows are truly read."""
    return Condition("chain_commit IS NOT NULL", "coalesce(max(chain_commit), 0)", str(number))


def same_files(where: str, files: Iterable[int]) -> Condition:
    """The rows selected by a predicate are in exactly these files, according to `FILE`.

    The names of files are never used twice, and rows change only with their files (no table has deletion vectors).
    """
    names = ",".join(str(number) for number in sorted(files))
    value = f"sha2(array_join(cast(array_sort(collect_set({FILE})) AS array<string>), ','), 256)"
    return Condition(where, value, hashlib.sha256(names.encode()).hexdigest())
