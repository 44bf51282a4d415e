"""Laws on the files and commits of every table, whatever its rows mean."""

from __future__ import annotations

from pathlib import Path

from crypto_assets.verify.delta import insert
from crypto_assets.verify.laws.base import Evidence, Law

OUR_MARKS = ("engine", "maintenance", "run_id")
"""Marks of the product's commits: the writing engine, or the kind of housekeeping."""


def _load_files(evidence: Evidence) -> str | None:
    """Create `audit_files`: log entry and disk state of every data file; sizes in bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: list[tuple[object, ...]] = []
    for table, snapshot in evidence.stored.items():
        for path, (size, rows) in snapshot.sizes.items():
            file = Path(evidence.lake, *table.split("."), path)
            if path not in snapshot.files or not file.is_file():
                continue  # a missing file is reported where tables are read
            try:
                in_file: int | None = pq.read_metadata(file).num_rows
            except (OSError, pa.ArrowInvalid):
                in_file = None
            found.append((table, path, size, file.stat().st_size, rows, in_file))
    columns = "size BIGINT, on_disk BIGINT, listed BIGINT, in_file BIGINT"
    evidence.connection.execute(f"CREATE OR REPLACE TABLE audit_files (table_name VARCHAR, path VARCHAR, {columns})")
    text, whole = pa.string(), pa.int64()
    types = {"table_name": text, "path": text, "size": whole, "on_disk": whole, "listed": whole, "in_file": whole}
    insert(evidence.connection, "audit_files", found, types)
    return None


def files_law() -> Law:
    """Law on data files, from `audit_files`."""
    return Law(
        "files_are_as_the_log_lists_them",
        "every data file has the size and the number of rows that its commit recorded",
        (),
        """
        SELECT CASE WHEN in_file IS NULL THEN 'no Parquet file' WHEN on_disk <> size THEN 'another size'
                    ELSE 'another number of rows' END AS problem, table_name, path, size, on_disk, listed, in_file
        FROM audit_files WHERE on_disk <> size OR in_file IS NULL OR in_file <> listed
        """,
        checked="SELECT count(*) FROM audit_files",
        covers={},
        recomputed="the log",
        prepare=_load_files,
    )


def _load_commits(evidence: Evidence) -> str | None:
    """Create `audit_commits`: retained row-changing commits, and whether a writer of the product made them.

    A merge on Spark cannot carry a mark and is left out.
    """
    connection = evidence.connection
    connection.execute(
        "CREATE OR REPLACE TABLE audit_commits"
        " (table_name VARCHAR, version BIGINT, committed_at TIMESTAMPTZ, operation VARCHAR, engine_info VARCHAR,"
        " ours BOOLEAN)"
    )
    for table, snapshot in evidence.stored.items():
        for version, commit in snapshot.commits.items():
            engine = str(commit.info.get("engineInfo", ""))
            operation = str(commit.info.get("operation", ""))
            if not commit.changes_rows or ("Spark" in engine and operation == "MERGE"):
                continue
            ours = any(mark in commit.info for mark in OUR_MARKS)
            connection.execute(
                "INSERT INTO audit_commits VALUES (?, ?, ?, ?, ?, ?)",
                [table, version, commit.at, operation, engine, ours],
            )
    return None


def commits_law() -> Law:
    """Law on commits, from `audit_commits`."""
    return Law(
        "commits_are_ours",
        "every retained commit that changes rows was made by a writer of this product",
        (),
        """
        SELECT 'written by something else' AS problem, table_name, version, committed_at, operation, engine_info
        FROM audit_commits WHERE NOT ours
        """,
        checked="SELECT count(*) FROM audit_commits",
        covers={},
        recomputed="the mark of its writer",
        prepare=_load_commits,
    )
