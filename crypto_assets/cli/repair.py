"""`maintain --repair`: what is damaged of the home's tables, what repairs it, what is lost, and what to run next.

Belongs here: the order of a repair, its locks and its report. Does not belong here: files of a table
(`storage.repair`), records read again (`assets.log_slices.rereading`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

from crypto_assets.assets.log_slices import rereading
from crypto_assets.assets.log_slices.rereading import HourPlan
from crypto_assets.assets.log_slices.rows import PollRows, PriceRows
from crypto_assets.checks import rules
from crypto_assets.cli import output
from crypto_assets.cli.instance import open_instance
from crypto_assets.cli.up import running_broker
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import key_slice
from crypto_assets.contracts.tables import POLLS, RAW_PRICES, TABLES
from crypto_assets.engine.sail import SailEngine
from crypto_assets.home import Home, HomeError, existing_home
from crypto_assets.log.kafka import hours
from crypto_assets.log.kafka.client import client_config
from crypto_assets.settings import Settings
from crypto_assets.storage import log_files, repair
from crypto_assets.storage.base import LogBounds, StorageError
from crypto_assets.storage.damage import Diagnosis, diagnose
from crypto_assets.storage.delta_rs import DeltaRsStore
from crypto_assets.storage.log_files import LogState, table_of

Row = dict[str, Any]
APP_NAMES = {RAW_PRICES.full_name: "bronze", POLLS.full_name: "polls"}
"""First part of the app ids under which `assets.bronze` writes."""
_RUNNING = timedelta(minutes=30)
"""A run in progress of which nothing was heard for so long was killed."""


def run(settings: Settings, *, now: datetime, apply: bool, as_json: bool) -> int:
    """Examine every table, repair what is damaged with `apply`, and print it; 1 when damage remains, else 0.

    Raises:
        HomeError: There is no home, it is in use, or its tables are not on this machine.
    """
    home = existing_home(settings)
    if settings.on_databricks or "://" in settings.lake:
        raise HomeError(
            f"the tables of {home.path} are not in a folder of this machine: repair them where they are, for example "
            "with FSCK REPAIR TABLE and RESTORE TABLE in the workspace"
        )
    with ExitStack() as stack:
        if apply:
            for name in ("serve", "stream"):
                stack.enter_context(home.lock(name, doing="maintain --repair --apply"))
            _refuse_beside_runs(home, now)
        work = _Work(settings, datetime.combine(home.partitions_start, time(), UTC), now, stack, apply)
        rows = [row for table in TABLES.values() for row in _table(work, table)]
    if as_json:
        output.as_json(rows)
    else:
        _print(rows, apply=apply)
    return 1 if any(row["failed"] for row in rows) or (rows and not apply) else 0


def _print(rows: Sequence[Row], *, apply: bool) -> None:
    if not rows:
        output.say("every table can be read, and no file is lost or damaged: nothing to repair")
        return
    columns = ("table", "damage", "repair", "lost", "then")
    output.table("Repair" if apply else "Repair (dry run)", [{c: row[c] for c in columns} for row in rows])
    if apply:
        output.say("what was damaged was moved to the folder `repaired` of the home; then: crypto-assets verify")
    else:
        output.say("nothing was changed; do it with: crypto-assets maintain --repair --apply")


def _refuse_beside_runs(home: Home, now: datetime) -> None:
    import dagster as dg

    from crypto_assets.orchestration.producer_sensor import IN_PROGRESS

    with open_instance(home) as instance:
        records = instance.get_run_records(dg.RunsFilter(statuses=IN_PROGRESS))
    alive = [r.dagster_run for r in records if now - r.update_timestamp < _RUNNING]
    if alive:
        named = ", ".join(f"{r.job_name} {r.run_id[:8]}" for r in alive[:5])
        raise HomeError(
            f"cannot repair tables of {home.path} while {len(alive)} run(s) may write them: {named}. Wait for them, or "
            "terminate them in the UI, then run the same command again"
        )


@dataclass(frozen=True)
class _Work:
    """Context of one call: settings, the home's first hour and the present time (UTC), what ends with the call."""

    settings: Settings
    partitions_start: datetime
    now: datetime
    stack: ExitStack
    apply: bool


# --- one table --------------------------------------------------------------------------------------------------------


def _table(work: _Work, table: Table) -> Iterator[Row]:
    """Rows of one table: its damages, and what becomes of them; one that fails does not keep others from repair."""
    path = Path(work.settings.lake, *table.full_name.split("."))
    try:
        diagnosis = diagnose(path)
        begun = repair.unfinished(path)
        if diagnosis is None and begun:
            diagnosis = Diagnosis(table_of(path), path, LogState(path))
        if diagnosis is None or not (diagnosis.damages or begun):
            return
        loss = repair.loss_of(diagnosis, table)
        damage = "; ".join(map(str, diagnosis.damages)) or "a repair of it was begun and not finished"
        row: Row = {"table": table.full_name, "damage": damage, "repair": _does(loss), "lost": "nothing", "then": ""}
        row["failed"] = False
    except (StorageError, OSError) as error:
        yield {"table": table.full_name, "damage": str(error), "repair": "", "lost": "", "then": "", "failed": True}
        return
    try:
        if work.apply:
            repair.repair_log(diagnosis, loss, work.now)
            diagnosis = diagnose(path) or Diagnosis(table_of(path), path, LogState(path))
        if not loss.is_none and table.write == "append_once" and work.settings.transport == "kafka":
            row |= _reread(work, table, diagnosis, sorted(loss.hours))
        elif not loss.is_none:
            row |= _rebuilt_elsewhere(table, loss)
            if work.apply and any(f.problem for f in diagnosis.files):
                repair.drop_dead(diagnosis)
        if work.apply:
            repair.finish(diagnosis)
    except Exception as error:  # noqa: BLE001 - reported in its row; the other tables must still be repaired
        row |= {"failed": True, "then": f"{type(error).__name__}: {error}. Then run the same command again"}
    yield row


def _does(loss: repair.Loss) -> str:
    if loss.everything:
        return "the folder goes aside, and the table is begun again"
    if loss.rolled_back:
        first, last = loss.rolled_back
        return f"back to version {first - 1}: commits {first} to {last} go aside"
    return "damaged files go aside, and the table does without" if not loss.is_none else "hint and checkpoint rebuilt"


def _rebuilt_elsewhere(table: Table, loss: repair.Loss) -> Row:
    """Losses of a derived table, and the command that rebuilds its rows."""
    from crypto_assets.orchestration.backfill import daily, from_log

    asset = "/".join(table.asset_key)
    days = sorted(loss.days | {hour[:10] for hour in loss.hours})
    if not days:
        lost = "rows of unknown days" if table.grain else "rows of the whole table"
        return {"lost": lost, "then": _by_hand(asset)}
    lost = f"rows of {', '.join(days)}"
    if asset in (*from_log(), *daily()):
        return {"lost": lost, "then": f"crypto-assets backfill {_span(days)}"}
    return {"lost": lost, "then": f"{_by_hand(asset)}, partitions {_span(days)}"}


def _span(days: Sequence[str]) -> str:
    return days[0] if len(days) == 1 else f"{days[0]}..{days[-1]}"


def _by_hand(asset: str) -> str:
    rebuilt = {
        "ml/promotions": "run the jobs train_anomaly and train_price, which decide again",
        "ops/alerts": "nothing: only the history of alerts is gone",
    }
    return rebuilt.get(asset, f"materialize {asset} in the UI")


def _reread(work: _Work, table: Table, diagnosis: Diagnosis, keys: Sequence[str]) -> Row:
    """Hours of a table of log records, read again from the topic."""
    if not keys:
        return {"lost": "nothing that is known", "then": "crypto-assets verify"}
    settings = work.settings
    work.stack.enter_context(running_broker(settings))
    topic = settings.prices_topic if table is RAW_PRICES else settings.polls_topic
    bounds = hours.bounds(settings, topic, [key_slice(key, "hour").start for key in keys], work.now)
    plans = rereading.plan(rereading.stored_ranges(diagnosis), keys, bounds)
    if work.apply:
        for todo in plans:
            _restore(work, table, diagnosis, todo, bounds[todo.key])
        log_files.move_aside(diagnosis.path, [f.file for f in diagnosis.files if f.problem])
    return _recovered(plans, bounds)


def _restore(work: _Work, table: Table, diagnosis: Diagnosis, todo: HourPlan, bounds: LogBounds) -> None:
    engine = SailEngine(work.settings.lake, lambda: client_config(work.settings))
    store = engine.store
    assert isinstance(store, DeltaRsStore)
    app_id = f"{APP_NAMES[table.full_name]}/{bounds.topic_id}/{todo.key}"
    maker = PriceRows(work.partitions_start) if table is RAW_PRICES else PollRows()
    rows, seq = rereading.hour_rows(
        table,
        diagnosis,
        todo,
        bounds,
        maker=maker,
        read_log=engine.read_log,
        first_seq=store.recorded(table.full_name, app_id) + 1,
        now=work.now,
    )
    if rows.num_rows or any(f.problem for f in diagnosis.files):
        store.restore(
            table.full_name,
            key_slice(todo.key, "hour"),
            rows,
            (app_id, seq),
            audit=rules.audit(table, [todo.key]),
            commit_metadata={"touched_hours": json.dumps(maker.touched(rows)), "repair": todo.key},
        )


def _recovered(plans: Sequence[HourPlan], bounds: Mapping[str, LogBounds]) -> Row:
    """Records of hours recoverable from the log, and those lost."""
    back = sum(piece.end - piece.start for todo in plans for piece in todo.reads)
    topics = ", ".join(sorted({bounds[todo.key].topic for todo in plans}))
    does = f"{', '.join(todo.key for todo in plans)}: {back:,} offsets are read again from topic {topics}"
    gone = [
        f"partition {piece.partition}: [{piece.start}, {piece.end}) of incarnation {topic_id}"
        for todo in plans
        for topic_id, piece in todo.gaps
    ]
    if not gone:
        return {"repair": does, "lost": "nothing", "then": "crypto-assets verify"}
    days = sorted({todo.key[:10] for todo in plans if todo.gaps})
    return {
        "repair": does,
        "lost": f"recorded as gaps, since the log no longer has them: {'; '.join(gone)}",
        "then": f"crypto-assets backfill {_span(days)} --from history",
    }
