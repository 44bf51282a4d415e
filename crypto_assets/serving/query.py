"""Classes for declaring queries: parameters, result columns, and the binding of values. No SQL, no engine.

Belongs here: `Query`, `Parameter`. Does not belong here: the queries (`serving.queries`), running them
(`serving.lake`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from crypto_assets.contracts.model import Column
from crypto_assets.contracts.tables import TABLES
from crypto_assets.errors import UsageError

MARKER = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|(?<![:\w]):([A-Za-z_]\w*)""", re.S)
"""A parameter of SQL as `:name`, in group 1; quoted text and comments match without a group."""
_TABLE = re.compile(rf"\b(?:{'|'.join(sorted({t.schema for t in TABLES.values()}))})\.\w+")

ParameterType = Literal["string", "bigint", "double", "timestamp"]


class QueryError(UsageError):
    """A query cannot be answered as asked; the message names what exists and the fix."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a query.

    Args:
        name: Name; `:name` in the SQL.
        type: Spark SQL type; timestamps are UTC.
        default: Value if none is given; None = null, and `description` then gives the meaning of null.
        description: Meaning of the value.
        minimum: Smallest number allowed.
        choices: Values allowed; empty = any.
    """

    name: str
    type: ParameterType
    default: Any
    description: str
    minimum: float | None = None
    choices: tuple[str, ...] = ()

    def value(self, given: object) -> Any:
        """The value in the parameter's type; text is parsed, as from a command line or URL.

        Raises:
            ValueError: It has another type, is too small, or is none of the choices.
        """
        if given is None:
            return None
        found = _PARSE[self.type](given)
        if self.minimum is not None and found < self.minimum:
            raise ValueError(f"must be at least {self.minimum:g}")
        if self.choices and found not in self.choices:
            raise ValueError(f"must be one of {', '.join(self.choices)}")
        return found


def _text(given: object) -> str:
    if not isinstance(given, str) or not given:
        raise ValueError("must be text")
    return given


def _whole(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise ValueError("must be a whole number")
    try:
        return int(given)
    except ValueError:
        raise ValueError("must be a whole number") from None


def _number(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise ValueError("must be a number")
    try:
        found = float(given)
    except ValueError:
        raise ValueError("must be a number") from None
    if found - found != 0:
        raise ValueError("must be finite")
    return found


def _moment(given: object) -> datetime:
    try:
        found = given if isinstance(given, datetime) else datetime.fromisoformat(str(given))
    except ValueError:
        raise ValueError("must be a time such as 2026-11-29T12:00:00Z") from None
    if found.tzinfo is None:
        raise ValueError("must have a time zone, such as 2026-11-29T12:00:00Z")
    return found.astimezone(UTC)


_PARSE = {"string": _text, "bigint": _whole, "double": _number, "timestamp": _moment}


@dataclass(frozen=True)
class Query:
    """One query of the catalogue.

    Args:
        name: snake_case; its name in commands, API, files and dashboards.
        purpose: One sentence: what a reader learns from it.
        sql: SELECT in the common subset of DuckDB and Spark SQL, with tables as `schema.name` and parameters as
            `:name`.
        columns: Result columns, in order; exactly these.
        parameters: Parameters, each with a default.
    """

    name: str
    purpose: str
    sql: str
    columns: tuple[Column, ...]
    parameters: tuple[Parameter, ...] = ()

    @property
    def tables(self) -> tuple[str, ...]:
        """Tables that the query reads, as `schema.name`, in order of appearance."""
        return tuple(dict.fromkeys(_TABLE.findall(self.sql)))

    def bound(self, **params: Any) -> tuple[str, dict[str, Any]]:
        """The SQL and the value of every parameter: those given, else (also for None) the defaults.

        Raises:
            QueryError: A parameter is unknown or its value is not acceptable; lists every problem.
        """
        known = {p.name: p for p in self.parameters}
        listed = ", ".join(known) or "none"
        problems = [f"{name!r} is no parameter (it has: {listed})" for name in params if name not in known]
        values: dict[str, Any] = {}
        for name, parameter in known.items():
            try:
                given = params.get(name)
                values[name] = parameter.value(parameter.default if given is None else given)
            except ValueError as error:
                problems.append(f"{name} {error}, and is {params[name]!r}")
        if problems:
            raise QueryError(f"query {self.name}: {'; '.join(problems)}")
        return self.sql, values


def filled(sql: str, texts: Mapping[str, str]) -> str:
    """The SQL with a text in the place of each marker `:name`; string literals and comments stay as they are."""
    return MARKER.sub(lambda m: texts.get(m[1] or "", m[0]), sql)
