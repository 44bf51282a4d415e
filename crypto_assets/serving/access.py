"""Who may ask, and how much: host names, token, requests a minute, size of a body, headers of every answer.

On loopback no token is asked for: an EventSource sends no header. Other addresses need one to start
(`refuse_exposed`); programs send it as `Authorization: Bearer`, and the page logs in and gets a cookie.

Belongs here: ASGI middleware and the login. Does not belong here: what is answered (`routes`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crypto_assets.errors import UsageError
from crypto_assets.serving.answers import Problem
from crypto_assets.settings import Settings
from crypto_assets.settings_databricks import LOOPBACK

PAGE, DOCS = (Path(__file__).with_name(name) for name in ("dashboard", "docs"))
"""Folders of the page's files, and of those that show the API's documentation."""
COOKIE = "crypto_assets"
LEAST_TOKEN = 24
MOST_BODY = 1024 * 1024
EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound
OPEN_PATHS = ("/healthz", "/readyz", "/ping", "/login")
"""Answered without a token: they show nothing of the lake."""
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)  # fmt: skip


def refuse_exposed(settings: Settings) -> None:
    """Refuse to serve others than this machine without a token.

    Raises:
        UsageError: The host is not loopback and there is no token, or the token is too short.
    """
    token = settings.api_token.get_secret_value() if settings.api_token else ""
    make = "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
    if token and len(token) < LEAST_TOKEN:
        raise UsageError(
            f"CRYPTO_ASSETS_API_TOKEN has {len(token)} characters and needs at least {LEAST_TOKEN}; make one with: "
            f"{make}"
        )
    if settings.api_host not in LOOPBACK and not token:
        raise UsageError(
            f"the API would answer anyone who reaches {settings.api_host}: set CRYPTO_ASSETS_API_TOKEN (make one with: "
            f"{make}), or serve this machine alone with --host 127.0.0.1"
        )


@dataclass(frozen=True)
class Limits:
    """What `Access` asks for.

    Args:
        hosts: Names that the Host header may have.
        token: The token; None = nobody is asked.
        requests_per_minute: Of one client address, where there is a token.
        pages: Paths of files that hold no data: the page, with its login, and the documentation.
    """

    hosts: frozenset[str]
    token: str | None
    requests_per_minute: int
    pages: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Limits of a server by its settings."""
        hosts = {*LOOPBACK, "[::1]", settings.api_host, *settings.allowed_hosts}
        if settings.api_host in EVERYWHERE:
            hosts |= {socket.gethostname(), socket.getfqdn()}
        token = settings.api_token.get_secret_value() if settings.api_token else None
        pages = {f"/{f.relative_to(PAGE).as_posix()}" for f in PAGE.rglob("*") if f.is_file()}
        pages |= {f"/docs/{f.name}" for f in DOCS.iterdir()} | {"/docs", "/docs/"}
        names = frozenset(h.lower() for h in hosts if h)
        return cls(names, token, settings.api_requests_per_minute, frozenset(pages | {"/"}))


class Access:
    """The outermost ASGI layer: refuses what may not reach the application, and adds headers to every answer."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        from limits import parse
        from limits.storage import MemoryStorage
        from limits.strategies import FixedWindowRateLimiter

        self._app, self._limits = app, limits
        self._rate = parse(f"{limits.requests_per_minute}/minute")
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        problem = self._refusal(scope)
        if problem is not None:
            await problem.response()(scope, receive, with_headers)
            return
        await _Body(self._app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = {k: v.decode("latin-1") for k, v in scope["headers"]}
        host = _name(headers.get(b"host", ""))
        if host not in self._limits.hosts:
            return Problem(400, f"this server is not called {host!r}: list the name in CRYPTO_ASSETS_API_ALLOWED_HOSTS")
        if self._limits.token is None or scope["path"] in OPEN_PATHS or scope["path"] in self._limits.pages:
            return None
        client = (scope.get("client") or ("",))[0]
        if not self._limiter.hit(self._rate, client):
            return Problem(
                429, f"more than {self._limits.requests_per_minute} requests a minute", {"Retry-After": "60"}
            )
        if not _authorized(headers, self._limits.token):
            return Problem(
                401, "send the token as Authorization: Bearer ..., or log in at /", {"WWW-Authenticate": "Bearer"}
            )
        return None


def _name(host: str) -> str:
    """Host name of a Host header, without the port."""
    return (host.rsplit(":", 1)[0] if not host.endswith("]") and ":" in host else host).lower()


def _authorized(headers: Mapping[bytes, str], token: str) -> bool:
    scheme, _, given = headers.get(b"authorization", "").partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
        return True
    try:
        found = SimpleCookie(headers.get(b"cookie", "")).get(COOKIE)
    except CookieError:
        return False
    return found is not None and hmac.compare_digest(found.value.encode(), session(token).encode())


def session(token: str) -> str:
    """Value of the cookie of those who know the token: a browser keeps this, not the token."""
    return hmac.new(token.encode(), b"crypto-assets session", hashlib.sha256).hexdigest()


def is_token(given: object, token: str | None) -> bool:
    """True if a login is right; also where no token is asked for."""
    return token is None or (isinstance(given, str) and hmac.compare_digest(given.encode(), token.encode()))


class _TooLarge(Exception):
    pass


class _Body:
    """Counts a request's body while it is read, whatever its length claims, and answers 413 when it is too large."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Whatever the application answers about a body that was cut off, the client gets 413."""
        read, answered = 0, False

        async def refuse() -> None:
            await Problem(413, f"a request body may have at most {MOST_BODY:,} bytes").response()(scope, receive, send)

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MOST_BODY:
                raise _TooLarge
            return message

        async def replaced(message: Message) -> None:
            nonlocal answered
            if read <= MOST_BODY:
                answered = True
                await send(message)
            elif not answered:
                answered = True
                await refuse()

        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > MOST_BODY:
            await refuse()
            return
        try:
            await self._app(scope, counted, replaced)
        except _TooLarge:
            if not answered:
                await refuse()


def login(body: bytes, token: str | None) -> dict[str, Any] | None:
    """Arguments of the cookie for a login `{"token": ...}`; None when it is wrong."""
    try:
        given = json.loads(body)
    except ValueError:
        given = None
    if not isinstance(given, dict) or not is_token(given.get("token"), token):
        return None
    return {"key": COOKIE, "value": session(token or ""), "httponly": True, "samesite": "strict", "max_age": 30 * 86400}
