"""Thresholds follow the cadence that source and plan allow."""

from __future__ import annotations

from datetime import timedelta

import pytest

from crypto_assets.checks import freshness
from crypto_assets.settings import Settings


def live(**changed) -> Settings:
    return Settings(source="coingecko", **changed)


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        (live(coingecko_api_key="k"), 270),
        (live(coingecko_plan="paid", coingecko_api_key="k"), 60),
        (live(), 60),
        (live(coingecko_api_key="k", coingecko_monthly_credits=1_000), 2690),
        (live(coingecko_api_key="k", coingecko_monthly_credits=10_000_000), 60),
        (Settings(source="replay"), 60),
        (Settings(source="replay", replay_speed=60), 10),
        (Settings(source="simulator", replay_speed=2), 30),
    ],
)
def test_cadence_of_source_and_plan(settings, seconds):
    assert freshness.cadence_s(settings) == seconds


def test_thresholds():
    assert freshness.thresholds(270) == (timedelta(minutes=10), timedelta(minutes=20))
    assert freshness.thresholds(10) == (timedelta(seconds=80), timedelta(seconds=160))


def test_windows_by_what_moves():
    window = freshness.windows(live(coingecko_api_key="k"))
    assert window["refresh"] == (timedelta(minutes=10), timedelta(minutes=20))
    assert window["daily"][0] == timedelta(hours=26)
    assert freshness.windows(Settings(source="replay"))["slot"][0] == timedelta(minutes=11)
    fast = freshness.windows(Settings(source="replay", replay_speed=3600, poll_interval_s=1))
    assert all(fail > warn for warn, fail in fast.values())


def test_the_promise_is_a_sentence():
    assert freshness.promise(270) == "cadence 270 s → data age ≤ 10 min; bars_1m mostly empty"
    assert freshness.promise(10) == "cadence 10 s → data age ≤ 80 s; every bar table filled"
    assert "bars_1m and bars_5m mostly empty" in freshness.promise(600)


def test_where_refreshes_are_rarer_than_polls_they_set_the_pace():
    hourly = Settings(source="coingecko", target="databricks")
    assert freshness.pace_s(hourly) == 3600
    assert freshness.windows(hourly)["refresh"][0] == timedelta(minutes=121)
    assert (
        freshness.promise(60, 3600)
        == "cadence 60 s, refreshed every 3600 s → data age ≤ 121 min; every bar table filled"
    )
    assert freshness.pace_s(Settings(source="coingecko")) == freshness.cadence_s(Settings(source="coingecko"))
