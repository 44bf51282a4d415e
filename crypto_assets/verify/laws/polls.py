"""The law on the typed columns of `ops.polls`: each equals its field of the stored record.

Two readers judge a row: DuckDB's JSON functions for messages in the producer's layout, which are nearly all, and plain
Python for every row that DuckDB reads differently or not at all.
"""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Any

from crypto_assets.contracts.messages import POLL_SCHEMA
from crypto_assets.contracts.tables import POLLS
from crypto_assets.verify.delta import quoted
from crypto_assets.verify.laws.base import Evidence, Law

FIELDS = {c.name: c.type for c in POLLS.columns if c.name in POLL_SCHEMA["properties"]}
"""Type of every column taken from the message."""

_MOMENT = re.compile(
    r"(?:19|[2-8]\d)\d\d-\d\d-\d\d[Tt ][0-2]\d:[0-5]\d:[0-5]\d(?:\.\d{1,9})?"
    r"(?:[Zz]|[+-](?:0\d|1[0-7]):[0-5]\d|[+-]18:00)",
    re.ASCII,
)


def polls_law() -> Law:
    """Law: every typed column of a poll equals the field of its record, or is null if no column can hold it."""
    return Law(
        "polls_are_read_rightly",
        "every typed column of a poll is the field of its record, null where the record has none that can be held",
        ("ops.polls",),
        'SELECT \'differs\' AS problem, topic_id, "partition", "offset", columns FROM audit_misread',
        checked="SELECT count(*) FROM \"ops.polls\" WHERE kind = 'record'",
        covers={"ops.polls": tuple(FIELDS)},
        recomputed="its raw_json, read again",
        prepare=_read_again,
    )


def _read_again(evidence: Evidence) -> str | None:
    """Create `audit_misread` (topic_id, partition, offset, columns): rows that differ from their record."""
    connection = evidence.connection
    same = " AND ".join(f"({quoted(n)} IS NOT DISTINCT FROM {_plainly(n, t)})" for n, t in FIELDS.items())
    doubtful = connection.execute(
        f"""
        WITH parsed AS (
            SELECT *, CASE WHEN json_valid(raw_json) THEN raw_json::JSON END AS message
            FROM "ops.polls" WHERE kind = 'record'
        ), plain AS (
            SELECT *, coalesce(json_type(message) = 'OBJECT' AND len(json_keys(message)) =
                               len(list_distinct(json_keys(message))) AND NOT contains(raw_json, '\\'), false)
                      AS is_plain
            FROM parsed
        )
        SELECT topic_id, "partition", "offset", raw_json, {", ".join(map(quoted, FIELDS))}
        FROM plain WHERE NOT (is_plain AND {same})
        """
    ).fetchall()
    connection.execute(
        "CREATE OR REPLACE TABLE audit_misread"
        ' (topic_id VARCHAR, "partition" INTEGER, "offset" BIGINT, columns VARCHAR)'
    )
    for topic_id, partition, offset, text, *stored in doubtful:
        record = _object(text)
        pairs = zip(FIELDS.items(), stored, strict=True)
        wrong = [n for (n, type_), value in pairs if value != _held(record.get(n), type_)]
        if wrong:
            row = [topic_id, partition, offset, ", ".join(wrong)]
            connection.execute("INSERT INTO audit_misread VALUES (?, ?, ?, ?)", row)
    return None


def _plainly(name: str, type_: str) -> str:
    """Value of a field of `message` if it is of the expected kind, else null."""
    field, kind, text = f"message -> '$.{name}'", f"json_type(message, '$.{name}')", f"message ->> '$.{name}'"
    if type_ == "string":
        return f"CASE WHEN {kind} = 'VARCHAR' THEN {text} END"
    if type_ == "timestamp":
        canonical = r"'^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$'"
        usual = f"{kind} = 'VARCHAR' AND regexp_matches({text}, {canonical})"
        return f"CASE WHEN {usual} THEN try_cast({text} AS TIMESTAMPTZ) END"
    if type_ == "int":
        return f"CASE WHEN {kind} IN ('UBIGINT', 'BIGINT') THEN try_cast({text} AS INTEGER) END"
    if type_ == "double":
        return f"CASE WHEN {kind} IN ('UBIGINT', 'BIGINT', 'DOUBLE') THEN try_cast({text} AS DOUBLE) END"
    return f"CASE WHEN {kind} = 'ARRAY' THEN from_json({field}, '[\"VARCHAR\"]') END"


def _object(text: str | None) -> dict[str, Any]:
    try:
        found = None if text is None else json.loads(text, parse_int=lambda d: int(d) if len(d) < 20 else float(d))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _held(value: object, type_: str) -> object:
    """Value that a column of the type holds for a JSON value; None if it cannot hold it."""
    if type_ == "array<string>":
        texts = [_held(item, "string") for item in value] if isinstance(value, list) else [None]
        return None if None in texts else texts
    if isinstance(value, str) and type_ in ("string", "timestamp"):
        if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
            return None
        return value if type_ == "string" else _moment(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if type_ == "int":
        return value if isinstance(value, int) and -(2**31) <= value < 2**31 else None
    return float(value) if type_ == "double" and math.isfinite(value) else None


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC) if _MOMENT.fullmatch(text) else None
    except (ValueError, OverflowError):
        return None
