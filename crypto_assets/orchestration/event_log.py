"""Dagster's SQLite event log with connections that stay open.

Dagster 1.13 opens an engine, a connection and a fresh SQL compiler for every statement it sends to SQLite; one check
event costs six of them (measured: 10 ms, of which 8 ms are opening, compiling and closing). This subclass keeps one
connection per file and process and stores the same data. It also remembers which materialization is the newest of a
partition: Dagster asks that twice for every check it stores (measured: 184 times, a tenth of a refresh of ten coins).
And it stores events in one transaction per file where Dagster has several at once: those planned for a run,
materializations of a range, and what a step reports (`together`). A run's file gets its tables in one transaction too.
Enabled by the `dagster.yaml` of a home; remove it once Dagster does these itself.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from threading import RLock, local
from typing import Any

from dagster import (
    AssetKey,
    AssetRecordsFilter,
    DagsterEventType,
    EventLogEntry,
    EventRecordsResult,
    StringSource,
)
from sqlalchemy import Connection, Engine, bindparam, create_engine, select
from sqlalchemy import event as listeners
from sqlalchemy.pool import QueuePool, StaticPool

from crypto_assets.dagster_private import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
    INDEX_SHARD_NAME,
    SQLITE_BUSY_TIMEOUT_SECONDS,
    AssetCheckExecutionRecordStatus,
    AssetCheckExecutionsTable,
    AssetKeyTable,
    ConfigurableClassData,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
)
from crypto_assets.settings import adopt_environment

KEPT_RUNS = 8
"""Run files with a kept connection; the index, which every event touches, comes on top."""
BATCHES = {"DAGSTER_EVENT_BATCH_SIZE": "1000"}
"""Without it Dagster hands over one at a time what it has at once; it reads this from the environment only."""
HELD = frozenset({DagsterEventType.ASSET_CHECK_EVALUATION, DagsterEventType.STEP_OUTPUT})
"""Events that wait for the end of a block, or for an event of another kind, which is stored after them."""
INDEXED = frozenset({*ASSET_EVENTS, *ASSET_CHECK_EVENTS, *EVENT_TYPE_TO_PIPELINE_RUN_STATUS})
"""Events that are stored in the index as well as in the file of their run."""

_Row = dict[str, Any]
_Stored = tuple[EventLogEntry, _Row, int]
"""An event, its row, and its id in the index."""
_BLOCK = local()
"""`held`: storages and events of the block that this thread is in."""


class KeptSqliteEventLogStorage(SqliteEventLogStorage):
    """Stores exactly what `SqliteEventLogStorage` stores, in the same files."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self._tables: set[str] = set()
        self._newest: dict[tuple[AssetKey, str], EventRecordsResult] = {}
        self._newest_at: tuple[int, Any] | None = None
        self._newest_lock = RLock()
        adopt_environment(BATCHES)
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> KeptSqliteEventLogStorage:
        """Build it from `dagster.yaml`; `dagster_home` is the folder of that file."""
        return cls(str(Path(config_value["dagster_home"]) / "history" / "runs"), inst_data)

    @classmethod
    def config_type(cls) -> Any:
        """Config schema in `dagster.yaml`."""
        return {"dagster_home": StringSource}

    def has_table(self, table_name: str) -> bool:
        """Return whether the index has a table; a positive answer is cached."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def fetch_materializations(
        self,
        records_filter: AssetKey | AssetRecordsFilter,
        limit: int,
        cursor: str | None = None,
        ascending: bool = False,
    ) -> EventRecordsResult:
        """Return materializations as Dagster does; the newest of one partition is read once until the index changes."""
        if not isinstance(records_filter, AssetRecordsFilter) or limit != 1 or cursor is not None or ascending:
            return super().fetch_materializations(records_filter, limit, cursor, ascending)
        partitions = records_filter.asset_partitions or []
        if len(partitions) != 1 or records_filter != AssetRecordsFilter(records_filter.asset_key, partitions):
            return super().fetch_materializations(records_filter, limit, cursor, ascending)
        key = (records_filter.asset_key, partitions[0])
        with self._newest_lock:
            self._forget_if_others_wrote()
            if key not in self._newest:
                self._newest[key] = super().fetch_materializations(records_filter, limit)
            return self._newest[key]

    def _forget_if_others_wrote(self) -> None:
        """Drop what is remembered if another connection committed (SQLite: `PRAGMA data_version`)."""
        with self.index_connection() as connection:
            at = id(connection.connection.dbapi_connection), connection.exec_driver_sql("PRAGMA data_version").scalar()
        if at != self._newest_at:
            self._newest.clear()
            self._newest_at = at

    def _forget(self) -> None:
        with self._newest_lock:
            self._newest.clear()

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event as Dagster does; within `together`, one of the `HELD` kinds later."""
        if event.run_id and getattr(_BLOCK, "held", None) is not None:
            _hold(self, [event])
            return
        super().store_event(event)
        if event.dagster_event is not None and event.dagster_event.is_step_materialization:
            self._forget()

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store what `store_event` stores for each, in one transaction per file and run."""
        if getattr(_BLOCK, "held", None) is not None:
            _hold(self, events)
            return
        for run_id in dict.fromkeys(event.run_id for event in events):
            mine = [event for event in events if event.run_id == run_id]
            if run_id and len(mine) > 1:
                self._store_at_once(run_id, mine)
            else:
                for event in mine:
                    self.store_event(event)

    def _store_at_once(self, run_id: str, events: Sequence[EventLogEntry]) -> None:
        rows = [self._event_to_row(event) for event in events]
        with self.run_connection(run_id) as connection:
            connection.execute(SqlEventLogStorageTable.insert(), rows)
        mirrored = [pair for pair in zip(events, rows, strict=True) if pair[0].dagster_event_type in INDEXED]
        if not mirrored:
            return
        with self.index_connection() as connection:
            connection.execute(SqlEventLogStorageTable.insert(), [row for _, row in mirrored])
            # The insert has locked the file, so that no other writer's ids lie between these.
            newest = connection.exec_driver_sql("SELECT last_insert_rowid()").scalar_one()
            ids = range(newest - len(mirrored) + 1, newest + 1)
            stored = [(event, row, id_) for (event, row), id_ in zip(mirrored, ids, strict=True)]
            self._index_assets(connection, [s for s in stored if s[0].dagster_event_type in ASSET_EVENTS])
            kinds = DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED, DagsterEventType.ASSET_CHECK_EVALUATION
            planned, made = ([s for s in stored if s[0].dagster_event_type == kind] for kind in kinds)
            if planned:
                connection.execute(AssetCheckExecutionsTable.insert(), [r for s in planned for r in _plans(*s)])
            if made:
                _update_checks(connection, run_id, [_execution(*s) for s in made])
        if any(event.get_dagster_event().is_step_materialization for event, *_ in stored):
            self._forget()

    def _index_assets(self, connection: Connection, stored: Sequence[_Stored]) -> None:
        """Record tags of events of assets, and each asset's newest event of a kind, as Dagster does one by one."""
        if not stored:
            return
        self._store_asset_event_tags(connection, [event for event, *_ in stored], [id_ for *_, id_ in stored])
        newest = {(row["asset_key"], event.dagster_event_type): (event, id_) for event, row, id_ in stored}
        for event, id_ in newest.values():
            self._store_asset_event(connection, event, id_)

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        """Return whether the index's table of assets has a column; a positive answer is cached."""
        name = f"{AssetKeyTable.name}.{column_name}"
        if name not in self._tables and super()._has_asset_key_col_on_connection(conn, column_name):
            self._tables.add(name)
        return name in self._tables

    def delete_events(self, run_id: str) -> None:
        """Remove the events of a run."""
        super().delete_events(run_id)
        self._forget()

    def wipe_asset(self, asset_key: AssetKey) -> None:
        """Remove the events of an asset."""
        super().wipe_asset(asset_key)
        self._forget()

    def _initdb(self, engine: Engine, for_index_shard: bool = False) -> None:
        """Create what Dagster creates, but the tables of a run's new file in one commit instead of twenty.

        Each commit waits for the disk, and to note the newest migration Dagster reads all of them (measured: 0.2 s for
        every run, 0.06 of it of the processor).
        """
        if not for_index_shard:
            with engine.connect() as connection:
                file: Any = connection.connection.dbapi_connection
                if not file.execute("PRAGMA schema_version").fetchone()[0]:
                    # An error means that another process is at it: Dagster waits for that one.
                    with suppress(sqlite3.OperationalError):
                        file.execute("PRAGMA journal_mode=WAL")
                        file.executescript(self._tables_as_sql)
                        return
                    file.rollback()
        super()._initdb(engine, for_index_shard)

    @cached_property
    def _tables_as_sql(self) -> str:
        """Dagster's tables with the revision of the newest migration, as a script of one transaction."""
        engine = create_engine("sqlite://", poolclass=StaticPool)
        super()._initdb(engine)
        try:
            with engine.connect() as connection:
                file: Any = connection.connection.dbapi_connection
                return "\n".join(file.iterdump())
        finally:
            engine.dispose()

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            engine = self._engine(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.connect() as connection, connection.begin():
                yield connection

    def _engine(self, shard: str) -> Engine:
        engine = self._engines.pop(shard, None)
        if engine is None:
            engine = create_engine(
                self.conn_string_for_shard(shard),
                poolclass=QueuePool,
                pool_size=1,
                connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
            )
            listeners.listen(engine, "connect", _commit_without_waiting)
        self._engines[shard] = engine
        kept = [name for name in self._engines if name != INDEX_SHARD_NAME]
        for name in kept[: max(0, len(kept) - KEPT_RUNS)]:
            self._engines.pop(name).dispose()
        return engine

    def wipe(self) -> None:
        """Remove all events, after closing connections to the files, which would otherwise write to unlinked ones."""
        self._close()
        super().wipe()
        self._forget()

    def dispose(self) -> None:
        """Close the kept connections."""
        self._close()
        super().dispose()

    def _close(self) -> None:
        with self._db_lock:
            while self._engines:
                self._engines.popitem()[1].dispose()


def _plans(event: EventLogEntry, row: _Row, event_id: int) -> list[_Row]:
    """Rows of the table of checks for a planned evaluation: one per partition."""
    assert event.dagster_event is not None
    planned: Any = event.dagster_event.event_specific_data
    keys = planned.partitions_subset.get_partition_keys() if planned.partitions_subset else [None]
    common = {
        "asset_key": planned.asset_key.to_string(),
        "check_name": planned.check_name,
        "run_id": row["run_id"],
        "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
        "evaluation_event": row["event"],
        "evaluation_event_timestamp": row["timestamp"],
        "evaluation_event_storage_id": event_id,
    }
    return [common | {"partition": key} for key in keys]


def _execution(event: EventLogEntry, row: _Row, event_id: int) -> _Row:
    """Row of the table of checks for an evaluation."""
    assert event.dagster_event is not None
    evaluation = event.dagster_event.asset_check_evaluation_data
    target = evaluation.target_materialization_data
    status = AssetCheckExecutionRecordStatus.SUCCEEDED if evaluation.passed else AssetCheckExecutionRecordStatus.FAILED
    return {
        "asset_key": evaluation.asset_key.to_string(),
        "check_name": evaluation.check_name,
        "partition": evaluation.partition,
        "run_id": row["run_id"],
        "execution_status": status.value,
        "evaluation_event": row["event"],
        "evaluation_event_timestamp": row["timestamp"],
        "evaluation_event_storage_id": event_id,
        "materialization_event_storage_id": target.storage_id if target else None,
    }


def _update_checks(connection: Connection, run_id: str, made: Sequence[_Row]) -> None:
    """Replace a run's planned evaluations by those that were made; insert those that were not planned."""
    checks, place = AssetCheckExecutionsTable, ("asset_key", "check_name", "partition")
    columns = [checks.c.id, *(checks.c[name] for name in place)]
    found = connection.execute(select(*columns).where(checks.c.run_id == run_id))
    planned = {tuple(row[1:]): row[0] for row in found}
    new, known = [], []
    for row in made:
        id_ = planned.get(tuple(row[name] for name in place))
        if id_ is None:
            new.append(row)
        else:
            known.append(row | {"planned_id": id_})
    if known:
        values = {name: bindparam(name) for name in made[0]}
        connection.execute(checks.update().where(checks.c.id == bindparam("planned_id")).values(values), known)
    if new:
        connection.execute(checks.insert(), new)


@contextmanager
def together() -> Iterator[None]:
    """Block whose events are stored in few transactions, in order and at the latest when it ends, by an error too.

    It concerns the events of runs that this thread gives to a storage of this class; others store every event at once.
    """
    _BLOCK.held = list[tuple[KeptSqliteEventLogStorage, EventLogEntry]]()
    try:
        yield
    finally:
        _release(_BLOCK.__dict__.pop("held"))


def _hold(storage: KeptSqliteEventLogStorage, events: Sequence[EventLogEntry]) -> None:
    """Keep events for the end of the block, unless one is of a kind that does not wait."""
    _BLOCK.held += [(storage, event) for event in events]
    if any(event.dagster_event_type not in HELD for event in events):
        held, _BLOCK.held = _BLOCK.held, None
        try:
            _release(held)
        finally:
            _BLOCK.held = []


def _release(held: Sequence[tuple[KeptSqliteEventLogStorage, EventLogEntry]]) -> None:
    for storage in dict.fromkeys(storage for storage, _ in held):
        storage.store_event_batch([event for s, event in held if s is storage])


def _commit_without_waiting(connection: Any, _record: Any) -> None:
    """In WAL mode NORMAL keeps the file consistent after a crash; only a power cut may lose the newest events."""
    connection.execute("PRAGMA synchronous=NORMAL")
