"""Bars against a plain-Python oracle that takes its sums as fractions."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from crypto_assets.contracts.arrow import conform
from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.sail import frame
from crypto_assets.transforms.bars import bars
from crypto_assets_tests.builders import at, silver_rows
from crypto_assets_tests.transforms.oracle import WIDTHS, Width, bars_of, rows_by

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TEN = at("2024-05-01 10:00:00")
SECOND = timedelta(seconds=1)
FAR = at("2024-06-01 00:00:00")
FLOATS = {"price_avg": 1e-14, "price_vol": 1e-9, "range": 1e-9}
"""Relative tolerance by column; everything else must be equal. A range is the difference of nearly equal numbers."""


def samples_of(*offered: tuple[float, str], coin: str = "bitcoin", **same: Any) -> list[dict[str, Any]]:
    """Samples from (seconds after ten o'clock, price)."""
    return [
        {"coin_id": coin, "last_updated_at": TEN + timedelta(seconds=s), "price_usd": price, **same}
        for s, price in offered
    ]


def made(spark: SparkSession, samples: Sequence[Mapping[str, Any]], width: Width, as_of: datetime | None = FAR) -> dict:
    """Bars by (coin_id, window_start); the contract accepts them."""
    table = bars(frame(spark, silver_rows(samples)), width, as_of).toArrow()
    return rows_by(conform(TABLES[f"gold.bars_{width}"], table), "coin_id", "window_start")


def assert_equal(found: dict, wanted: dict) -> None:
    assert set(found) == set(wanted)
    for key, row in found.items():
        told = {**wanted[key]}
        for name, tolerance in FLOATS.items():
            value = told.pop(name)
            assert row[name] == (None if value is None else pytest.approx(value, rel=tolerance, abs=1e-15)), (key, name)
        assert {n: v for n, v in row.items() if n not in FLOATS} == told, key


def market(seed: int) -> list[dict[str, Any]]:
    """Two days of two coins: polls of changing cadence, holes, history of three spacings, shuffled."""
    chance = random.Random(seed)
    samples: dict[tuple[str, datetime], dict[str, Any]] = {}
    for coin, first, digits in (("bitcoin", Decimal("61234.5"), 8), ("shiba", Decimal("0.0000098"), 18)):
        moment, end = TEN - timedelta(hours=2), TEN + timedelta(hours=16)
        price = first
        while moment < end:
            price = (price * Decimal(1 + chance.gauss(0, 0.001))).quantize(Decimal(1).scaleb(-digits))
            kind = chance.choices(["tick", "5m", "1h", "1d"], [40, 6, 3, 1])[0]
            live = kind == "tick"
            samples[coin, moment] = {
                "coin_id": coin,
                "last_updated_at": moment,
                "price_usd": price,
                "symbol": chance.choice(["AAA", "BBB"]),
                "granularity": kind,
                "cadence_s": chance.choice([10.0, 60.0, 45.0, 900.0, None]) if live else None,
                "volume_24h_usd": Decimal(chance.randint(0, 10**9)) if chance.random() < 0.8 else None,
                "market_cap_usd": Decimal(chance.randint(0, 10**12)) if chance.random() < 0.5 else None,
                "available_at": moment + timedelta(seconds=chance.randint(0, 10_000)),
            }
            moment += timedelta(milliseconds=chance.choice([10_000, 60_000, 61_250, 300_000, 1_500_000]))
    return chance.sample(list(samples.values()), len(samples))


@pytest.mark.parametrize("width", WIDTHS)
def test_bars_equal_the_oracle(spark: SparkSession, width: Width) -> None:
    samples, as_of = market(7), TEN + timedelta(hours=5, seconds=60)
    found = made(spark, samples, width, as_of)
    rows = silver_rows(samples).to_pylist()
    wanted = bars_of(rows, width, as_of)
    assert len(wanted) >= 4
    assert_equal(found, wanted)


def test_one_sample_has_no_deviation_and_no_range(spark: SparkSession) -> None:
    (bar,) = made(spark, samples_of((0, "61234.5")), "5m").values()
    assert (bar["open"], bar["high"], bar["low"], bar["close"]) == (Decimal("61234.5"),) * 4
    assert (bar["price_vol"], bar["range"], bar["sample_count"]) == (None, None, 1)
    assert bar["price_avg"] == pytest.approx(61234.5, rel=1e-14)


def test_equal_prices_have_no_spread(spark: SparkSession) -> None:
    """Exactly zero, also for prices that no double holds."""
    for price in ("0.1", "61234.123456789", "0.000000000000000001"):
        (bar,) = made(spark, samples_of(*[(i, price) for i in range(7)]), "5m").values()
        assert (bar["price_vol"], bar["range"]) == (pytest.approx(0, abs=float(price) * 1e-12), 0.0)
        assert bar["price_avg"] == pytest.approx(float(price), rel=1e-15)


def test_first_and_last_are_by_event_time_whatever_the_arrival(spark: SparkSession) -> None:
    offered = samples_of((299.999, "4"), (0, "2"), (150, "9"), (10, "1"))
    for i, s in enumerate(offered):
        s["available_at"] = TEN + timedelta(minutes=60 - i)
    (bar,) = made(spark, offered, "5m").values()
    assert [bar[n] for n in ("open", "high", "low", "close")] == [Decimal(p) for p in (2, 9, 1, 4)]
    assert bar["available_at"] == TEN + timedelta(minutes=60)
    # Sample variance of 4, 2, 9, 1 is 38 / 3.
    assert (bar["price_avg"], bar["price_vol"]) == (4.0, pytest.approx((38 / 3) ** 0.5))
    assert bar["range"] == 8.0


def test_volume_and_capitalisation_are_those_of_the_last_sample_even_if_unknown(spark: SparkSession) -> None:
    known = samples_of((0, "1"), volume_24h_usd=Decimal(10), market_cap_usd=Decimal(20))
    silent = samples_of((60, "1"), volume_24h_usd=None, market_cap_usd=None)
    (bar,) = made(spark, [*known, *silent], "5m").values()
    assert (bar["volume_24h_usd"], bar["market_cap_usd"]) == (None, None)


def test_windows_are_half_open(spark: SparkSession) -> None:
    found = made(spark, samples_of((-0.001, "1"), (0, "2"), (299.999, "3"), (300, "4")), "5m")
    counts = {(key[1] - TEN) / SECOND: row["sample_count"] for key, row in found.items()}
    assert counts == {-300: 1, 0: 2, 300: 1}


def test_a_window_is_closed_sixty_seconds_after_its_end(spark: SparkSession) -> None:
    samples = samples_of((0, "1"))
    end = TEN + timedelta(minutes=5)
    for as_of, closed in (
        (end + 60 * SECOND, True),
        (end + 60 * SECOND - timedelta(microseconds=1), False),
        (None, False),
    ):
        (bar,) = made(spark, samples, "5m", as_of).values()
        assert bar["is_closed"] is closed, as_of


def test_a_closed_window_is_complete_with_eighty_percent_of_its_cadence(spark: SparkSession) -> None:
    """At a poll every 10 s, 30 samples are expected and 24 are enough; only closed windows can be complete."""
    samples = [
        *samples_of(*[(10 * i, "1") for i in range(24)], coin="enough"),
        *samples_of(*[(10 * i, "1") for i in range(23)], coin="short"),
        *samples_of((0, "1"), coin="slow", cadence_s=900.0),
        *samples_of((0, "1"), (60, "1"), (120, "1"), (180, "1"), coin="slower-now", cadence_s=10.0),
        *samples_of((240, "1"), coin="slower-now", cadence_s=60.0),
        *samples_of((0, "1"), (10, "1"), coin="unknown", cadence_s=None),
    ]
    closed = {key[0]: row for key, row in made(spark, samples, "5m").items()}
    told = {coin: (row["expected_count"], row["is_complete"]) for coin, row in closed.items()}
    assert told == {
        "enough": (30, True),
        "short": (30, False),
        "slow": (1, True),
        "slower-now": (5, True),  # the cadence in force at the last sample
        "unknown": (None, False),
    }
    still_open = made(spark, samples, "5m", TEN)
    assert {row["is_complete"] for row in still_open.values()} == {False}


def test_hourly_points_feed_hours_and_days_only_and_daily_points_days_only(spark: SparkSession) -> None:
    samples = [
        *samples_of((0, "1"), granularity="5m", cadence_s=None),
        *samples_of((3601, "2"), granularity="1h", cadence_s=None),
        *samples_of((7205, "3"), granularity="1d", cadence_s=None),
    ]
    found = {width: made(spark, samples, width) for width in WIDTHS}
    counts = {
        w: sorted((row["granularity"], row["sample_count"]) for row in rows.values()) for w, rows in found.items()
    }
    assert counts == {
        "1m": [("5m", 1)],
        "5m": [("5m", 1)],
        "1h": [("1h", 1), ("5m", 1)],
        "1d": [("1d", 3)],
    }
    for rows in found.values():
        assert {(row["expected_count"], row["is_complete"]) for row in rows.values()} == {(None, True)}


def test_a_window_with_a_live_sample_and_history_says_so(spark: SparkSession) -> None:
    """One live sample among history: what was expected is not known, and the coarsest kind is named."""
    samples = [*samples_of((0, "1")), *samples_of((900, "3"), granularity="5m", cadence_s=None)]
    (bar,) = made(spark, samples, "1h").values()
    assert (bar["granularity"], bar["expected_count"], bar["is_complete"], bar["close"]) == (
        "5m",
        None,
        True,
        Decimal(3),
    )


def test_a_day_is_made_of_its_samples_not_of_its_hours(spark: SparkSession) -> None:
    """Unequal hours: the mean and the deviation of a day are those of its samples."""
    samples = samples_of((0, "1"), (3600, "4"), (3660, "4"), (3720, "4"), (14 * 3600 - 0.001, "7"), (14 * 3600, "100"))
    found = made(spark, samples, "1d")
    midnight = at("2024-05-01 00:00:00")
    bar = found["bitcoin", midnight]
    assert (bar["sample_count"], bar["price_avg"], bar["price_vol"]) == (5, 4.0, pytest.approx(18**0.5 / 2))
    assert (bar["open"], bar["close"], bar["day_start"], bar["day"]) == (
        Decimal(1),
        Decimal(7),
        midnight,
        midnight.date(),
    )
    assert found["bitcoin", midnight + timedelta(days=1)]["sample_count"] == 1


def test_no_sample_makes_no_bar(spark: SparkSession) -> None:
    for width in WIDTHS:
        assert made(spark, [], width) == {}
