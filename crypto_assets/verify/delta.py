"""Reads Delta tables without any Delta library: the log's JSON and checkpoints, and DuckDB over the listed files.

Belongs here: a small separate reader for the audit, and the views that the laws query. Does not belong here: the laws
(`verify.laws`), or `crypto_assets.storage`, whose work the audit checks.

The format is that of the Delta transaction log protocol (https://github.com/delta-io/delta/blob/master/PROTOCOL.md);
unknown features are refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from crypto_assets.errors import ReportedError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_COMMIT = re.compile(r"^(\d{20})\.json$")
_CHECKPOINT = re.compile(r"^(\d{20})\.checkpoint(?:\.(\d{10})\.(\d{10}))?\.parquet$")
_GLOB = re.compile(r"[*?\[]")
"""Characters that DuckDB treats as a pattern in file names; brackets escape them."""
_BY_CATALOG = {"catalogManaged", "catalogOwned-preview"}
_DECIMAL = re.compile(r"decimal\((\d+),\s*(\d+)\)")
_TYPES = {
    "string": "VARCHAR",
    "long": "BIGINT",
    "integer": "INTEGER",
    "short": "SMALLINT",
    "byte": "TINYINT",
    "double": "DOUBLE",
    "float": "FLOAT",
    "boolean": "BOOLEAN",
    "binary": "BLOB",
    "date": "DATE",
    "timestamp": "TIMESTAMPTZ",
    "timestamp_ntz": "TIMESTAMP",
}


@dataclass(frozen=True)
class Commit:
    """A retained commit.

    Args:
        at: Commit time (UTC) by the writer's clock; None if not recorded.
        changes_rows: Whether it adds or removes rows, rather than rewriting files or changing the table.
        info: The writer's commit info, with the entries of a JSON `userMetadata`.
    """

    at: datetime | None
    changes_rows: bool
    info: Mapping[str, Any]


class UnreadableLogError(ReportedError):
    """A Delta log is incomplete or uses an unknown feature; the message names both."""


class CatalogManagedError(UnreadableLogError):
    """A catalog keeps the newest commits of a table, so its folder is incomplete; the message names the fix."""


@dataclass
class Snapshot:
    """State of a table according to its log.

    Attributes:
        version: Newest version.
        files: Data files by path relative to the table's folder, with their partition values as text.
        transactions: Recorded version by app id.
        columns: Delta types by column name, in order.
        partition_columns: Columns whose values are in the log, not in the files.
        configuration: Table properties.
        sizes: Bytes by path of a data file, and rows if the log has them.
        commits: Retained commits by version; those before the oldest JSON file are unknown.
    """

    version: int = -1
    files: dict[str, Mapping[str, str | None]] = field(default_factory=dict)
    transactions: dict[str, int] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    partition_columns: list[str] = field(default_factory=list)
    configuration: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    commits: dict[int, Commit] = field(default_factory=dict)

    @property
    def written_at(self) -> datetime | None:
        """Time of the last row-changing commit (UTC); None without a retained one."""
        newest = max((v for v, c in self.commits.items() if c.changes_rows), default=None)
        return None if newest is None else self.commits[newest].at

    def apply(self, action: Mapping[str, Any]) -> None:
        """Apply one action of the log.

        Raises:
            UnreadableLogError: The action uses deletion vectors or column mapping.
        """
        if add := action.get("add"):
            if add.get("deletionVector"):
                raise UnreadableLogError("deletion vectors, which the audit cannot read")
            path = unquote(add["path"])
            self.files[path] = dict(add.get("partitionValues") or {})
            self.sizes[path] = (int(add["size"]), _rows_of(add.get("stats")))
        elif remove := action.get("remove"):
            self.files.pop(unquote(remove["path"]), None)
        elif txn := action.get("txn"):
            self.transactions[txn["appId"]] = int(txn["version"])
        elif metadata := action.get("metaData"):
            self.configuration = dict(metadata.get("configuration") or {})
            if self.configuration.get("delta.columnMapping.mode", "none") != "none":
                raise UnreadableLogError("column mapping, which the audit cannot read")
            self.columns = {f["name"]: f["type"] for f in json.loads(metadata["schemaString"])["fields"]}
            self.partition_columns = list(metadata["partitionColumns"])


def read_snapshot(folder: Path) -> Snapshot | None:
    """Newest state of a table, from its newest complete checkpoint and every commit after it.

    The hint to the newest checkpoint is not used, and an unreadable checkpoint counts as absent: the commits before it
    hold the same, as long as they are kept.

    Args:
        folder: The table's folder.

    Returns:
        The state, or None when there is no table.

    Raises:
        CatalogManagedError: The newest commits are not in the folder.
        UnreadableLogError: A commit is missing or unreadable, or a feature is unknown; the message names the table.
    """
    log = folder / "_delta_log"
    if not log.is_dir():
        return None
    names = sorted(p.name for p in log.iterdir())
    commits = {int(m[1]): log / m[0] for name in names if (m := _COMMIT.match(name))}
    checkpoints = _complete_checkpoints(log, names)
    if not commits and not checkpoints:
        return None
    _refuse_catalog_managed(folder, commits, checkpoints)
    snapshot = Snapshot()
    try:
        checkpoint, actions_before = _newest_readable(checkpoints)
        for action in actions_before:
            snapshot.apply(action)
        newest = max([*commits, checkpoint])
        missing = [v for v in range(checkpoint + 1, newest + 1) if v not in commits]
        if missing:
            raise UnreadableLogError(f"no commit {missing[0]} between checkpoint {checkpoint} and version {newest}")
        for version in sorted(commits):
            try:
                text = commits[version].read_text(encoding="utf-8")
                actions = [json.loads(line) for line in text.splitlines() if line.strip()]
            except ValueError:
                if version > checkpoint:
                    raise
                continue  # the checkpoint includes it
            if not actions and version > checkpoint:
                raise UnreadableLogError(f"commit {version} is empty")
            snapshot.commits[version] = _commit(actions)
            for action in actions if version > checkpoint else ():
                snapshot.apply(action)
        snapshot.version = newest
    except (UnreadableLogError, ValueError, KeyError) as error:
        raise UnreadableLogError(f"{folder}: {error}") from error
    return snapshot


def _refuse_catalog_managed(
    folder: Path, commits: Mapping[int, Path], checkpoints: Mapping[int, Sequence[Path]]
) -> None:
    """Refuse a table whose newest protocol leaves its commits to a catalog.

    Raises:
        CatalogManagedError: A catalog keeps the commits.
    """
    protocol: Mapping[str, Any] = {}
    for version in sorted(commits, reverse=True):
        lines = commits[version].read_bytes().splitlines()
        with suppress(ValueError):  # a truncated commit is reported by the reader
            found = (json.loads(line).get("protocol") for line in lines if b'"protocol"' in line)
            protocol = next(filter(None, found), {})
        if protocol:
            break
    else:
        _, actions = _newest_readable(checkpoints)
        protocol = next((a["protocol"] for a in actions if "protocol" in a), {})
    features = {*(protocol.get("readerFeatures") or ()), *(protocol.get("writerFeatures") or ())}
    if feature := next(iter(sorted(features & _BY_CATALOG)), None):
        raise CatalogManagedError(
            f"{folder}: a catalog keeps the newest commits (table feature {feature}), so the folder does not show what "
            f"the table holds. Audit a copy made through the catalog, or let its owner run: ALTER TABLE "
            f"{folder.parent.name}.{folder.name} DROP FEATURE {feature}"
        )


def _commit(actions: Sequence[Mapping[str, Any]]) -> Commit:
    info: dict[str, Any] = {}
    changed = False
    for action in actions:
        file = action.get("add") or action.get("remove")
        changed |= bool(file and file.get("dataChange"))
        info |= action.get("commitInfo") or {}
    stamp = info.get("timestamp")
    at = datetime.fromtimestamp(stamp / 1000, UTC) if isinstance(stamp, (int, float)) else None
    try:
        extra = json.loads(info.get("userMetadata") or "{}")
    except ValueError:
        extra = {}
    return Commit(at, changed, info | (extra if isinstance(extra, dict) else {}))


def _rows_of(stats: str | None) -> int | None:
    """Rows of a file by its statistics; None without any."""
    try:
        rows = json.loads(stats or "{}").get("numRecords")
    except ValueError:
        return None
    return int(rows) if rows is not None else None


def create_view(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    folder: Path,
    snapshot: Snapshot,
    unknown: Mapping[str, str] | None = None,
) -> None:
    """Make a table visible to DuckDB as `name`, with the log's types and partition values.

    Args:
        connection: Session in UTC.
        name: Name of the view; a helper table `<name>_files` is created beside it.
        folder: The table's folder.
        snapshot: Its state; files that are missing on disk are left out.
        unknown: DuckDB types of further columns, null in every row.
    """
    import duckdb

    present = [p for p in snapshot.files if (folder / p).is_file()]
    types = {column: duckdb_type(spec) for column, spec in snapshot.columns.items()}
    nulls = [f"NULL::{type_} AS {quoted(column)}" for column, type_ in (unknown or {}).items()]
    if not present:
        nothing = ", ".join([*(f"NULL::{type_} AS {quoted(column)}" for column, type_ in types.items()), *nulls])
        connection.execute(f"CREATE OR REPLACE VIEW {quoted(name)} AS SELECT {nothing} WHERE false")
        return
    parted = snapshot.partition_columns
    columns = ", ".join(["path VARCHAR", *(f"{quoted(f'p_{c}')} VARCHAR" for c in parted)])
    files_table = quoted(f"{name}_files")
    connection.execute(f"CREATE OR REPLACE TABLE {files_table} ({columns})")
    marks = ", ".join(["?"] * (1 + len(parted)))
    connection.executemany(
        f"INSERT INTO {files_table} VALUES ({marks})",  # noqa: S608
        [[str(folder / p), *(snapshot.files[p].get(c) for c in parted)] for p in present],
    )
    listed = "[" + ", ".join(_literal(_GLOB.sub(r"[\g<0>]", str(folder / p))) for p in present) + "]"
    source = f"read_parquet({listed}, filename = 'audited_file', union_by_name = true, hive_partitioning = false)"

    def view(held: set[str]) -> str:
        selected = [
            _stored(column, type_, column in parted)
            if column in held or column in parted
            else f"NULL::{type_} AS {quoted(column)}"
            for column, type_ in types.items()
        ]
        return (
            f"CREATE OR REPLACE VIEW {quoted(name)} AS SELECT {', '.join([*selected, *nulls])} "  # noqa: S608
            f"FROM {source} AS data JOIN {files_table} AS part ON data.audited_file = part.path"
        )

    try:
        connection.execute(view(set(types)))
    except duckdb.BinderException:  # a column added since the table's newest file was written
        described = connection.execute(f"SELECT * FROM {source} LIMIT 0").description or ()  # noqa: S608
        connection.execute(view({column[0] for column in described}))


def duckdb_type(delta: Any) -> str:
    """DuckDB type of a Delta type (text, or a nested type's object).

    Raises:
        UnreadableLogError: The type is not used by the product's tables.
    """
    if isinstance(delta, Mapping) and delta.get("type") == "array":
        return f"{duckdb_type(delta['elementType'])}[]"
    if isinstance(delta, str) and (match := _DECIMAL.fullmatch(delta)):
        return f"DECIMAL({match[1]},{match[2]})"
    if not isinstance(delta, str) or delta not in _TYPES:
        raise UnreadableLogError(f"column type {delta!r}, which the audit does not know")
    return _TYPES[delta]


def _stored(column: str, type_: str, parted: bool) -> str:
    source = f"part.{quoted(f'p_{column}')}" if parted else f"data.{quoted(column)}"
    if parted and type_ == "TIMESTAMPTZ":
        # Partition values have no zone, or end in Z; both are UTC.
        source = f"replace(replace({source}, 'T', ' '), 'Z', '')"
    return f"CAST({source} AS {type_}) AS {quoted(column)}"


def _complete_checkpoints(log: Path, names: Iterable[str]) -> dict[int, list[Path]]:
    """Files by version of the complete checkpoints."""
    found: dict[int, list[tuple[int, Path]]] = {}
    for name in names:
        if match := _CHECKPOINT.match(name):
            found.setdefault(int(match[1]), []).append((int(match[3] or 1), log / name))
    return {v: [p for _, p in parts] for v, parts in found.items() if len(parts) == parts[0][0]}


def _newest_readable(checkpoints: Mapping[int, Sequence[Path]]) -> tuple[int, list[Mapping[str, Any]]]:
    """Version and actions of the newest readable checkpoint, else (-1, nothing)."""
    import pyarrow as pa

    for version in sorted(checkpoints, reverse=True):
        try:
            return version, [action for part in checkpoints[version] for action in _checkpoint_actions(part)]
        except (OSError, pa.ArrowException):
            continue
    return -1, []


def _checkpoint_actions(part: Path) -> Iterable[Mapping[str, Any]]:
    import pyarrow.parquet as pq

    known = [n for n in ("add", "txn", "metaData", "protocol") if n in pq.read_schema(part).names]
    for batch in pq.ParquetFile(part).iter_batches(columns=known):
        for row in batch.to_pylist(maps_as_pydicts="strict"):
            yield {name: value for name, value in row.items() if value is not None}


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def tables_of(lake: Path) -> list[tuple[str, Path]]:
    """Tables below a lake folder as (`schema.table`, folder), by name."""
    return sorted(
        (f"{p.parent.parent.name}.{p.parent.name}", p.parent) for p in lake.glob("*/*/_delta_log") if p.is_dir()
    )


def fresh_connection() -> duckdb.DuckDBPyConnection:
    """A separate in-memory DuckDB for the audit, in UTC and without progress bar."""
    import duckdb

    opened = duckdb.connect(":memory:")
    opened.execute("SET TimeZone = 'UTC'")
    return opened


def insert(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Sequence[Any]], types: Mapping[str, pa.DataType]
) -> None:
    """Append rows to a table of the audit, through Arrow.

    Args:
        connection: Session.
        table: Its name.
        rows: Values in the order of `types`.
        types: Arrow types by column; the table has the same columns.
    """
    import pyarrow as pa

    columns = list(zip(*rows, strict=True)) or [()] * len(types)
    chunk = pa.table({n: pa.array(c, t) for (n, t), c in zip(types.items(), columns, strict=True)})
    connection.register("audit_chunk", chunk)
    connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM audit_chunk")  # noqa: S608
    connection.unregister("audit_chunk")
