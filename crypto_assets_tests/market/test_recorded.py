from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from crypto_assets.contracts.messages import PRICE_SCHEMA
from crypto_assets.market.coins import DEFAULT_COINS
from crypto_assets.market.payload import Parsed, parse_markets, tick_to_message
from crypto_assets_tests.market.recordings import Exchange, description, exchanges, shared

AT = datetime(2024, 1, 15, 8, 54, 34, tzinfo=UTC)
TEN_OF_2024 = ["matic-network" if c.coin_id == "polygon-ecosystem-token" else c.coin_id for c in DEFAULT_COINS.coins]


def parse(exchange: Exchange, asked: list[str]) -> Parsed:
    return parse_markets(exchange.body, exchange.status, exchange.headers, asked, now=AT)


def texts_of(exchange: Exchange, coin_id: str) -> dict[str, str]:
    """Field -> the characters that stand in the reply, cut by pattern and by no JSON reader."""
    start = exchange.text.index(f'{{"id":"{coin_id}",')
    end = exchange.text.find('},{"id":', start)
    element = exchange.text[start : end + 1 if end >= 0 else -1]
    return dict(re.findall(r'"(\w+)":("[^"]*"|-?[0-9.eE+-]+|null)', element))


def number(text: str) -> Decimal | None:
    return None if text == "null" else Decimal(text)


@pytest.fixture(scope="module")
def markets() -> Exchange:
    (only,) = exchanges("coins_markets_2024-01-15.json")
    return only


@pytest.mark.parametrize("coin_id", TEN_OF_2024)
def test_every_default_coin_is_read_exactly_as_it_was_sent(markets, coin_id):
    parsed = parse(markets, TEN_OF_2024)
    (tick,) = [t for t in parsed.ticks if t.coin_id == coin_id]
    sent = texts_of(markets, coin_id)
    assert tick.price_usd == Decimal(sent["current_price"])
    assert tick.market_cap_usd == number(sent["market_cap"])
    assert tick.volume_24h_usd == number(sent["total_volume"])
    assert tick.change_24h_pct == number(sent["price_change_percentage_24h"])
    assert (tick.change_1h_pct, tick.change_7d_pct) == (None, None)
    assert tick.last_updated_at == datetime.fromisoformat(sent["last_updated"].strip('"'))
    assert tick.symbol == sent["symbol"].strip('"').upper()
    assert tick.name == sent["name"].strip('"')
    assert tick.payload is not None
    assert tick.payload in markets.text
    assert tick.payload.startswith(f'{{"id":"{coin_id}"')


def test_prices_of_that_day(markets):
    prices = {t.coin_id: str(t.price_usd) for t in parse(markets, TEN_OF_2024).ticks}
    assert prices == {
        "bitcoin": "42652",
        "ethereum": "2511.71",
        "solana": "95.15",
        "cardano": "0.536908",
        "matic-network": "0.857333",
        "chainlink": "15.57",
        "avalanche-2": "36.12",
        "polkadot": "7.56",
        "uniswap": "6.53",
        "litecoin": "70.86",
    }


def test_the_former_id_is_the_coin_it_became_until_its_date(markets):
    ids = {t.coin_id for t in parse(markets, TEN_OF_2024).ticks}
    assert {DEFAULT_COINS.resolve(i, AT) for i in ids} == {c.coin_id for c in DEFAULT_COINS.coins}


def test_todays_id_is_missing_from_a_reply_of_2024(markets):
    parsed = parse(markets, [c.coin_id for c in DEFAULT_COINS.coins])
    assert (parsed.outcome, parsed.missing, len(parsed.ticks)) == ("ok", ("polygon-ecosystem-token",), 9)


def test_scientific_notation_of_the_real_api_is_exact(markets):
    parsed = parse(markets, ["shiba-inu", "sats-ordinals"])
    assert {t.coin_id: t.price_usd for t in parsed.ticks} == {
        "shiba-inu": Decimal("0.00000968"),
        "sats-ordinals": Decimal("0.0000006335"),
    }
    told = {t.coin_id: tick_to_message(t, AT)["price_usd"] for t in parsed.ticks}
    assert told == {"shiba-inu": "0.00000968", "sats-ordinals": "0.0000006335"}


def test_coins_that_nobody_asked_for_are_ignored(markets):
    parsed = parse(markets, ["bitcoin"])
    assert [t.coin_id for t in parsed.ticks] == ["bitcoin"]
    assert parsed.missing == ()


def test_messages_of_a_recorded_reply_fulfil_the_contract(markets):
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(PRICE_SCHEMA)
    ticks = parse(markets, TEN_OF_2024).ticks
    assert len(ticks) == 10
    assert [e.message for t in ticks for e in validator.iter_errors(tick_to_message(t, AT))] == []


def test_a_page_holds_one_coin_and_the_other_is_missing():
    first, second = exchanges("coins_markets_ids_2024-01-15.json")
    for exchange, here, absent in ((first, "bitcoin", "ethereum"), (second, "ethereum", "bitcoin")):
        parsed = parse(exchange, ["bitcoin", "ethereum"])
        assert ([t.coin_id for t in parsed.ticks], parsed.missing) == ([here], (absent,))


def test_a_keyless_reply_of_2021_is_read_too():
    answer, *refusals = exchanges("coins_markets_2021-05-15.json")
    (tick,) = parse(answer, ["bitcoin"]).ticks
    assert (tick.price_usd, tick.last_updated_at) == (49053, datetime(2021, 5, 15, 15, 59, 43, 867000, tzinfo=UTC))
    assert tick.change_24h_pct == Decimal("-4.37931")
    for refusal in refusals:
        parsed = parse(refusal, ["bitcoin"])
        assert (parsed.outcome, parsed.ticks) == ("unknown_coin", ())
        assert parsed.detail == "HTTP 422: Missing parameter vs_currency"


def test_a_wrong_key_is_named():
    (exchange,) = exchanges("api_key_missing_2024-01-09.json")
    parsed = parse(exchange, ["bitcoin"])
    assert (parsed.outcome, parsed.ticks, parsed.detail) == ("unauthorized", (), "API Key Missing")


def test_all_hundred_coins_of_the_whole_recording_are_read():
    (exchange,) = exchanges(shared("recorded/mit_khooihzhz_coingecko_python/test_coins__test_get_market.json"))
    asked = re.findall(r'\{"id":"([^"]+)","symbol"', exchange.text)
    parsed = parse(exchange, asked)
    assert len(asked) == 100
    assert (parsed.outcome, parsed.missing, parsed.problems) == ("ok", (), ())
    for tick in parsed.ticks:
        assert tick.price_usd == Decimal(texts_of(exchange, tick.coin_id)["current_price"])


@pytest.mark.parametrize("plan", ["demo", "pro"])
def test_every_field_we_read_is_in_the_documented_reply(plan):
    documented = description(plan)
    schema = documented["components"]["schemas"]["CoinsMarkets"]
    answer = documented["paths"]["/coins/markets"]["get"]["responses"]["200"]["content"]["application/json"]
    fields = schema.get("items", schema)["properties"]
    example = {name: value for name, value in answer["example"][0].items() if name in fields}
    parsed = parse_markets(json.dumps([example]).encode(), 200, {}, ["bitcoin"], now=AT)
    assert (parsed.outcome, parsed.problems) == ("ok", ())
    (tick,) = parsed.ticks
    # What we take from the reply is there in full: no field of ours is undocumented.
    assert {name for name, value in vars(tick).items() if value is None} == set()
    assert tick.price_usd == Decimal(str(example["current_price"]))
    assert tick.change_1h_pct == Decimal(str(example["price_change_percentage_1h_in_currency"]))
    assert tick.change_7d_pct == Decimal(str(example["price_change_percentage_7d_in_currency"]))
