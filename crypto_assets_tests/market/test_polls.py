"""One poll message is read whatever it holds: what a column cannot hold is null, and nothing raises."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bench.mutations import mutated
from crypto_assets.contracts.messages import POLL_SCHEMA
from crypto_assets.market.polls import read_poll

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
POLL: dict[str, Any] = {
    "poll_id": "p", "started_at": "2024-05-01T12:00:00.000Z", "finished_at": "2024-05-01T12:00:00.250Z",
    "source": "replay", "outcome": "ok", "http_status": 200, "detail": None, "coins_asked": 3, "coins_returned": 3,
    "coins_unchanged": 0, "coins_missing": ["x"], "age_s": 1.0, "latency_ms": 5.0, "cadence_s": 60, "credits_used": 1,
    "credits_left": None, "delivered": 3,
}  # fmt: skip
NOTHING = dict.fromkeys(POLL_SCHEMA["properties"])
READ = {**NOTHING, **POLL, "started_at": NOON, "finished_at": NOON + timedelta(milliseconds=250), "cadence_s": 60.0}


def text(**raw: str) -> str:
    """The poll with some values replaced by JSON text."""
    return "{" + ",".join(f'"{n}":{raw.get(n, json.dumps(v))}' for n, v in POLL.items()) + "}"


def test_a_good_poll_is_read_field_by_field() -> None:
    assert read_poll(text()) == READ
    assert read_poll(text().encode()) == READ


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("age_s", "1" + "0" * 400, None),
        ("age_s", "7" * 5000, None),
        ("age_s", "1e999", None),
        ("age_s", "NaN", None),
        ("age_s", "-Infinity", None),
        ("age_s", "-0", 0.0),
        ("age_s", "true", None),
        ("age_s", '"1.0"', None),
        ("coins_asked", "7" * 5000, None),
        ("coins_asked", "2147483647", 2147483647),
        ("coins_asked", "2147483648", None),
        ("coins_asked", "-2147483648", -2147483648),
        ("coins_asked", "9223372036854775808", None),
        ("coins_asked", "3.0", None),
        ("coins_asked", "false", None),
        ("coins_asked", "[3]", None),
        ("poll_id", '"\\ud800"', None),
        ("poll_id", '"\\ud83d\\ude00"', "\U0001f600"),
        ("poll_id", '"a\\u0000b"', "a\x00b"),
        ("poll_id", '{"a":1}', None),
        ("poll_id", "7", None),
        ("detail", '"x\\udfff"', None),
        ("coins_missing", '["x\\udc00"]', None),
        ("coins_missing", '["x",1]', None),
        ("coins_missing", '"x"', None),
        ("coins_missing", '{"x":1}', None),
        ("coins_missing", '[["x"]]', None),
        ("started_at", '"0000-01-01T00:00:00Z"', None),
        ("started_at", '"9999-12-31T23:59:60Z"', None),
        ("started_at", '"9999-12-31T23:59:59-01:00"', None),
        ("started_at", '"2024-05-01T12:00:00+99:99"', None),
        ("started_at", '"2024-05-01T24:00:00Z"', None),
        ("started_at", '"2024-05-01T13:00:00+01:00"', NOON),
        ("started_at", "1714564800", None),
    ],
)
def test_what_a_column_cannot_hold_is_null_and_costs_no_other_field(field: str, value: str, read: object) -> None:
    assert read_poll(text(**{field: value})) == READ | {field: read}


@pytest.mark.parametrize(
    "value",
    [None, b"", "", b"\xff\xfe", b"\xed\xa0\x80", "\ufeff" + text(), text()[:-1], text() + "x", text() * 2, "null", "7",
     f"[{text()}]", "[" * 100_000, '{"a":' * 100_000, "nan"],
)  # fmt: skip
def test_what_is_no_object_has_no_field(value: str | bytes | None) -> None:
    assert read_poll(value) == NOTHING


def test_names_count_whatever_else_is_there_and_the_last_of_two_holds() -> None:
    assert read_poll('{"\\ud800":1,"":2,"poll\\u005fid":"p","zz":{"poll_id":"q"}}') == NOTHING | {"poll_id": "p"}
    assert read_poll('{"poll_id":"p","poll_id":"q"}')["poll_id"] == "q"


def test_mutated_polls_never_raise_and_give_only_what_a_column_holds() -> None:
    for record in mutated([POLL], 5_000, seed=15):
        poll = read_poll(record)
        assert poll.keys() == NOTHING.keys()
        for value in poll.values():
            if isinstance(value, int):
                assert -(2**31) <= value < 2**31
            elif isinstance(value, float):
                assert math.isfinite(value)
            elif isinstance(value, datetime):
                assert value.tzinfo is UTC
            else:
                assert value is None or "".join(value).encode() is not None
