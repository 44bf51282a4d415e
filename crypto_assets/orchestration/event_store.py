"""Access to Dagster's event store beyond its public API.

Dagster has no public way to follow check evaluations across runs, to find the run that holds the latest event of a
partition, or to remove events outside of runs. These functions use its storage classes (as of 1.13) and are pinned by
tests on a real SQLite instance. Does not belong here: what is done with the events (`alerts`, `maintenance`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import sqlalchemy as db

from crypto_assets.checks.rules import parts
from crypto_assets.contracts.tables import TABLES
from crypto_assets.dagster_private import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    InstigatorState,
    InstigatorType,
    SqlEventLogStorage,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
    TickStatus,
    deserialize_value,
)
from crypto_assets.errors import ReportedError
from crypto_assets.orchestration.evaluations import Evaluation

RUNLESS = ""
"""Run id under which Dagster stores what sensors report outside of runs."""
PLANNED = "PLANNED"
"""Status of an evaluation that a run has planned but not made yet."""
INTERRUPTED = "interrupted by a signal, such as Ctrl-C"
_WHY = 500
"""Longest error text that is kept, in characters."""
_FREE_SHARE, _FREE_BYTES = 0.2, 2_000_000
"""Free share from which a database file is rewritten: rewriting costs as much as its content."""


@dataclass(frozen=True)
class FailedRun:
    """A failed run: storage id of its event, run, job, time (UTC) and reason in one line."""

    storage_id: int
    run_id: str
    job: str
    at: datetime
    description: str


def _store(instance: dg.DagsterInstance) -> SqlEventLogStorage:
    store = instance.event_log_storage
    if not isinstance(store, SqlEventLogStorage):
        raise ReportedError(
            f"Dagster's events are in a {type(store).__name__}; alerts and housekeeping need one of its SQL stores: "
            "use the `storage:` block sqlite or postgres in dagster.yaml"
        )
    return store


# --- following events ---------------------------------------------------------------------------------------------


def newest_id(instance: dg.DagsterInstance) -> int:
    """Storage id of the newest event, 0 when there is none."""
    return _store(instance).get_maximum_record_id() or 0


def _failed_rules(metadata: Mapping[str, dg.MetadataValue]) -> tuple[str, ...]:
    """Rules that a check of several names as failed; empty for other checks."""
    value = metadata["failed"].value if "failed" in metadata else None
    return tuple(map(str, value)) if isinstance(value, list) else ()


def check_evaluations(instance: dg.DagsterInstance, after: int, limit: int) -> list[tuple[int, Evaluation]]:
    """Stored check evaluations of all runs and sensors, with their storage ids, oldest first.

    Args:
        instance: Dagster instance.
        after: Storage id after which to begin.
        limit: Evaluations at most.
    """
    found = []
    for storage_id, entry in _after(instance, dg.DagsterEventType.ASSET_CHECK_EVALUATION, after, limit):
        e = entry.get_dagster_event().asset_check_evaluation_data
        found.append(
            (
                storage_id,
                Evaluation(
                    asset=e.asset_key.to_user_string(),
                    check=e.check_name,
                    partition=e.partition,
                    passed=e.passed,
                    severity="warn" if e.severity == dg.AssetCheckSeverity.WARN else "error",
                    at=datetime.fromtimestamp(entry.timestamp, UTC),
                    description=e.description or "",
                    rules=_failed_rules(e.metadata),
                ),
            )
        )
    return found


def failed_runs(instance: dg.DagsterInstance, after: int, limit: int) -> list[FailedRun]:
    """Failed runs, oldest first; arguments as for `check_evaluations`."""
    return [
        FailedRun(
            storage_id,
            entry.run_id,
            entry.job_name or "",
            datetime.fromtimestamp(entry.timestamp, UTC),
            entry.get_dagster_event().message or "",
        )
        for storage_id, entry in _after(instance, dg.DagsterEventType.RUN_FAILURE, after, limit)
    ]


def _after(
    instance: dg.DagsterInstance, kind: dg.DagsterEventType, after: int, limit: int
) -> Iterable[tuple[int, dg.EventLogEntry]]:
    # On SQLite each run has its own file; this reads the index that mirrors checks and run states of all of them.
    found = _store(instance).get_logs_for_all_runs_by_log_id(after_cursor=after, dagster_event_type=kind, limit=limit)
    return sorted(found.items())


# --- why runs failed ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FailedStep:
    """A failed step of a run, the reason, and its assets; `step` is empty when the run itself failed."""

    step: str
    why: str
    assets: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"step {self.step}: {self.why}" if self.step else self.why


def failed_steps(instance: dg.DagsterInstance, run_id: str) -> list[FailedStep]:
    """Failed steps of a run in order of failure, or the run's own reason when no step failed.

    Empty for a run that succeeded, was canceled, or is still in progress.
    """
    kinds = {
        dg.DagsterEventType.STEP_FAILURE,
        dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        dg.DagsterEventType.RUN_FAILURE,
    }
    entries = [r.event_log_entry for r in instance.get_records_for_run(run_id, of_type=kinds).records]
    planned: dict[str | None, dict[str, None]] = {}
    for entry in entries:
        event = entry.get_dagster_event()
        if (
            entry.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
            and event.asset_key is not None
        ):
            planned.setdefault(event.step_key, {})[event.asset_key.to_user_string()] = None
    found = [
        FailedStep(event.step_key or "", _why(event), tuple(planned.get(event.step_key, ())))
        for event in (
            e.get_dagster_event() for e in entries if e.dagster_event_type == dg.DagsterEventType.STEP_FAILURE
        )
    ]
    if found:
        return found
    lost = [e.get_dagster_event() for e in entries if e.dagster_event_type == dg.DagsterEventType.RUN_FAILURE]
    return [FailedStep("", _why(event)) for event in lost[:1]]


def _why(event: dg.DagsterEvent) -> str:
    """First line of an error: a `Failure`'s description, else the exception behind Dagster's wrapper."""
    data: Any = event.event_specific_data
    own = getattr(data, "user_failure_data", None)
    text = own.description if own is not None and own.description else None
    error = getattr(data, "error", None)
    if not text and error is not None:
        text = (error.cause or error).message
    if text and "DagsterExecutionInterruptedError" in text:
        return INTERRUPTED
    lines = (text or event.message or "").strip().splitlines()
    return lines[0][:_WHY] if lines else "no message"


# --- latest states of checks --------------------------------------------------------------------------------------

Verdict = Literal["green", "red", "not evaluated"]


@dataclass(frozen=True)
class CheckState:
    """Latest state of a check, from the newest run (or sensor tick) that planned or evaluated it.

    Args:
        asset: Asset key as `schema/name`.
        check: Check name.
        verdict: `green` when no partition was red; `not evaluated` when the newest run that planned the check ended
            without evaluating it. While a run is in progress, the previous result counts.
        severity: Severity of the first red evaluation; `error` when there is none.
        red: Red partitions, at most 100; empty for an unpartitioned asset.
        description: Description of the first red evaluation, or the run that did not evaluate the check.
        summary: Description of the newest evaluation; after a range run, of its aggregate.
        metadata: Metadata of the first red evaluation.
        at: Time of the last evaluation (UTC); None when not evaluated.
    """

    asset: str
    check: str
    verdict: Verdict
    severity: str = "error"
    red: tuple[str, ...] = ()
    description: str = ""
    summary: str = ""
    at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the check was evaluated and is green."""
        return self.verdict == "green"

    @property
    def label(self) -> str:
        """Check name, with the verdict appended unless green."""
        if self.verdict == "not evaluated":
            return f"{self.check} (not evaluated)"
        return f"{self.check} (warn)" if self.verdict == "red" and self.severity == "warn" else self.check


def check_states(instance: dg.DagsterInstance) -> list[CheckState]:
    """States of all checks ever planned or evaluated, by asset and check.

    Rules that had a check each before `contract` reported them together are left out: nothing evaluates those again.
    """
    c = AssetCheckExecutionsTable.c
    evaluated = c.execution_status != PLANNED
    groups = (c.asset_key, c.check_name)
    columns = (c.id, c.asset_key, c.check_name, c.run_id, c.execution_status, c.evaluation_event, c.partition)
    with _store(instance).index_connection() as connection:

        def rows(condition: Any) -> list[Any]:
            return list(connection.execute(db.select(*columns).where(condition).order_by(c.id)))

        last = {_check(r): r for r in rows(c.id.in_(db.select(db.func.max(c.id)).where(evaluated).group_by(*groups)))}
        newest_of_all = db.select(db.func.max(c.id)).group_by(*groups)
        planned = rows(db.and_(c.id.in_(newest_of_all), c.execution_status == PLANNED))
        runs = {r.run_id for r in (*last.values(), *planned)} - {RUNLESS}
        red = rows(
            db.and_(
                c.execution_status == "FAILED",
                db.or_(c.run_id.in_(runs), c.id.in_([r.id for r in last.values() if r.run_id == RUNLESS])),
            )
        )
    reds: dict[tuple[str, str, str], list[Any]] = {}
    for row in red:
        reds.setdefault((*_check(row), row.run_id), []).append(row)
    states = {check: _evaluated(row, reds.get((*check, row.run_id), [])) for check, row in last.items()}
    ended = _ended(instance, {r.run_id for r in planned})
    for row in planned:
        # A blocking rule that stopped the step was evaluated: its red result stands.
        if row.run_id in ended and (*_check(row), row.run_id) not in reds:
            text = f"planned in run {row.run_id[:8]}, which {ended[row.run_id]} without evaluating it"
            states[_check(row)] = CheckState(
                _asset(row), row.check_name, "not evaluated", description=text, summary=text
            )
    return sorted((s for s in states.values() if not _is_folded(s)), key=lambda s: (s.asset, s.check))


def _is_folded(state: CheckState) -> bool:
    table = TABLES.get(state.asset.replace("/", "."))
    return table is not None and state.check in parts(table)


def check_state(instance: dg.DagsterInstance, asset: str, check: str) -> CheckState | None:
    """State of one check; None if it was never planned."""
    return next((s for s in check_states(instance) if (s.asset, s.check) == (asset, check)), None)


def _check(row: Any) -> tuple[str, str]:
    return row.asset_key, row.check_name


def _asset(row: Any) -> str:
    key = dg.AssetKey.from_db_string(row.asset_key)
    return key.to_user_string() if key is not None else row.asset_key


def _ended(instance: dg.DagsterInstance, run_ids: set[str]) -> dict[str, str]:
    """Runs no longer in progress, with how each ended."""
    if not run_ids:
        return {}
    found = {r.run_id: r for r in instance.get_runs(dg.RunsFilter(run_ids=list(run_ids)))}
    words = {"FAILURE": "failed", "CANCELED": "was canceled", "SUCCESS": "ended"}
    return {
        run_id: words.get(found[run_id].status.value, "ended") if run_id in found else "was deleted"
        for run_id in run_ids
        if run_id not in found or found[run_id].is_finished
    }


def _evaluated(newest: Any, red: list[Any]) -> CheckState:
    entry = deserialize_value(newest.evaluation_event, dg.EventLogEntry)
    summary = entry.get_dagster_event().asset_check_evaluation_data.description or ""
    at = datetime.fromtimestamp(entry.timestamp, UTC)
    if not red:
        return CheckState(_asset(newest), newest.check_name, "green", summary=summary, at=at)
    by_partition = [row for row in red if row.partition] or red
    first = deserialize_value(by_partition[0].evaluation_event, dg.EventLogEntry)
    found = first.get_dagster_event().asset_check_evaluation_data
    return CheckState(
        _asset(newest),
        newest.check_name,
        "red",
        "warn" if found.severity == dg.AssetCheckSeverity.WARN else "error",
        tuple(sorted({row.partition for row in red if row.partition}))[:100],
        found.description or "",
        summary,
        at,
        {name: value.value for name, value in found.metadata.items()},
    )


# --- sensors ------------------------------------------------------------------------------------------------------


def sensor_state(instance: dg.DagsterInstance, name: str) -> InstigatorState | None:
    """State of the sensor `name`; None if it was never started or stopped."""
    states = [s for s in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR) if s.name == name]
    return states[-1] if states else None


def producer_alive(instance: dg.DagsterInstance) -> tuple[datetime | None, str | None]:
    """Time of the producer's newest good tick, and the error of its newest tick if that failed.

    The time is None when the sensor does not run. A sensor just started counts as alive since its start.
    """
    state = sensor_state(instance, "producer")
    if state is None or not state.is_running:
        return None, None
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=5)
    good = [t.timestamp for t in ticks if t.status != TickStatus.FAILURE]
    data: Any = state.instigator_data
    started = getattr(data, "last_sensor_start_timestamp", None)
    success = getattr(data, "last_tick_success_timestamp", None) if not good else None
    moments = [m for m in (*good, started, success) if m]
    if not moments:
        return None, None
    failed = ticks[0].error if ticks and ticks[0].status == TickStatus.FAILURE else None
    trouble = (failed.cause or failed).message.strip().splitlines()[0][:300] if failed else None
    return datetime.fromtimestamp(max(moments), UTC), trouble


# --- pruning ------------------------------------------------------------------------------------------------------


def holders(instance: dg.DagsterInstance) -> set[str]:
    """Runs that must be kept because they hold the latest event of something.

    That is, per asset and partition the latest event of each kind (materialization, observation, planned, ...), per
    asset, check and partition the latest evaluation and the latest plan, and the newest event of all (SQLite would
    reuse its id, and cursors would skip that event).
    """
    events, checks = SqlEventLogStorageTable.c, AssetCheckExecutionsTable.c
    with _store(instance).index_connection() as connection:
        event_runs = connection.execute(db.select(events.run_id).where(events.id.in_(_latest_events())).distinct())
        found = {row[0] for row in event_runs}
        check_runs = connection.execute(db.select(checks.run_id).where(checks.id.in_(_latest_checks())).distinct())
        found |= {row[0] for row in check_runs}
        newest = connection.execute(db.select(events.run_id).order_by(events.id.desc()).limit(1)).fetchone()
    return found | ({newest[0]} if newest else set())


def _latest_events() -> Any:
    c = SqlEventLogStorageTable.c
    groups = (c.asset_key, c.partition, c.dagster_event_type)
    return db.select(db.func.max(c.id)).where(c.asset_key.is_not(None)).group_by(*groups)


def _latest_checks() -> Any:
    c = AssetCheckExecutionsTable.c
    # Plans separately: until their run has ended, the evaluation before them is the check's state.
    groups = (c.asset_key, c.check_name, c.partition, c.execution_status == PLANNED)
    return db.select(db.func.max(c.id)).group_by(*groups)


def delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run, with what the public `delete_run` leaves behind.

    Left behind are its evaluations in the table of checks, its log files, and on SQLite the emptied file of its events.
    The caller ensures that the run is none of the `holders`.
    """
    store = _store(instance)
    instance.delete_run(run_id)
    with store.index_connection() as connection:
        checks = AssetCheckExecutionsTable
        connection.execute(checks.delete().where(checks.c.run_id == run_id))
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    if isinstance(store, SqliteEventLogStorage):
        for path in _files(Path(store.path_for_shard(run_id))):
            path.unlink(missing_ok=True)


def delete_runless(instance: dg.DagsterInstance, before: datetime, *, dry_run: bool) -> int:
    """Delete sensor-reported events before a time, except the latest of everything; return their number.

    Args:
        instance: Dagster instance.
        before: Time (UTC); younger events stay.
        dry_run: Count only.
    """
    store, moment = _store(instance), before.astimezone(UTC).replace(tzinfo=None)
    events, checks, tags = SqlEventLogStorageTable, AssetCheckExecutionsTable, AssetEventTagsTable
    old = db.and_(
        events.c.run_id == RUNLESS,
        events.c.timestamp < moment,
        events.c.id.not_in(_latest_events()),
        events.c.id < db.select(db.func.max(events.c.id)).scalar_subquery(),
    )
    with store.index_connection() as connection:
        count = connection.execute(db.select(db.func.count()).select_from(events).where(old)).scalar_one()
        if dry_run or not count:
            return count
        connection.execute(tags.delete().where(tags.c.event_id.in_(db.select(events.c.id).where(old))))
        connection.execute(events.delete().where(old))
        connection.execute(
            checks.delete().where(
                checks.c.run_id == RUNLESS,
                checks.c.evaluation_event_timestamp < moment,
                checks.c.id.not_in(_latest_checks()),
            )
        )
    if isinstance(store, SqliteEventLogStorage):
        # The index above is what is read; this is the copy in the file of run-less events.
        with store.run_connection(RUNLESS) as connection:
            connection.execute(events.delete().where(events.c.timestamp < moment))
    return count


# --- files (SQLite only) ------------------------------------------------------------------------------------------


def stray_files(instance: dg.DagsterInstance, before: datetime) -> list[Path]:
    """Event files of deleted runs, last written before a time; none on other stores."""
    if (folder := _sqlite_folder(instance)) is None:
        return []
    known = {RUNLESS, "index", *(r.run_id for r in instance.get_runs())}
    return [
        path
        for path in sorted(folder.glob("*.db*"))
        if path.name.split(".db")[0] not in known and path.stat().st_mtime < before.timestamp()
    ]


def event_log_bytes(instance: dg.DagsterInstance) -> int | None:
    """Size of all event log files in bytes; None if the store is not SQLite."""
    folder = _sqlite_folder(instance)
    return None if folder is None else sum(p.stat().st_size for p in folder.iterdir() if p.is_file())


def _sqlite_folder(instance: dg.DagsterInstance) -> Path | None:
    store = _store(instance)
    return Path(store.path_for_shard("index")).parent if isinstance(store, SqliteEventLogStorage) else None


def reclaim(
    instance: dg.DagsterInstance, *, dry_run: bool, progress: Callable[[str], None] = lambda _text: None
) -> int | None:
    """Return free pages of the shared event files to the disk.

    Returns:
        Bytes that were (or could be) freed; None if the store is not SQLite.
    """
    store = _store(instance)
    if not isinstance(store, SqliteEventLogStorage):
        return None
    freed = 0
    for shard in ("index", RUNLESS):
        path = Path(store.path_for_shard(shard))
        if not path.exists():
            continue
        connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        try:
            page, pages, free = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_size", "page_count", "freelist_count")
            )
            if free * page < _FREE_BYTES or free < pages * _FREE_SHARE:
                continue
            freed += free * page
            if not dry_run:
                progress(f"rewriting {path.name or 'events without run'}")
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()
    return freed


def _files(database: Path) -> tuple[Path, ...]:
    return tuple(database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm"))
