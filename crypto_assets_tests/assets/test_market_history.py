"""Days of history from the archive: calls made, what survives a refusal, and every digit on the way to Silver.

`FakeArchive` stands for the exchange; one test asks the package's own stand-in server through the real client.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from crypto_assets.assets import bars, market_history, silver
from crypto_assets.contracts.slices import DAY, HOUR, Slice, day_key, floor_day, hour_key, hour_keys
from crypto_assets.engine.base import Engine, Result, StepFailed
from crypto_assets.engine.sail import SailEngine
from crypto_assets.market.coins import CoinRegistry, default_registry
from crypto_assets.market.quotes import Poll
from crypto_assets.sources.replay import ReplayFeed
from crypto_assets.sources.standin import StandIn
from crypto_assets.sources.virtual import VirtualClient
from crypto_assets_tests.builders import at, sample, step_inputs, write_bronze

FIRST = at("2024-05-01 00:00:00")
NOW = at("2024-05-20 12:00:00")
NAME = "bronze.market_history"
COINS = ("bitcoin", "ethereum", "polygon-ecosystem-token")


class FakeArchive:
    """Answers with a point every `step`, at prices with more digits than a double holds.

    Args:
        step: Spacing of points.
        answers: By coin a failure's name, for every call; `limit` calls are answered in all, then it is rate limited.
    """

    def __init__(self, step: timedelta = HOUR, *, failing: dict[str, str] | None = None, limit: int = 1000) -> None:
        self.step, self.failing, self.limit = step, failing or {}, limit
        self.calls: list[tuple[str, str, int]] = []
        self.no_points_on: set[datetime] = set()

    def market_chart_range(
        self, coin_id: str, start: datetime, end: datetime, now: datetime
    ) -> tuple[dict[str, Any] | None, Poll]:
        self.calls.append((coin_id, day_key(start), (end - start) // DAY))
        finished = now + timedelta(seconds=len(self.calls))
        outcome = "rate_limited" if len(self.calls) > self.limit else self.failing.get(coin_id)
        if outcome is not None:
            return None, Poll(now, finished, outcome, detail="told so")  # type: ignore[arg-type]
        moments = [start + i * self.step for i in range((end - start) // self.step)]
        points = [[ms(m), price_at(m)] for m in moments if floor_day(m) not in self.no_points_on]
        text = json.dumps({"prices": points, "market_caps": points[:1], "total_volumes": []})
        bare = text.replace('"', "").replace("prices", '"prices"').replace("market_caps", '"market_caps"')
        bare = bare.replace("total_volumes", '"total_volumes"')
        return json.loads(bare, parse_float=Decimal), Poll(now, finished, "ok")


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def price_at(moment: datetime) -> str:
    return f"61234.{moment.day:02d}{moment.hour:02d}{moment.minute:02d}6789012345678"[:24]


Install = Callable[[FakeArchive], FakeArchive]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    def put(archive: FakeArchive) -> FakeArchive:
        @contextmanager
        def opened(_inputs: object) -> Iterator[FakeArchive]:
            yield archive

        monkeypatch.setattr(market_history, "open_archive", opened)
        return archive

    return put


def days(count: int, first: datetime = FIRST) -> list[str]:
    return [day_key(first + i * DAY) for i in range(count)]


def fetch(engine: Engine, keys: list[str], **inputs: Any) -> Result:
    return market_history.work(engine, keys, step_inputs(NOW, **{"source": "coingecko", **inputs}))


def held(engine: Engine) -> set[tuple[str, str]]:
    rows = engine.store.read_arrow(NAME, columns=["coin_id", "day"]).to_pylist()
    return {(r["coin_id"], str(r["day"])) for r in rows}


def test_one_call_fetches_a_coins_run_of_days(engine: SailEngine, install: Install) -> None:
    archive = install(FakeArchive())
    keys = days(3)
    result = fetch(engine, [keys[2], keys[0], keys[1]])
    assert archive.calls == [(coin, keys[0], 3) for coin in COINS]
    assert held(engine) == {(coin, day) for coin in COINS for day in keys}
    rows = engine.store.read_arrow(NAME).to_pylist()
    assert {(r["granularity"], r["points"], r["source"]) for r in rows} == {("1h", 24, "coingecko")}
    partitions = result.tables[NAME].partitions
    assert {k: p.rows for k, p in partitions.items()} == dict.fromkeys(keys, 3)
    checks = {c.name: c for c in partitions[keys[0]].checks}
    assert checks["all_coins_fetched"].passed
    assert (checks["fills_bars_5m"].passed, checks["fills_bars_5m"].severity) == (False, "warn")
    assert checks["fills_bars_5m"].description == "1h points fill bars_1h and bars_1d only"


def test_a_hole_makes_two_calls_and_ninety_days_are_the_most(engine: SailEngine, install: Install) -> None:
    archive = install(FakeArchive(DAY))
    one = CoinRegistry(step_inputs(NOW).coins.coins[:1])
    first = FIRST - 119 * DAY
    keys = [*days(95, first), day_key(first + 97 * DAY)]
    fetch(engine, keys, coins=one)
    assert archive.calls == [
        ("bitcoin", keys[0], 90), ("bitcoin", keys[90], 5), ("bitcoin", keys[-1], 1),
    ]  # fmt: skip
    assert len(held(engine)) == 96


def test_days_that_are_stored_are_not_fetched_again_unless_told(engine: SailEngine, install: Install) -> None:
    archive = install(FakeArchive())
    keys = days(3)
    first = fetch(engine, keys[1:2]).tables[NAME].partitions[keys[1]]
    archive.calls.clear()
    version = engine.store.version(NAME)
    again = fetch(engine, keys[1:2]).tables[NAME].partitions[keys[1]]
    assert archive.calls == []
    assert (engine.store.version(NAME), again.data_version) == (version, first.data_version)

    # A stored day in the middle: one call spans it, and the stored reply stays as it came.
    before = engine.store.read_arrow(NAME).to_pylist()
    fetch(engine, keys)
    assert archive.calls == [(coin, keys[0], 3) for coin in COINS]
    middle = [r for r in engine.store.read_arrow(NAME).to_pylist() if str(r["day"]) == keys[1]]
    assert sorted(middle, key=lambda r: r["coin_id"]) == sorted(before, key=lambda r: r["coin_id"])

    archive.calls.clear()
    fetch(engine, keys[1:2], rebuild=True)
    assert archive.calls == [(coin, keys[1], 1) for coin in COINS]


def test_a_rate_limit_stops_all_calls_and_loses_nothing(engine: SailEngine, install: Install) -> None:
    """The second coin is refused: neither the third coin nor another run of days is asked for."""
    keys = [*days(2), *days(2, FIRST + 5 * DAY)]
    limited = install(FakeArchive(limit=1))
    with pytest.raises(StepFailed, match=r"1 calls.*ethereum: rate_limited \(told so\).*run the same backfill again"):
        fetch(engine, keys)
    assert limited.calls == [("bitcoin", keys[0], 2), ("ethereum", keys[0], 2)]
    assert held(engine) == {("bitcoin", day) for day in keys[:2]}

    resumed = install(FakeArchive())
    fetch(engine, keys)
    assert resumed.calls == [
        ("ethereum", keys[0], 2), ("polygon-ecosystem-token", keys[0], 2),
        ("bitcoin", keys[2], 2), ("ethereum", keys[2], 2), ("polygon-ecosystem-token", keys[2], 2),
    ]  # fmt: skip
    assert held(engine) == {(coin, day) for coin in COINS for day in keys}


def test_a_key_that_is_refused_stops_all_calls(engine: SailEngine, install: Install) -> None:
    archive = install(FakeArchive(failing={"bitcoin": "unauthorized"}))
    with pytest.raises(StepFailed, match="bitcoin: unauthorized"):
        fetch(engine, days(1))
    assert [c[0] for c in archive.calls] == ["bitcoin"]


def test_other_failures_are_all_named_and_the_rest_is_fetched(engine: SailEngine, install: Install) -> None:
    archive = install(FakeArchive(failing={"bitcoin": "upstream_down", "ethereum": "unknown_coin"}))
    with pytest.raises(StepFailed, match=r"2 calls.*bitcoin: upstream_down.*ethereum: unknown_coin"):
        fetch(engine, days(2))
    assert [c[0] for c in archive.calls] == list(COINS)
    assert held(engine) == {("polygon-ecosystem-token", day) for day in days(2)}


@pytest.mark.parametrize("source", ["replay", "simulator"])
def test_a_home_that_is_not_live_is_refused_without_a_call(engine: SailEngine, install: Install, source: str) -> None:
    archive = install(FakeArchive())
    with pytest.raises(StepFailed, match=rf"holds {source} data.*--from log"):
        fetch(engine, days(1), source=source)
    assert archive.calls == []
    assert not engine.store.exists(NAME)


def test_only_days_on_which_a_coin_was_active_are_asked_for(engine: SailEngine, install: Install) -> None:
    archive = install(FakeArchive())
    bitcoin, ethereum, pol = step_inputs(NOW).coins
    coins = [
        replace(bitcoin, active_from=FIRST + DAY + 5 * HOUR),
        replace(ethereum, active_to=FIRST + DAY),
        replace(pol, active_to=FIRST - DAY),
    ]
    keys = days(3)
    result = fetch(engine, keys, coins=CoinRegistry(coins))
    assert archive.calls == [("bitcoin", keys[1], 2), ("ethereum", keys[0], 1)]
    checks = {k: {c.name: c.passed for c in p.checks} for k, p in result.tables[NAME].partitions.items()}
    assert [checks[k]["all_coins_fetched"] for k in keys] == [True] * 3


def test_a_day_without_points_is_named_and_not_stored(engine: SailEngine, install: Install) -> None:
    archive = install(FakeArchive())
    archive.no_points_on = {FIRST + DAY}
    keys = days(3)
    result = fetch(engine, keys)
    assert held(engine) == {(coin, day) for coin in COINS for day in (keys[0], keys[2])}
    checks = {c.name: c for c in result.tables[NAME].partitions[keys[1]].checks}
    assert checks["all_coins_fetched"].description == f"no points for {', '.join(COINS)}"
    assert [checks[n].passed for n in ("all_coins_fetched", "fills_bars_5m", "has_rows")] == [False] * 3


def test_every_digit_reaches_silver_and_a_live_sample_wins_its_slot(engine: SailEngine, install: Install) -> None:
    archive = install(FakeArchive(timedelta(minutes=5)))
    coins = CoinRegistry(step_inputs(NOW).coins.coins[:1])
    result = fetch(engine, days(1), coins=coins)
    assert [c.passed for c in result.tables[NAME].partitions[days(1)[0]].checks if c.name == "fills_bars_5m"] == [True]
    write_bronze(engine.store, [sample("bitcoin", FIRST + timedelta(minutes=17), "7.5")])
    hours = hour_keys(Slice(FIRST, FIRST + DAY))
    inputs = step_inputs(NOW, source="coingecko", coins=coins)
    silver.work(engine, hours, inputs)
    found = {r["last_updated_at"]: r for r in engine.store.read_arrow("silver.prices").to_pylist()}
    moments = [FIRST + i * timedelta(minutes=5) for i in range(288) if i != 3]
    live = found.pop(FIRST + timedelta(minutes=17))
    assert (live["granularity"], live["price_usd"], live["source"]) == ("tick", Decimal("7.5"), "replay")
    assert {t: r["price_usd"] for t, r in found.items()} == {m: Decimal(price_at(m)) for m in moments}
    assert len(price_at(FIRST)) == 24, "more digits than a double holds"
    assert found[FIRST]["market_cap_usd"] == Decimal(price_at(FIRST))
    assert {(r["granularity"], r["source"], r["available_at"]) for r in found.values()} == {
        ("5m", "coingecko", NOW + timedelta(seconds=len(archive.calls)))
    }
    bars.work(engine, hours, inputs, ["gold.bars_5m"])
    assert engine.store.read_arrow("gold.bars_5m").num_rows == 288


def test_hourly_history_fills_hours_and_days_and_no_slots(engine: SailEngine, install: Install) -> None:
    install(FakeArchive())
    inputs = step_inputs(NOW, source="coingecko")
    fetch(engine, days(2))
    hours = hour_keys(Slice(FIRST, FIRST + DAY))
    silver.work(engine, hours, inputs)
    bars.work(engine, hours, inputs)
    bars.work_day(engine, days(1), inputs)
    counts = {w: engine.store.read_arrow(f"gold.bars_{w}").num_rows for w in ("1m", "5m", "1h", "1d")}
    assert counts == {"1m": 0, "5m": 0, "1h": 72, "1d": 3}


def test_the_real_client_and_the_stand_in_agree_with_the_step(
    engine: SailEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP: a rate limit on the second coin, then the same command again; prices are those of the recording."""
    feed = ReplayFeed(FIRST.date())
    coins = default_registry("replay")
    with StandIn(feed) as standin:
        client = VirtualClient(standin.url, feed, "replay")

        @contextmanager
        def opened(_inputs: object) -> Iterator[VirtualClient]:
            yield client

        monkeypatch.setattr(market_history, "open_archive", opened)
        standin.set_fault("rate_limited_json")
        with pytest.raises(StepFailed, match=r"bitcoin: rate_limited"):
            fetch(engine, days(1), coins=coins)
        assert standin.requests == 1
        standin.set_fault(None)
        fetch(engine, days(1), coins=coins)
        assert standin.requests == 4
        client.close()
    inputs = step_inputs(NOW, source="coingecko", coins=coins)
    silver.work(engine, [hour_key(FIRST + 10 * HOUR)], inputs)
    found = engine.store.read_arrow("silver.prices").to_pylist()
    moments = [FIRST + 10 * HOUR]
    wanted = {(c.coin_id, t): p for c in coins for t, p in feed.history(c.coin_id, moments)}
    assert len(wanted) == 3
    assert {(r["coin_id"], r["last_updated_at"]): r["price_usd"] for r in found} == wanted


def test_granularity_is_the_middle_gap() -> None:
    five, hour = 300_000, 3_600_000
    assert market_history.granularity([i * five for i in range(288)]) == "5m"
    assert market_history.granularity([0, five, 40 * five, 41 * five, 42 * five]) == "5m"
    assert market_history.granularity([i * hour + (i % 3) * 40_000 for i in range(24)]) == "1h"
    assert market_history.granularity([0, 12 * hour]) == "1d"
    assert market_history.granularity([0]) == "1d"
    assert market_history.granularity([3 * five, 0, five, 2 * five]) == "5m"


def test_a_day_takes_its_half_open_share_of_a_reply() -> None:
    edge = [FIRST - timedelta(milliseconds=1), FIRST, FIRST + DAY - timedelta(milliseconds=1), FIRST + DAY]
    reply = {"prices": [[ms(m), Decimal(i)] for i, m in enumerate(edge)], "market_caps": None}
    first, second = market_history.day_rows("bitcoin", reply, [FIRST, FIRST + DAY], NOW, "coingecko")
    assert [p[1] for p in json.loads(first["raw_json"])["prices"]] == ["1", "2"]
    assert [p[1] for p in json.loads(second["raw_json"])["prices"]] == ["3"]
    assert (first["day"], first["points"], json.loads(first["raw_json"])["market_caps"]) == (date(2024, 5, 1), 2, [])
    tiny = market_history.day_rows("x", {"prices": [[ms(FIRST), Decimal("1.9E-8")]]}, [FIRST], NOW, "coingecko")
    assert json.loads(tiny[0]["raw_json"])["prices"][0][1] == "0.000000019"
