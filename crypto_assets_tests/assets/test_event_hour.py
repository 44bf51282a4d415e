"""The lenient hour of an event, against a plain JSON parser."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_assets.transforms.bronze import event_hour, read_moment

START = datetime(2024, 1, 1, tzinfo=UTC)
ARRIVAL = datetime(2024, 3, 1, 12, tzinfo=UTC)


def hours(values: list[str | None], arrival: datetime = ARRIVAL) -> list[datetime | None]:
    times = pa.array([arrival] * len(values), pa.timestamp("us", "UTC"))
    return event_hour(pa.array(values, pa.string()), times, START).to_pylist()


def at(text: object) -> str:
    return json.dumps({"coin_id": "b", "last_updated_at": text, "x": 1})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (at("2024-02-29T23:59:59.999Z"), datetime(2024, 2, 29, 23, tzinfo=UTC)),
        (at("2024-02-29T23:59:59Z"), datetime(2024, 2, 29, 23, tzinfo=UTC)),
        (at("2024-02-29T23:59:59.123456789Z"), datetime(2024, 2, 29, 23, tzinfo=UTC)),
        (at("2024-02-29T23:59:59.999+05:30"), datetime(2024, 2, 29, 18, tzinfo=UTC)),
        (at("2024-02-29t10:00:00z"), datetime(2024, 2, 29, 10, tzinfo=UTC)),
        (at("2024-03-01T12:01:00.000Z"), datetime(2024, 3, 1, 12, tzinfo=UTC)),
        (at("2024-03-01T12:01:00.001Z"), None),
        (at("2024-01-01T00:00:00.000Z"), START),
        (at("2023-12-31T23:59:59.999Z"), None),
        (at("2023-02-29T10:00:00Z"), None),
        (at("2024-02-29T24:00:00Z"), None),
        (at("2024-02-29T10:00:00"), None),
        (at("2024-02-29 10:00:00 UTC"), None),
        (at(1709200000), None),
        (at(None), None),
        ('{"last_updated_at": "2024-02-29T10:00:00Z"', datetime(2024, 2, 29, 10, tzinfo=UTC)),
        (
            '{"note": "last_updated_at", "last_updated_at": "2024-02-29T10:00:00Z"}',
            datetime(2024, 2, 29, 10, tzinfo=UTC),
        ),
        ('{"last_updated_at": "x", "last_updated_at": "2024-02-29T10:00:00Z"}', datetime(2024, 2, 29, 10, tzinfo=UTC)),
        ('{"last_updated\\u005fat":"2024-02-29T10:00:00Z"}', datetime(2024, 2, 29, 10, tzinfo=UTC)),
        ('{"p": "{\\"last_updated_at\\": \\"2024-02-29T10:00:00Z\\"}"}', None),
        ("[]", None),
        ("", None),
        ("[" * 100_000, None),
        (None, None),
    ],
)
def test_one_record(value, expected):
    assert hours([value]) == [expected]


def test_an_impossible_date_does_not_cost_its_neighbours_their_hours():
    good, bad = at("2024-02-29T10:00:00.000Z"), at("2024-02-30T10:00:00.000Z")
    ten = datetime(2024, 2, 29, 10, tzinfo=UTC)
    assert hours([good, bad, good]) == [ten, None, ten]


def test_no_records():
    assert hours([]) == []


moments = st.integers(-50_000, 120_000).map(lambda minutes: START + timedelta(minutes=minutes, milliseconds=7))
texts = st.one_of(
    moments.map(lambda m: m.strftime("%Y-%m-%dT%H:%M:%S.") + f"{m.microsecond // 1000:03d}Z"),
    moments.map(lambda m: m.isoformat()),
    moments.map(lambda m: m.strftime("%Y-%m-%dT%H:%M:%SZ")),
    st.text(max_size=30),
    st.none(),
    st.integers(),
)
bodies = st.dictionaries(
    st.text(max_size=8), st.one_of(st.text(max_size=40), st.none(), st.floats(allow_nan=False)), max_size=4
)
objects = st.builds(lambda body, text: json.dumps({**body, "last_updated_at": text}), bodies, texts)


@given(st.lists(st.one_of(objects, bodies.map(json.dumps), st.text(max_size=60)), max_size=8))
def test_every_json_object_has_the_hour_that_a_parser_finds(values):
    found = hours(values)
    for value, hour in zip(values, found, strict=True):
        moment = read_moment(value)
        if moment is not None and not START <= moment <= ARRIVAL + timedelta(seconds=60):
            moment = None
        expected = None if moment is None else moment.replace(minute=0, second=0, microsecond=0)
        assert hour == expected, value
