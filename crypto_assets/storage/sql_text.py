"""Text within SQL statements."""

from __future__ import annotations


def literal(text: str) -> str:
    """Text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def verbatim(statement: str) -> str:
    """A statement whose literals may hold a path such as `/${x}/lake`: Spark would replace `${x}` in its text."""
    return statement.replace("${", "\\u0024{")
