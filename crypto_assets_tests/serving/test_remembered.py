"""Answers that are given again: for how long, to whom, and that they are what the routes would answer."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from crypto_assets.serving.remembered import MOST_BYTES, Remembered, remember
from crypto_assets.serving.server import listen
from crypto_assets_tests.serving.lakes import COINS, NOON, SLOT, Client, Lake, bar, price

BARS = f"/v1/bars/{COINS[0]}"


class _Routes:
    """Routes that count how often they are asked, and run something in the middle of an answer."""

    def __init__(self, size: int = 10) -> None:
        self.asked, self.size = 0, size
        self.meanwhile = lambda: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        body = b"%0*d" % (self.size, self.asked)
        self.meanwhile()
        await remember(Request(scope), 'W/"a"', Response(body, headers={"ETag": 'W/"a"'}))(scope, receive, send)


def test_an_answer_is_given_again_while_nothing_changes() -> None:
    routes, state = _Routes(), [1, "version 1"]
    client = Client(Remembered(routes, lambda: tuple(state)))
    assert client.get("/a").content == client.get("/a").content
    assert routes.asked == 1
    for other in ("/a?limit=1", "/b"):
        client.get(other)
    assert routes.asked == 3
    state[1] = "version 2"
    assert client.get("/a").content == b"0000000004"
    state[0] = 2  # the next second
    assert client.get("/a").content == b"0000000005"
    assert client.post("/a").content == b"0000000006"
    assert client.get("/a").content == b"0000000005"


def test_spellings_of_one_query_share_an_answer_and_other_queries_do_not() -> None:
    routes = _Routes()
    client = Client(Remembered(routes, lambda: 1))
    same = ("coin=a&coin=b&limit=2", "limit=2&coin=a&coin=b", "coin=%61&limit=%32&coin=b&", "coin=a&&limit=2&coin=b")
    assert len({client.get(f"/a?{query}").content for query in same}) == 1
    assert client.get("/a").content == client.get("/a?").content
    assert routes.asked == 2
    for other in ("coin=b&coin=a&limit=2", "coin=a&coin=b&limit=20", "coin=a&limit=2", "coin=a&coin=b&limit=2&to="):
        client.get(f"/a?{other}")
    assert routes.asked == 6


def test_routes_answer_a_time_and_its_other_spelling_alike(tmp_path: Path) -> None:
    lake = _lake(tmp_path)
    first, again = (
        lake.client.get(f"{BARS}?{q}")
        for q in ("from=2026-11-29T12:00:00Z&limit=2", "limit=2&from=2026-11-29T12%3A00%3A00Z")
    )
    assert first.json()["data"] == again.json()["data"]
    assert len(first.json()["data"]) == 2


def test_an_answer_made_before_a_commit_is_not_given_after_it() -> None:
    routes, state = _Routes(), [1]
    client = Client(Remembered(routes, lambda: state[0]))
    routes.meanwhile = lambda: state.__setitem__(0, 2)
    assert client.get("/a").content == b"0000000001"
    assert client.get("/a").content == b"0000000002"
    assert client.get("/a").content == b"0000000002"


def test_memory_is_bounded() -> None:
    routes = _Routes(MOST_BYTES // 2)
    client = Client(Remembered(routes, lambda: 1))
    for path in ("/a", "/b", "/c", "/a", "/b", "/c"):
        assert client.get(path).status_code == 200
    assert routes.asked == 4  # the third never had room


def _lake(folder: Path, **settings: object) -> Lake:
    lake = Lake(folder / "home", **settings)
    lake.merge("gold.latest_prices", [price(coin, "2.5") for coin in COINS])
    lake.replace("gold.bars_5m", [bar(c, NOON + i * SLOT) for c in COINS for i in range(40)])
    lake.look()
    return lake


def test_routes_answer_the_same_again_in_every_encoding_and_with_every_tag(tmp_path: Path) -> None:
    lake = _lake(tmp_path)
    plain, packed = ({"Accept-Encoding": encoding} for encoding in ("identity", "gzip"))
    for path in ("/v1/prices/latest", BARS, f"/v1/board?coin={COINS[0]}"):
        first, *others = (lake.client.get(path, headers=headers) for headers in (plain, packed, plain, packed))
        assert [other.json()["data"] for other in others] == [first.json()["data"]] * 3, path
        assert [a.headers.get("content-encoding") for a in (first, *others)] == [None, "gzip"] * 2, path
        for answer in others:
            same = {name: answer.headers[name] for name in ("etag", "cache-control", "vary", "content-type")}
            assert same == {name: first.headers[name] for name in same}
            again = lake.client.get(path, headers={**plain, "If-None-Match": f'"other", {answer.headers["etag"]}'})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == answer.headers["etag"]
    counted = lake.client.get("/metrics").text
    asked = 'crypto_assets_http_requests_total{method="GET",route="/v1/bars/{coin}",status="%d"}'
    assert f"{asked % 200} 4.0" in counted
    assert f"{asked % 304} 3.0" in counted


def test_head_is_get_without_its_body(tmp_path: Path) -> None:
    lake = _lake(tmp_path)
    for path in ("/v1/prices/latest", BARS, "/healthz", "/", "/nothing"):
        got, head, again = (lake.client.request(method, path) for method in ("GET", "HEAD", "HEAD"))
        for answer in (head, again):
            assert (answer.status_code, answer.content) == (got.status_code, b""), path
            assert answer.headers == got.headers
    assert 'method="HEAD",route="/v1/bars/{coin}",status="200"} 2.0' in lake.client.get("/metrics").text


def test_a_commit_ends_an_answer(tmp_path: Path) -> None:
    lake = _lake(tmp_path)
    before = [lake.client.get("/v1/prices/latest") for _ in range(2)]
    lake.merge("gold.latest_prices", [price(COINS[0], "3.25")])
    lake.look()
    after = lake.client.get("/v1/prices/latest", headers={"If-None-Match": before[1].headers["etag"]})
    assert after.status_code == 200
    assert '"price_usd":3.25' in after.text
    assert after.json()["provenance"]["table_version"] == before[1].json()["provenance"]["table_version"] + 1


def test_what_is_remembered_is_given_to_those_alone_who_may_ask(tmp_path: Path) -> None:
    token = "a-token-of-32-characters-or-more"
    lake = _lake(tmp_path, api_token=token, api_requests_per_minute=4)
    headers = {"Authorization": f"Bearer {token}"}
    etag = lake.client.get(BARS, headers=headers).headers["etag"]
    assert lake.client.get(BARS, headers=headers).status_code == 200
    assert lake.client.get(BARS, headers={"If-None-Match": etag}).status_code == 401
    assert lake.client.get(BARS, headers={**headers, "Host": "evil.example.org"}).status_code == 400
    assert [lake.client.get(BARS, headers=headers).status_code for _ in range(2)] == [200, 429]


def test_a_problem_is_not_remembered(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "home")
    lake.look()
    assert lake.client.get("/v1/prices/latest").status_code == 404
    lake.merge("gold.latest_prices", [price(COINS[0], "1")])
    lake.look()
    assert lake.client.get("/v1/prices/latest").status_code == 200


def test_small_answers_are_sent_at_once() -> None:
    async def asked(listening: socket.socket) -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            found.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(answer, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            writer.close()
            return await found

    assert asyncio.run(asked(listen("127.0.0.1", 0)))


def test_the_answer_over_http_has_its_length_and_ends(tmp_path: Path) -> None:
    from crypto_assets_tests.serving.running import running

    lake = _lake(tmp_path)
    with running(lake) as url, httpx.Client(base_url=url) as client:  # one connection
        found = [client.get(BARS) for _ in range(3)]
        tags = {answer.headers["etag"] for answer in found}
        same = client.get(BARS, headers={"If-None-Match": tags.pop()})
    assert [len(json.loads(answer.text)["data"]) for answer in found] == [40] * 3
    assert (same.status_code, tags) == (304, set())
