"""Poll messages as typed fields, whatever a record holds.

Belongs here: reading one record of the polls topic. Does not belong here: building poll messages (`market.payload`) or
rows of tables (`steps.poll_rows`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

from crypto_assets.contracts.messages import POLL_SCHEMA
from crypto_assets.market.moments import read_rfc3339

_MOST_DIGITS = 20
"""Whole numbers with more digits fit no column; Python refuses to read those with more than 4,300."""


def read_poll(value: str | bytes | None) -> dict[str, Any]:
    """Fields of one record of the polls topic, each typed as `ops.polls` holds it; never raises.

    Nothing is converted: a field of another kind, or one that its column cannot hold (a number beyond int32 or double,
    a lone surrogate, a time that is none), is None. Where a name occurs twice, its last value counts.

    Returns:
        A value for every field of the message contract; all None when the record is no JSON object in UTF-8.
    """
    record = _object(value)
    return {name: read(record.get(name)) for name, read in _READERS.items()}


def _object(value: str | bytes | None) -> dict[str, Any]:
    try:
        text = value.decode() if isinstance(value, bytes) else value
        found = None if text is None else json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _whole(digits: str) -> int | float:
    """A JSON number without fraction and exponent; a float (at worst infinite) where no column holds it as whole."""
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _text(value: object) -> str | None:
    """Text that UTF-8 can hold: JSON may bring a lone surrogate, which it cannot."""
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def _integer(value: object) -> int | None:
    held = isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31
    return value if held else None  # type: ignore[return-value]


def _double(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _texts(value: object) -> list[str] | None:
    held = isinstance(value, list) and all(_text(item) is not None for item in value)
    return value if held else None  # type: ignore[return-value]


_TIMES = ("started_at", "finished_at")
_BY_TYPE: dict[str, Callable[[object], Any]] = {
    "string": _text, "integer": _integer, "number": _double, "array": _texts
}  # fmt: skip


def _reader(name: str, schema: dict[str, Any]) -> Callable[[object], str | int | float | list[str] | datetime | None]:
    """Reads a field by what the message contract calls it."""
    if name in _TIMES:
        return read_rfc3339
    kinds = schema.get("type", "string")
    return _BY_TYPE[kinds if isinstance(kinds, str) else kinds[0]]


_READERS = {name: _reader(name, schema) for name, schema in POLL_SCHEMA["properties"].items()}
