"""Compares the rows of two lakes table by table and column by column, with DuckDB.

Belongs here: the comparison, pure. Does not belong here: making the lakes (`cli.parity`).

Decimals, text, times, integers, booleans and lists must be equal; floating-point numbers must agree to 1e-9 of the
larger one, since engines add in different orders, or to one unit of the twelfth decimal, to which features are rounded:
a value on the edge of two may be rounded either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.model import Table
from crypto_assets.contracts.tables import TABLES
from crypto_assets.transforms.features import DIGITS
from crypto_assets.verify.delta import create_view, fresh_connection, quoted, read_snapshot

if TYPE_CHECKING:
    import duckdb

TOLERANCE = 1e-9
RESOLUTION = 1.001 * 10**-DIGITS
EXAMPLES = 3
NOT_COMPARED: Mapping[str, tuple[str, ...]] = {
    "bronze.raw_prices": ("batch_id",),
    "ops.polls": ("batch_id",),
    "ml.promotions": ("run_id", "artifact_uri"),
    "gold.anomalies": ("inference_ms",),
}
"""Random identifiers (of a write, of an MLflow run, the folder named by it), and what a clock measured.

Chains hash times of writing, so they are not compared either."""
MEASURED: Mapping[str, str] = {"ops.pipeline_metrics": "one.metric = 'model_inference_latency_ms'"}
"""Rows whose values a clock measured: only their keys are compared."""


@dataclass
class TableDifference:
    """How one table of two lakes compares.

    Args:
        table: Full name.
        rows: Rows in the first and in the second lake.
        only: Keys that only the first, only the second lake has.
        cells: Differing values by column.
        examples: Some of them, as text.
        note: Why nothing could be compared, if so.
    """

    table: str
    rows: tuple[int, int]
    only: tuple[int, int] = (0, 0)
    cells: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def differences(self) -> int:
        """Keys and values that differ."""
        return sum(self.only) + sum(self.cells.values())


def compare(one: Path, two: Path, tables: Mapping[str, Table] = TABLES) -> list[TableDifference]:
    """Compare every table of two lake folders, by its contract's key.

    Args:
        one: First lake, `<lake>/<schema>/<table>`.
        two: Second lake.
        tables: Contracts by full name.

    Raises:
        UnreadableLogError: A table's log cannot be read.
    """
    connection = fresh_connection()
    found: list[TableDifference] = []
    for name, table in tables.items():
        there = [_view(connection, side, lake, name) for side, lake in (("one", one), ("two", two))]
        if not all(there):
            absent = [str(lake) for lake, is_there in zip((one, two), there, strict=True) if not is_there]
            rows = tuple(_count(connection, s) if t else 0 for s, t in zip(("one", "two"), there, strict=True))
            note = f"not in {' and '.join(absent)}"
            found.append(TableDifference(name, (rows[0], rows[1]), (rows[0], rows[1]), note=note))
            continue
        found.append(_compare(connection, table))
    return found


def _view(connection: duckdb.DuckDBPyConnection, side: str, lake: Path, name: str) -> bool:
    folder = lake / name.replace(".", "/")
    snapshot = read_snapshot(folder)
    if snapshot is None:
        return False
    create_view(connection, side, folder, snapshot)
    return True


def _count(connection: duckdb.DuckDBPyConnection, rows: str) -> int:
    return int((connection.execute(f"SELECT count(*) FROM {rows}").fetchone() or (0,))[0])  # noqa: S608


def _compare(connection: duckdb.DuckDBPyConnection, table: Table) -> TableDifference:
    name = table.full_name
    key = [quoted(k) for k in table.key]
    on = " AND ".join(f"one.{k} IS NOT DISTINCT FROM two.{k}" for k in key)
    left_out = {*table.key, *table.chain_columns, *NOT_COMPARED.get(name, ())}
    columns = [c for c in table.columns if c.name not in left_out]
    compared = f"({MEASURED[name]}) IS NOT TRUE" if name in MEASURED else "true"
    differs = {c.name: f"{compared} AND ({_differs(quoted(c.name), c.type)})" for c in columns}
    only = [
        _count(connection, f"{a} AS one WHERE NOT EXISTS (SELECT 1 FROM {b} AS two WHERE {on})")  # noqa: S608
        for a, b in (("one", "two"), ("two", "one"))
    ]
    result = TableDifference(name, (_count(connection, "one"), _count(connection, "two")), (only[0], only[1]))
    for side, count, a, b in (("first", only[0], "one", "two"), ("second", only[1], "two", "one")):
        if count:
            names = ", ".join(f"one.{k}" for k in key)
            missing = f"NOT EXISTS (SELECT 1 FROM {b} AS two WHERE {on})"  # noqa: S608
            sql = f"SELECT {names} FROM {a} AS one WHERE {missing} ORDER BY ALL LIMIT {EXAMPLES}"  # noqa: S608
            result.examples += [
                f"only in the {side}: {_row_key(table.key, r)}" for r in connection.execute(sql).fetchall()
            ]
    if not differs:
        return result
    counts = ", ".join(f"count(*) FILTER ({condition})" for condition in differs.values())
    row = connection.execute(f"SELECT {counts} FROM one JOIN two ON {on}").fetchone() or ()  # noqa: S608
    result.cells = {c: n for c, n in zip(differs, row, strict=True) if n}
    for column in result.cells:
        q = quoted(column)
        shown = ", ".join([*(f"one.{k}" for k in key), f"one.{q}", f"two.{q}"])
        sql = f"SELECT {shown} FROM one JOIN two ON {on} WHERE {differs[column]} ORDER BY ALL LIMIT {EXAMPLES}"  # noqa: S608
        for values in connection.execute(sql).fetchall():
            result.examples.append(f"{column} of {_row_key(table.key, values[:-2])}: {values[-2]!r} and {values[-1]!r}")
    return result


def _differs(column: str, type_: str) -> str:
    """SQL that is true where a column of both sides is not the same."""
    one, two = f"one.{column}", f"two.{column}"
    if type_ == "double":
        near = f"abs({one} - {two}) <= greatest({TOLERANCE} * greatest(abs({one}), abs({two})), {RESOLUTION})"
        # DuckDB holds NaN equal to NaN, but not its difference.
        return f"{one} IS DISTINCT FROM {two} AND ({near}) IS NOT TRUE"
    return f"{one} IS DISTINCT FROM {two}"


def _row_key(key: tuple[str, ...], values: tuple[Any, ...]) -> str:
    return ", ".join(f"{k}={v}" for k, v in zip(key, values, strict=True))
