"""`query`: SQL over the tables of a home, or a query of the catalogue, as a table, CSV or JSON."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from crypto_assets.cli import output
from crypto_assets.contracts.tables import TABLES
from crypto_assets.errors import UsageError
from crypto_assets.serving.lake import Lake, open_lake
from crypto_assets.serving.queries import CATALOGUE
from crypto_assets.settings import Settings

EXAMPLE = "SELECT * FROM gold.latest_prices"
FORMATS = ("table", "csv", "json")
SHOWN_ROWS = 100
"""Rows of a table for people; CSV and JSON have all."""


def run(
    settings: Settings,
    sql: str | None,
    *,
    name: str | None,
    given: Sequence[str],
    tables: bool,
    form: str,
    limit: int | None,
    timeout_s: float,
) -> int:
    """Run a query and print its rows; always 0.

    Args:
        settings: Settings of the home.
        sql: One SELECT.
        name: A query of the catalogue instead.
        given: Parameters as `name=value`.
        tables: List the tables instead.
        form: One of `FORMATS`.
        limit: Rows at most; None = 100 for people, else all.
        timeout_s: Seconds until the query is stopped.

    Raises:
        UsageError: Nothing or too much was asked for, or a parameter cannot be read.
        QueryError: The query cannot be answered as asked.
        HomeError: There is no home.
    """
    if form not in FORMATS:
        raise UsageError(f"--format is {form!r} and must be one of {', '.join(FORMATS)}")
    if sum((sql is not None, name is not None, tables)) != 1:
        raise UsageError(
            f"give one of: SQL in quotes, such as {EXAMPLE!r}; --name with a query of the catalogue "
            f"({', '.join(CATALOGUE)}); or --tables"
        )
    params = _parameters(given)
    if name is not None:
        if name not in CATALOGUE:
            raise UsageError(f"there is no query {name!r}; there are {', '.join(CATALOGUE)}")
        sql, params = CATALOGUE[name].bound(**params)
    with open_lake(settings) as lake:
        if tables:
            listed = _tables(lake)
            _write(listed, list(listed[0]), form, "Tables")
            return 0
        assert sql is not None
        shown = limit or (SHOWN_ROWS if form == "table" else None)
        found = lake.rows(sql, params, None if shown is None else shown + 1, timeout_s=timeout_s)
        absent = lake.not_written(sql, params)
        if not lake.versions:
            output.notice(
                f"the lake {lake.root} has no tables yet; begin with: crypto-assets demo, or crypto-assets up"
            )
        elif absent:
            output.notice(f"not written yet, so without rows: {', '.join(absent)}")
    _write(found.records(shown), found.columns, form, name or "Rows")
    if shown is not None and len(found.values) > shown:
        output.notice(f"only the first {shown:,} rows; more with --limit, all with --format csv or json")
    return 0


def _parameters(given: Sequence[str]) -> dict[str, str]:
    """Parameters from `name=value`.

    Raises:
        UsageError: One has no `=`.
    """
    if wrong := [text for text in given if not text.partition("=")[1] or not text.partition("=")[0]]:
        raise UsageError(f"--set takes name=value, such as --set coin=bitcoin, and is {', '.join(map(repr, wrong))}")
    return {name: value for name, _, value in (text.partition("=") for text in given)}


def _tables(lake: Lake) -> list[dict[str, Any]]:
    """Every table with its rows and columns; rows are None where it has not been written."""
    written = [name for name in TABLES if name in lake.versions]
    counts = " UNION ALL ".join(f"SELECT '{name}' AS name, count(*) AS n FROM {name}" for name in written)  # noqa: S608
    rows: dict[str, int] = dict(lake.rows(counts).values) if written else {}
    return [
        {
            "table": name,
            "rows": rows.get(name),
            "version": lake.versions.get(name),
            "columns": ", ".join(table.column_names),
        }
        for name, table in TABLES.items()
    ]


def _write(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], form: str, title: str) -> None:
    if form == "json":
        output.exact_json([{name: _finite(value) for name, value in row.items()} for row in rows])
    elif form == "csv":
        lines = csv.writer(sys.stdout, lineterminator="\n")
        lines.writerow(columns)
        lines.writerows([_field(row[c]) for c in columns] for row in rows)
    else:
        amounts = {c for c in columns if any(isinstance(row[c], Decimal) for row in rows)}
        output.table(title, [{c: _cell(row[c]) for c in columns} for row in rows], columns, right=amounts)


def _finite(value: object) -> object:
    """A value for JSON, which has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _field(value: object) -> object:
    """A value for CSV: null is an empty field, a list is joined by spaces."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Decimal):
        return output.plain(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _cell(value: object) -> object:
    """A value for people; floats keep their digits."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, bool | int | None) else str(_field(value))
