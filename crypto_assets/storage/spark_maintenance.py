"""Housekeeping of one table by SQL on its name: OPTIMIZE, expiry, VACUUM.

Belongs here: what `storage.maintenance` does for delta-rs, for tables that Spark writes. Does not belong here: when it
runs, or which tables. Where a workspace has predictive optimization, the maintenance job is off and this is not called.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from crypto_assets.contracts.model import Table
from crypto_assets.storage.maintenance import expired, partition_end

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Z_ORDER = "coin_id"
"""Column by which the rows of a closed partition are laid out, where the table has it: boards ask for one coin."""


def maintain(
    spark: SparkSession, name: str, table: Table, *, now: datetime, closed_before: datetime, dry_run: bool
) -> dict[str, object]:
    """Tidy one table, or say what would be done.

    Args:
        spark: Session.
        name: Quoted name of an existing table.
        table: Its contract.
        now: Present time (UTC); rows of days that ended more than `retention_days` ago expire.
        closed_before: Delta partitions that end by then (UTC) are compacted.
        dry_run: Change nothing; the numbers are those that a real run would find.

    Returns:
        exists; files and bytes (live, before); compacted_partitions, files_compacted, files_written; expired_rows;
        vacuumed_files (unreferenced for longer than `delta.deletedFileRetentionDuration`; at most the number that
        VACUUM lists); version. The log is checkpointed and cleaned by Delta itself when it commits.
    """
    detail = spark.sql(f"DESCRIBE DETAIL {name}").select("numFiles", "sizeInBytes").collect()[0]
    report: dict[str, object] = {"exists": True, "files": detail[0], "bytes": detail[1]}
    report["expired_rows"] = _expire(spark, name, table, now, dry_run=dry_run)
    report |= _compact(spark, name, table, closed_before, dry_run=dry_run)
    report["vacuumed_files"] = len(spark.sql(f"VACUUM {name} DRY RUN").collect())
    if not dry_run:
        spark.sql(f"VACUUM {name}").collect()
    report["version"] = spark.sql(f"DESCRIBE HISTORY {name} LIMIT 1").select("version").collect()[0][0]
    return report


def _expire(spark: SparkSession, name: str, table: Table, now: datetime, *, dry_run: bool) -> int:
    """Delete whole days past the retention; how many rows that is."""
    predicate = expired(table, now)
    if predicate is None:
        return 0
    count = spark.table(name).where(predicate).count()
    if count and not dry_run:
        spark.sql(f"DELETE FROM {name} WHERE {predicate}").collect()  # noqa: S608
    return count


def _compact(
    spark: SparkSession, name: str, table: Table, closed_before: datetime, *, dry_run: bool
) -> dict[str, object]:
    """Rewrite every Delta partition that is closed and has more than one file."""
    from pyspark.sql import functions as F

    files = spark.table(name).select(*table.partition_by, F.col("_metadata.file_path").alias("_path")).distinct()
    counts = files.groupBy(*table.partition_by).count().where("count > 1").toArrow().to_pylist()
    clauses: list[str] = []
    several = 0
    for row in counts:
        if not table.partition_by:
            clauses.append("")
        else:
            (column,) = table.partition_by
            if partition_end(column, row[column]) > closed_before:
                continue
            value = row[column]
            text = f"{value:%Y-%m-%dT%H:%M:%SZ}" if isinstance(value, datetime) else f"{value}"
            clauses.append(f" WHERE {column} = '{text}'")
        several += row["count"]
    layout = f" ZORDER BY ({Z_ORDER})" if Z_ORDER in table.column_names else ""
    written = 0
    for clause in [] if dry_run else sorted(clauses):
        done = spark.sql(f"OPTIMIZE {name}{clause}{layout}").select("metrics.numFilesAdded").collect()
        written += done[0][0]
    return {"compacted_partitions": len(clauses), "files_compacted": several, "files_written": written}
