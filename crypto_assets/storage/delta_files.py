"""Reading local Delta tables with delta-rs: handles, SQL on a pinned snapshot, the commit log.

Belongs here: everything that only reads. Does not belong here: writing (`storage.delta_rs`), housekeeping
(`storage.maintenance`).

SQL goes through `deltalake.QueryBuilder`: `to_pyarrow_table` and `to_pyarrow_dataset` abort the process at exit.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from crypto_assets.contracts.arrow import ContractViolation, arrow_type
from crypto_assets.contracts.model import Column, Table
from crypto_assets.storage import damage, log_files
from crypto_assets.storage.base import Commit, StorageError

if TYPE_CHECKING:
    import pyarrow as pa
    from arro3.core import RecordBatchReader
    from arro3.core import Table as ListedFiles
    from deltalake import DeltaTable

T = TypeVar("T")

ONE_CALL = threading.RLock()
"""Held around every call into delta-rs: one at a time in a process.

A write fed by a Python stream occupies delta-rs's worker threads until it gets the interpreter lock; a query of another
thread holds that lock while it waits for a worker (deltalake 1.6: three writing threads stopped for ever within
seconds). Processes do not disturb one another, and threads of one process would only take turns anyway."""

HISTORY_CLEANED = "HISTORY CLEANED"
"""Operation of the entry by which `read_commits` reports that older commits are no longer in the log."""


def table_path(lake: str, table: str) -> str:
    """Folder of a table."""
    schema, name = table.split(".")
    return f"{lake}/{schema}/{name}"


def open_table(path: str, version: int | None = None) -> DeltaTable | None:
    """A handle on the current (or given) version; None when the table does not exist.

    Raises:
        StorageError: The table's files are damaged in a way that the log does not make up for, or cannot be read.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    with ONE_CALL:
        if not exists(path):
            return None
        log_files.make_readable(path)
        try:
            return DeltaTable(path, version=version)
        except TableNotFoundError:
            return None
        except Exception as error:
            raise damage.explained(error, [path]) or error from error


def exists(path: str) -> bool:
    """True if a folder contains a table.

    Raises:
        StorageError: Its log is lost and data files are there: a table created over them would hide the loss.
    """
    from deltalake import DeltaTable

    try:
        found = DeltaTable.is_deltatable(path)
    except Exception as error:
        raise damage.explained(error, [path]) or error from error
    if not found and (lost := damage.lost_log(Path(path))):
        raise StorageError(log_files.refusal(lost.table, [lost]))
    return found


def folder_of(handle: DeltaTable) -> Path:
    """Folder of an open local table."""
    from urllib.request import url2pathname  # imports an HTTP client

    return Path(url2pathname(urlsplit(handle.table_uri).path))


def quote(name: str) -> str:
    """A column name as an SQL identifier (`offset` and `partition` are reserved words)."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def query(handle: DeltaTable, sql: str) -> pa.Table:
    """Result of SQL over exactly this handle's snapshot, which the SQL calls `t`. Text comes as plain strings."""
    import pyarrow as pa

    # `pa.table` would ask whether the object is a pandas frame, and import pandas for that.
    found = _executed(handle, sql, lambda stream: pa.RecordBatchReader.from_stream(stream).read_all())
    plain = [
        pa.field(f.name, {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(f.type, f.type), f.nullable)
        for f in found.schema
    ]
    return found.cast(pa.schema(plain))


def records(handle: DeltaTable, table: Table, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """All rows of exactly this handle's snapshot as dictionaries, times with zone UTC: of small tables, for commands.

    Without pyarrow, which takes a command longer to import than reading the rows.

    Args:
        handle: The open table.
        table: Its contract.
        columns: These columns; None = all.
    """
    names = columns or table.column_names
    sql = f"SELECT {selection(handle, table, names)} FROM t"  # noqa: S608 - names of the contract
    found = _executed(handle, sql, lambda stream: stream.read_all())
    return [dict(zip(names, row, strict=True)) for row in zip(*(c.to_pylist() for c in found.columns), strict=True)]


def selection(handle: DeltaTable, table: Table, columns: Sequence[str]) -> str:
    """Columns of a contract as an SQL list, null where the stored table does not have them yet."""
    absent = {c.name for c in added_later(handle, table)}
    return ", ".join(f"NULL AS {quote(n)}" if n in absent else quote(n) for n in columns)


def _executed(handle: DeltaTable, sql: str, read: Callable[[RecordBatchReader], T]) -> T:
    from deltalake import QueryBuilder

    with ONE_CALL:
        try:
            return read(QueryBuilder().register("t", handle).execute(sql))
        except Exception as error:
            raise damage.explained(error, [folder_of(handle)]) or error from error


def added_later(handle: DeltaTable, table: Table) -> list[Column]:
    """Columns that the contract has and the stored table does not, where null is allowed: all rows have null there."""
    stored = {field.name for field in handle.schema().fields}
    return [c for c in table.columns if c.nullable and c.name not in stored]


def listed_files(handle: DeltaTable) -> ListedFiles:
    """The data files of a version as its log lists them: path, size_bytes, partition values, statistics.

    For commands: pyarrow is not imported.
    """
    with ONE_CALL:
        return handle.get_add_actions(flatten=True)


def add_actions(handle: DeltaTable) -> pa.Table:
    """The same for pyarrow."""
    import pyarrow as pa

    return pa.RecordBatchReader.from_stream(listed_files(handle)).read_all()


def slices_present(handle: DeltaTable, table: Table) -> list[datetime]:
    """Values of the time column, sorted, of a table that is partitioned by it (from the log alone)."""
    actions = add_actions(handle)
    return sorted(actions.column(f"partition.{table.time_column}").unique().to_pylist())


def rows_by_partition(handle: DeltaTable, table: Table) -> dict[Any, int]:
    """Rows by value of the first partition column (from the log alone); empty without one."""
    if not table.partition_by:
        return {}
    name = f"partition.{table.partition_by[0]}"
    found = add_actions(handle).select([name, "num_records"]).group_by(name).aggregate([("num_records", "sum")])
    return {r[name]: r["num_records_sum"] or 0 for r in found.to_pylist()}


# --- the commit log -----------------------------------------------------------------------------------------------


def read_commits(path: str, version: int, limit: int) -> list[Commit]:
    """Commits after a version, oldest first, at most `limit`, from the table's log files.

    Raises:
        StorageError: One of them is damaged, or a catalog keeps the newest.
    """
    log = Path(path) / "_delta_log"
    log_files.refuse_staged_commits(path)
    versions = sorted(int(f.stem) for f in log.glob("*.json") if f.stem.isdigit() and int(f.stem) > version)
    commits: list[Commit] = []
    for number in versions[:limit]:
        try:
            text = (log / f"{number:020d}.json").read_text()
        except FileNotFoundError:  # cleaned up while being read: the next call reports it
            break
        try:
            commits.append(_commit(number, text))
        except ValueError as error:
            bad = log_files.Damage(log_files.table_of(path), f"_delta_log/{number:020d}.json", str(error), "commit")
            raise StorageError(log_files.refusal(bad.table, [bad])) from error
    return commits


def with_missing(
    commits: list[Commit], version: int, limit: int, cleaned: Callable[[], dict[str, str]]
) -> list[Commit]:
    """Commits after a version; where the first of them are gone, one entry whose operation is `HISTORY_CLEANED` leads.

    Its version is the last missing one, its metadata has `missing_from` and `missing_to` and what `cleaned()` adds.
    """
    if not commits or commits[0].version == version + 1:
        return commits
    last = commits[0].version - 1
    missing = {"missing_from": str(version + 1), "missing_to": str(last)}
    head = Commit(last, commits[0].at, HISTORY_CLEANED, missing | cleaned())
    return [head, *commits[: max(0, limit - 1)]]


def latest_version(path: str) -> int | None:
    """Newest version in a table's log; None when there is none."""
    log = Path(path) / "_delta_log"
    return max((int(f.stem) for f in log.glob("*.json") if f.stem.isdigit()), default=None)


def commit_state(path: str, version: int) -> tuple[int, int, int] | None:
    """Version, inode and time of the file of a table's newest commit; None if that is another version or not a file.

    Equal states are the same commit, also if the table was deleted and made again in between.
    """
    log = Path(path) / "_delta_log"
    try:
        found = (log / f"{version:020}.json").stat()
    except OSError:
        return None
    return None if (log / f"{version + 1:020}.json").exists() else (version, found.st_ino, found.st_mtime_ns)


def version_of(path: str, mark: str, after: int) -> int | None:
    """Version of the newest commit after a version whose metadata holds a mark; None without one."""
    commits = read_commits(path, after, 1_000_000)
    return next((c.version for c in reversed(commits) if mark in c.metadata.values()), None)


_STANDARD = {
    "timestamp", "operation", "operationParameters", "operationMetrics", "engineInfo", "clientVersion", "readVersion",
    "isolationLevel", "isBlindAppend", "userId", "userName", "txnId", "inCommitTimestamp", "tags", "userMetadata",
}  # fmt: skip


def _commit(version: int, text: str) -> Commit:
    """One commit.

    Raises:
        ValueError: It is damaged.
    """
    if not text.strip():
        raise ValueError("is empty")
    info: dict[str, Any] = {}
    for line in text.splitlines():
        if '"commitInfo"' in line:
            try:
                info = json.loads(line).get("commitInfo", info)
            except json.JSONDecodeError:
                raise ValueError("is cut or no JSON") from None
    at = datetime.fromtimestamp(info.get("timestamp", 0) / 1000, UTC)
    metadata = {k: v if isinstance(v, str) else json.dumps(v) for k, v in info.items() if k not in _STANDARD}
    return Commit(version, at, str(info.get("operation", "")), metadata | user_metadata(info.get("userMetadata")))


def user_metadata(text: str | None) -> dict[str, str]:
    """Metadata of a Spark commit, a single text, which is JSON if we wrote it."""
    try:
        found = json.loads(text or "{}")
    except json.JSONDecodeError:
        return {}
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in found.items()} if isinstance(found, dict) else {}


def refuse_other_columns(stored: pa.Schema, table: Table) -> None:
    """Refuse a stored table whose columns differ from the contract's.

    Raises:
        ContractViolation: Lists every difference (names, types, nullability).
    """
    have = {f.name: f for f in stored}
    problems = [f"column {c.name} is not stored" for c in table.columns if c.name not in have]
    problems += [f"stored column {name} is not in the contract" for name in have if name not in table.column_names]
    for column in table.columns:
        found = have.get(column.name)
        if found is None:
            continue
        if _plain(found.type) != _plain(arrow_type(column.type)):
            problems.append(f"column {column.name} is stored as {found.type}, the contract says {column.type}")
        elif found.nullable and not column.nullable:
            problems.append(f"column {column.name} is stored as nullable, the contract allows no null")
    if problems:
        raise ContractViolation(table.full_name, problems)


def _plain(type_: pa.DataType) -> str:
    from pyarrow import types as t

    if t.is_list(type_) or t.is_large_list(type_) or t.is_list_view(type_):
        return f"list<{_plain(type_.value_type)}>"  # type: ignore[attr-defined]
    return str(type_).replace("_view", "").replace("large_", "")
