from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_assets.contracts.messages import POLL_SCHEMA, PRICE_SCHEMA, SOURCE_PAYLOAD_LIMIT
from crypto_assets.market.payload import (
    DETAIL_LIMIT,
    exact_json,
    parse_markets,
    plain,
    poll_to_message,
    retry_after,
    rfc3339,
    tick_to_message,
)
from crypto_assets.market.quotes import Poll

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
BTC = '{"id":"bitcoin","symbol":"btc","name":"Bitcoin","current_price":%s,"last_updated":"2026-01-05T11:59:00.123Z"%s}'
JSON_ERROR = b'{"status":{"error_code":429,"error_message":"You\'ve exceeded the Rate Limit."}}'
CDN_HTML = b"<html><title>Too Many Requests</title><body>error code: 1015</body></html>"


def parse(body: str | bytes, status: int = 200, asked=("bitcoin",), **headers: str):
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return parse_markets(body.encode() if isinstance(body, str) else body, status, sent, asked, now=NOW)


def coin(price: str = "1.5", **more: object) -> str:
    """An element of the reply; `more` replaces members and adds others."""
    kept = re.sub(r',"last_updated":"[^"]*"', "", BTC) if "last_updated" in more else BTC
    kept = kept.replace('"symbol":"btc",', "") if "symbol" in more else kept
    return kept % (price, "".join(f",{json.dumps(k)}:{json.dumps(v)}" for k, v in more.items()))


RATE_LIMITS = {
    "429 JSON": (429, JSON_ERROR),
    "429 JSON, nested in error": (429, b'{"error":{"status":{"error_code":429,"error_message":"slow down"}}}'),
    "200 with the error body": (200, JSON_ERROR),
    "200 with a bare error": (200, b'{"error":"Too many requests"}'),
    "429 plain text": (429, b"Throttled"),
    "200 plain text": (200, b"Throttled"),
    "429 of the CDN": (429, CDN_HTML),
    "403 of the CDN": (403, CDN_HTML),
    "429 without a body": (429, b""),
}


@pytest.mark.parametrize("shape", RATE_LIMITS)
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("30", 30.0),
        (" 30 ", 30.0),
        ("0", 0.0),
        ("Mon, 05 Jan 2026 12:01:30 GMT", 90.0),
        ("Mon, 05 Jan 2026 11:00:00 GMT", 0.0),
        (None, None),
        ("soon", None),
        ("-5", None),
        ("1e9", None),
        ("99999999", None),
        ("Mon, 05 Jan 99999999999 12:00:00 GMT", None),
        ("", None),
    ],
)
def test_a_rate_limit_of_any_shape_says_how_long_to_wait(shape, header, seconds):
    status, body = RATE_LIMITS[shape]
    parsed = parse(body, status, **({"Retry_After": header} if header is not None else {}))
    assert (parsed.outcome, parsed.ticks, parsed.retry_after_s) == ("rate_limited", (), seconds)
    assert parsed.detail is not None


@given(st.integers(0, 24 * 3600))
def test_retry_after_reads_back_what_a_server_writes(seconds):
    from email.utils import format_datetime

    assert retry_after(str(seconds), NOW) == seconds
    assert retry_after(format_datetime(NOW + timedelta(seconds=seconds), usegmt=True), NOW) == seconds


@given(st.text())
def test_retry_after_never_raises_and_never_waits_longer_than_a_day(text):
    seconds = retry_after(text, NOW)
    assert seconds is None or 0 <= seconds <= 24 * 3600


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (401, b"", "unauthorized"),
        (401, b'{"status":{"error_code":10002,"error_message":"API Key Missing"}}', "unauthorized"),
        (403, b"Forbidden", "bad_payload"),
        (200, b'{"status":{"error_code":10010,"error_message":"wrong host for this key"}}', "unauthorized"),
        (400, b'{"status":{"error_code":10011,"error_message":"wrong host for this key"}}', "unauthorized"),
        (200, b'{"status":{"error_code":1,"error_message":"Invalid API key"}}', "unauthorized"),
        (500, b"oops", "upstream_down"),
        (502, CDN_HTML.replace(b"1015", b"502").replace(b"Too Many Requests", b"Bad gateway"), "upstream_down"),
        (504, b"", "upstream_down"),
        (404, b'{"error":"coin not found"}', "unknown_coin"),
        (422, b'{"error":"Missing parameter vs_currency"}', "unknown_coin"),
        (302, b"", "bad_payload"),
        (418, b"tea", "bad_payload"),
        (200, b"", "bad_payload"),
        (200, b"[", "bad_payload"),
        (200, b"<html>Welcome to our hotel</html>", "bad_payload"),
        (200, b'{"error":"something else"}', "bad_payload"),
        (200, b'{"bitcoin":{"usd":1}}', "bad_payload"),
        (200, b"42", "bad_payload"),
        (200, b"[1]", "bad_payload"),
        (200, b'[{"id":7}]', "bad_payload"),
        (200, b"[NaN]", "bad_payload"),
        (200, b"[" * 100_000, "bad_payload"),
        (200, b"\xff\xfe\x00", "bad_payload"),
        (200, b'[{"id":"bitcoin","name":"\xed\xa0\x80"}]', "bad_payload"),
        (200, coin("1e99999999999999999999999").join("[]").encode(), "bad_payload"),
        (200, b"[]", "unknown_coin"),
        (200, coin().replace("bitcoin", "dogecoin").join("[]").encode(), "unknown_coin"),
        (200, b'{"status":{"error_code":5,"error_message":"\\ud800"}}', "bad_payload"),
    ],
)
def test_a_reply_that_holds_no_quote_is_a_named_failure_and_nothing_else(status, body, outcome):
    parsed = parse(body, status)
    assert (parsed.outcome, parsed.ticks) == (outcome, ())
    assert parsed.detail is not None
    parsed.detail.encode()


@pytest.mark.parametrize(
    ("element", "problem"),
    [
        (coin("null"), "bitcoin: null price"),
        (coin('"1.5"'), "bitcoin: current_price is not a number: '1.5'"),
        (coin("true"), "bitcoin: current_price is not a number: 'True'"),
        (coin("1e40"), "bitcoin: current_price is out of range: 1E+40"),
        (coin(market_cap="many"), "bitcoin: market_cap is not a number: 'many'"),
        (coin(last_updated=None), "bitcoin: last_updated is not a time"),
        (coin(last_updated="yesterday"), "bitcoin: Invalid isoformat string: 'yesterday'"),
        (coin(last_updated="2026-01-05T11:59:00"), "bitcoin: last_updated has no time zone: '2026-01-05T11:59:00'"),
        (coin(last_updated="0001-01-01T00:00:00+14:00"), "bitcoin: date value out of range"),
        (coin(symbol=""), "bitcoin: no symbol"),
    ],
)
def test_an_unusable_coin_is_a_problem_and_spoils_no_other(element, problem):
    other = coin("7").replace("bitcoin", "litecoin")
    parsed = parse(f"[{element},{other}]", asked=("bitcoin", "litecoin"))
    assert (parsed.outcome, parsed.missing, parsed.problems) == ("ok", (), (problem,))
    assert [t.coin_id for t in parsed.ticks] == ["litecoin"]
    alone = parse(f"[{element}]")
    assert (alone.outcome, alone.ticks, alone.problems) == ("bad_payload", (), (problem,))


def test_a_coin_twice_counts_once_when_the_same_and_never_when_different():
    same = parse(f"[{coin()},{coin()}]")
    assert (same.outcome, len(same.ticks), same.problems) == ("ok", 1, ())
    different = parse(f"[{coin('1')},{coin('2')}]")
    assert (different.outcome, different.ticks) == ("bad_payload", ())
    assert different.problems == ("bitcoin: appears twice with different quotes",)
    for pair in (f"[{coin('null')},{coin('2')}]", f"[{coin('2')},{coin('null')}]"):
        assert parse(pair).ticks == ()


@given(st.decimals(min_value="-1e30", max_value="1e30", allow_nan=False, allow_infinity=False))
def test_every_decimal_survives_digit_by_digit(value):
    price = abs(value)
    if not -30 <= price.adjusted() < 20:
        return
    (tick,) = parse(f"[{coin(str(price))}]").ticks
    assert tick.price_usd.as_tuple() == price.as_tuple()
    text = tick_to_message(tick, NOW)["price_usd"]
    assert "e" not in text.lower()
    assert Decimal(text) == price


def test_a_tiny_price_is_written_plainly():
    (tick,) = parse(f"[{coin('1.9e-08')}]").ticks
    assert tick.price_usd == Decimal("0.000000019")
    assert tick_to_message(tick, NOW)["price_usd"] == "0.000000019"


def test_a_number_longer_than_a_machine_integer_may_be_is_no_crash():
    parsed = parse(f"[{coin('7' * 6000)}]")
    assert (parsed.outcome, parsed.ticks) == ("bad_payload", ())


def test_the_payload_is_the_coins_own_characters_or_nothing():
    odd = ' { "id" : "bitcoin" , "symbol":"btc","current_price":1.50e0,\n"last_updated":"2026-01-05T11:59:00Z" } '
    (tick,) = parse(f"[{odd}]").ticks
    assert tick.payload == odd.strip()
    room = SOURCE_PAYLOAD_LIMIT - len(coin(note="").encode())
    (largest,) = parse(f"[{coin(note='x' * room)}]").ticks
    assert largest.payload is not None
    (larger,) = parse(f"[{coin(note='x' * (room + 1))}]").ticks
    assert (larger.payload, larger.price_usd) == (None, Decimal("1.5"))


def test_a_byte_order_mark_is_no_obstacle():
    (tick,) = parse(b"\xef\xbb\xbf" + f"[{coin()}]".encode()).ticks
    assert (tick.price_usd, tick.payload) == (Decimal("1.5"), coin())


def test_a_name_that_utf8_cannot_hold_can_still_be_sent():
    body = f"[{coin()}]".replace('"Bitcoin"', '"Bit\\ud800coin"')
    (tick,) = parse(body).ticks
    assert tick.name == "Bit?coin"
    json.dumps(tick_to_message(tick, NOW), ensure_ascii=False).encode()


def test_the_change_of_a_day_is_taken_in_dollars_first():
    (both,) = parse(f"[{coin(price_change_percentage_24h=1, price_change_percentage_24h_in_currency=2)}]").ticks
    (one,) = parse(f"[{coin(price_change_percentage_24h=1)}]").ticks
    (none,) = parse(f"[{coin()}]").ticks
    assert (both.change_24h_pct, one.change_24h_pct, none.change_24h_pct) == (2, 1, None)


def test_times_are_utc_whatever_zone_they_come_in():
    (tick,) = parse(f"[{coin(last_updated='2026-01-05T12:59:00.5+01:00')}]").ticks
    assert tick.last_updated_at == datetime(2026, 1, 5, 11, 59, 0, 500_000, tzinfo=UTC)
    assert rfc3339(tick.last_updated_at) == "2026-01-05T11:59:00.500Z"


def test_a_detail_is_short_and_plain_text():
    parsed = parse(b"<html><body>" + b"<p>Throttled  and\nthrottled</p>" * 100, 429)
    assert parsed.detail is not None
    assert len(parsed.detail) <= DETAIL_LIMIT
    assert parsed.detail.startswith("Throttled and throttled Throttled")


def test_a_number_out_of_range_costs_neither_the_price_nor_the_coin():
    huge = coin("2.5").replace("}", ',"market_cap":1e31,"total_volume":1e20,"price_change_percentage_24h":1e-40}')
    parsed = parse(f"[{huge}]")
    assert (parsed.outcome, parsed.problems) == ("ok", ())
    (tick,) = parsed.ticks
    assert (tick.price_usd, tick.market_cap_usd, tick.volume_24h_usd, tick.change_24h_pct) == (
        Decimal("2.5"),
        *[None] * 3,
    )
    assert parsed.nulled == (
        "bitcoin: market_cap is out of range: 1E+31",
        "bitcoin: total_volume is out of range: 1E+20",
        "bitcoin: price_change_percentage_24h is out of range: 1E-40",
    )
    kept = parse("[" + coin("2.5").replace("}", ',"market_cap":9.9e19}') + "]")
    assert (kept.ticks[0].market_cap_usd, kept.nulled) == (Decimal("9.9e19"), ())


@pytest.mark.parametrize("name", ["current_price", "last_updated", "symbol", "roi", "current\\u005fprice"])
def test_a_name_repeated_within_an_element_is_a_problem_of_that_coin_alone(name):
    other = coin().replace("bitcoin", "ethereum")
    repeated = coin().replace("}", f',"roi":null,"{name}":99}}')
    name = json.loads(f'"{name}"')
    parsed = parse(f"[{repeated},{other}]", asked=("bitcoin", "ethereum"))
    assert [t.coin_id for t in parsed.ticks] == ["ethereum"]
    assert parsed.problems == (f"bitcoin: {name} occurs more than once",)
    assert parse(f"[{other},{other}]", asked=("ethereum",)).problems == ()


def test_exact_json_keeps_decimals_and_times_in_milliseconds():
    found = exact_json(b'{"prices":[[1704706513450,0.10000000000000000001]]}', whole=int)
    ((time, price),) = found["prices"]
    assert (type(time), price) == (int, Decimal("0.10000000000000000001"))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, None), (Decimal("1E+3"), "1000"), (Decimal("-1.90E-8"), "-0.0000000190"), (Decimal("0E-3"), "0.000")],
)
def test_plain_numbers(value, text):
    assert plain(value) == text


def test_messages_fulfil_their_contract():
    from jsonschema import Draft202012Validator

    parsed = parse(f"[{coin(market_cap=12.5)}]")
    (tick,) = parsed.ticks
    message = tick_to_message(tick, NOW)
    assert list(Draft202012Validator(PRICE_SCHEMA).iter_errors(message)) == []
    assert (message["ingestion_timestamp"], message["market_cap_usd"]) == ("2026-01-05T12:00:00.000Z", "12.5")
    poll = Poll(
        NOW,
        NOW + timedelta(milliseconds=250),
        "ok",
        parsed.ticks,
        ("litecoin",),
        ("solana: null price",),
        http_status=200,
    )
    told = poll_to_message(
        poll, poll_id="p", source="coingecko", asked=3, unchanged=0, absent=("x",), cadence_s=60.0, credits_left=None,
        delivered=1,
    )  # fmt: skip
    assert list(Draft202012Validator(POLL_SCHEMA).iter_errors(told)) == []
    assert (told["latency_ms"], told["coins_missing"], told["detail"]) == (250.0, ["litecoin"], "solana: null price")
    assert (told["coins_absent"], told["problems"], told["quote_age_s"]) == (["x"], ["solana: null price"], 60.127)


CHALLENGE = b"<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head><body>x</body></html>"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, CHALLENGE, "text/html; charset=UTF-8"),
        (403, b"\xef\xbb\xbf \n" + CHALLENGE, "application/json"),
        (401, CHALLENGE, "text/html"),
        (200, CHALLENGE, "text/html"),
        (404, CHALLENGE, "text/html"),
        (407, CHALLENGE, "text/html"),
        (422, b"<?xml version='1.0'?><title>Attention Required</title>", "application/xml"),
    ],
)
def test_a_page_of_whoever_stands_between_is_no_word_of_the_key_or_of_a_coin(status, body, kind):
    parsed = parse_markets(body, status, {"Content-Type": kind}, ["bitcoin"], now=NOW)
    assert parsed.outcome == "bad_payload"
    assert f"HTTP {status}: a web page (Attention Required" in str(parsed.detail)
    assert "the key was not judged" in str(parsed.detail)


def test_a_403_of_others_is_not_the_key_but_one_that_speaks_of_it_is():
    denied = parse(b'{"message":"blocked by policy"}', 403)
    assert (denied.outcome, "the key was not judged" in str(denied.detail)) == ("bad_payload", True)
    assert parse(b'{"status":{"error_code":10011,"error_message":"no"}}', 403).outcome == "unauthorized"
    assert parse(b'{"error":"Invalid API key"}', 403).outcome == "unauthorized"


def test_a_challenge_that_is_a_rate_limit_and_one_that_is_an_outage_stay_what_they_are():
    limited = parse_markets(b"<title>error code: 1015</title>", 403, {"Content-Type": "text/html"}, ["x"], now=NOW)
    assert limited.outcome == "rate_limited"
    assert parse_markets(CHALLENGE, 503, {"Content-Type": "text/html"}, ["x"], now=NOW).outcome == "upstream_down"
