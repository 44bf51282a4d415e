"""Keys, slices and their predicates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_assets.contracts.slices import (
    DAY,
    HOUR,
    Slice,
    contiguous,
    day_key,
    floor_day,
    floor_hour,
    hour_key,
    hour_keys,
    key_slice,
    key_spans,
)
from crypto_assets.contracts.tables import BARS_1D, BARS_5M, DIM_COIN, RAW_PRICES
from crypto_assets_tests.builders import at

HOURS = st.integers(0, 24 * 366 * 3).map(lambda n: datetime(2023, 1, 1, tzinfo=UTC) + n * HOUR)
TEN = at("2024-05-01 10:00:00")


@given(HOURS)
def test_keys_and_slices_are_each_others_inverse(hour: datetime) -> None:
    assert key_slice(hour_key(hour), "hour") == Slice(hour, hour + HOUR)
    assert key_slice(day_key(hour), "day") == Slice(floor_day(hour), floor_day(hour) + DAY)
    assert hour_key(hour + timedelta(minutes=59, seconds=59)) == hour_key(hour)


@given(st.sets(HOURS, max_size=40))
def test_contiguous_runs_hold_every_key_once_and_have_no_holes(hours: set[datetime]) -> None:
    keys = [hour_key(h) for h in hours]
    runs = contiguous([*keys, *keys[:3]], "hour")
    assert [k for _, run in runs for k in run] == sorted(keys)
    for slice_, run in runs:
        assert hour_keys(slice_) == run
    for (before, _), (after, _) in pairwise(runs):
        assert before.end < after.start


@pytest.mark.parametrize("grain", ["hour", "day"])
@pytest.mark.parametrize(
    "key",
    ["", "2024-05-01-10:30", "2024-5-1", "2024-05-1", "2024-02-30", "2024-5-1-10:00", "2024-05-01-24:00", "today"],
)
def test_a_key_of_another_form_is_refused_with_an_example(key: str, grain: str) -> None:
    with pytest.raises(ValueError, match=r"is not a (hour|day) partition key such as '2024-01-31"):
        key_slice(key, grain)  # type: ignore[arg-type]


def test_a_slice_is_whole_hours_of_utc_and_not_empty() -> None:
    india = timezone(timedelta(hours=5, minutes=30))
    for start, end, told in (
        (TEN, TEN, "empty slice"),
        (TEN + HOUR, TEN, "empty slice"),
        (TEN + timedelta(seconds=1), TEN + HOUR, "not a whole hour"),
        (TEN, TEN + timedelta(hours=1, microseconds=1), "not a whole hour"),
        (TEN.replace(tzinfo=None), TEN + HOUR, "no time zone"),
        (TEN.replace(tzinfo=india), (TEN + HOUR).replace(tzinfo=india), "not in UTC"),
    ):
        with pytest.raises(ValueError, match=told):
            Slice(start, end)


def test_predicates_are_bare_literals_with_the_day_for_pruning() -> None:
    hour = Slice(TEN, TEN + HOUR)
    assert hour.predicate(BARS_5M) == (
        "day = '2024-05-01' AND hour >= '2024-05-01T10:00:00Z' AND hour < '2024-05-01T11:00:00Z'"
    )
    last = key_slice("2024-05-01-23:00", "hour")
    assert last.predicate(BARS_5M).startswith("day = '2024-05-01' AND ")
    over_midnight = Slice(last.start, last.end + HOUR)
    assert over_midnight.predicate(BARS_5M).startswith("day >= '2024-05-01' AND day <= '2024-05-02' AND ")
    assert key_slice("2024-05-01", "day").predicate(BARS_1D) == (
        "day = '2024-05-01' AND day_start >= '2024-05-01T00:00:00Z' AND day_start < '2024-05-02T00:00:00Z'"
    )
    assert hour.predicate(RAW_PRICES) == (
        "arrival_hour >= '2024-05-01T10:00:00Z' AND arrival_hour < '2024-05-01T11:00:00Z'"
    )
    with pytest.raises(ValueError, match=r"gold\.dim_coin has no time column"):
        hour.predicate(DIM_COIN)


def test_times_of_other_zones_are_floored_in_utc() -> None:
    india = timezone(timedelta(hours=5, minutes=30))
    moment = datetime(2024, 5, 2, 4, 15, tzinfo=india)  # 2024-05-01 22:45 in UTC
    assert (floor_hour(moment), floor_day(moment)) == (at("2024-05-01 22:00:00"), at("2024-05-01 00:00:00"))
    assert (hour_key(moment), day_key(moment)) == ("2024-05-01-22:00", "2024-05-01")


def test_a_slice_can_look_back() -> None:
    wider = Slice(TEN, TEN + HOUR).extend(before=26 * HOUR)
    assert (wider.start, wider.end, len(wider.hours())) == (TEN - 26 * HOUR, TEN + HOUR, 27)


def test_spans_of_keys_for_people() -> None:
    hours = hour_keys(Slice(at("2024-05-01 22:00:00"), at("2024-05-02 02:00:00")))
    keys = [*hours, "2024-05-02-05:00", "2024-05-01", "2024-05-02"]
    assert key_spans(reversed(keys)) == [
        "2024-05-01..2024-05-02",
        "2024-05-01-22:00..2024-05-02-01:00",
        "2024-05-02-05:00",
    ]
    assert key_spans([]) == []
