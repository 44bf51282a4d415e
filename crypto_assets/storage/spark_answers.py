"""Interprets Spark's replies: a lost race, the fields of a stored table, the version of a commit.

Belongs here: translations, whatever carries the answer (Py4J, Spark Connect, Databricks). Does not belong here: the
store (`storage.delta_spark`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from crypto_assets.contracts.arrow import arrow_type
from crypto_assets.storage.conditions import OVERTAKEN

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession
    from pyspark.sql.types import StructField

_CONFLICT = re.compile(
    OVERTAKEN + r"|DELTA_CONCURRENT|DELTA_METADATA_CHANGED|DELTA_PROTOCOL_CHANGED|DELTA_VERSIONS_NOT_CONTIGUOUS"
    r"|FIELDS?_ALREADY_EXISTS"  # another writer has added the contract's new columns
    r"|DELTA_CREATE_TABLE_WITH_NON_EMPTY_LOCATION"  # another writer is creating it at this moment
    r"|Concurrent(Append|Transaction|Write|DeleteRead|DeleteDelete|Modification)Exception"
    r"|(Metadata|Protocol)ChangedException|FileAlreadyExistsException"
)
"""How Delta names a lost race, whatever carries the error (Py4J, Spark Connect, Databricks)."""


def arrow_fields(fields: Sequence[StructField]) -> pa.Schema:
    """Fields of a stored table in Arrow's types; null stands for a type that no contract has."""
    import pyarrow as pa

    others = {"float": pa.float32(), "smallint": pa.int16(), "tinyint": pa.int8(), "timestamp_ntz": pa.timestamp("us")}

    def arrow(text: str) -> pa.DataType:
        try:
            return arrow_type(text)
        except ValueError:
            return others.get(text, pa.null())

    return pa.schema([pa.field(f.name, arrow(f.dataType.simpleString()), f.nullable) for f in fields])


def is_conflict(error: BaseException) -> bool:
    """True if Delta reports that another writer committed first."""
    return _CONFLICT.search(f"{type(error).__name__} {error}") is not None


def version_in_history(spark: SparkSession, name: str, mark: str, after: int) -> int | None:
    """Version of the commit of a managed table after a version whose metadata holds a mark; None without one.

    Args:
        spark: Session.
        name: Quoted name of the table.
        mark: Text in the metadata.
        after: Version.
    """
    limit = 16  # the newest come first, and mostly it is the newest
    while True:
        history = spark.sql(f"DESCRIBE HISTORY {name} LIMIT {limit}")
        rows = history.select("version", "userMetadata").collect()
        found = next((r[0] for r in rows if r[0] > after and mark in (r[1] or "")), None)
        if found is not None or len(rows) < limit or rows[-1][0] <= after:
            return found
        limit *= 16
