from __future__ import annotations

import json
import logging
import socket
import struct
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from pydantic import SecretStr

from crypto_assets.market.payload import DETAIL_LIMIT
from crypto_assets.market.quotes import Poll
from crypto_assets.sources.base import confirmed_coin
from crypto_assets.sources.coingecko import ATTEMPTS, BadBaseUrl, CoinGeckoClient, base_url
from crypto_assets_tests.market.recordings import description, exchanges
from crypto_assets_tests.sources.raw_server import QUOTE, RawServer, drip, gzipped, reply

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
KEY = "CG-not-a-real-key-0123456789"
GOOD = reply([QUOTE])
RATE_BODY = {"status": {"error_code": 429, "error_message": "You've exceeded the Rate Limit."}}


def nothing_partial(poll: Poll) -> bool:
    return poll.outcome != "ok" and poll.ticks == () and poll.detail is not None


def hang_up(connection: socket.socket, _stop: object) -> None:
    """Reset the connection without a word."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# --- good replies


def test_a_good_reply(server, client):
    server.answer(reply([QUOTE], Age="17"))
    poll = client().poll(["bitcoin"], NOW)
    assert (poll.outcome, poll.http_status, poll.credits_used, poll.age_s, poll.detail) == ("ok", 200, 1, 17.0, None)
    (tick,) = poll.ticks
    assert (tick.coin_id, tick.symbol, tick.price_usd) == ("bitcoin", "BTC", Decimal("1.5"))
    assert (poll.started_at, poll.missing, poll.problems) == (NOW, (), ())
    assert poll.finished_at >= NOW


def test_a_recorded_exchange_over_the_wire_keeps_every_digit(server, client):
    (recorded,) = exchanges("coins_markets_2024-01-15.json")
    server.answer(gzipped(recorded.body))
    poll = client().poll(["shiba-inu", "matic-network", "polygon-ecosystem-token"], NOW)
    assert {t.coin_id: str(t.price_usd) for t in poll.ticks} == {"shiba-inu": "0.00000968", "matic-network": "0.857333"}
    assert poll.missing == ("polygon-ecosystem-token",)


@pytest.mark.parametrize("size", ["0x1", "whole"])
def test_a_chunked_reply(server, client, size):
    body = reply([QUOTE]).partition(b"\r\n\r\n")[2]
    pieces = [body] if size == "whole" else [body[i : i + 1] for i in range(len(body))]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
    server.answer(reply(chunks, Content_Length=None, Transfer_Encoding="chunked"))
    assert client().poll(["bitcoin"], NOW).ticks[0].price_usd == Decimal("1.5")


def test_a_reply_that_ends_with_the_connection(server, client):
    server.answer(reply([QUOTE], Content_Length=None))
    assert client().poll(["bitcoin"], NOW).outcome == "ok"


@pytest.mark.parametrize("age", ["old", "nan", "inf", ""])
def test_a_senseless_age_is_no_age(server, client, age):
    server.answer(reply([QUOTE], Age=age))
    poll = client().poll(["bitcoin"], NOW)
    assert (poll.outcome, poll.age_s) == ("ok", None)


def test_null_price_missing_coin_and_duplicate_in_one_reply(server, client):
    def coin(coin_id: str, price: float | None) -> dict:
        return {**QUOTE, "id": coin_id, "current_price": price}

    server.answer(reply([coin("bitcoin", None), coin("solana", 1), coin("solana", 2), coin("litecoin", 1.9e-08)]))
    poll = client().poll(["bitcoin", "solana", "litecoin", "uniswap"], NOW)
    assert (poll.outcome, poll.missing) == ("ok", ("uniswap",))
    assert poll.problems == ("bitcoin: null price", "solana: appears twice with different quotes")
    assert [(t.coin_id, t.price_usd) for t in poll.ticks] == [("litecoin", Decimal("1.9e-08"))]


# --- rate limits, keys


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("30", 30.0),
        ("Mon, 05 Jan 2026 12:01:30 GMT", 90.0),
        (None, None),
        ("whenever", None),
    ],
)
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, RATE_BODY, "application/json"),
        (200, RATE_BODY, "application/json"),
        (429, "Throttled", "text/plain"),
        (429, "<html><title>Too Many Requests</title><body>error code: 1015</body></html>", "text/html"),
    ],
    ids=["429 JSON", "200 with the error body", "plain text", "HTML of the CDN"],
)
def test_a_rate_limit_is_named_and_not_asked_again(server, client, status, body, kind, header, seconds):
    server.answer(reply(body, status, Content_Type=kind, Retry_After=header))
    poll = client().poll(["bitcoin"], NOW)
    assert (poll.outcome, poll.retry_after_s, poll.http_status) == ("rate_limited", seconds, status)
    assert nothing_partial(poll)
    assert (poll.credits_used, len(server.received)) == (1, 1)


def test_a_refused_key_is_named_and_told_without_the_key(server, client):
    error = {"status": {"error_code": 10002, "error_message": f"API key {KEY} is not valid"}}
    server.answer(reply(error, 401))
    poll = client("demo", KEY).poll(["bitcoin"], NOW)
    assert (poll.outcome, poll.credits_used) == ("unauthorized", 1)
    assert nothing_partial(poll)
    assert poll.detail == "API key ********** is not valid"


def test_the_key_is_gone_before_a_long_text_is_cut_and_from_every_field(server, client):
    escaped = "".join(f"\\u{ord(c):04x}" for c in KEY)
    for body in (
        json.dumps({"status": {"error_code": 1, "error_message": "x" * (DETAIL_LIMIT - len(KEY) // 2) + KEY}}),
        '{"error": "' + "x" * (DETAIL_LIMIT - len(KEY) // 2) + escaped + '"}',
        json.dumps([{**QUOTE, "name": KEY}, {**QUOTE, "id": "ethereum", "current_price": KEY}]),
    ):
        server.answer(reply(body))
        poll = client("demo", KEY).poll(["bitcoin", "ethereum"], NOW)
        assert KEY[: len(KEY) // 2] not in repr(poll)


@pytest.mark.parametrize(
    ("plan", "header"),
    [("demo", "x-cg-demo-api-key"), ("paid", "x-cg-pro-api-key")],
)
def test_the_key_travels_in_the_header_of_its_plan_and_nowhere_else(server, client, caplog, plan, header):
    caplog.set_level(logging.DEBUG)
    server.answer(GOOD)
    source = client(plan, KEY)
    source.poll(["bitcoin"], NOW)
    (got,) = server.received
    assert [name for name, value in got.headers.items() if KEY in value] == [header]
    assert got.headers[header] == KEY
    assert KEY not in got.target
    assert KEY not in repr(source)
    assert KEY not in caplog.text


def test_a_keyless_plan_sends_no_key(server, client):
    server.answer(GOOD)
    client("keyless", KEY).poll(["bitcoin"], NOW)
    (got,) = server.received
    assert KEY not in str(got)


def test_the_request_is_the_one_that_the_api_documents(server, client):
    server.answer(GOOD)
    client().poll(["bitcoin", "polygon-ecosystem-token"], NOW)
    (got,) = server.received
    assert got.path == "/api/v3/coins/markets"
    assert (got.query["ids"], got.query["vs_currency"]) == ("bitcoin,polygon-ecosystem-token", "usd")
    assert got.query["price_change_percentage"] == "1h,24h,7d"
    for plan in ("demo", "pro"):
        documented = {p["name"]: p["schema"] for p in description(plan)["paths"]["/coins/markets"]["get"]["parameters"]}
        assert set(got.query) <= set(documented)
        assert {n: v for n, v in got.query.items() if "enum" in documented[n] and v not in documented[n]["enum"]} == {}


@pytest.mark.parametrize(("plan", "described"), [("demo", "demo"), ("keyless", "demo"), ("paid", "pro")])
def test_host_and_key_header_are_the_documented_ones(server, client, plan, described):
    about = description(described)
    assert base_url(plan, None) == about["servers"][0]["url"]
    server.answer(GOOD)
    client(plan, KEY).poll(["bitcoin"], NOW)
    header = about["components"]["securitySchemes"]["headerAuth"]["name"]
    assert (header in server.received[0].headers) is (plan != "keyless")


# --- transport troubles


def test_a_body_of_ten_megabytes_is_not_swallowed(server, client):
    server.answer(reply(b"[" + b" " * (10 * 1024 * 1024) + b"]"))
    poll = client().poll(["bitcoin"], NOW)
    assert (poll.outcome, poll.credits_used) == ("bad_payload", 1)
    assert nothing_partial(poll)
    assert "larger than 8,388,608 bytes" in str(poll.detail)


def test_a_small_body_that_unpacks_to_ten_megabytes_is_not_swallowed(server, client):
    server.answer(gzipped(b"[" + b" " * (10 * 1024 * 1024) + b"]"))
    poll = client().poll(["bitcoin"], NOW)
    assert (poll.outcome, "larger than" in str(poll.detail)) == ("bad_payload", True)


@pytest.mark.parametrize(
    "head",
    [
        reply("[", Content_Length=None),
        reply("[", Content_Length=1_000_000),
        reply("[", Content_Length=None, Connection="keep-alive"),
    ],
    ids=["until the end", "declared length", "kept alive"],
)
def test_a_reply_that_only_drips_is_given_up_at_the_deadline(server, client, head):
    server.answer(drip(head))
    poll = client(deadline_s=0.1).poll(["bitcoin"], NOW)
    assert (poll.outcome, poll.detail) == ("upstream_down", "no whole reply within 0.1 s")
    assert (poll.ticks, poll.credits_used) == ((), ATTEMPTS)


def test_a_chunked_reply_that_only_drips_is_given_up_at_the_deadline(server, client):
    server.answer(drip(reply(b"1\r\n[\r\n", Content_Length=None, Transfer_Encoding="chunked"), b"1\r\n \r\n"))
    poll = client(deadline_s=0.1).poll(["bitcoin"], NOW)
    assert (poll.outcome, poll.detail) == ("upstream_down", "no whole reply within 0.1 s")
    assert poll.ticks == ()


def test_silence_is_given_up(server, client):
    server.answer(lambda _connection, stop: stop.wait())
    poll = client(deadline_s=0.05).poll(["bitcoin"], NOW)
    assert (poll.outcome, poll.http_status) == ("upstream_down", None)
    assert nothing_partial(poll)


@pytest.mark.parametrize("cut", [20, 60, 600])
def test_a_compressed_body_that_was_cut_is_never_half_read(server, client, cut):
    (recorded,) = exchanges("coins_markets_2024-01-15.json")
    server.answer(gzipped(recorded.body, cut=cut))
    poll = client().poll(["bitcoin", "ethereum"], NOW)
    assert (poll.outcome, poll.http_status) == ("bad_payload", 200)
    assert nothing_partial(poll)


def test_a_body_that_is_no_gzip_though_it_says_so(server, client):
    server.answer(reply([QUOTE], Content_Encoding="gzip"))
    poll = client().poll(["bitcoin"], NOW)
    assert (poll.outcome, poll.detail) == ("bad_payload", "the compressed body is damaged")
    assert poll.ticks == ()


@pytest.mark.parametrize("missing", [1, 30])
def test_a_body_shorter_than_declared_is_no_reply(server, client, missing):
    server.answer(GOOD[:-missing])
    poll = client().poll(["bitcoin"], NOW)
    assert (poll.outcome, poll.credits_used) == ("upstream_down", ATTEMPTS)
    assert nothing_partial(poll)


def test_a_whole_looking_body_shorter_than_declared_is_no_reply(server, client):
    server.answer(reply([QUOTE], Content_Length=10_000))
    poll = client().poll(["bitcoin"], NOW)
    assert poll.outcome == "upstream_down"
    assert nothing_partial(poll)


def test_a_senseless_length_does_not_raise(server, client):
    server.answer(reply([QUOTE], Content_Length="many"))
    assert client().poll(["bitcoin"], NOW).outcome == "ok"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_refused_and_the_key_goes_nowhere_else(client, server, status):
    with RawServer([GOOD]) as elsewhere:
        server.answer(reply("", status, Location=f"{elsewhere.url}/coins/markets"))
        poll = client("demo", KEY).poll(["bitcoin"], NOW)
        assert (poll.outcome, poll.http_status, poll.credits_used) == ("bad_payload", status, 1)
        assert nothing_partial(poll)
        assert elsewhere.received == []


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_is_tried_again_and_every_call_is_counted(server, client, status):
    server.answer(reply("upstream connect error", status, Content_Type="text/plain"))
    poll = client().poll(["bitcoin"], NOW)
    assert (poll.outcome, poll.http_status) == ("upstream_down", status)
    assert nothing_partial(poll)
    assert (poll.credits_used, len(server.received)) == (ATTEMPTS, ATTEMPTS)


def test_a_server_error_that_passes_costs_two_calls(server, client):
    server.answer(reply("oops", 502), GOOD)
    poll = client().poll(["bitcoin"], NOW)
    assert (poll.outcome, poll.credits_used, len(poll.ticks)) == ("ok", 2, 1)


def test_a_server_that_names_a_time_is_not_asked_before(server, client):
    server.answer(reply("maintenance", 503, Retry_After="120"))
    poll = client().poll(["bitcoin"], NOW)
    assert (poll.outcome, poll.retry_after_s, poll.credits_used) == ("upstream_down", 120.0, 1)


def test_a_failure_other_than_before_ends_the_retries(server, client):
    server.answer(reply("oops", 500), reply(RATE_BODY, 429, Retry_After="60"), GOOD)
    poll = client().poll(["bitcoin"], NOW)
    assert (poll.outcome, poll.retry_after_s, poll.credits_used) == ("rate_limited", 60.0, 2)
    assert poll.ticks == ()


@pytest.mark.parametrize("body", ["[", '[{"id":"bitcoin","current_price":1', "", "null", "{}", "<html></html>"])
def test_malformed_json_is_named_and_not_asked_again(server, client, body):
    server.answer(reply(body))
    poll = client().poll(["bitcoin"], NOW)
    assert (poll.outcome, poll.credits_used) == ("bad_payload", 1)
    assert nothing_partial(poll)


@pytest.mark.parametrize("answer", [hang_up, b"", b"SSH-2.0-OpenSSH\r\n\r\n"])
def test_what_is_no_http_is_no_reply(server, client, answer):
    server.answer(answer)
    poll = client().poll(["bitcoin"], NOW)
    assert poll.outcome == "upstream_down"
    assert nothing_partial(poll)


def test_a_reply_that_ends_among_its_headers_holds_nothing(server, client):
    server.answer(b"HTTP/1.1 200 OK\r\nContent-Le")
    poll = client().poll(["bitcoin"], NOW)
    assert poll.outcome == "bad_payload"
    assert nothing_partial(poll)


def test_a_refused_connection_is_named_without_address_or_key():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    source = CoinGeckoClient(f"http://127.0.0.1:{port}", "demo", SecretStr(KEY))
    poll = source.poll(["bitcoin"], NOW)
    assert (poll.outcome, poll.detail, poll.http_status) == ("upstream_down", "no reply: ConnectionError", None)
    assert (poll.ticks, poll.credits_used) == ((), ATTEMPTS)


# --- which hosts


@pytest.mark.parametrize(
    ("plan", "url"),
    [
        ("keyless", "https://api.coingecko.com/api/v3"),
        ("demo", "https://api.coingecko.com/api/v3/"),
        ("paid", "https://pro-api.coingecko.com/api/v3"),
        ("demo", "http://127.0.0.1:8099/api/v3"),
        ("paid", "http://localhost:8099"),
        ("demo", "http://[::1]:8099/api/v3"),
    ],
)
def test_official_hosts_and_this_machine_are_accepted(plan, url):
    assert base_url(plan, url) == url.rstrip("/")


@pytest.mark.parametrize(
    ("plan", "url"),
    [
        ("demo", "http://api.coingecko.com/api/v3"),
        ("demo", "https://pro-api.coingecko.com/api/v3"),
        ("paid", "https://api.coingecko.com/api/v3"),
        ("demo", "https://api.coingecko.com.evil.example/api/v3"),
        ("demo", "https://evil.example/api.coingecko.com"),
        ("demo", "https://api.coingecko.com@evil.example/"),
        ("demo", "https://user:secret@api.coingecko.com/api/v3"),
        ("demo", "https://api.coingecko.com/api/v3?x_cg_demo_api_key=secret"),
        ("demo", "https://api.coingecko.com/api/v3#secret"),
        ("demo", "http://10.0.0.1:8099"),
        ("demo", "http://127.0.0.1.evil.example"),
        ("demo", "ftp://127.0.0.1"),
        ("demo", "http://[::1"),
        ("demo", "http://127.0.0.1:eighty"),
        ("demo", ""),
    ],
)
def test_any_other_base_url_is_refused_without_repeating_a_secret(plan, url):
    with pytest.raises(BadBaseUrl) as caught:
        base_url(plan, url)
    assert "secret" not in str(caught.value)
    with pytest.raises(BadBaseUrl):
        CoinGeckoClient(url, plan, SecretStr(KEY))


# --- asking for one coin, and for the past


def test_a_coin_is_confirmed_by_the_source(server, client):
    server.answer(GOOD)
    found = confirmed_coin(client(), "bitcoin", NOW)
    assert (found.coin_id, found.symbol, found.name) == ("bitcoin", "BTC", "Bitcoin")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reply("[]"), "the source does not know 'bitcoin'"),
        (reply(RATE_BODY, 429), "did not confirm 'bitcoin': rate_limited .*exceeded the Rate Limit"),
        (reply([{**QUOTE, "current_price": None}]), "did not confirm 'bitcoin': bad_payload .*null price"),
    ],
)
def test_a_coin_that_is_not_confirmed_says_why(server, client, answer, said):
    server.answer(answer)
    with pytest.raises(ValueError, match=said):
        confirmed_coin(client(), "bitcoin", NOW)


def test_history_asks_for_half_open_spans_as_documented(server, client):
    (recorded,) = exchanges("market_chart_range_2024-01-15.json")
    server.answer(reply(recorded.body))
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    found, about = client("demo", KEY).market_chart_range("bitcoin", start, end, NOW)
    (got,) = server.received
    assert got.path == "/api/v3/coins/bitcoin/market_chart/range"
    assert (got.query["from"], got.query["to"]) == ("1767225600", "1767311999")
    assert KEY not in got.target
    parameters = description("demo")["paths"]["/coins/{id}/market_chart/range"]["get"]["parameters"]
    assert set(got.query) <= {p["name"] for p in parameters}
    assert (about.outcome, about.credits_used) == ("ok", 1)
    assert found is not None
    assert found["prices"][0] == [1392595200000, Decimal("645.14")]
    assert isinstance(found["prices"][0][0], int)
    assert found["total_volumes"][-1][1] == Decimal(recorded.text.rpartition(",")[2].rstrip("]}"))


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (reply(RATE_BODY, 429, Retry_After="30"), "rate_limited"),
        (reply(RATE_BODY, 200), "rate_limited"),
        (reply({"error": "coin not found"}, 404), "unknown_coin"),
        (reply({"status": {"error_code": 10002, "error_message": f"bad {KEY}"}}, 401), "unauthorized"),
        (reply("oops", 500), "upstream_down"),
        (reply("{"), "bad_payload"),
        (reply("[]"), "bad_payload"),
        (reply({"prices": None}), "bad_payload"),
        (reply({"prices": [[None, 1]]}), "bad_payload"),
        (reply({"prices": [1]}), "bad_payload"),
        (reply('{"prices":[[1,1e99999999999999999999]]}'), "bad_payload"),
        (GOOD[:-5], "upstream_down"),
        (reply("", 302, Location="https://evil.example"), "bad_payload"),
    ],
)
def test_history_that_cannot_be_had_is_a_named_failure(server, client, answer, outcome):
    server.answer(answer)
    found, about = client("demo", KEY).market_chart_range("bitcoin", NOW, NOW, NOW)
    assert (found, about.outcome, about.ticks) == (None, outcome, ())
    assert KEY not in str(about.detail)


def test_an_id_cannot_lead_to_another_path(server, client):
    server.answer(reply({"prices": []}))
    client().market_chart_range("../ping?x=1#", NOW, NOW, NOW)
    assert server.received[0].path == "/api/v3/coins/..%2Fping%3Fx%3D1%23/market_chart/range"
