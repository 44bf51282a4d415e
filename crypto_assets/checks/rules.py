"""Rules on rows, evaluated on an Arrow table: by partition, in one DuckDB query, without Dagster.

Belongs here: evaluating a contract's rules, non-null columns and key uniqueness; the audit that runs on staged rows
before a write; counts and content hashes by partition. Does not belong here: Dagster's checks (`checks.factories`), or
the audit of the stored lake by other code (`verify`).

The rules are portable SQL: the same text runs on Spark's `F.expr`. Two things differ on DuckDB and are bridged here:
column names that are reserved words there (`offset`) are quoted, and `size(list)` is a macro.
"""

from __future__ import annotations

import hashlib
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.model import Rule, Table
from crypto_assets.contracts.slices import day_key, hour_key, key_slice
from crypto_assets.engine.base import CheckOutcome, Markdown
from crypto_assets.storage.base import AuditFailed
from crypto_assets.storage.delta_files import quote

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

CONTRACT = "contract"
"""Check that holds if all blocking rules of a table do; see `folded`."""
NOT_NULL = "not_null"
UNIQUE_KEY = "unique_key"
EXAMPLES = 5
"""Maximum number of offending keys shown with a red check."""

FILLED_BY_STORE = ("seq", "batch_id")
"""Columns of an `append_once` table that its store adds after the audit."""

Outcomes = dict[str | None, list[CheckOutcome]]

_MICROSECONDS = {"hour": 3_600_000_000, "day": 86_400_000_000}
_DUCKDB = {"string": "VARCHAR", "timestamp": "TIMESTAMPTZ", "binary": "BLOB", "array<string>": "VARCHAR[]"}
_TOKEN = re.compile(r"'(?:[^']|'')*'|[A-Za-z_]\w*")
_local = threading.local()


def evaluate(table: Table, rows: pa.Table, keys: Sequence[str | None]) -> Outcomes:
    """Evaluate all of the contract's checks on rows, by partition.

    Args:
        table: Contract of the rows.
        rows: Rows with the contract's columns; `FILLED_BY_STORE` may be absent from an `append_once` table.
        keys: Partition keys to report on; `[None]` takes all rows as one partition.

    Returns:
        By key, `not_null`, `unique_key` and every rule, in this order. `metadata` holds `violations`, `rows`,
        `blocking`, for red ones `examples` (at most five keys of offending rows) and for `not_null` also `columns`
        (nulls by column). A key without rows passes with zero rows: emptiness is left to `has_rows`.

    Raises:
        ValueError: A contract column is missing from the rows, or a row belongs to none of the keys.
    """
    cached = _remembered(table, rows, keys)
    if cached is not None:
        return cached
    required = _required(table, rows)
    with _registered(rows) as connection:
        totals = _counts(connection, table, keys)
        # Green is the normal case and cheap: one pass without groups; red partitions are located only afterwards.
        nulls_of = [n for n in required if rows.column(n).null_count]
        conditions = [f"{quote(n)} IS NULL" for n in nulls_of] + [violates(table, rule) for rule in table.rules]
        columns = [f"count_if({condition})" for condition in conditions]
        named = ", ".join(f"{quote(n)} := {quote(n)}" for n in table.key)
        columns.append("0" if _offsets_differ(table, rows) else f"count(*) - count(DISTINCT struct_pack({named}))")
        select = ", ".join(columns)
        overall = connection.execute(f"SELECT {select} FROM staged").fetchone() or ()  # noqa: S608
        found: dict[str | None, Sequence[int]] = {}
        if any(overall):
            query = f"SELECT {_bucket(table, keys)} AS k, {select} FROM staged GROUP BY ALL"  # noqa: S608
            found = {_key(table, keys, row[0]): row[1:] for row in connection.execute(query).fetchall()}
        outcomes: Outcomes = {}
        for key in keys:
            total, counts = totals[key], found.get(key, [0] * len(columns))
            nulls = {n: c for n, c in zip(nulls_of, counts, strict=False) if c}
            examples = _Examples(connection, table, keys, key)
            outcomes[key] = [
                _not_null(total, nulls, examples),
                _unique_key(table, total, counts[-1], examples),
                *(
                    _rule(r, total, n, table, examples)
                    for r, n in zip(table.rules, counts[len(nulls_of) : -1], strict=True)
                ),
            ]
    # The audit of staged rows is followed by a report on the same, immutable rows.
    _local.last = (table, weakref.ref(rows), tuple(keys), outcomes)
    return outcomes


def blocking(outcomes: Sequence[CheckOutcome]) -> list[CheckOutcome]:
    """Outcomes that must stop a write: red ones of rules that would corrupt downstream data."""
    return [o for o in outcomes if not o.passed and o.metadata.get("blocking")]


def parts(table: Table) -> tuple[str, ...]:
    """Names of the blocking rules of a table, which the check `CONTRACT` reports together."""
    return (NOT_NULL, UNIQUE_KEY, *(rule.name for rule in table.rules if rule.blocking))


def folded(table: Table, outcomes: Sequence[CheckOutcome]) -> list[CheckOutcome]:
    """Outcomes with those of blocking rules replaced by one, `CONTRACT`, that says what each of them found.

    Args:
        table: Contract.
        outcomes: Of one partition. If only some of the blocking rules were evaluated, the others count as red; without
            any of them there is no `CONTRACT` either.
    """
    names = parts(table)
    mine = {o.name: o for o in outcomes if o.name in names}
    if not mine:
        return list(outcomes)
    red, absent = [o for o in mine.values() if not o.passed], [n for n in names if n not in mine]
    rows = max(o.metadata.get("rows", 0) for o in mine.values())
    metadata: dict[str, Any] = {"rules": len(names), "rows": rows, "blocking": True}
    metadata["violations"] = sum(o.metadata.get("violations", 0) for o in mine.values())
    if not red and not absent:
        one = CheckOutcome(CONTRACT, True, f"{len(names)} rules hold for {rows:,} rows", metadata=metadata)
    else:
        found = [(o.name, o.description) for o in red] + [(n, "not evaluated") for n in absent]
        lines = [f"| `{name}` | {_cell(mine, name)} | {text.replace('|', chr(92) + '|')} |" for name, text in found]
        metadata["failed"] = [name for name, _ in found]
        metadata["what_failed"] = Markdown("\n".join(["| rule | violations | found |", "|---|---|---|", *lines]))
        metadata["examples"] = {o.name: o.metadata["examples"] for o in red if "examples" in o.metadata}
        message = "; ".join(f"{name}: {text}" for name, text in found)
        worst = "error" if absent or any(o.severity == "error" for o in red) else "warn"
        one = CheckOutcome(CONTRACT, False, message, worst, metadata)
    at = min(i for i, o in enumerate(outcomes) if o.name in names)
    rest = [(i, o) for i, o in enumerate(outcomes) if o.name not in names]
    return [*(o for i, o in rest if i < at), one, *(o for i, o in rest if i > at)]


def _cell(outcomes: Mapping[str, CheckOutcome], name: str) -> str:
    return f"{outcomes[name].metadata.get('violations', '')}" if name in outcomes else ""


def audit(table: Table, keys: Sequence[str | None]) -> Callable[[pa.Table], None]:
    """Audit function that a `DeltaStore` calls with staged rows before it commits them.

    Returns:
        A function of the staged rows that raises `AuditFailed`, naming every blocking violation of every partition;
        the exception's `outcomes` are all evaluations as (partition key, outcome).
    """

    def check(rows: pa.Table) -> None:
        if table.write == "append_once" and keeps_all(table, rows):
            return  # nearly always: the hour is evaluated and reported when it is read back
        outcomes = evaluate(table, rows, keys)
        stops = [(key, outcome) for key, found in outcomes.items() for outcome in blocking(found)]
        if stops:
            message = "; ".join(f"{'' if key is None else f'{key}: '}{o.name}: {o.description}" for key, o in stops)
            raise AuditFailed(
                f"{table.full_name}: {len(stops)} blocking check(s) failed on the staged rows, so nothing was "
                f"written. {message}",
                [(key, outcome) for key, found in outcomes.items() for outcome in found],
            )

    return check


def keeps_all(table: Table, rows: pa.Table) -> bool:
    """Whether rows of the log, of one hour or of several, certainly fulfil every blocking rule, by one query."""
    if any(rows.column(n).null_count for n in _required(table, rows)) or not _offsets_differ(table, rows):
        return False
    broken = " OR ".join(violates(table, rule) for rule in table.rules if rule.blocking) or "false"
    with _registered(rows) as connection:
        return not (connection.execute(f"SELECT bool_or({broken}) FROM staged").fetchone() or (True,))[0]  # noqa: S608


def content_version(
    table: Table, rows: pa.Table, keys: Sequence[str | None], volatile: Sequence[str] = ()
) -> dict[str | None, str]:
    """Order-independent hash of the rows of each partition: the partition's data version.

    DuckDB's 64-bit hash of every row is summed over the partition (a sum, unlike an exclusive or, detects repeated
    rows) and digested with the row count and the column names. Values are cast to the contract's types first, so that
    equal content gives an equal version in every process and on every engine. Another release of DuckDB may hash
    differently, whose only effect is that partitions then appear changed when next materialized.

    Args:
        table: Contract of the rows; its `code_version` does not enter.
        rows: Rows of all the keys.
        keys: Partition keys.
        volatile: Columns of processing time, left out; a ledger's chain columns are left out as well.

    Returns:
        By key, 32 hexadecimal digits; a partition without rows has a version too.

    Raises:
        ValueError: A row belongs to none of the keys, or a volatile column is not in the contract.
    """
    unknown = sorted(set(volatile) - set(table.column_names))
    if unknown:
        raise ValueError(f"{table.full_name} has no volatile column(s) {unknown}; it has {table.column_names}")
    present = set(rows.column_names)
    names = [n for n in table.column_names if n in present and n not in {*volatile, *table.chain_columns}]
    values = ", ".join(f"{quote(n)}::{_DUCKDB.get(table.column(n).type, table.column(n).type)}" for n in names)
    query = f"SELECT {_bucket(table, keys)} AS k, count(*), sum(hash({values})::HUGEINT) FROM staged GROUP BY ALL"  # noqa: S608
    with _registered(rows) as connection:
        found = {_key(table, keys, k): f"{count}:{total}" for k, count, total in connection.execute(query).fetchall()}
    _refuse_strangers(table, found, keys)
    return {key: _digest(f"{table.full_name}|{','.join(names)}|{found.get(key, '0')}") for key in keys}


def _offsets_differ(table: Table, rows: pa.Table) -> bool:
    """Whether the keys are certainly distinct coordinates of one topic; False proves nothing.

    Twenty times as fast as counting distinct keys, which takes a fifth of the time of an append.
    """
    import numpy as np

    if table.key != ("topic_id", "partition", "offset") or any(rows.column(n).null_count for n in table.key):
        return False
    if rows.num_rows and len(rows.column("topic_id").unique()) > 1:
        return False
    partitions, offsets = rows.column("partition").to_numpy(), rows.column("offset").to_numpy()
    # One partition after the other: there offsets rise nearly always, which is quicker to see than that all differ.
    parts = (offsets[partitions == p] for p in rows.column("partition").unique().to_pylist())
    return all((np.diff(part) > 0).all() or len(np.unique(part)) == len(part) for part in parts)


def violates(table: Table, rule: Rule) -> str:
    """DuckDB condition that is true for rows that break a rule; false, null, NaN and infinities break it."""
    names = set(table.column_names)
    kept = _TOKEN.sub(lambda m: quote(m[0]) if m[0] in names else m[0], table.condition(rule))
    return f"NOT {kept}"


class _Examples:
    """Keys of offending rows of one partition, queried only when something is red."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, table: Table, keys: Sequence[str | None], key: str | None
    ) -> None:
        self._connection, self._table = connection, table
        literal = ""
        if key is not None and table.grain is not None:
            start = int(key_slice(key, table.grain).start.timestamp()) * 1_000_000
            literal = f"{_bucket(table, keys)} = {start // _MICROSECONDS[table.grain]} AND "
        self._select = f"SELECT {', '.join(map(quote, table.key))}", f"FROM staged WHERE {literal}"

    def where(self, condition: str) -> list[str]:
        order = ", ".join(map(quote, self._table.key))
        return self._texts(f"{self._select[0]} {self._select[1]} ({condition}) ORDER BY {order} LIMIT {EXAMPLES}")

    def duplicated(self) -> list[str]:
        order = ", ".join(map(quote, self._table.key))
        tail = f"GROUP BY {order} HAVING count(*) > 1 ORDER BY {order} LIMIT {EXAMPLES}"
        return self._texts(f"{self._select[0]} {self._select[1]} true {tail}")

    def _texts(self, sql: str) -> list[str]:
        found = self._connection.execute(sql).fetchall()
        return [", ".join(f"{n}={_text(v)}" for n, v in zip(self._table.key, row, strict=True)) for row in found]


def _not_null(rows: int, nulls: Mapping[str, int], examples: _Examples) -> CheckOutcome:
    metadata: dict[str, Any] = {"violations": sum(nulls.values()), "rows": rows, "blocking": True}
    if not nulls:
        return CheckOutcome(NOT_NULL, True, f"no null where none is allowed in {rows:,} rows", metadata=metadata)
    metadata["columns"] = dict(nulls)
    metadata["examples"] = examples.where(" OR ".join(f"{quote(n)} IS NULL" for n in nulls))
    message = ", ".join(f"{name} ({count:,} of {rows:,})" for name, count in nulls.items())
    return CheckOutcome(NOT_NULL, False, f"null in {message}; e.g. {_example_keys(metadata)}", metadata=metadata)


def _unique_key(table: Table, rows: int, surplus: int, examples: _Examples) -> CheckOutcome:
    metadata: dict[str, Any] = {"violations": surplus, "rows": rows, "blocking": True}
    named = ", ".join(table.key)
    if not surplus:
        return CheckOutcome(UNIQUE_KEY, True, f"({named}) is unique in {rows:,} rows", metadata=metadata)
    metadata["examples"] = examples.duplicated()
    return CheckOutcome(
        UNIQUE_KEY, False, f"{surplus:,} row(s) repeat a key ({named}): {_example_keys(metadata)}", metadata=metadata
    )


def _rule(rule: Rule, rows: int, violations: int, table: Table, examples: _Examples) -> CheckOutcome:
    metadata: dict[str, Any] = {"violations": violations, "rows": rows, "blocking": rule.blocking}
    if not violations:
        return CheckOutcome(rule.name, True, f"holds for {rows:,} rows", rule.severity, metadata)
    metadata["examples"] = examples.where(violates(table, rule))
    message = f"{violations:,} of {rows:,} rows break `{rule.sql}` ({rule.description}); e.g. {_example_keys(metadata)}"
    return CheckOutcome(rule.name, False, message, rule.severity, metadata)


def _example_keys(metadata: Mapping[str, Any]) -> str:
    return "; ".join(f"[{text}]" for text in metadata["examples"])


def _text(value: object) -> str:
    return "null" if value is None else value.isoformat() if hasattr(value, "isoformat") else str(value)  # type: ignore[attr-defined]


def _bucket(table: Table, keys: Sequence[str | None]) -> str:
    """DuckDB expression of a row's partition: whole hours or days since 1970; null without partitioning.

    Integer arithmetic, because formatting or truncating a zoned timestamp costs a microsecond per row.
    """
    if list(keys) == [None]:
        return "NULL"
    if table.grain is None or table.time_column is None:
        raise ValueError(f"{table.full_name} has no partitions; evaluate it with keys=[None], not {list(keys)}")
    return f"epoch_us({quote(table.time_column)}) // {_MICROSECONDS[table.grain]}"


def _key(table: Table, keys: Sequence[str | None], bucket: int | None) -> str | None:
    """Partition key of a bucket; "null" when a row has no time."""
    if list(keys) == [None]:
        return None
    if bucket is None or table.grain is None:
        return "null"
    moment = datetime.fromtimestamp(bucket * _MICROSECONDS[table.grain] // 1_000_000, UTC)
    return hour_key(moment) if table.grain == "hour" else day_key(moment)


def _counts(connection: duckdb.DuckDBPyConnection, table: Table, keys: Sequence[str | None]) -> dict[str | None, int]:
    query = f"SELECT {_bucket(table, keys)} AS k, count(*) FROM staged GROUP BY ALL"  # noqa: S608
    found = {_key(table, keys, bucket): count for bucket, count in connection.execute(query).fetchall()}
    _refuse_strangers(table, found, keys)
    return {key: found.get(key, 0) for key in keys}


def _required(table: Table, rows: pa.Table) -> list[str]:
    """Non-nullable contract columns among the rows' columns.

    Raises:
        ValueError: Contract columns are missing from the rows.
    """
    present = set(rows.column_names)
    absent = [n for n in table.column_names if n not in present]
    allowed = FILLED_BY_STORE if table.write == "append_once" else ()
    missing = [n for n in absent if n not in allowed]
    if missing:
        raise ValueError(
            f"rows for {table.full_name} lack the contract's column(s) {missing}; they have {rows.column_names}"
        )
    return [c.name for c in table.columns if not c.nullable and c.name in present]


def _refuse_strangers(table: Table, found: Mapping[str | None, object], keys: Sequence[str | None]) -> None:
    strangers = sorted(str(key) for key in found if key not in set(keys))
    if strangers:
        raise ValueError(f"rows for {table.full_name} lie in partition(s) {strangers}, outside of {list(keys)}")


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def connection() -> duckdb.DuckDBPyConnection:
    """This thread's in-memory DuckDB: UTC, with the macros that make portable SQL run there."""
    import duckdb

    if not hasattr(_local, "connection"):
        opened = duckdb.connect(":memory:")
        opened.execute("SET TimeZone = 'UTC'")
        opened.execute("CREATE MACRO size(list) AS len(list)")
        _local.connection = opened
    return _local.connection


@contextmanager
def _registered(rows: pa.Table) -> Iterator[duckdb.DuckDBPyConnection]:
    """This thread's connection with the rows visible as `staged`; unregistered on exit so that they can be freed."""
    opened = connection()
    opened.register("staged", rows)
    try:
        yield opened
    finally:
        opened.unregister("staged")


def _remembered(table: Table, rows: pa.Table, keys: Sequence[str | None]) -> Outcomes | None:
    last = getattr(_local, "last", None)
    if last is not None and last[0] is table and last[1]() is rows and last[2] == tuple(keys):
        return last[3]
    return None
