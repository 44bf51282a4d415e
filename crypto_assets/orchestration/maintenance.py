"""Housekeeping of tables, Dagster's events and stray files, with a dry run.

Belongs here: what is cleaned up, and by which rule. Does not belong here: the tables' part (`orchestration.tidying`),
Dagster's storage (`event_store`), when it runs (`schedules`, `maintenance_job`, `crypto-assets maintain`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from crypto_assets.dagster_private import TickStatus
from crypto_assets.home import Home
from crypto_assets.ml import places
from crypto_assets.orchestration import event_store
from crypto_assets.orchestration.tidying import Part, Row, table_parts, tidy
from crypto_assets.storage.store import DeltaStore

REFRESH_RUNS_KEPT = timedelta(hours=6)
OTHER_RUNS_KEPT = timedelta(days=14)
SENSOR_EVENTS_KEPT = timedelta(hours=24)
SKIPPED_TICKS_KEPT = timedelta(hours=24)
STRAY_AFTER = timedelta(hours=24)
"""Age from which a temporary file counts as abandoned."""

REFRESH_JOB = "refresh"
_PAGE = 1000

Progress = Callable[[str], None]


def housekeeping(
    store: DeltaStore,
    instance: dg.DagsterInstance | None,
    home: Home,
    now: datetime,
    *,
    dry_run: bool,
    progress: Progress | None = None,
    remote: Part | None = None,
) -> list[Row]:
    """Run every part of housekeeping once, or report what it would do.

    A failed part does not stop the others; its row says `failed`.

    Args:
        store: Tables of this process: compacted, rid of expired rows and files, logs cleaned.
        instance: Dagster instance whose events are pruned, or None to leave them.
        home: Home whose stray files are removed.
        now: Present time (UTC). Hours before the start of the previous one are closed.
        dry_run: Change nothing.
        progress: Called with a line before each part.
        remote: Part that reports who maintains the tables that are not in `store`.

    Returns:
        Rows of `part`, `result`, `failed`, `seconds`, in the order done.
    """
    report = progress or (lambda _text: None)
    parts = [*table_parts(store, now, dry_run=dry_run), *([remote] if remote else [])]
    if instance is not None:
        parts += _dagster_parts(instance, now, dry_run, report)
    parts.append(("places of models", lambda: rewrite_places(home.path, dry_run=dry_run)))
    parts.append(("stray files", lambda: remove_stray_files(home.path, now, dry_run=dry_run)))
    return tidy(parts, lambda name: report(f"{'checking' if dry_run else 'tidying'} {name}"))


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format rows as a markdown table."""
    lines = ["| part | result | seconds |", "|---|---|---:|"]
    for row in rows:
        result = str(row["result"]).replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {row['part']} | {'**failed** ' if row['failed'] else ''}{result} | {row['seconds']} |")
    return "\n".join(lines)


# --- Dagster ------------------------------------------------------------------------------------------------------


def _dagster_parts(instance: dg.DagsterInstance, now: datetime, dry_run: bool, report: Progress) -> list[Part]:
    verb = "would go" if dry_run else "deleted"

    def runs() -> str:
        count, kept = prune_runs(instance, now, dry_run=dry_run, progress=report)
        return f"{count:,} {verb}, {kept:,} old ones kept because they hold the latest event of something"

    def runless() -> str:
        return f"{event_store.delete_runless(instance, now - SENSOR_EVENTS_KEPT, dry_run=dry_run):,} {verb}"

    def stray() -> str:
        return f"{_unlink(event_store.stray_files(instance, now - STRAY_AFTER), dry_run=dry_run)} {verb}"

    def space() -> str:
        freed = event_store.reclaim(instance, dry_run=dry_run, progress=report)
        size = event_store.event_log_bytes(instance)
        if freed is None or size is None:
            return "left to the database"
        return f"{freed / 1e6:,.1f} MB {'would be freed' if dry_run else 'freed'}, {size / 1e6:,.1f} MB in use"

    return [
        ("dagster runs", runs),
        ("dagster events of sensors", runless),
        ("dagster ticks", lambda: purge_ticks(instance, now, dry_run=dry_run)),
        ("dagster event files of deleted runs", stray),
        ("dagster event log", space),
    ]


def prune_runs(
    instance: dg.DagsterInstance, now: datetime, *, dry_run: bool, progress: Progress = lambda _text: None
) -> tuple[int, int]:
    """Delete old finished runs that hold nothing: refresh runs after 6 hours, others after 14 days.

    A run holds something when it has the latest event of a kind for an asset and partition, or the latest evaluation of
    a check and partition; deleting it would change what is materialized or red.

    Args:
        instance: Dagster instance.
        now: Present time (UTC).
        dry_run: Count only.
        progress: Called with a line from time to time.

    Returns:
        Runs deleted (or that would be), and old runs kept because they hold something.
    """
    held = event_store.holders(instance)
    old = list(_old_runs(instance, now))
    doomed = [run_id for run_id in old if run_id not in held]
    for i, run_id in enumerate(doomed):
        if dry_run:
            break
        if i % 100 == 0:
            progress(f"deleting runs: {i:,} of {len(doomed):,}")
        event_store.delete_run(instance, run_id)
    return len(doomed), len(old) - len(doomed)


def _old_runs(instance: dg.DagsterInstance, now: datetime) -> Iterator[str]:
    finished = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    cursor = None
    while True:
        filters = dg.RunsFilter(statuses=finished, created_before=now - min(REFRESH_RUNS_KEPT, OTHER_RUNS_KEPT))
        page = instance.get_run_records(filters, limit=_PAGE, cursor=cursor)
        for record in page:
            run = record.dagster_run
            kept = REFRESH_RUNS_KEPT if run.job_name == REFRESH_JOB else OTHER_RUNS_KEPT
            if (record.end_time or record.create_timestamp.timestamp()) < (now - kept).timestamp():
                yield run.run_id
        if len(page) < _PAGE:
            return
        cursor = page[-1].dagster_run.run_id


def purge_ticks(instance: dg.DagsterInstance, now: datetime, *, dry_run: bool) -> str:
    """Delete skipped ticks older than a day; Dagster's own retention counts whole days and runs rarely."""
    before = (now - SKIPPED_TICKS_KEPT).timestamp()
    states = instance.all_instigator_state()
    for state in states:
        if not dry_run:
            instance.purge_ticks(state.instigator_origin_id, state.selector_id, before, [TickStatus.SKIPPED])
    return f"skipped ticks of {len(states)} sensors and schedules kept for 24 h"


# --- files --------------------------------------------------------------------------------------------------------


def rewrite_places(home: Path, *, dry_run: bool) -> str:
    """Make absolute paths in the home's MLflow database, as recorded by earlier versions, relative to the home."""
    count = places.rewrite_database(home / places.DATABASE, dry_run=dry_run)
    return f"{count} absolute ones {'would be' if dry_run else 'were'} rewritten"


def remove_stray_files(home: Path, now: datetime, *, dry_run: bool) -> str:
    """Remove abandoned temporary files in the home, outside of the lake and the broker's data."""
    before = (now - STRAY_AFTER).timestamp()
    folders = [home, home / "state", home / "kafka", home / "logs", home / "dagster", home / "mlflow"]
    found = [
        path
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if path.is_file() and path.suffix == ".tmp" and path.stat().st_mtime < before
    ]
    return f"{_unlink(found, dry_run=dry_run)} {'would go' if dry_run else 'deleted'}"


def _unlink(paths: Sequence[Path], *, dry_run: bool) -> int:
    for path in paths:
        if not dry_run:
            path.unlink(missing_ok=True)
    return len(paths)
