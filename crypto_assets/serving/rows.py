"""A table's rows as JSON text, made by DuckDB from a Parquet file.

The text of a row is made once per file, in SQL: 12 µs a row, where `to_pylist` and an encoder take 66 (decision 0019).
Money is a JSON number with the decimal's exact text: DuckDB spells 1.9e-8 plainly, Arrow does not.

Belongs here: the SQL. Does not belong here: which files are read, and what is kept (`held`).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

from crypto_assets.contracts.model import Column
from crypto_assets.serving.kept import JSON_TEXT, Kept


def file_sql(kept: Kept, path: str, stored: Collection[str], day: date | None = None, condition: str = "") -> str:
    """SQL over a file: group, order, event time, time known (µs) and JSON text of every row.

    Args:
        kept: The table.
        path: The file, as an SQL literal.
        stored: Columns that the file has; later ones are null in its rows.
        day: Value of the partition column `day`, which files do not have.
        condition: Only rows that fulfil this SQL; empty = all.
    """
    group = _quoted(kept.group) if kept.group else "''"
    order = f"coalesce({_number(kept, kept.order)}, 0)"
    event = _number(kept, kept.event) if kept.event else "NULL"
    known = _number(kept, kept.known_at) if kept.known_at else "NULL"
    ties = ", ".join(["1", "2", *(_quoted(name) for name in kept.table.key if name in stored)])
    return (
        f"SELECT {group}, {order}, {event}, {known}, {row_text(kept, stored, day)} "  # noqa: S608 - names of contracts
        f"FROM read_parquet({path}, hive_partitioning = false) WHERE {condition or 'true'} ORDER BY {ties}"
    )


def row_text(kept: Kept, stored: Collection[str], day: date | None = None) -> str:
    """SQL expression of a row's JSON text."""
    embedded = JSON_TEXT.get(kept.name, ())
    parts = []
    for number, column in enumerate(kept.columns):
        if column.name in stored:
            value = _text(column, embedded=column.name in embedded)
        else:
            value = f"'\"{day}\"'" if column.name == "day" and day else "'null'"
        parts.append(f"'{',' if number else '{'}\"{column.name}\":' || {value}")
    return " || ".join(parts) + " || '}'"


def _text(column: Column, *, embedded: bool) -> str:
    """SQL expression of a value's JSON text; null is `null`."""
    name = _quoted(column.name)
    if embedded:
        text = f"CASE WHEN json_valid({name}) THEN {name} ELSE to_json({name})::VARCHAR END"
    elif column.type.startswith("decimal"):
        text = f"rtrim(rtrim({name}::VARCHAR, '0'), '.')"
    elif column.type == "double":
        text = f"CASE WHEN isfinite({name}) THEN {name}::VARCHAR END"
    elif column.type == "timestamp":
        plain = f"strftime(make_timestamp(epoch_us({name})), '%Y-%m-%dT%H:%M:%S.%f')"
        text = f"""'"' || rtrim(rtrim({plain}, '0'), '.') || 'Z"'"""
    else:
        text = f"to_json({name})::VARCHAR"
    return f"coalesce({text}, 'null')"


def _number(kept: Kept, name: str) -> str:
    """SQL expression of a column as an integer; times as µs since 1970."""
    integer = kept.table.column(name).type in ("int", "bigint")
    return f"{_quoted(name)}::BIGINT" if integer else f"epoch_us({_quoted(name)})"


def _quoted(name: str) -> str:
    return '"' + name + '"'
