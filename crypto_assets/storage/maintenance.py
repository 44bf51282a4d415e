"""Housekeeping of one table: small files, expired rows, dead files, the log.

Belongs here: what makes a table stay small without changing what a reader of its rows sees. Does not belong here: how
an engine does it (`storage.delta_rs`, `storage.delta_spark`), when it runs, or for which tables
(`orchestration.maintenance`).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol

from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import floor_day

RETENTION_HOURS = 6
"""Hours that the log and dead files are kept: longer than any step runs, short enough that a week stays small."""


class Keeper(Protocol):
    """One table, as housekeeping counts and changes it."""

    def size(self) -> dict[str, object]:
        """`files` and `bytes` of the present version, and what else is counted before."""
        ...

    def count(self, where: str) -> int:
        """Rows of a condition."""
        ...

    def delete(self, where: str) -> None:
        """Delete the rows of a condition."""
        ...

    def partitions(self) -> list[tuple[date | None, int]]:
        """Value and number of files of every Delta partition; None stands for a table without."""
        ...

    def compact(self, value: date | None) -> int:
        """Rewrite the files of a Delta partition as few; how many they are now."""
        ...

    def vacuum(self, *, dry_run: bool) -> int:
        """Remove files that no retained version lists; how many."""
        ...

    def finish(self, *, dry_run: bool) -> dict[str, object]:
        """Tidy the log; `version`, and what else is counted afterwards."""
        ...


def maintain(
    keeper: Keeper, table: Table, *, as_of: datetime | None, closed_before: datetime, dry_run: bool
) -> dict[str, object]:
    """Tidy one table, or report the plan.

    Args:
        keeper: The table.
        table: Its contract.
        as_of: Time from which retention counts back (UTC): rows of days that ended more than `retention_days` before it
            expire. None = no rows expire.
        closed_before: Delta partitions that end by then (UTC) are compacted.
        dry_run: Change nothing; the numbers are those that a real run would find.

    Returns:
        exists; files and bytes (live, before); compacted_partitions, files_compacted, files_written; expired_rows;
        vacuumed_files; version; and what a keeper counts beside. In a dry run the files of compaction and expiry are
        not yet among those to vacuum.
    """
    report: dict[str, object] = {"exists": True, **keeper.size(), "expired_rows": 0}
    if as_of is not None and (where := expired(table, as_of)) and (rows := keeper.count(where)):
        report["expired_rows"] = rows
        if not dry_run:
            keeper.delete(where)
    several = [(v, n) for v, n in keeper.partitions() if n > 1 and (v is None or _end(v) <= closed_before)]
    report["compacted_partitions"] = len(several)
    report["files_compacted"] = sum(n for _, n in several)
    report["files_written"] = 0 if dry_run else sum(keeper.compact(v) for v, _ in sorted(several))
    report["vacuumed_files"] = keeper.vacuum(dry_run=dry_run)
    return report | keeper.finish(dry_run=dry_run)


def expired(table: Table, as_of: datetime) -> str | None:
    """SQL of the rows of whole days past the retention; None when nothing expires."""
    if table.retention_days is None or table.time_column is None:
        return None
    horizon = floor_day(as_of) - timedelta(days=table.retention_days)
    predicate = f"{table.time_column} < '{horizon:%Y-%m-%dT%H:%M:%SZ}'"
    if "day" in table.partition_by and table.time_column != "day":
        predicate = f"day < '{horizon:%Y-%m-%d}' AND {predicate}"
    return predicate


def _end(start: date) -> datetime:
    """End of a Delta partition (UTC): an hour for a time, a day for a date."""
    if isinstance(start, datetime):
        return start + timedelta(hours=1)
    return datetime.combine(start, time(), UTC) + timedelta(days=1)
