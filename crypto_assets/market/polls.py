"""Tolerant parser of poll records, and the checks evaluated on each poll.

Belongs here: parsing one record of the polls topic; the check results shared by the producer sensor and *Execute* in
the UI. Does not belong here: building poll messages (`market.payload`), table rows (`assets.log_slices.rows`),
selecting the poll (`producer.source_health`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from crypto_assets.contracts.messages import POLL_SCHEMA
from crypto_assets.market.moments import read_rfc3339

ABSENT_AFTER_POLLS = 3
"""Consecutive polls without a coin after which it counts as absent."""

Found = dict[str, tuple[bool, str]]
"""Evaluations of the topics' checks by name: (passed, description)."""

_MOST_DIGITS = 20
"""Integers with more digits fit no column; Python refuses to parse those with more than 4,300."""


def read_poll(value: str | bytes | None) -> dict[str, Any]:
    """Fields of a record of the polls topic, typed as in `ops.polls`; never raises.

    Values are not converted: a field of another type, or one that its column cannot hold (a number beyond int32 or
    double, a lone surrogate, an invalid time), becomes None. Of a repeated name the last value counts.

    Returns:
        A value for every field of the message contract; all None unless the record is a JSON object in UTF-8.
    """
    record = _object(value)
    return {name: read(record.get(name)) for name, read in _READERS.items()}


CHECKS: Mapping[str, tuple[str, str]] = {
    "source_answers": ("prices", "The source answered the newest poll."),
    "quotes_move": ("prices", "The newest quote is within its freshness bound; older quotes are frozen at the source."),
    "no_coin_missing": ("prices", "Every active coin was in the last three polls."),
    "delivered": ("prices", "Every message of the newest poll was confirmed by Kafka."),
    "polls_recorded": ("polls", "The newest poll was itself recorded."),
}
"""Checks of the topics by name: logical topic and description. Evaluated on every poll."""


def judge(poll: Mapping[str, Any], error: str | None = None) -> Found:
    """Evaluate the topics' checks on one poll.

    Args:
        poll: Fields of a poll message, version 2.
        error: Why the poll or its quotes are not in the log; None if they are.

    Returns:
        Evaluations by check. Without a reply `quotes_move` and `no_coin_missing` are omitted, since the state of the
        quotes is unknown. The freshness bound is that of tables at this cadence: 4 x cadence + 120 s.
    """
    fresh = poll["coins_returned"] - poll["coins_unchanged"]
    found: Found = {
        "polls_recorded": (error is None, error or f"newest poll {poll['poll_id']}"),
        "source_answers": (poll["outcome"] == "ok", f"{poll['outcome']}: {poll['detail'] or 'no detail'}"),
        "delivered": (
            error is None and poll["delivered"] == fresh,
            error or f"{poll['delivered']} of {fresh} changed quotes confirmed",
        ),
    }
    if poll["outcome"] == "ok":
        age, bound = poll["quote_age_s"], 4 * poll["cadence_s"] + 120
        text = "no usable quote" if age is None else f"newest quote is {age:.0f} s old, bound {bound:.0f} s"
        found["quotes_move"] = (age is not None and age <= bound, text)
        absent = [f"{coin}: not in {ABSENT_AFTER_POLLS} polls" for coin in poll["coins_absent"] or ()]
        lost = [*absent, *(poll["problems"] or ())]
        found["no_coin_missing"] = (not lost, "; ".join(lost) or "every coin was there")
    return found


def _object(value: str | bytes | None) -> dict[str, Any]:
    try:
        text = value.decode() if isinstance(value, bytes) else value
        found = None if text is None else json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _whole(digits: str) -> int | float:
    """Parse a JSON integer; one too large for any column becomes a float, possibly infinite."""
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _text(value: object) -> str | None:
    """Text that is encodable in UTF-8, else None; JSON may contain lone surrogates."""
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
    """Parser of a field by its name and JSON Schema."""
    if name in _TIMES:
        return read_rfc3339
    kinds = schema.get("type", "string")
    return _BY_TYPE[kinds if isinstance(kinds, str) else kinds[0]]


_READERS = {name: _reader(name, schema) for name, schema in POLL_SCHEMA["properties"].items()}
