"""Read-only SQL over a home's tables: DuckDB with one view per table, pinned to the versions at opening.

Belongs here: `Lake`, what user SQL may do, errors of queries. Does not belong here: queries (`serving.queries`),
writing, tables in a workspace.

Two barriers keep SQL within the lake. It is parsed before it runs: one SELECT, over tables of the contracts and the
functions of `TABLE_FUNCTIONS`. And DuckDB's access to anything but the lake's folder is disabled and its configuration
locked. DuckDB reads the files that Delta's log lists: Arrow datasets would import pandas, which takes longer than most
queries.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from crypto_assets import paths
from crypto_assets.contracts.tables import LATEST_PRICES, TABLES
from crypto_assets.errors import FAILED
from crypto_assets.home import existing_home
from crypto_assets.serving.query import MARKER, Query, QueryError, filled
from crypto_assets.source_facts import SourceFacts, facts_of
from crypto_assets.storage import damage
from crypto_assets.storage import delta_files as files

if TYPE_CHECKING:
    import duckdb

    from crypto_assets.contracts.model import Table
    from crypto_assets.settings import Settings

MEMORY_LIMIT = "1GB"
THREADS = 2
TIMEOUT_S = 30.0
TABLE_FUNCTIONS = frozenset({"unnest", "range", "generate_series"})
"""Functions that user SQL may select from; all others reach files, settings or DuckDB's own state."""
REFUSED_FUNCTIONS = frozenset(
    {"current_setting", "getenv", "getvariable", "nextval", "setseed", "sleep_ms", "write_log"}
)
"""Scalar functions with side effects, or that read settings."""

_CONFIG: dict[str, Any] = {
    "threads": THREADS,
    "temp_directory": "",
    "python_enable_replacements": "false",  # SQL would see Python's variables
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
}


class NoAnswer(QueryError):
    """A query ran into its time or memory limit."""

    exit_code = FAILED


@dataclass(frozen=True)
class Rows:
    """Rows of a query, made by DuckDB itself: Arrow would take a command longer to import than most queries take.

    Args:
        columns: Names, in order.
        types: DuckDB's types of these.
        values: Times in UTC, money as decimals, intervals as text.
    """

    columns: Sequence[str]
    types: Sequence[str]
    values: Sequence[tuple[Any, ...]]

    def records(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Rows as dictionaries, all or the first ones.

        Raises:
            QueryError: Several columns have one name.
        """
        if doubled := sorted({name for name in self.columns if self.columns.count(name) > 1}):
            raise QueryError(f"several columns of the result are called {', '.join(doubled)}: rename them with AS")
        return [dict(zip(self.columns, row, strict=True)) for row in self.values[:limit]]


class Lake:
    """The tables of a home at the versions of opening.

    Args:
        root: Folder of the tables, `<root>/<schema>/<table>`.
        source: Source of the home.
        memory_limit: Memory of DuckDB, as `512MB`.

    Attributes:
        versions: Delta version of every table that exists, by `schema.name`. A table of the contracts that is not
            among them has not been written yet; its view is empty.
    """

    def __init__(self, root: str, source: SourceFacts, memory_limit: str = MEMORY_LIMIT) -> None:
        self.root, self.source = root, source
        found = {name: files.latest_version(files.table_path(root, name)) for name in TABLES}
        self.versions: Mapping[str, int] = {name: version for name, version in found.items() if version is not None}
        self._folder = paths.plain(root)  # DuckDB takes some characters for patterns
        self._connection = _locked(self._folder, memory_limit)
        self._views: set[str] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Lake:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the connection; the lake cannot be used afterwards."""
        self._connection.close()

    def rows(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        limit: int | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> Rows:
        """Rows of a SELECT. Calls of several threads take turns.

        Args:
            sql: One SELECT (or DESCRIBE, SUMMARIZE) over tables as `gold.bars_5m`, or `bars_5m`.
            params: Values of `:name` in it.
            limit: Rows at most; the query stops there.
            timeout_s: Seconds until it is interrupted.

        Raises:
            QueryError: It cannot be run as written; the message names what exists.
            NoAnswer: It took too long or needed too much memory.
            StorageError: A table is damaged.
        """
        text = _text(sql, params)
        with self._lock:
            used = _checked(self._connection, text)
            with self._explained(used, timeout_s), _interrupted(self._connection, timeout_s):
                for name in used:
                    self._view(name)
                found = self._connection.execute(text)
                columns = [(column[0], str(column[1])) for column in found.description]
                if spans := [name for name, type_ in columns if type_ == "INTERVAL"]:  # Python has no months
                    texts = ", ".join(f"CAST({files.quote(n)} AS VARCHAR) AS {files.quote(n)}" for n in spans)
                    found = self._connection.execute(f"SELECT * REPLACE ({texts}) FROM ({text})")  # noqa: S608
                values = found.fetchall() if limit is None else found.fetchmany(limit)
        types = [type_ for _, type_ in columns]
        return Rows([name for name, _ in columns], types, _in_utc(values, types))

    def answer(self, query: Query, limit: int | None = None, *, timeout_s: float = TIMEOUT_S, **params: Any) -> Rows:
        """Rows of a query of the catalogue.

        Raises:
            QueryError: A parameter is unknown or not acceptable.
        """
        sql, values = query.bound(**params)
        return self.rows(sql, values, limit, timeout_s=timeout_s)

    def not_written(self, sql: str, params: Mapping[str, Any] | None = None) -> list[str]:
        """Tables that a SELECT names and that have not been written yet; their views are empty.

        Raises:
            QueryError: As in `rows`.
        """
        with self._lock:
            return [name for name in _checked(self._connection, _text(sql, params)) if name not in self.versions]

    def newest_event(self) -> datetime | None:
        """Event time of the newest quote (UTC); None without one."""
        found = self.rows(f"SELECT max(last_updated_at) AS newest FROM {LATEST_PRICES.full_name}")  # noqa: S608
        return found.values[0][0]

    def now(self, clock: datetime) -> datetime:
        """The present of the home's data: the clock, or for a virtual source its newest event."""
        return clock if self.source.live else self.newest_event() or clock

    def _view(self, name: str) -> None:
        """Create a table's view at its first use."""
        if name not in self._views:
            self._connection.execute(f"CREATE VIEW {name} AS {self._select(TABLES[name])}")
            self._views.add(name)

    def _select(self, table: Table) -> str:
        """SQL over the files of a table's pinned version, in the contract's columns; no row if it is not written.

        The values of partition columns are in Delta's log, not in the files.
        """
        path = files.table_path(self.root, table.full_name)
        nulls = {c.name: f"CAST(NULL AS {_duckdb_type(c.type)}) AS {files.quote(c.name)}" for c in table.columns}
        if table.full_name not in self.versions:
            files.exists(path)  # raises where there are rows without a log
            return f"SELECT {', '.join(nulls.values())} WHERE false"
        handle = files.open_table(path, self.versions[table.full_name])
        if handle is None:
            raise QueryError(f"{table.full_name} was deleted while it was read; repeat the command")
        with files.ONE_CALL:
            stored = {field.name for field in handle.schema().fields}
        listed = files.listed_files(handle)
        folder = files.table_path(self._folder, table.full_name)
        stored_files = [f"{folder}/{unquote(path)}" for path in listed.column("path").to_pylist()]
        if not stored_files:
            return f"SELECT {', '.join(nulls.values())} WHERE false"
        parted = table.partition_by
        values = zip(stored_files, *(listed.column(f"partition.{c}").to_pylist() for c in parted), strict=True)
        files_of = ", ".join(f"({', '.join(map(_literal, row))})" for row in values)
        names = ", ".join(["file", *map(files.quote, parted)])
        columns = [
            f"{'part' if c.name in parted else 'data'}.{files.quote(c.name)}" if c.name in stored else nulls[c.name]
            for c in table.columns
        ]
        listed_files = ", ".join(map(_literal, stored_files))
        return (
            f"SELECT {', '.join(columns)} FROM read_parquet([{listed_files}], "  # noqa: S608
            "filename = 'file', union_by_name = true, hive_partitioning = false) AS data "
            f"JOIN (VALUES {files_of}) AS part({names}) ON data.file = part.file"
        )

    @contextmanager
    def _explained(self, tables: list[str], timeout_s: float) -> Iterator[None]:
        """DuckDB's errors as one line with the fix.

        Args:
            tables: Tables that the query names.
            timeout_s: Seconds after which it is interrupted.
        """
        import duckdb

        try:
            yield
        except duckdb.InterruptException as error:
            raise NoAnswer(
                f"the query took longer than {timeout_s:g} s and was stopped: narrow it by time or coin, or give it "
                "more time with --timeout"
            ) from error
        except duckdb.OutOfMemoryException as error:
            raise NoAnswer("the query needs more memory than it may use: narrow it by time or coin") from error
        except duckdb.BinderException as error:
            of = "; ".join(f"{name} has {', '.join(TABLES[name].column_names)}" for name in tables)
            raise QueryError(f"{_first(error)}{f'. {of}' if of else ''}") from error
        except duckdb.Error as error:
            paths = [files.table_path(self.root, name) for name in tables]
            of_files = isinstance(error, duckdb.IOException | duckdb.InvalidInputException)
            raise (damage.explained(error, paths) if of_files else None) or QueryError(_first(error)) from error


def open_lake(settings: Settings, memory_limit: str = MEMORY_LIMIT) -> Lake:
    """Open the tables of a home for reading; writes nothing. An empty lake opens, with no `versions`.

    Args:
        settings: Settings of the home.
        memory_limit: Memory of DuckDB.

    Raises:
        HomeError: There is no home, or the settings contradict it.
        QueryError: The tables are not in a folder.
    """
    if settings.on_databricks or "://" in settings.lake:
        raise QueryError(
            f"the tables are in {settings.lake if '://' in settings.lake else f'catalog {settings.catalog}'}, and only "
            "tables in a folder can be queried here: query them in the workspace"
        )
    return Lake(settings.lake, facts_of(existing_home(settings).source), memory_limit)


def _in_utc(values: list[tuple[Any, ...]], types: Sequence[str]) -> list[tuple[Any, ...]]:
    """Rows with all times in UTC; DuckDB's have another library's zone, or none."""
    at = {i for i, type_ in enumerate(types) if type_.startswith("TIMESTAMP")}
    if not at:
        return values
    return [
        tuple(v.replace(tzinfo=UTC) if i in at and v is not None else v for i, v in enumerate(row)) for row in values
    ]


# --- what SQL may do ----------------------------------------------------------------------------------------------


def _locked(root: str, memory_limit: str) -> duckdb.DuckDBPyConnection:
    """An in-memory database without access to anything but the files below a folder."""
    import duckdb

    connection = duckdb.connect(config={**_CONFIG, "memory_limit": memory_limit})
    schemas = list(dict.fromkeys(table.schema for table in TABLES.values()))
    for statement in (
        "SET TimeZone = 'UTC'",
        "CREATE MACRO unix_micros(moment) AS epoch_us(moment)",  # Spark's name
        *(f"CREATE SCHEMA {schema}" for schema in schemas),
        f"SET search_path = 'main,{','.join(schemas)}'",
        f"SET allowed_directories = [{_literal(f'{root}/')}]",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    ):
        connection.execute(statement)
    return connection


def _text(sql: str, params: Mapping[str, Any] | None) -> str:
    """The SQL with the values of its parameters."""
    return filled(sql, {name: _literal(value) for name, value in (params or {}).items()})


def _literal(value: object) -> str:
    """A value as SQL. Bound parameters would do, but DuckDB imports pandas (0.3 s) as soon as there is one.

    Raises:
        TypeError: A type that no parameter has.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float):
        return f"CAST('{value!r}' AS DOUBLE)"
    if isinstance(value, datetime):
        return f"TIMESTAMPTZ '{value.isoformat()}'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, str):
        quoted = value.replace("'", "''")
        return f"'{quoted}'"
    raise TypeError(f"{type(value).__name__} is no type of a parameter")


def _duckdb_type(spark: str) -> str:
    """DuckDB's name of a contract's type."""
    if spark.startswith("array<"):
        return f"{_duckdb_type(spark[6:-1])}[]"
    return {"timestamp": "TIMESTAMPTZ", "binary": "BLOB"}.get(spark, spark)


def _checked(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    """Tables of the contracts that a SELECT names, as `schema.name`, sorted.

    Raises:
        QueryError: It is no single SELECT, calls a function that is not allowed, or names another table.
    """
    row = connection.execute(f"SELECT json_serialize_sql({_literal(sql)})").fetchone()
    assert row is not None
    parsed = json.loads(row[0])
    if parsed["error"]:
        if parsed["error_type"] == "parser":
            unset = [f":{name}" for name in dict.fromkeys(MARKER.findall(sql)) if name]
            hint = f"; {', '.join(unset)} has no value, give it with --set" if unset else ""
            raise QueryError(f"the SQL cannot be read: {parsed['error_message']}{hint}")
        raise QueryError("only SELECT, DESCRIBE and SUMMARIZE can be run here: tables are read, never changed")
    if len(parsed["statements"]) != 1:
        raise QueryError(f"the SQL has {len(parsed['statements'])} statements: give one SELECT")
    nodes = list(_nodes(parsed["statements"][0]))
    refused = {n["function"]["function_name"] for n in nodes if n.get("type") == "TABLE_FUNCTION"} - TABLE_FUNCTIONS
    refused |= {n["function_name"] for n in nodes if n.get("class") == "FUNCTION"} & REFUSED_FUNCTIONS
    if refused:
        raise QueryError(
            f"{', '.join(f'{n}()' for n in sorted(refused))} cannot be used here: a query reads the tables of the lake "
            "and nothing else"
        )
    if any(n.get("type") == "SHOW_REF" and n["query"] is None for n in nodes):
        raise QueryError("SHOW cannot be used here; list the tables with: crypto-assets query --tables")
    named = {entry["key"].lower() for n in nodes if "cte_map" in n for entry in n["cte_map"]["map"]}
    return _known({_name(n) for n in nodes if n.get("type") == "BASE_TABLE"} - named)


def _nodes(tree: object) -> Iterator[dict[str, Any]]:
    """Every object of parsed SQL."""
    if isinstance(tree, dict):
        yield tree
        for child in tree.values():
            yield from _nodes(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from _nodes(child)


def _name(node: Mapping[str, Any]) -> str:
    """A table as written, lower case like all of ours; DuckDB's names ignore case."""
    return ".".join(filter(None, (node["catalog_name"], node["schema_name"], node["table_name"]))).lower()


def _known(written: set[str]) -> list[str]:
    """Full names of tables as written, with or without schema."""
    short = {table.name: name for name, table in TABLES.items()}
    unknown = sorted(name for name in written if name not in TABLES and name not in short)
    if unknown:
        raise QueryError(
            f"there is no table {', '.join(unknown)}; there are {', '.join(TABLES)} "
            "(columns: crypto-assets query --tables)"
        )
    return sorted({short.get(name, name) for name in written})


@contextmanager
def _interrupted(connection: duckdb.DuckDBPyConnection, timeout_s: float) -> Iterator[None]:
    """Interrupt the connection after a while."""
    timer = threading.Timer(timeout_s, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _first(error: Exception) -> str:
    """DuckDB's message without the quoted SQL."""
    return " ".join(str(error).partition("\nLINE ")[0].partition(": ")[2].split())
