"""Who is answered: host names, token, size of a body, requests a minute, and headers of every answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from crypto_assets.errors import UsageError
from crypto_assets.serving.access import MOST_BODY, Limits
from crypto_assets.serving.server import refuse_unservable
from crypto_assets.settings import Settings
from crypto_assets_tests.serving.lakes import Lake, price

TOKEN = "a-token-of-32-characters-or-more"


@pytest.fixture
def guarded(tmp_path: Path) -> Lake:
    """A lake whose API asks for a token and answers five requests a minute."""
    lake = Lake(tmp_path / "home", api_token=TOKEN, api_requests_per_minute=5)
    lake.merge("gold.latest_prices", [price("bitcoin", "1")])
    lake.look()
    return lake


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"api_host": "0.0.0.0"}, "CRYPTO_ASSETS_API_TOKEN"),
        ({"api_host": "192.0.2.7"}, "CRYPTO_ASSETS_API_TOKEN"),
        ({"api_host": "0.0.0.0", "api_token": "x" * 23}, "at least 24"),
        ({"api_token": "short"}, "at least 24"),
        ({"lake_uri": "s3://bucket/lake"}, "local folder"),
    ],
)
def test_an_open_or_unreadable_service_is_refused_at_start(settings: dict[str, str], named: str) -> None:
    with pytest.raises(UsageError, match=named) as refused:
        refuse_unservable(Settings(**settings))
    assert "xxx" not in str(refused.value)


def test_loopback_needs_no_token_and_others_may_serve_with_one() -> None:
    for settings, token in ((Settings(), None), (Settings(api_host="0.0.0.0", api_token="x" * 24), "x" * 24)):
        refuse_unservable(settings)
        assert Limits.of(settings).token == token


def test_a_token_is_asked_for(guarded: Lake) -> None:
    assert guarded.client.get("/healthz").status_code == 200
    assert guarded.client.get("/readyz").status_code == 200
    refused = guarded.client.get("/v1/prices/latest")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert guarded.client.get("/v1/prices/latest", headers={"Authorization": "Bearer wrong"}).status_code == 401
    given = guarded.client.get("/v1/prices/latest", headers={"Authorization": f"Bearer {TOKEN}"})
    assert given.status_code == 200


def test_a_browser_logs_in_and_its_cookie_is_not_the_token(guarded: Lake) -> None:
    assert guarded.client.post("/login", json={"token": "wrong"}).status_code == 401
    answer = guarded.client.post("/login", json={"token": TOKEN})
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 204
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    name, _, value = cookie.partition(";")[0].partition("=")
    assert guarded.client.get("/v1/prices/latest", headers={"Cookie": f"{name}={value}"}).status_code == 200
    assert guarded.client.get("/v1/prices/latest", headers={"Cookie": f"{name}=forged"}).status_code == 401


def test_too_many_requests_a_minute_are_refused(guarded: Lake) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    found = [guarded.client.get("/v1/prices/latest", headers=headers) for _ in range(6)]
    assert [answer.status_code for answer in found] == [200] * 5 + [429]
    assert found[-1].headers["retry-after"] == "60"


def test_a_foreign_host_is_refused(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "home", api_allowed_hosts="api.example.org, other.example.org")
    for host, status in (
        ("evil.example.org", 400),
        ("127.0.0.1.evil.example.org", 400),
        ("127.0.0.1:3001", 200),
        ("LOCALHOST:3001", 200),
        ("[::1]:3001", 200),
        ("api.example.org", 200),
    ):
        assert lake.client.get("/healthz", headers={"Host": host}).status_code == status, host


def test_a_body_is_counted_while_it_is_read(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "home")
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(64):
            read += 1
            yield b"x" * (MOST_BODY // 8)

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(lake.client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post("/login", content=chunks())

    answer = asyncio.run(send())
    assert answer.status_code == 413
    assert answer.json()["status"] == 413
    assert read < 20  # the rest was not taken
    declared = lake.client.post("/login", content=b"{}", headers={"Content-Length": str(MOST_BODY + 1)})
    assert declared.status_code == 413


def test_every_answer_has_the_headers(guarded: Lake) -> None:
    for path in ("/healthz", "/v1/prices/latest", "/nothing"):
        headers = guarded.client.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_page_and_documentation_are_files_of_ours(guarded: Lake) -> None:
    for path, text in (("/", "<title>"), ("/docs/", "show.js"), ("/docs/show.js", "openapi.json")):
        answer = guarded.client.get(path)
        assert answer.status_code == 200, path
        assert text in answer.text
        assert "http://" not in answer.text.replace("http://www.w3.org", "")
        assert "https://" not in answer.text
    assert guarded.client.get("/docs").headers["location"] == "docs/"
    assert guarded.client.get("/openapi.json").status_code == 401
    for path in ("/docs/../api.py", "/docs/%2e%2e/api.py", "/..%2fapi.py"):
        assert guarded.client.get(path).status_code in (401, 404), path


def test_a_method_that_a_route_has_not_is_named_as_such(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "home")
    for method, path, allowed in (
        ("GET", "/invocations", "POST"),
        ("GET", "/v1/models/anomaly/invocations", "POST"),
        ("HEAD", "/v1/features/lookup", "POST"),
        ("DELETE", "/v1/prices/latest", "GET, HEAD"),
        ("POST", "/v1/bars/bitcoin", "GET, HEAD"),
    ):
        answer = lake.client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed), path
        assert answer.headers["content-type"] == "application/problem+json"
    assert lake.client.get("/v1/nothing").status_code == 404
