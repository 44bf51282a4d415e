"""Judges records in two passes: what nearly all of them are first, in a small plan, and only the others in full.

Belongs here: which records need the second pass. Does not belong here: judging one (`transforms.parse`), what becomes
of the rows (`assets.silver`, `streaming.silver`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crypto_assets.contracts.arrow import compute, empty_rows
from crypto_assets.contracts.tables import QUARANTINE
from crypto_assets.engine.base import Engine, StepInputs
from crypto_assets.storage.staging import loaded
from crypto_assets.transforms.parse import PLACE, parse_bronze, parse_plain, where_computed
from crypto_assets.transforms.silver import examined, samples

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Judged:
    """Records, each in one of two parts.

    Args:
        plain: Loaded columns of the valid records in our producer's layout.
        others: All others as `parse_bronze` gives them; None if there are none, which saves a question to the engine.
    """

    plain: pa.Table
    others: DataFrame | None

    def valid(self) -> pa.Table:
        """The same columns of all valid records."""
        import pyarrow as pa
        from pyspark.sql import functions as F

        if self.others is None:
            return self.plain
        found = loaded(samples(where_computed(self.others, F.col("is_valid"))).select(*self.plain.column_names))
        return pa.concat_tables([self.plain, found.cast(self.plain.schema)])

    def refused(self) -> pa.Table:
        """The invalid records as rows of the quarantine."""
        from pyspark.sql import functions as F

        if self.others is None:
            return empty_rows(QUARANTINE)
        return loaded(examined(where_computed(self.others, ~F.col("is_valid"))).select(*QUARANTINE.column_names))


def judged(engine: Engine, bronze: DataFrame, inputs: StepInputs, columns: Sequence[str]) -> Judged:
    """Judge records.

    Args:
        engine: Engine that computes.
        bronze: Rows of `bronze.raw_prices`, the same whenever they are read.
        inputs: `coins`, `partitions_start`, `as_of` (records available later are left out).
        columns: Columns of `samples` to load.
    """
    from pyspark.sql import functions as F

    if inputs.as_of is not None:
        bronze = bronze.where(F.col("kafka_timestamp") <= F.lit(inputs.as_of))
    parsed = samples(parse_plain(bronze, inputs.coins, inputs.partitions_start))
    rows = loaded(parsed.select(*dict.fromkeys((*columns, *PLACE, "is_valid"))))
    valid = rows.column("is_valid")
    left = rows.filter(compute().invert(valid)).select(list(PLACE))
    if not left.num_rows:
        return Judged(rows.select(list(columns)), None)  # not copied
    others = bronze.join(F.broadcast(engine.frame(left)), list(PLACE), "left_semi")
    return Judged(rows.filter(valid).select(list(columns)), parse_bronze(others, inputs.coins, inputs.partitions_start))
