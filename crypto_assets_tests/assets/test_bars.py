"""Bars over real tables: which windows are closed by what Bronze covers, which tables a run writes, refusals."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from crypto_assets.assets import bars
from crypto_assets.contracts.slices import DAY, HOUR, Slice, floor_hour, hour_key, hour_keys, key_slice
from crypto_assets.contracts.tables import SILVER_PRICES
from crypto_assets.engine.base import Engine
from crypto_assets.engine.sail import SailEngine
from crypto_assets.storage.base import SliceRefused
from crypto_assets_tests.builders import Record, at, silver_rows, step_inputs, write_bronze
from crypto_assets_tests.transforms.oracle import WIDTHS, bars_of

TEN = at("2024-05-01 10:00:00")
NOW = TEN + 2 * DAY
MINUTE = timedelta(minutes=1)


def put(engine: Engine, *offered: tuple[datetime, str], **same: Any) -> list[dict[str, Any]]:
    """Rows of Silver, written hour by hour."""
    rows = silver_rows([{"coin_id": "bitcoin", "last_updated_at": t, "price_usd": p, **same} for t, p in offered])
    for hour in sorted(set(rows.column("hour").to_pylist())):
        mine = rows.filter([h == hour for h in rows.column("hour").to_pylist()])
        engine.store.replace_slice("silver.prices", Slice(hour, hour + HOUR), lambda m=mine: m, now=NOW)
    return rows.to_pylist()


def reach(engine: Engine, moment: datetime) -> None:
    """Bronze covers the log up to a moment."""
    write_bronze(engine.store, [Record(moment, "anything")])


def stored(engine: Engine, name: str) -> dict[tuple, dict[str, Any]]:
    return {(r["coin_id"], r["window_start"]): r for r in engine.store.read_arrow(name).to_pylist()}


def test_one_run_writes_all_hourly_widths_and_another_the_day(engine: SailEngine) -> None:
    events = [(TEN + i * 7 * MINUTE + timedelta(seconds=i), str(100 + i * i % 13)) for i in range(40)]
    samples = put(engine, *events)
    as_of = TEN + 3 * HOUR
    reach(engine, as_of)
    hours = hour_keys(Slice(TEN, TEN + 5 * HOUR))
    result = bars.work(engine, hours, step_inputs(NOW))
    assert set(result.tables) == set(bars.HOURLY)
    assert set(bars.work_day(engine, ["2024-05-01"], step_inputs(NOW)).tables) == {"gold.bars_1d"}
    for width in WIDTHS:
        found, wanted = stored(engine, f"gold.bars_{width}"), bars_of(samples, width, as_of)
        names = ("open", "high", "low", "close", "sample_count", "is_closed", "expected_count", "available_at")
        assert {k: [r[n] for n in names] for k, r in found.items()} == {
            k: [r[n] for n in names] for k, r in wanted.items()
        }
    partitions = result.tables["gold.bars_5m"].partitions
    in_table = stored(engine, "gold.bars_5m").values()
    assert {k: p.rows for k, p in partitions.items()} == {
        k: sum(r["hour"] == key_slice(k, "hour").start for r in in_table) for k in hours
    }


def test_windows_close_as_bronze_reaches_further(engine: SailEngine) -> None:
    """No clock but the log's closes a window: `now` is days later from the start."""
    put(engine, (TEN + MINUTE, "1"), (TEN + 6 * MINUTE, "2"))
    closed = []
    reached = [TEN + 6 * MINUTE - timedelta(milliseconds=1), TEN + 6 * MINUTE, TEN + 11 * MINUTE]
    for offset, moment in enumerate(reached):
        write_bronze(engine.store, [Record(moment, "anything")], first_offset={0: offset})
        bars.work(engine, [hour_key(TEN)], step_inputs(NOW), ["gold.bars_5m"])
        closed.append([r["is_closed"] for _, r in sorted(stored(engine, "gold.bars_5m").items())])
    assert closed == [[False, False], [True, False], [True, True]]


def test_without_any_record_nothing_is_closed(engine: SailEngine) -> None:
    put(engine, (TEN + MINUTE, "1"))
    bars.work(engine, [hour_key(TEN)], step_inputs(NOW), ["gold.bars_1h"])
    assert [r["is_closed"] for r in stored(engine, "gold.bars_1h").values()] == [False]


def test_only_the_tables_and_hours_asked_for_are_written(engine: SailEngine) -> None:
    put(engine, (TEN + MINUTE, "1"), (TEN + HOUR + MINUTE, "2"), (TEN + 2 * HOUR + MINUTE, "3"))
    bars.work(engine, [hour_key(TEN + 2 * HOUR), hour_key(TEN)], step_inputs(NOW), ["gold.bars_5m"])
    assert {floor_hour(k[1]) for k in stored(engine, "gold.bars_5m")} == {TEN, TEN + 2 * HOUR}
    assert [engine.store.exists(f"gold.bars_{w}") for w in WIDTHS] == [False, True, False, False]


def test_a_day_of_hourly_history_fills_hours_and_days_only(engine: SailEngine) -> None:
    midnight = at("2024-05-01 00:00:00")
    put(engine, *[(midnight + i * HOUR, str(i + 1)) for i in range(24)], granularity="1h", cadence_s=None)
    reach(engine, NOW)
    hours = hour_keys(Slice(midnight, midnight + DAY))
    result = bars.work(engine, hours, step_inputs(NOW))
    bars.work_day(engine, ["2024-05-01"], step_inputs(NOW))
    assert [len(stored(engine, f"gold.bars_{w}")) for w in WIDTHS] == [0, 0, 24, 1]
    (day,) = stored(engine, "gold.bars_1d").values()
    assert (day["open"], day["close"], day["price_avg"], day["granularity"]) == (Decimal(1), Decimal(24), 12.5, "1h")
    assert (day["is_complete"], day["expected_count"]) == (True, None)
    empty = {c.name: c for c in result.tables["gold.bars_5m"].partitions[hours[0]].checks}
    assert not empty["has_rows"].passed
    assert "Silver holds no sample" in empty["has_rows"].description


def test_an_incomplete_window_is_a_warning_not_a_failure(engine: SailEngine) -> None:
    put(engine, (TEN + MINUTE, "1"))
    reach(engine, TEN + 2 * HOUR)
    result = bars.work(engine, [hour_key(TEN)], step_inputs(NOW), ["gold.bars_1h"])
    checks = {c.name: c for c in result.tables["gold.bars_1h"].partitions[hour_key(TEN)].checks}
    assert (checks["complete_windows"].passed, checks["complete_windows"].severity) == (False, "warn")
    assert len(stored(engine, "gold.bars_1h")) == 1


def test_a_slice_older_than_silver_keeps_is_refused(engine: SailEngine) -> None:
    assert SILVER_PRICES.retention_days is not None
    put(engine, (TEN + MINUTE, "1"))
    later = step_inputs(TEN + timedelta(days=SILVER_PRICES.retention_days))
    with pytest.raises(SliceRefused):
        bars.work(engine, [hour_key(TEN)], later)
    with pytest.raises(SliceRefused):
        bars.work_day(engine, ["2024-05-01"], later)
    assert not stored(engine, "gold.bars_1d")


def _day_checks(engine: Engine, day: str = "2024-05-01") -> dict[str, Any]:
    result = bars.work_day(engine, [day], step_inputs(NOW))
    return {c.name: c for c in result.tables["gold.bars_1d"].partitions[day].checks}


def test_a_first_day_is_judged_from_its_first_sample_and_a_later_one_as_a_whole(engine: SailEngine) -> None:
    begun = TEN + 4 * HOUR
    put(engine, *[(begun + i * HOUR, str(100 + i)) for i in range(10)], cadence_s=3600)
    reach(engine, NOW)
    found = _day_checks(engine)["complete_windows"]
    assert (found.passed, found.description) == (
        True,
        "the first day of the home: complete since its first sample at 14:00Z",
    )
    put(engine, (TEN - DAY, "99"), cadence_s=3600)
    found = _day_checks(engine)["complete_windows"]
    assert (found.passed, found.severity) == (False, "warn")


def test_a_first_day_with_a_gap_in_it_is_red(engine: SailEngine) -> None:
    put(engine, *[(TEN + i * HOUR, str(100 + i)) for i in (0, 1, 2, 10, 11)], cadence_s=3600)
    reach(engine, NOW)
    assert not _day_checks(engine)["complete_windows"].passed


def test_a_day_before_the_first_sample_is_not_yet_and_one_after_it_is_red(engine: SailEngine) -> None:
    put(engine, (TEN, "1"))
    reach(engine, NOW)
    early, late = _day_checks(engine, "2024-04-30")["has_rows"], _day_checks(engine, "2024-05-02")["has_rows"]
    assert (early.passed, early.description) == (True, "no rows yet: the home's first sample is later than this day")
    assert (late.passed, late.severity) == (False, "warn")
