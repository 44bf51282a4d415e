"""Ways to break one table of a lake: rows are read, changed in Python, and written back as a newer version."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.tables import TABLES

Row = dict[str, Any]
Rows = list[Row]
Where = Callable[[Row], bool]


@dataclass(frozen=True)
class Mutation:
    """One way: what it does to the rows of a table (None: the table's folder goes), and the law that must notice."""

    table: str
    what: str
    apply: Callable[[Rows], Rows] | None
    law: str

    @property
    def name(self) -> str:
        """Name of the test case."""
        return f"{self.table}: {self.what}"


def folder(home: Path, table: str) -> Path:
    return home / "lake" / table.replace(".", "/")


def read(home: Path, table: str) -> Rows:
    """All rows, in the order of their key."""
    from deltalake import DeltaTable, QueryBuilder

    handle = DeltaTable(str(folder(home, table)))
    names = ", ".join(f'"{n}"' for n in TABLES[table].column_names)
    found = pa.table(QueryBuilder().register("t", handle).execute(f"SELECT {names} FROM t").read_all())
    rows = found.cast(arrow_schema(TABLES[table])).to_pylist()
    return sorted(rows, key=lambda r: [str(r[k]) for k in TABLES[table].key])


def write(home: Path, table: str, rows: Rows) -> None:
    """Make these the rows of the table, in a new commit; what the log records beside them stays.

    The commit carries the mark of our writers, so that a mutation is found by what it changes and not by who made it.
    """
    from deltalake import CommitProperties, DeltaTable, write_deltalake

    handle, ours = DeltaTable(str(folder(home, table))), CommitProperties(custom_metadata={"engine": "sail+delta-rs"})
    if rows:
        changed = pa.Table.from_pylist(rows, arrow_schema(TABLES[table]))
        write_deltalake(handle, changed, mode="overwrite", commit_properties=ours)
    else:
        handle.delete(commit_properties=ours)


def break_it(home: Path, mutation: Mutation) -> None:
    """Apply a mutation to a home's lake.

    Raises:
        AssertionError: It changes nothing.
    """
    if mutation.apply is None:
        shutil.rmtree(folder(home, mutation.table))
        return
    before = read(home, mutation.table)
    after = mutation.apply([dict(row) for row in before])
    assert after != before, f"{mutation.name} changes nothing"
    write(home, mutation.table, after)


def anywhere(row: Row) -> bool:
    return bool(row)


def middle(rows: Rows, where: Where = anywhere, column: str | None = None) -> int:
    """Index of a row in the middle of those that fulfil a condition and have a value."""
    found = [i for i, r in enumerate(rows) if where(r) and (column is None or r[column] is not None)]
    assert found, f"no row has {column} and fulfils the condition"
    return found[len(found) // 2]


def other(value: Any) -> Any:
    """A value of the same type, a little off."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, bytes):
        return value + b"x"
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.0001 + 1e-8
    if isinstance(value, Decimal):
        return value + Decimal("1e-18")
    if isinstance(value, datetime):
        return value + timedelta(seconds=1)
    if isinstance(value, date):
        return value + timedelta(days=1)
    if isinstance(value, list):
        return [*value, "x"]
    raise TypeError(f"no other value for {value!r}")


def change(table: str, column: str, law: str, to: Any = other, where: Where = anywhere) -> Mutation:
    """A value becomes another; `to` is the value, or a function of the old one."""

    def apply(rows: Rows) -> Rows:
        row = rows[middle(rows, where, column if callable(to) else None)]
        row[column] = to(row[column]) if callable(to) else to
        return rows

    return Mutation(table, f"{column} changed" if callable(to) else f"{column} = {to!r}", apply, law)


def null(table: str, column: str, law: str, where: Where = anywhere) -> Mutation:
    """A value becomes unknown."""

    def apply(rows: Rows) -> Rows:
        rows[middle(rows, where, column)][column] = None
        return rows

    return Mutation(table, f"{column} nulled", apply, law)


def swap(table: str, column: str, law: str, where: Where = anywhere) -> Mutation:
    """Two rows exchange their values."""

    def apply(rows: Rows) -> Rows:
        one = middle(rows, where, column)
        two = next(i for i, r in enumerate(rows) if where(r) and r[column] not in (None, rows[one][column]))
        rows[one][column], rows[two][column] = rows[two][column], rows[one][column]
        return rows

    return Mutation(table, f"{column} of two rows swapped", apply, law)


def delete(table: str, law: str, where: Where = anywhere, what: str = "a row deleted") -> Mutation:
    """A row goes."""

    def apply(rows: Rows) -> Rows:
        del rows[middle(rows, where)]
        return rows

    return Mutation(table, what, apply, law)


def double(table: str, law: str, where: Where = anywhere) -> Mutation:
    """A row is there twice."""

    def apply(rows: Rows) -> Rows:
        return [*rows, dict(rows[middle(rows, where)])]

    return Mutation(table, "a row doubled", apply, law)


def moved(table: str, law: str, columns: Sequence[str] = ("hour", "day")) -> Mutation:
    """A row lies in another hour (or day) than it belongs to."""

    def apply(rows: Rows) -> Rows:
        row = rows[middle(rows)]
        later = row[columns[0]] + timedelta(days=1)
        row[columns[0]] = later
        if "day" in columns[1:]:
            row["day"] = later.date()
        return rows

    return Mutation(table, f"a row moved to another {columns[0]}", apply, law)


def dropped(table: str, law: str = "tables_are_there") -> Mutation:
    """The table's folder goes."""
    return Mutation(table, "table dropped", None, law)


def emptied(table: str, law: str = "tables_are_there") -> Mutation:
    """The table stays and loses all rows."""
    return Mutation(table, "table emptied", lambda _rows: [], law)
