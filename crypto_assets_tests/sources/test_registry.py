from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from crypto_assets.market.coins import default_registry
from crypto_assets.settings import Settings
from crypto_assets.sources.coingecko import BadBaseUrl, CoinGeckoClient
from crypto_assets.sources.feed import Feed
from crypto_assets.sources.registry import source_of
from crypto_assets.sources.replay import ReplayFeed
from crypto_assets.sources.simulator import SimulatorFeed
from crypto_assets.sources.virtual import VirtualClient, VirtualSource
from crypto_assets_tests.sources.raw_server import reply

ANCHOR = date(2026, 5, 2)
NOW = datetime(2026, 5, 2, 13, 40, tzinfo=UTC)


def settings_of(tmp_path: Path, source: str, **more: object) -> Settings:
    return Settings(source=source, home_path=tmp_path, **more)  # type: ignore[arg-type]


def open_source(settings: Settings) -> AbstractContextManager[Any]:
    return source_of(settings).open(settings, anchor=ANCHOR)


def make_feed(settings: Settings) -> Feed:
    source = source_of(settings)
    assert isinstance(source, VirtualSource)
    return source.feed(settings, ANCHOR)


@pytest.mark.parametrize("mode", ["replay", "simulator"])
def test_a_virtual_home_polls_its_own_feed_over_the_live_path(tmp_path, mode):
    settings = settings_of(tmp_path, mode)
    coins = [c.coin_id for c in default_registry(mode).coins]
    with open_source(settings) as source:
        assert isinstance(source, CoinGeckoClient)
        assert source.name == mode
        poll = source.poll(coins, NOW)
    quotes = {q.coin_id: q for q in make_feed(settings).quotes(NOW)}
    assert (poll.outcome, poll.missing, poll.problems) == ("ok", (), ())
    assert {t.coin_id: t.price_usd for t in poll.ticks} == {c: quotes[c].price for c in coins}
    assert {t.last_updated_at for t in poll.ticks} == {q.last_updated_at for q in quotes.values()}


@pytest.mark.parametrize("mode", ["replay", "simulator"])
def test_the_same_poll_twice_is_the_same(tmp_path, mode):
    settings = settings_of(tmp_path, mode)
    coins = [c.coin_id for c in default_registry(mode).coins]
    moments = [NOW, NOW + timedelta(days=1, hours=3), NOW - timedelta(hours=9)]
    with open_source(settings) as source:
        first = [source.poll(coins, m) for m in moments]
    with open_source(settings) as source:
        again = [source.poll(coins, m) for m in reversed(moments)][::-1]
    assert first == again
    assert all(p.ticks for p in first)
    assert [p.finished_at for p in first] == moments


def test_a_replayed_poll_says_where_its_quotes_come_from(tmp_path):
    with open_source(settings_of(tmp_path, "replay")) as source:
        today, tomorrow = source.poll(["bitcoin"], NOW), source.poll(["bitcoin"], NOW + timedelta(days=1))
    assert today.headers == {"recorded_at": "2018-04-05T13:40:00Z", "shift_days": "2949"}
    assert tomorrow.headers["seam"].startswith("repetition 1; bitcoin x 1.001")


def test_a_simulated_home_uses_its_seed(tmp_path):
    def price(seed: int) -> object:
        with open_source(settings_of(tmp_path, "simulator", simulator_seed=seed)) as source:
            return source.poll(["bitcoin"], NOW).ticks[0].price_usd

    assert price(1) == price(1) != price(2)


def test_the_feed_is_that_of_the_mode(tmp_path):
    assert isinstance(make_feed(settings_of(tmp_path, "replay")), ReplayFeed)
    assert isinstance(make_feed(settings_of(tmp_path, "simulator")), SimulatorFeed)


def test_a_live_home_asks_the_host_of_its_plan(tmp_path):
    for key, plan, host in (
        (None, None, "api.coingecko.com"),
        ("k", None, "api.coingecko.com"),
        ("k", "paid", "pro-api.coingecko.com"),
    ):
        settings = settings_of(tmp_path, "coingecko", coingecko_api_key=key, coingecko_plan=plan)
        with open_source(settings) as source:
            assert (source.name, source.url) == ("coingecko", f"https://{host}/api/v3")
            assert not isinstance(source, VirtualClient)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (reply("oops", 503), "upstream_down"),
        (reply("Throttled", 429), "rate_limited"),
        (reply('{"status":{"error_code":10002,"error_message":"API Key Missing"}}', 401), "unauthorized"),
    ],
)
def test_a_live_home_never_falls_back_to_made_up_or_recorded_prices(tmp_path, server, answer, outcome):
    server.answer(answer)
    settings = settings_of(tmp_path, "coingecko", coingecko_base_url=server.url)
    with open_source(settings) as source:
        poll = source.poll(["bitcoin"], NOW)
        assert (source.name, poll.outcome, poll.ticks) == ("coingecko", outcome, ())


def test_a_bad_address_opens_nothing(tmp_path):
    settings = settings_of(tmp_path, "coingecko", coingecko_base_url="https://prices.example")
    with pytest.raises(BadBaseUrl, match="is not accepted for the keyless plan"), open_source(settings):
        pytest.fail("a source was opened")


def test_a_virtual_home_sends_no_key_anywhere(tmp_path, server):
    server.answer(reply("[]"))
    settings = settings_of(tmp_path, "replay", coingecko_api_key="secret", coingecko_base_url=server.url)
    with open_source(settings) as source:
        assert source.poll(["bitcoin"], NOW).outcome == "ok"
    assert server.received == []


def test_a_closed_source_has_stopped_its_server(tmp_path):
    with open_source(settings_of(tmp_path, "replay")) as source:
        assert source.poll(["bitcoin"], NOW).outcome == "ok"
    assert source.poll(["bitcoin"], NOW).outcome == "upstream_down"


def test_the_stand_in_has_the_history_that_it_quotes(tmp_path):
    hours, now = (NOW.replace(minute=0) - timedelta(hours=5), NOW.replace(minute=30)), NOW + timedelta(days=3)
    with open_source(settings_of(tmp_path, "replay")) as source:
        reply, _ = source.market_chart_range("bitcoin", *hours, now)
        assert reply is not None
        told = [(datetime.fromtimestamp(ms / 1000, UTC), price) for ms, price in reply["prices"]]
        polled = [(at, source.poll(["bitcoin"], at).ticks[0].price_usd) for at, _ in told]
    assert len(told) == 6
    assert told == polled


def test_an_unknown_source_is_refused_with_the_names_that_there_are(tmp_path):
    with pytest.raises(ValidationError, match="Input should be coingecko, replay or simulator"):
        settings_of(tmp_path, "simulated")
