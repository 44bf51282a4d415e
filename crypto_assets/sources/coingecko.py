"""The CoinGecko client: one call for all coins, every outcome named.

Belongs here: HTTP with limits, and CoinGecko as a source: its plans and hosts. Does not belong here: what a reply means
(`market.payload`), when to poll (`market.credits`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import SecretStr

from crypto_assets import source_facts
from crypto_assets.errors import UsageError
from crypto_assets.market.credits import CALLS_PER_POLL, Budget
from crypto_assets.market.payload import Parsed, exact_json, parse_markets
from crypto_assets.market.quotes import Poll
from crypto_assets.redaction import redact
from crypto_assets.settings import Settings
from crypto_assets.settings_databricks import LOOPBACK
from crypto_assets.sources.base import Source
from crypto_assets.web import BadBody, Client, NoReply, Reply, Unreachable

HOSTS = {"keyless": "api.coingecko.com", "demo": "api.coingecko.com", "paid": "pro-api.coingecko.com"}
BUDGETS = {
    "keyless": Budget(per_minute=5, per_month=None),
    "demo": Budget(per_minute=30, per_month=10_000),
    "paid": Budget(per_minute=250, per_month=500_000),
}
"""Calls by plan, as published (https://docs.coingecko.com/docs/common-errors-rate-limit and
https://www.coingecko.com/en/api/pricing): the keyless host allows 5 to 15 calls a minute by load, of which 5 are used;
paid plans start at these figures."""
KEY_HEADERS = {"demo": "x-cg-demo-api-key", "paid": "x-cg-pro-api-key"}
BODY_LIMIT = 8 * 1024 * 1024
DEADLINE_S = 20.0
"""Seconds for one attempt."""
POLL_DEADLINE_S = 40.0
"""Seconds for a poll with its retries: a sensor's tick, of which it is a part, may take 60. A last wait between two
attempts, of 5 s at most, may come on top."""
ATTEMPTS = CALLS_PER_POLL
TRANSIENT = ("upstream_down",)
"""Failures worth another try at once; a rate limit is waited out by the governor, the rest would fail again."""


class BadBaseUrl(UsageError):
    """The base URL is not an official host of the plan or a loopback stand-in."""


class _Transient(Exception):
    """Carries a transient failure to the retry loop."""

    def __init__(self, reply: Parsed, status: int | None, age_s: float | None) -> None:
        super().__init__(reply.outcome)
        self.reply, self.status, self.age_s = reply, status, age_s


def base_url(plan: str, override: str | None) -> str:
    """The API's base URL of a plan, or an accepted override.

    Raises:
        BadBaseUrl: The override is neither an official https host of that plan nor a loopback address.
    """
    if override is None:
        return f"https://{HOSTS[plan]}/api/v3"
    advice = f"use https://{HOSTS[plan]}/api/v3 or a stand-in on 127.0.0.1"
    try:
        parts = urlsplit(override)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise BadBaseUrl(f"COINGECKO_BASE_URL is no address: {advice}") from error
    official = parts.scheme == "https" and host == HOSTS[plan]
    local = parts.scheme in ("http", "https") and host in LOOPBACK
    if not (official or local) or parts.username or parts.password or parts.query or parts.fragment:
        raise BadBaseUrl(f"COINGECKO_BASE_URL {parts.scheme}://{host} is not accepted for the {plan} plan: {advice}")
    return override.rstrip("/")


class CoinGeckoClient:
    """Polls `/coins/markets`. Thread-safe for one poll at a time.

    Args:
        url: Base URL from `base_url`.
        plan: keyless, demo or paid.
        api_key: Key; sent in the plan's header, and only to the host of `url`.
        name: Source name in messages.
        deadline_s: Deadline of one attempt in seconds, from name resolution to the last byte.
        body_limit: Bytes of a decoded body that are read at most.
        wait_initial_s: First back-off between attempts.
        extra_headers: More headers by time of the poll (a stand-in's virtual time).

    Raises:
        BadBaseUrl: `url` is not acceptable.
    """

    def __init__(
        self,
        url: str,
        plan: str = "keyless",
        api_key: SecretStr | None = None,
        *,
        name: str = source_facts.COINGECKO.name,
        deadline_s: float = DEADLINE_S,
        body_limit: int = BODY_LIMIT,
        wait_initial_s: float = 0.5,
        extra_headers: Callable[[datetime], Mapping[str, str]] | None = None,
    ) -> None:
        self.url, self.plan, self.name = base_url(plan, url), plan, name
        self._deadline_s, self._body_limit, self._wait_initial_s = deadline_s, body_limit, wait_initial_s
        self._extra_headers = extra_headers
        self._key = api_key.get_secret_value() if api_key is not None else None
        headers = {"accept": "application/json", "user-agent": "crypto_assets/0.1"}
        if self._key is not None and plan in KEY_HEADERS:
            headers[KEY_HEADERS[plan]] = self._key
        # A stand-in is on this machine: proxies of the environment are for the way out.
        self._client = Client(headers, trust_env=urlsplit(self.url).hostname not in LOOPBACK)

    def __repr__(self) -> str:
        return f"CoinGeckoClient({self.url}, plan={self.plan})"

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def poll(self, coin_ids: Sequence[str], now: datetime) -> Poll:
        """Poll all coins. Never raises for external failures.

        Args:
            coin_ids: Coins to ask for.
            now: Time of the poll (UTC); virtual when a stand-in is polled.
        """
        params = {
            "vs_currency": "usd",
            "ids": ",".join(coin_ids),
            "order": "id_asc",
            "per_page": "250",
            "page": "1",
            "sparkline": "false",
            "price_change_percentage": "1h,24h,7d",
            "precision": "full",
        }
        started = time.monotonic()
        calls = [0]
        reply, status, age_s = self._with_retries(params, coin_ids, now, calls)
        finished = now + timedelta(seconds=time.monotonic() - started)
        return Poll(
            started_at=now,
            finished_at=finished,
            outcome=reply.outcome,
            ticks=reply.ticks,
            missing=reply.missing,
            problems=reply.problems,
            nulled=reply.nulled,
            http_status=status,
            detail=reply.detail,
            retry_after_s=reply.retry_after_s,
            age_s=age_s,
            credits_used=calls[0],
        )

    def _with_retries(
        self, params: Mapping[str, str], coin_ids: Sequence[str], now: datetime, calls: list[int]
    ) -> tuple[Parsed, int | None, float | None]:
        import stamina

        end = time.monotonic() + POLL_DEADLINE_S
        try:
            for attempt in stamina.retry_context(
                on=_Transient,
                attempts=ATTEMPTS,
                wait_initial=self._wait_initial_s,
                wait_max=5.0,
                timeout=POLL_DEADLINE_S,
            ):
                with attempt:
                    calls[0] += 1
                    found = self._once(params, coin_ids, now, end)
                    if found[0].outcome in TRANSIENT and found[0].retry_after_s is None:
                        raise _Transient(*found)
                    return found
        except _Transient as last:
            return last.reply, last.status, last.age_s
        raise AssertionError("a retry loop ends by return or exception")

    def _once(
        self, params: Mapping[str, str], coin_ids: Sequence[str], now: datetime, end: float
    ) -> tuple[Parsed, int | None, float | None]:
        left = max(0.1, end - time.monotonic())
        got = self._get("/coins/markets", params, now, min(self._deadline_s, left))
        if isinstance(got, Parsed):
            return got, None, None
        parsed = parse_markets(got.content, got.status, got.headers, coin_ids, now=now)
        return parsed, got.status, _seconds(got.headers.get("age"))

    def _get(self, path: str, params: Mapping[str, str], now: datetime, deadline_s: float) -> Reply | Parsed:
        """One request within deadline and body limit; transport troubles as a named failure.

        The body is without our key, should a reply repeat it: whatever is made of it later, cut or decoded, is too.
        """
        headers = dict(self._extra_headers(now)) if self._extra_headers else None
        try:
            reply = self._client.send(
                "GET",
                self.url + path,
                params=dict(params),
                headers=headers,
                deadline_s=deadline_s,
                body_limit=self._body_limit,
            )
        except BadBody as error:
            return Parsed("bad_payload", detail=str(error))
        except Unreachable as error:
            return Parsed("upstream_down", detail=f"no reply: {error}")
        except NoReply as error:
            return Parsed("upstream_down", detail=str(error))
        if self._key is None:
            return reply
        text = redact(reply.content.decode("latin-1"), {"COINGECKO_API_KEY": self._key}, addresses=False)
        return replace(reply, content=text.encode("latin-1"))

    def market_chart_range(
        self, coin_id: str, start: datetime, end: datetime, now: datetime
    ) -> tuple[dict[str, Any] | None, Poll]:
        """`/coins/{id}/market_chart/range` for [start, end).

        Returns:
            The reply as JSON with numbers as text-exact decimals, and the poll with outcome and credits; the
            reply is None unless the outcome is ok.
        """
        params = {
            "vs_currency": "usd",
            "from": str(int(start.timestamp())),
            "to": str(int(end.timestamp()) - 1),
            "precision": "full",
        }
        started = time.monotonic()
        got = self._get(f"/coins/{quote(coin_id, safe='')}/market_chart/range", params, now, self._deadline_s)
        finished = now + timedelta(seconds=time.monotonic() - started)
        about = Poll(now, finished, "ok", credits_used=1)
        if isinstance(got, Parsed):
            return None, replace(about, outcome=got.outcome, detail=got.detail)
        failed = parse_markets(got.content, got.status, got.headers, [], now=now)
        about = replace(about, http_status=got.status)
        if got.status != 200 or failed.outcome in ("rate_limited", "unauthorized"):
            return None, replace(
                about, outcome=failed.outcome, detail=failed.detail, retry_after_s=failed.retry_after_s
            )
        try:
            reply = exact_json(got.content, whole=int)
        except ValueError as error:
            return None, replace(about, outcome="bad_payload", detail=str(error)[:500])
        if not isinstance(reply, dict) or not isinstance(reply.get("prices"), list):
            return None, replace(about, outcome="bad_payload", detail="the reply has no list of prices")
        if not all(_is_point(p) for series in reply.values() if isinstance(series, list) for p in series):
            return None, replace(about, outcome="bad_payload", detail="a point of the reply is no [time, number]")
        return reply, about


class CoinGecko(Source):
    """CoinGecko as a source: live, with history, metered by plan."""

    facts = source_facts.COINGECKO
    more_credits = "a larger plan (COINGECKO_PLAN, COINGECKO_MONTHLY_CREDITS), or wait for next month"

    def budget(self, settings: Settings) -> Budget:
        """The plan's, with the settings' own figures in place of it."""
        plan = BUDGETS[settings.plan]
        return Budget(
            per_minute=settings.coingecko_calls_per_minute or plan.per_minute,
            per_month=settings.coingecko_monthly_credits or plan.per_month,
        )

    @contextmanager
    def open(self, settings: Settings, *, anchor: date | None = None) -> Iterator[CoinGeckoClient]:  # noqa: ARG002
        """A client of the plan's host, with the key.

        Raises:
            BadBaseUrl: COINGECKO_BASE_URL is not acceptable.
        """
        with closing(CoinGeckoClient(self.address(settings), settings.plan, settings.coingecko_api_key)) as client:
            yield client

    def open_archive(self, settings: Settings) -> AbstractContextManager[CoinGeckoClient]:
        """The same client: quotes and history have one host."""
        return self.open(settings)

    def plan(self, settings: Settings) -> str:
        """keyless, demo or paid."""
        return settings.plan

    def missing_key(self, settings: Settings) -> tuple[str, str] | None:
        """A plan with keys was chosen and no key is set."""
        if settings.coingecko_plan not in KEY_HEADERS or settings.coingecko_api_key is not None:
            return None
        return (
            f"COINGECKO_PLAN={settings.coingecko_plan} needs a key and COINGECKO_API_KEY is not set",
            "set COINGECKO_API_KEY (in .env or the environment), or COINGECKO_PLAN=keyless",
        )

    def address(self, settings: Settings) -> str:
        """Base URL in force; raises as `base_url`."""
        return base_url(settings.plan, settings.coingecko_base_url)


def _is_point(point: object) -> bool:
    return isinstance(point, list) and len(point) == 2 and isinstance(point[0], int)


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text) if text is not None else None
    except ValueError:
        return None
    return seconds if seconds is not None and math.isfinite(seconds) else None
