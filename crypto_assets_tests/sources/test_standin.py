from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import requests

from crypto_assets.sources.base import confirmed_coin
from crypto_assets.sources.coingecko import ATTEMPTS, DEADLINE_S, CoinGeckoClient
from crypto_assets.sources.replay import ReplayFeed
from crypto_assets.sources.simulator import SimulatorFeed
from crypto_assets.sources.standin import NOW_HEADER, StandIn
from crypto_assets_tests.sources.faulty import FaultyStandIn

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BASKET = ("bitcoin", "ethereum", "solana")


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with FaultyStandIn(SimulatorFeed(7)) as running:
        yield running


def open_client(standin: StandIn, deadline_s: float = DEADLINE_S) -> CoinGeckoClient:
    return CoinGeckoClient(
        standin.url, name="simulator", deadline_s=deadline_s, extra_headers=lambda now: {NOW_HEADER: now.isoformat()}
    )


@pytest.fixture
def source(standin) -> Iterator[CoinGeckoClient]:
    client = open_client(standin)
    yield client
    client.close()


def test_prices_pass_with_every_digit(standin, source):
    poll = source.poll(BASKET, NOW)
    served = {q.coin_id: q for q in standin.feed.quotes(NOW)}
    assert (poll.outcome, poll.age_s, [t.coin_id for t in poll.ticks]) == ("ok", 0.0, list(BASKET))
    for tick in poll.ticks:
        quote = served[tick.coin_id]
        assert (tick.price_usd, tick.market_cap_usd, tick.volume_24h_usd) == (
            quote.price,
            quote.market_cap,
            quote.volume_24h,
        )
        assert (tick.change_1h_pct, tick.change_24h_pct, tick.change_7d_pct) == (
            quote.change_1h_pct,
            quote.change_24h_pct,
            quote.change_7d_pct,
        )
        assert (tick.symbol, tick.name, tick.last_updated_at) == (quote.symbol, quote.name, quote.last_updated_at)


FAILURES = {
    "rate_limited_json": ("rate_limited", 429, 1),
    "rate_limited_200": ("rate_limited", 200, 1),
    "rate_limited_text": ("rate_limited", 429, 1),
    "rate_limited_html": ("rate_limited", 429, 1),
    "unauthorized": ("unauthorized", 401, 1),
    "malformed": ("bad_payload", 200, 1),
    "huge": ("bad_payload", None, 1),
    "truncated_gzip": ("bad_payload", 200, 1),
    "down": ("upstream_down", 503, ATTEMPTS),
    "slow": ("upstream_down", None, ATTEMPTS),
}
DAMAGES = {"null_price", "missing_coin", "frozen_quote", "duplicate_coin", "scientific"}


def test_every_fault_has_an_expectation_here():
    assert {*FAILURES, *DAMAGES} == set(FaultyStandIn.faults)


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failing_fault_gives_its_named_outcome_and_nothing_partial(standin, source, kind):
    standin.set_fault(kind)
    client = open_client(standin, deadline_s=0.2) if kind == "slow" else source
    poll = client.poll(BASKET, NOW)
    outcome, status, calls = FAILURES[kind]
    assert (poll.outcome, poll.http_status, poll.credits_used) == (outcome, status, calls)
    assert poll.ticks == ()
    assert poll.detail
    standin.set_fault(None)
    assert len(source.poll(BASKET, NOW).ticks) == 3


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [("rate_limited_json", 30.0), ("rate_limited_200", 30.0), ("rate_limited_text", 30.0), ("rate_limited_html", None)],
)
def test_rate_limits_say_how_long_except_that_of_the_cdn(standin, source, kind, seconds):
    standin.set_fault(kind)
    assert source.poll(BASKET, NOW).retry_after_s == seconds


def test_the_time_of_a_rate_limit_can_be_chosen(standin, source):
    standin.set_fault("rate_limited_json", retry_after="Sun, 01 Mar 2026 12:02:00 GMT")
    assert source.poll(BASKET, NOW).retry_after_s == 120.0
    standin.set_fault("rate_limited_json", retry_after=None)
    assert source.poll(BASKET, NOW).retry_after_s is None


def test_a_null_price_takes_out_its_coin_only(standin, source):
    standin.set_fault("null_price", coin="solana")
    poll = source.poll(BASKET, NOW)
    assert (poll.outcome, poll.problems, poll.missing) == ("ok", ("solana: null price",), ())
    assert [t.coin_id for t in poll.ticks] == ["bitcoin", "ethereum"]


def test_a_missing_coin_is_missing(standin, source):
    standin.set_fault("missing_coin", coin="ethereum")
    poll = source.poll(BASKET, NOW)
    assert (poll.outcome, poll.problems, poll.missing) == ("ok", (), ("ethereum",))
    assert source.poll(["ethereum"], NOW).outcome == "unknown_coin"


def test_a_coin_twice_counts_for_nothing(standin, source):
    standin.set_fault("duplicate_coin", coin="bitcoin")
    poll = source.poll(BASKET, NOW)
    assert (poll.outcome, poll.problems) == ("ok", ("bitcoin: appears twice with different quotes",))
    assert [t.coin_id for t in poll.ticks] == ["ethereum", "solana"]


def test_scientific_notation_is_exact(standin, source):
    standin.set_fault("scientific", coin="bitcoin")
    poll = source.poll(BASKET, NOW)
    assert poll.ticks[0].price_usd == Decimal("0.000000019")
    assert '"current_price":1.9e-08' in str(poll.ticks[0].payload)


def test_a_frozen_quote_stands_still_while_the_others_move(standin, source):
    standin.set_fault("frozen_quote", coin="bitcoin")
    first = {t.coin_id: t for t in source.poll(BASKET, NOW).ticks}
    later = {t.coin_id: t for t in source.poll(BASKET, NOW + timedelta(minutes=5)).ticks}
    assert {c for c in BASKET if first[c] == later[c]} == {"bitcoin"}
    standin.set_fault(None)
    healed = {t.coin_id: t for t in source.poll(BASKET, NOW + timedelta(minutes=5)).ticks}
    assert healed["bitcoin"].last_updated_at == NOW + timedelta(minutes=5)


def test_a_frozen_quote_is_served_to_those_who_ask_for_it(standin):
    standin.set_fault("frozen_quote")
    asked = [("bitcoin,ethereum", {"bitcoin", "ethereum"}), ("ethereum", {"ethereum"})]
    for ids, expected in asked:
        reply = requests.get(f"{standin.url}/coins/markets", params={"ids": ids}, timeout=5).json()
        assert {e["id"] for e in reply} == expected


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_fault_ends_after_so_many_requests(standin, source, times):
    standin.set_fault("rate_limited_json", times=times)
    outcomes = [source.poll(BASKET, NOW).outcome for _ in range(times + 1)]
    assert outcomes == ["rate_limited"] * times + ["ok"]


def test_a_short_outage_is_survived_by_the_retries_of_one_poll(standin, source):
    standin.set_fault("down", times=ATTEMPTS - 1)
    poll = source.poll(BASKET, NOW)
    assert (poll.outcome, poll.credits_used, len(poll.ticks)) == ("ok", ATTEMPTS, 3)
    assert standin.requests == ATTEMPTS


def test_faults_are_set_and_cleared_over_http(standin, source):
    post = f"{standin.url.removesuffix('/api/v3')}/_faults"
    assert requests.post(post, json={"kind": "unauthorized", "times": 5}, timeout=5).status_code == 200
    assert source.poll(BASKET, NOW).outcome == "unauthorized"
    assert requests.post(post, json={"kind": None}, timeout=5).status_code == 200
    assert source.poll(BASKET, NOW).outcome == "ok"


@pytest.mark.parametrize("body", ['{"kind":"gremlins"}', '{"kind":"down","what":1}', "[]", "{", "7", '{"kind":7}'])
def test_a_fault_that_does_not_exist_is_refused(standin, source, body):
    post = f"{standin.url.removesuffix('/api/v3')}/_faults"
    refused = requests.post(post, data=body, timeout=5)
    assert refused.status_code == 400
    assert refused.json()["error"]
    assert source.poll(BASKET, NOW).outcome == "ok"


def test_it_says_which_faults_there_are(standin):
    with pytest.raises(ValueError, match="'gremlins' is no fault; choose one of null_price, missing_coin"):
        standin.set_fault("gremlins")


def test_only_known_pages_and_coins_are_served(standin, source):
    assert requests.get(f"{standin.url}/elsewhere", timeout=5).status_code == 404
    assert confirmed_coin(source, "chainlink", NOW).symbol == "LINK"
    with pytest.raises(ValueError, match="does not know 'dogecoin'"):
        confirmed_coin(source, "dogecoin", NOW)


@pytest.mark.parametrize(
    ("days", "step"), [(1, timedelta(minutes=5)), (2, timedelta(hours=1)), (91, timedelta(days=1))]
)
def test_history_has_the_documented_spacing_and_the_feeds_prices(standin, source, days, step):
    start = NOW - timedelta(days=days)
    found, about = source.market_chart_range("bitcoin", start, NOW, NOW)
    assert about.outcome == "ok"
    assert found is not None
    times = [datetime.fromtimestamp(ms / 1000, UTC) for ms, _ in found["prices"]]
    assert times == [start + i * step for i in range(int(timedelta(days=days) / step))]
    assert [p for _, p in found["prices"]] == [p for _, p in standin.feed.history("bitcoin", times)]


@pytest.mark.parametrize("feed", [SimulatorFeed(7), ReplayFeed(NOW.date())], ids=lambda f: f.name)
def test_history_knows_its_coins_also_when_it_holds_no_price(feed):
    with StandIn(feed) as standin:
        client = CoinGeckoClient(standin.url)
        found, about = client.market_chart_range("dogecoin", NOW - timedelta(days=1), NOW, NOW)
        assert (found, about.outcome) == (None, "unknown_coin")
        long_ago = NOW - timedelta(days=100)
        found, about = client.market_chart_range("bitcoin", long_ago, long_ago + timedelta(hours=1), NOW)
        client.close()
    assert (about.outcome, found is not None) == ("ok", True)
    assert found is not None
    assert len(found["prices"]) == (0 if feed.name == "replay" else 1)


def test_it_can_be_closed_without_having_served():
    unused = StandIn(SimulatorFeed(7))
    unused.close()
    assert unused.stopped.is_set()
