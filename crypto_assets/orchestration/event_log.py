"""Dagster's SQLite event log with connections that stay open.

Dagster 1.13 opens an engine, a connection and a fresh SQL compiler for every statement it sends to SQLite; one check
event costs six of them (measured: 10 ms, of which 8 ms are opening, compiling and closing). This subclass keeps one
connection per file and process and stores the same data. It also remembers which materialization is the newest of a
partition: Dagster asks that twice for every check it stores (measured: 184 times, a tenth of a refresh of ten coins).
And a run over many partitions can store its evaluations in one go (`together`). Enabled by the `dagster.yaml` of a
home; remove it once Dagster does these itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
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
from sqlalchemy.pool import QueuePool

from crypto_assets.dagster_private import (
    INDEX_SHARD_NAME,
    SQLITE_BUSY_TIMEOUT_SECONDS,
    AssetCheckExecutionRecordStatus,
    AssetCheckExecutionsTable,
    ConfigurableClassData,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
)

KEPT_RUNS = 8
"""Run files with a kept connection; the index, which every event touches, comes on top."""

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

    def store_evaluations(self, run_id: str, events: list[EventLogEntry]) -> None:
        """Store what `store_event` stores for each, in one transaction per file."""
        checks, rows = AssetCheckExecutionsTable, [self._event_to_row(event) for event in events]
        executions = [_execution(event, row) for event, row in zip(events, rows, strict=True)]
        place = ("asset_key", "check_name", "partition")
        with self.run_connection(run_id) as connection:
            connection.execute(SqlEventLogStorageTable.insert(), rows)
        with self.index_connection() as connection:
            connection.execute(SqlEventLogStorageTable.insert(), rows)
            # The insert has locked the file, so that no other writer's ids lie between these.
            newest = connection.exec_driver_sql("SELECT last_insert_rowid()").scalar_one()
            columns = [checks.c.id, *(checks.c[name] for name in place)]
            found = connection.execute(select(*columns).where(checks.c.run_id == run_id))
            planned = {tuple(row[1:]): row[0] for row in found}
            new, known = [], []
            for row, event_id in zip(executions, range(newest - len(rows) + 1, newest + 1), strict=True):
                row["evaluation_event_storage_id"] = event_id
                id_ = planned.get(tuple(row[name] for name in place))
                if id_ is None:
                    new.append(row)
                else:
                    known.append(row | {"planned_id": id_})
            if known:
                values = {name: bindparam(name) for name in executions[0]}
                connection.execute(checks.update().where(checks.c.id == bindparam("planned_id")).values(values), known)
            if new:
                connection.execute(checks.insert(), new)

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event as Dagster does; within `together`, an evaluation of a partition later."""
        held = getattr(_BLOCK, "held", None)
        if held is not None and event.run_id and event.dagster_event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
            held.append((self, event))
            return
        super().store_event(event)
        if event.dagster_event is not None and event.dagster_event.is_step_materialization:
            self._forget()

    def delete_events(self, run_id: str) -> None:
        """Remove the events of a run."""
        super().delete_events(run_id)
        self._forget()

    def wipe_asset(self, asset_key: AssetKey) -> None:
        """Remove the events of an asset."""
        super().wipe_asset(asset_key)
        self._forget()

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


def _execution(event: EventLogEntry, row: dict[str, Any]) -> dict[str, Any]:
    """Row of the table of checks for an evaluation, but the id of its event."""
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
        "materialization_event_storage_id": target.storage_id if target else None,
    }


@contextmanager
def together() -> Iterator[None]:
    """Block whose check evaluations are stored when it ends, also by an error; other events at once.

    It concerns the events that this thread gives to a storage of this class; others store every event at once.
    """
    held = _BLOCK.held = list[tuple[KeptSqliteEventLogStorage, EventLogEntry]]()
    try:
        yield
    finally:
        del _BLOCK.held
        for storage, run_id in dict.fromkeys((storage, event.run_id) for storage, event in held):
            storage.store_evaluations(run_id, [e for s, e in held if s is storage and e.run_id == run_id])


def _commit_without_waiting(connection: Any, _record: Any) -> None:
    """In WAL mode NORMAL keeps the file consistent after a crash; only a power cut may lose the newest events."""
    connection.execute("PRAGMA synchronous=NORMAL")
