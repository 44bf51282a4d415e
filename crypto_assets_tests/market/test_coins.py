from __future__ import annotations

import json
import tomllib
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_assets.market.coins import (
    BEGINNING,
    DEFAULT_COINS,
    Alias,
    Coin,
    CoinRegistry,
    default_registry,
)

DAY = datetime(2024, 9, 4, tzinfo=UTC)
SECOND = timedelta(seconds=1)

words = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
moments = st.datetimes(datetime(2010, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@st.composite
def registries(draw: st.DrawFn) -> CoinRegistry:
    ids = draw(st.lists(words, min_size=2, max_size=8, unique=True))
    half = (len(ids) + 1) // 2
    coins = []
    for i, coin_id in enumerate(ids[:half]):
        former = ids[half + i : half + i + 1] if draw(st.booleans()) else []
        start = draw(moments)
        end = draw(st.one_of(st.none(), st.timedeltas(SECOND, timedelta(days=900)).map(lambda d, s=start: s + d)))
        aliases = tuple(Alias(f, draw(st.dates()), draw(st.one_of(st.none(), words))) for f in former)
        coins.append(Coin(coin_id, draw(words), draw(words), aliases, start, end))
    return CoinRegistry(coins)


@given(registries())
def test_toml_and_records_give_back_every_registry(registry):
    assert CoinRegistry.from_toml(registry.to_toml()) == registry
    assert CoinRegistry.from_records(json.loads(json.dumps(registry.to_records()))) == registry


def test_the_toml_of_the_default_coins_can_be_read_by_a_person():
    text = DEFAULT_COINS.to_toml()
    assert [c["coin_id"] for c in tomllib.loads(text)["coin"]] == [c.coin_id for c in DEFAULT_COINS.coins]
    assert 'coin_id = "polygon-ecosystem-token"\nsymbol = "POL"\nname = "POL (ex-MATIC)"\n' in text
    assert 'old_id = "matic-network"\nuntil = "2024-09-04"\nold_symbol = "MATIC"\n' in text


def test_the_baskets_of_new_homes():
    assert [c.symbol for c in DEFAULT_COINS.coins] == [
        "BTC", "ETH", "SOL", "ADA", "POL", "LINK", "AVAX", "DOT", "UNI", "LTC"
    ]  # fmt: skip
    assert [c.symbol for c in default_registry("replay").coins] == ["BTC", "ETH", "LTC"]
    assert default_registry("coingecko") == default_registry("simulator") == DEFAULT_COINS


@pytest.mark.parametrize(
    ("coin_id", "at", "canonical"),
    [
        ("matic-network", DAY - SECOND, "polygon-ecosystem-token"),
        ("matic-network", DAY, None),
        ("matic-network", DAY + timedelta(days=400), None),
        ("matic-network", datetime(2024, 9, 4, 1, tzinfo=timezone(timedelta(hours=2))), "polygon-ecosystem-token"),
        ("matic-network", datetime(2024, 9, 3, 23, tzinfo=timezone(timedelta(hours=-2))), None),
        ("polygon-ecosystem-token", DAY - timedelta(days=100), "polygon-ecosystem-token"),
        ("polygon-ecosystem-token", DAY, "polygon-ecosystem-token"),
        ("bitcoin", DAY, "bitcoin"),
        ("dogecoin", DAY, None),
        ("MATIC", DAY - SECOND, None),
    ],
)
def test_matic_became_pol_on_4_september_2024(coin_id, at, canonical):
    assert DEFAULT_COINS.resolve(coin_id, at) == canonical


def test_a_coin_is_active_from_its_first_moment_up_to_its_last():
    registry = CoinRegistry(
        (Coin("a", "A", "A", active_from=DAY), Coin("b", "B", "B", active_to=DAY), Coin("c", "C", "C"))
    )

    def ids(moment: datetime) -> list[str]:
        return [c.coin_id for c in registry.active_at(moment)]

    assert ids(DAY - SECOND) == ["b", "c"]
    assert ids(DAY) == ["a", "c"]
    assert registry.resolve("a", DAY - SECOND) is None
    assert registry.resolve("b", DAY) is None


def test_adding_leaves_the_past_alone():
    grown = DEFAULT_COINS.add("dogecoin", "doge", "Dogecoin", active_from=DAY)
    assert DEFAULT_COINS.resolve("dogecoin", DAY) is None
    assert grown.active_at(DAY - SECOND) == DEFAULT_COINS.coins
    assert [c.symbol for c in grown.active_at(DAY)][-1] == "DOGE"
    assert CoinRegistry.from_toml(grown.to_toml()) == grown


def test_retiring_leaves_the_past_alone_and_adding_again_revives():
    shrunk = DEFAULT_COINS.retire("uniswap", active_to=DAY)
    assert shrunk.active_at(DAY - SECOND)[8].coin_id == "uniswap"
    assert "uniswap" not in [c.coin_id for c in shrunk.active_at(DAY)]
    revived = shrunk.add("uniswap", "uni", "Uniswap", active_from=DAY + timedelta(days=30))
    assert "uniswap" in [c.coin_id for c in revived.active_at(DAY + timedelta(days=30))]
    assert len(revived.coins) == 10


def test_what_cannot_be_added_or_retired_is_said():
    with pytest.raises(ValueError, match="bitcoin is active already, since 2009-01-03"):
        DEFAULT_COINS.add("bitcoin", "btc", "Bitcoin", active_from=DAY)
    with pytest.raises(ValueError, match="id 'matic-network' is used by polygon-ecosystem-token and matic-network"):
        DEFAULT_COINS.add("matic-network", "matic", "Polygon", active_from=DAY)
    with pytest.raises(ValueError, match="dogecoin is not an active coin; active: bitcoin, ethereum, solana"):
        DEFAULT_COINS.retire("dogecoin", active_to=DAY)
    with pytest.raises(ValueError, match=r"bitcoin ends .* before it begins"):
        DEFAULT_COINS.retire("bitcoin", active_to=BEGINNING)
    lonely = CoinRegistry((Coin("bitcoin", "BTC", "Bitcoin"), Coin("old", "OLD", "Old", active_to=DAY)))
    with pytest.raises(ValueError, match="bitcoin is the last active coin; add another first"):
        lonely.retire("bitcoin", active_to=DAY)
    with pytest.raises(ValueError, match="old is not an active coin"):
        lonely.retire("old", active_to=DAY)


def test_every_problem_of_a_bad_file_is_named():
    text = """
        [[coin]]
        coin_id = "bitcoin"
        symbol = "BTC"
        name = "Bitcoin"

        [[coin]]
        coin_id = "bitcoin"
        symbol = "BTC"
        name = "Bitcoin again"

        [[coin]]
        coin_id = "ethereum"
        name = "Ethereum"

        [[coin]]
        coin_id = "solana"
        symbol = "SOL"
        name = "Solana"
        active_from = "2024-01-01T00:00:00"

        [[coin]]
        coin_id = "cardano"
        symbol = 7
        name = "Cardano"

        [[coin]]
        coin_id = "polkadot"
        symbol = "DOT"
        name = "Polkadot"
        aliases = [{ old_id = "dot", until = "someday" }]

        [[coin]]
        coin_id = "uniswap"
        symbol = ""
        name = "Uniswap"

        [[coin]]
        coin_id = "litecoin"
        symbol = "LTC"
        name = "Litecoin"
        active_from = "2024-01-02T00:00:00Z"
        active_to = "2024-01-01T00:00:00Z"
    """
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        CoinRegistry.from_toml(text)
    assert str(caught.value).split("; ") == [
        "coin 3 (ethereum): symbol is missing",
        "coin 4 (solana): active_from '2024-01-01T00:00:00' has no time zone",
        "coin 5 (cardano): symbol is not text: 7",
        "coin 6 (polkadot): Invalid isoformat string: 'someday'",
        "id 'bitcoin' is used by bitcoin and bitcoin",
        "coin uniswap lacks id, symbol or name",
        "litecoin ends (2024-01-01 00:00:00+00:00) before it begins (2024-01-02 00:00:00+00:00)",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "there is no coin"),
        ('[[coins]]\ncoin_id = "bitcoin"', "there is no coin"),
        ('coin = "bitcoin"', "there is no coin"),
        ('coin = ["bitcoin"]', r"coin 1 \(\?\): it is no table"),
        ('[[coin]]\ncoin_id = "a"\nsymbol = "A"\nname = "A"\naliases = ["b"]', r"coin 1 \(a\): an alias is no table"),
        ('[[coin]]\ncoin_id = "a"\nsymbol = "A"\nname = "A"\naliases = 5', r"coin 1 \(a\): .*not iterable"),
        ("[[coin]", "line 1"),
    ],
)
def test_a_file_that_holds_no_registry_says_why(text, problem):
    with pytest.raises(ValueError, match=problem):
        CoinRegistry.from_toml(text)


def test_a_date_written_bare_is_refused_by_name():
    text = '[[coin]]\ncoin_id = "a"\nsymbol = "A"\nname = "A"\nactive_from = 2024-01-01T00:00:00Z'
    with pytest.raises(ValueError, match=r"coin 1 \(a\): active_from is not text"):
        CoinRegistry.from_toml(text)


def test_a_registry_is_a_value():
    same = CoinRegistry.from_records(DEFAULT_COINS.to_records())
    assert (same == DEFAULT_COINS, hash(same) == hash(DEFAULT_COINS)) == (True, True)
    assert same != default_registry("replay")
    assert DEFAULT_COINS.coins[4].aliases == (Alias("matic-network", date(2024, 9, 4), "MATIC"),)
