"""Dagster's SQLite event log with connections that stay open.

Dagster 1.13 opens an engine, a connection and a fresh SQL compiler for every statement it sends to SQLite; one check
event costs six of them (measured: 10 ms, of which 8 ms are opening, compiling and closing). This subclass keeps one
connection per file and process and stores the same data. Enabled by the `dagster.yaml` of a home; remove it once
Dagster pools these connections itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import StringSource
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from crypto_assets.dagster_private import (
    INDEX_SHARD_NAME,
    SQLITE_BUSY_TIMEOUT_SECONDS,
    ConfigurableClassData,
    SqliteEventLogStorage,
)

KEPT_RUNS = 8
"""Run files with a kept connection; the index, which every event touches, comes on top."""


class KeptSqliteEventLogStorage(SqliteEventLogStorage):
    """Stores exactly what `SqliteEventLogStorage` stores, in the same files."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self._tables: set[str] = set()
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
            event.listen(engine, "connect", _commit_without_waiting)
        self._engines[shard] = engine
        kept = [name for name in self._engines if name != INDEX_SHARD_NAME]
        for name in kept[: max(0, len(kept) - KEPT_RUNS)]:
            self._engines.pop(name).dispose()
        return engine

    def wipe(self) -> None:
        """Remove all events, after closing connections to the files, which would otherwise write to unlinked ones."""
        self._close()
        super().wipe()

    def dispose(self) -> None:
        """Close the kept connections."""
        self._close()
        super().dispose()

    def _close(self) -> None:
        with self._db_lock:
            while self._engines:
                self._engines.popitem()[1].dispose()


def _commit_without_waiting(connection: Any, _record: Any) -> None:
    """In WAL mode NORMAL keeps the file consistent after a crash; only a power cut may lose the newest events."""
    connection.execute("PRAGMA synchronous=NORMAL")
