"""Housekeeping of one local Delta table: small files, expired rows, dead files, the log.

Belongs here: what makes a table stay small without changing what a reader of its rows sees. Does not belong here: when
it runs, or which tables (`orchestration.maintenance`).

A file may only be deleted when nobody can still read it: everything here keeps `RETENTION_HOURS`, longer than any step
runs. `vacuum(0)` is never asked for.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import floor_day
from crypto_assets.storage import checkpoints
from crypto_assets.storage import delta_files as files

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable

RETENTION_HOURS = 6
"""Hours that the log and dead files are kept: longer than any step runs, short enough that a week stays small."""

_ONE_FILE_BYTES = 1 << 40
_CONFLICT_RETRIES = 15


def maintain(path: str, table: Table, *, now: datetime, closed_before: datetime, dry_run: bool) -> dict[str, object]:
    """Tidy one table, or say what would be done.

    Args:
        path: Folder of the table.
        table: Its contract.
        now: Present time (UTC); rows of days that ended more than `retention_days` ago expire.
        closed_before: Delta partitions that end by then (UTC) are compacted to one file each.
        dry_run: Change nothing; the numbers are those that a real run would find.

    Returns:
        exists; files and bytes (live, before); unreferenced_files (on disk, not in the present version);
        compacted_partitions, files_compacted, files_written; expired_rows; vacuumed_files (unreferenced for longer
        than the retention, orphans of killed writers among them); log_files_before and log_files_after; version. In
        a dry run the files of compaction and expiry are not yet among those to vacuum.
    """
    handle = files.open_table(path)
    if handle is None:
        return {"exists": False}
    sizes = _sizes(handle)
    live = {uri.rsplit("/", 1)[1] for uri in handle.file_uris()}
    report: dict[str, object] = {
        "exists": True,
        "files": len(live),
        "bytes": sum(sizes),
        "unreferenced_files": len(_on_disk(path) - live),
        "log_files_before": _log_files(path),
    }
    report["expired_rows"] = _expire(handle, table, now, dry_run=dry_run)
    report |= _compact(handle, table, closed_before, dry_run=dry_run)
    dead = handle.vacuum(
        retention_hours=RETENTION_HOURS,
        dry_run=dry_run,
        enforce_retention_duration=True,
        post_commithook_properties=checkpoints.left_to_us(),
        full=True,
    )
    report["vacuumed_files"] = len(dead)
    if not dry_run:
        checkpoints.write_behind(path, handle.version())
        # A fresh handle: cleaning up deletes log files that only a newer checkpoint replaces.
        handle = files.open_table(path)
        assert handle is not None
        handle.cleanup_metadata()
    report["log_files_after"] = _log_files(path)
    report["version"] = handle.version()
    return report


def _properties(what: str) -> CommitProperties:
    from deltalake import CommitProperties

    # Rows are only moved or expired here, so other writers' commits in between do not matter: delta-rs may retry.
    return CommitProperties(custom_metadata={"maintenance": what}, max_commit_retries=_CONFLICT_RETRIES)


def _expire(handle: DeltaTable, table: Table, now: datetime, *, dry_run: bool) -> int:
    """Delete whole days past the retention; how many rows that is."""
    predicate = expired(table, now)
    if predicate is None:
        return 0
    count = files.query(handle, f"SELECT count(*) AS n FROM t WHERE {predicate}").column("n")[0].as_py()  # noqa: S608
    if count and not dry_run:
        handle.delete(
            predicate, commit_properties=_properties("expire"), post_commithook_properties=checkpoints.left_to_us()
        )
    return count


def expired(table: Table, now: datetime) -> str | None:
    """SQL of the rows of whole days past the retention; None when nothing expires."""
    if table.retention_days is None or table.time_column is None:
        return None
    horizon = floor_day(now) - timedelta(days=table.retention_days)
    predicate = f"{table.time_column} < '{horizon:%Y-%m-%dT%H:%M:%SZ}'"
    if "day" in table.partition_by and table.time_column != "day":
        predicate = f"day < '{horizon:%Y-%m-%d}' AND {predicate}"
    return predicate


def _compact(handle: DeltaTable, table: Table, closed_before: datetime, *, dry_run: bool) -> dict[str, object]:
    """One file for every Delta partition that is closed and has more."""
    import pyarrow as pa

    actions = pa.table(handle.get_add_actions(flatten=True))
    closed: list[tuple[str, str]] = []
    several = 0
    if table.partition_by:
        (name,) = table.partition_by
        counts = actions.group_by(f"partition.{name}").aggregate([([], "count_all")]).to_pylist()
        for row in counts:
            start = row[f"partition.{name}"]
            if row["count_all"] > 1 and partition_end(name, start) <= closed_before:
                closed.append((name, _partition_text(start)))
                several += row["count_all"]
    elif actions.num_rows > 1:
        closed.append(("", ""))
        several = actions.num_rows
    written = 0
    for name, value in [] if dry_run else sorted(closed):
        done = handle.optimize.compact(
            partition_filters=[(name, "=", value)] if name else None,
            target_size=_ONE_FILE_BYTES,
            commit_properties=_properties("compact"),
            post_commithook_properties=checkpoints.left_to_us(),
        )
        written += done["numFilesAdded"]
    return {"compacted_partitions": len(closed), "files_compacted": several, "files_written": written}


def partition_end(name: str, start: object) -> datetime:
    """End of a Delta partition (UTC): an hour for a timestamp, a day for a date."""
    if isinstance(start, datetime):
        return start + timedelta(hours=1)
    from datetime import UTC, date, time

    assert isinstance(start, date), f"Delta partition column {name} is neither a time nor a date"
    return datetime.combine(start, time(), UTC) + timedelta(days=1)


def _partition_text(start: object) -> str:
    """A partition value as the log spells it."""
    return f"{start:%Y-%m-%d %H:%M:%S.%f}" if isinstance(start, datetime) else f"{start}"


def _sizes(handle: DeltaTable) -> list[int]:
    import pyarrow as pa

    return pa.table(handle.get_add_actions(flatten=True)).column("size_bytes").to_pylist()


def _on_disk(path: str) -> set[str]:
    """Names of data files; each writer names its own by a random number, and folders are encoded in the log."""
    return {f.name for f in Path(path).rglob("*.parquet") if "_delta_log" not in f.relative_to(path).parts}


def _log_files(path: str) -> int:
    return sum(1 for f in (Path(path) / "_delta_log").iterdir() if f.is_file())
