"""Arrow and Spark schemas of contracts, and the lossless cast of rows to a contract.

Belongs here: type mapping, table schemas, `conform`. Does not belong here: DDL, JSON Schema and the data dictionary
(`contracts.render`), rules on values (`checks.rules`), reading and writing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.model import Column, Table
from crypto_assets.errors import reason

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql.types import StructType

_DECIMAL = re.compile(r"decimal\((\d+),\s*(\d+)\)")
_ARRAY = re.compile(r"array<(.+)>")


class ContractViolation(Exception):
    """Rows do not match their table's contract; the message names the table and every offending column."""

    def __init__(self, table: str, problems: Sequence[str]) -> None:
        listed = "; ".join(problems)
        super().__init__(
            f"{table}: rows do not fit the contract ({len(problems)} problem(s)): {listed}. "
            "Nothing was written; correct the rows, or the contract in crypto_assets/contracts/"
        )
        self.table = table
        self.problems = list(problems)


def compute() -> Any:
    """`pyarrow.compute`, untyped: its functions are generated at import and unknown to type checkers."""
    import pyarrow.compute

    return pyarrow.compute


def arrow_type(text: str) -> pa.DataType:
    """Arrow type of a Spark SQL type text; `timestamp` is microseconds in UTC.

    Raises:
        ValueError: Contracts do not support this type.
    """
    import pyarrow as pa

    if match := _DECIMAL.fullmatch(text):
        return pa.decimal128(int(match[1]), int(match[2]))
    if match := _ARRAY.fullmatch(text):
        return pa.list_(pa.field("element", arrow_type(match[1])))
    simple = {
        "string": pa.string(),
        "bigint": pa.int64(),
        "int": pa.int32(),
        "double": pa.float64(),
        "boolean": pa.bool_(),
        "binary": pa.binary(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", "UTC"),
    }
    if text not in simple:
        raise ValueError(f"{text!r} is not a column type; use one of {sorted(simple)}, decimal(p,s) or array<type>")
    return simple[text]


def arrow_schema(table: Table, columns: Sequence[str] | None = None) -> pa.Schema:
    """Arrow schema of a table, or of the given columns in their order, with nullability.

    Raises:
        KeyError: The table has no such column.
    """
    import pyarrow as pa

    chosen = table.columns if columns is None else tuple(table.column(name) for name in columns)
    return pa.schema([pa.field(c.name, arrow_type(c.type), c.nullable) for c in chosen])


def spark_schema(table: Table) -> StructType:
    """Spark schema of a table, with nullability."""
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(arrow_schema(table))


def empty_rows(table: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """An empty Arrow table with the contract's schema."""
    import pyarrow as pa

    return pa.Table.from_batches([], schema=arrow_schema(table, columns))  # `empty_table` would import pandas


def conform(table: Table, rows: pa.Table) -> pa.Table:
    """Cast rows to exactly the table's columns, order, types and nullability.

    Casts are lossless: other string, integer or list encodings, decimals of another scale, integers to decimal, times
    of another unit. Times must have a zone; money must not be floating point.

    Args:
        table: Contract.
        rows: Rows with the contract's columns in any order.

    Raises:
        ContractViolation: Columns are missing or unknown, values cannot be cast losslessly, or non-nullable columns
            contain nulls; the message lists all of them, with the number of nulls.
    """
    import pyarrow as pa

    problems = [f"column {c.name} is missing" for c in table.columns if c.name not in rows.column_names]
    problems += [
        f"column {name} is not in the contract" for name in rows.column_names if name not in table.column_names
    ]
    doubled = sorted({name for name in rows.column_names if rows.column_names.count(name) > 1})
    problems += [f"column {name} is given more than once" for name in doubled]
    arrays: list[pa.ChunkedArray] = []
    for column in table.columns:
        if column.name not in rows.column_names or column.name in doubled:
            continue
        array, problem = _exact(column, rows.column(column.name))
        if problem:
            problems.append(problem)
            continue
        arrays.append(array)
        if not column.nullable and array.null_count:
            problems.append(f"column {column.name} has {array.null_count:,} null(s) and allows none")
    if problems:
        raise ContractViolation(table.full_name, problems)
    return pa.table(arrays, schema=arrow_schema(table))


def _exact(column: Column, array: pa.ChunkedArray) -> tuple[pa.ChunkedArray, str | None]:
    """The array cast to the column's type, and the problem if it cannot be cast."""
    import pyarrow as pa

    want, have = arrow_type(column.type), array.type
    if have == want:
        return array, None
    why_not = _refusal(have, want)
    if why_not:
        return array, f"column {column.name} is {have} and must be {want}: {why_not}"
    try:
        return array.cast(want, safe=True), None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        return array, f"column {column.name} is {have} and must be {want}: {reason(error).splitlines()[0][:160]}"


def _refusal(have: pa.DataType, want: pa.DataType) -> str | None:
    """Reason for rejecting a cast that Arrow would accept, or None."""
    from pyarrow import types as t

    if t.is_null(have):
        return None
    if t.is_dictionary(have):
        return _refusal(have.value_type, want)  # type: ignore[attr-defined]
    if t.is_timestamp(want):
        if not t.is_timestamp(have):
            return "not a time"
        return None if have.tz else "the time has no zone; use UTC"  # type: ignore[attr-defined]
    widened = t.is_integer(have) and (t.is_decimal(want) or t.is_floating(want))
    return None if widened or _family(have) == _family(want) is not None else "another kind of value"


def _family(type_: pa.DataType) -> int | None:
    """Number of the family of types whose values cast to each other; None = of no family."""
    from pyarrow import types as t

    families = (
        (t.is_string, t.is_large_string, t.is_string_view),
        (t.is_binary, t.is_large_binary, t.is_binary_view, t.is_fixed_size_binary),
        (t.is_list, t.is_large_list, t.is_fixed_size_list),
        *((test,) for test in (t.is_decimal, t.is_integer, t.is_floating, t.is_boolean, t.is_date)),
    )
    return next((i for i, tests in enumerate(families) if any(test(type_) for test in tests)), None)
