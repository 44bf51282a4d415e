"""Parses replies of `/coins/markets` into ticks or a named failure, and formats ticks and polls as Kafka messages.

Pure; does not belong here: HTTP (`sources.coingecko`), publishing (`log.kafka`). Reply formats follow CoinGecko's
OpenAPI description (coingecko-api-oas) and recorded exchanges.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

from crypto_assets.contracts.messages import NUMERIC, SOURCE_PAYLOAD_LIMIT
from crypto_assets.market.quotes import Outcome, Poll, Tick

DETAIL_LIMIT = 500
LONGEST_RETRY_AFTER_S = 24 * 3600.0
"""Longer waits are treated as garbage."""

DIGITS_BEFORE_POINT = 20
SMALLEST_POWER = -30

_RATE_WORDS = re.compile(rb"rate.?limit|too many requests|throttl|error code: 10(15|20)", re.IGNORECASE)
_KEY_WORDS = re.compile(rb"api.?key|unauthori[sz]ed", re.IGNORECASE)
_RATE_CODES = {429, 10005}
_KEY_CODES = {10002, 10010, 10011, 401}
_BLOCKED = "the CDN, a proxy or a login page stands between, and the key was not judged"
_FIELDS = {
    "market_cap_usd": "market_cap",
    "volume_24h_usd": "total_volume",
    "change_1h_pct": "price_change_percentage_1h_in_currency",
    "change_24h_pct": "price_change_percentage_24h_in_currency",
    "change_7d_pct": "price_change_percentage_7d_in_currency",
}


@dataclass(frozen=True)
class Parsed:
    """Result of parsing a reply: ticks (only if `ok`), missing coins, problems by coin, or a named failure.

    Coins in `problems` have no tick; `nulled` are fields of ticks set to null because no column can hold their number.
    """

    outcome: Outcome
    ticks: tuple[Tick, ...] = ()
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    nulled: tuple[str, ...] = ()
    detail: str | None = None
    retry_after_s: float | None = None


def parse_markets(
    body: bytes, status: int, headers: Mapping[str, str], asked: Sequence[str], *, now: datetime
) -> Parsed:
    """Parse one reply.

    Args:
        body: Decoded body.
        status: HTTP status.
        headers: Response headers, any case.
        asked: Requested coin ids.
        now: Time of the reply (UTC), for Retry-After given as a date.

    Returns:
        `ok` with a tick for every usable coin, or a named failure without ticks. A coin with a null price, a null or
        invalid time, a repeated name in its element (ambiguous), or two different quotes is a problem and has no tick.
        Out-of-range numbers other than the price are null in the tick and listed in `nulled`. A reply without any
        requested coin is `unknown_coin`; one with only unusable coins is `bad_payload`.
    """
    found = {k.lower(): v for k, v in headers.items()}
    failure = _failure(body, status, found, now)
    if failure is not None:
        return failure
    try:
        reply = exact_json(body)
    except ValueError as error:
        return Parsed("bad_payload", detail=_short(f"the body is not JSON: {error}"))
    if not isinstance(reply, list):
        return Parsed("bad_payload", detail=_short(f"expected a list of coins, got {type(reply).__name__}"))
    return _coins(reply, _elements(body), asked)


class JsonObject(dict[str, Any]):
    """A JSON object; the last value of a repeated name counts, and `repeated` lists such names."""

    def __init__(self, pairs: Sequence[tuple[str, Any]] = ()) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs] if len(self) < len(pairs) else []
        self.repeated = tuple(dict.fromkeys(name for name in names if names.count(name) > 1))


def exact_json(body: bytes, *, whole: Callable[[str], Any] = Decimal) -> Any:
    """Parse JSON with exact decimals; no number passes through a float.

    Args:
        body: Decoded body.
        whole: Parses integers, such as times in milliseconds.

    Returns:
        The value, with objects as `JsonObject`.

    Raises:
        ValueError: It is not JSON in UTF-8, is nested too deeply, or contains a number that no decimal can hold.
    """
    try:
        return json.loads(
            body.decode("utf-8-sig"),
            parse_float=Decimal,
            parse_int=whole,
            parse_constant=_no_constant,
            object_pairs_hook=JsonObject,
        )
    except (ArithmeticError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__} in the body") from error


def _coins(reply: list[Any], texts: list[str], asked: Sequence[str]) -> Parsed:
    wanted, ticks, problems, nulled = set(asked), {}, {}, {}
    for i, coin in enumerate(reply):
        if not isinstance(coin, JsonObject) or not isinstance(coin.get("id"), str):
            return Parsed("bad_payload", detail=f"element {i} of the reply is no coin with an id")
        coin_id = coin["id"]
        if coin_id not in wanted:
            continue
        try:
            tick, nulled[coin_id] = _tick(coin, texts[i])
        except (ValueError, KeyError, TypeError, ArithmeticError) as error:
            problems[coin_id] = f"{coin_id}: {error}"
            continue
        if coin_id in ticks and ticks[coin_id] != tick:
            problems[coin_id] = f"{coin_id}: appears twice with different quotes"
        ticks[coin_id] = tick
    good = tuple(t for c, t in ticks.items() if c not in problems)
    missing = tuple(c for c in asked if c not in ticks and c not in problems)
    unusable = tuple(problems.values())
    if asked and len(missing) == len(wanted):
        return Parsed("unknown_coin", missing=missing, detail=_short(f"not one of {', '.join(asked)} is in the reply"))
    if not good and unusable:
        return Parsed("bad_payload", missing=missing, problems=unusable, detail=_short("; ".join(unusable)))
    return Parsed("ok", good, missing, unusable, tuple(field for t in good for field in nulled[t.coin_id]))


def _tick(coin: JsonObject, payload: str) -> tuple[Tick, tuple[str, ...]]:
    """Tick of a coin's element, and its fields nulled because their number is out of range.

    Raises:
        ValueError: The element is unusable; the message gives the reason.
    """
    if coin.repeated:
        raise ValueError(f"{_sendable(', '.join(coin.repeated))[:40]} occurs more than once")
    price, source_field = coin.get("current_price"), dict(_FIELDS)
    if price is None:
        raise ValueError("null price")
    if coin.get(_FIELDS["change_24h_pct"]) is None:
        source_field["change_24h_pct"] = "price_change_percentage_24h"
    given = {name: coin.get(field) for name, field in source_field.items()}
    numbers = {n: None if value is None else _number(value, source_field[n]) for n, value in given.items()}
    beyond = [name for name, number in numbers.items() if number is not None and not _held(number)]
    updated = coin.get("last_updated")
    if not isinstance(updated, str):
        raise ValueError("last_updated is not a time")
    symbol, name = coin.get("symbol"), coin.get("name")
    if not isinstance(symbol, str) or not symbol:
        raise ValueError("no symbol")
    exact = _number(price, "current_price")
    if not _held(exact):
        raise ValueError(f"current_price is out of range: {str(exact)[:40]}")
    tick = Tick(
        coin_id=coin["id"],
        symbol=_sendable(symbol.upper()),
        name=_sendable(name) if isinstance(name, str) else None,
        price_usd=exact,
        last_updated_at=_time(updated),
        payload=payload if len(payload.encode()) <= SOURCE_PAYLOAD_LIMIT else None,
        **{n: None if n in beyond else number for n, number in numbers.items()},
    )
    shown = (f"{coin['id']}: {source_field[n]} is out of range: {str(numbers[n])[:40]}" for n in beyond)
    return tick, tuple(shown)


def _number(value: object, field: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, Decimal) or not value.is_finite():
        raise ValueError(f"{field} is not a number: {str(value)[:40]!r}")
    return value


def _held(number: Decimal) -> bool:
    """True if decimal(38,18) can hold a number; one far below its last place is an error rather than zero."""
    return SMALLEST_POWER <= number.adjusted() < DIGITS_BEFORE_POINT


def _time(text: str) -> datetime:
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        raise ValueError(f"last_updated has no time zone: {text!r}")
    return parsed.astimezone(UTC)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _elements(body: bytes) -> list[str]:
    """Verbatim text of every element of a JSON array already parsed by `exact_json`."""
    text = body.decode("utf-8-sig")
    decoder = json.JSONDecoder(parse_int=str, parse_float=str)
    position, texts = text.index("[") + 1, []
    while True:
        while position < len(text) and text[position] in " \t\r\n,":
            position += 1
        if position >= len(text) or text[position] == "]":
            return texts
        _, end = decoder.raw_decode(text, position)
        texts.append(text[position:end])
        position = end


def _failure(body: bytes, status: int, headers: Mapping[str, str], now: datetime) -> Parsed | None:
    """Named failure according to status and body, or None if the body should be a list of coins."""
    code, message = _error_body(body)
    wait = retry_after(headers.get("retry-after"), now)
    is_json = body.lstrip()[:1] in (b"[", b"{")
    plain = not is_json and bool(body.strip())
    text = body if plain and status in (200, 403, 503) else message.encode()
    rate = status == 429 or code in _RATE_CODES or _RATE_WORDS.search(text)
    if rate:
        return Parsed("rate_limited", detail=_short(message or _text(body)), retry_after_s=wait)
    if 300 <= status < 400:
        return Parsed("bad_payload", detail=f"HTTP {status}: redirects are not followed")
    if status < 500 and (page := _page(body, headers)) is not None:
        return Parsed("bad_payload", detail=_short(f"HTTP {status}: {page}"))
    refused = status == 401 or code in _KEY_CODES or (code is not None and _KEY_WORDS.search(message.encode()))
    if refused or (status == 403 and _KEY_WORDS.search(body)):
        return Parsed("unauthorized", detail=_short(message or _text(body) or f"HTTP {status}"))
    if status == 403:
        return Parsed("bad_payload", detail=_short(f"HTTP 403: {message or _text(body) or 'no body'}; {_BLOCKED}"))
    if status >= 500:
        return Parsed("upstream_down", detail=_short(f"HTTP {status}: {message or _text(body)}"), retry_after_s=wait)
    if status in (404, 422):
        return Parsed("unknown_coin", detail=_short(f"HTTP {status}: {message or _text(body)}"))
    if status != 200:
        return Parsed("bad_payload", detail=_short(f"HTTP {status}: {message or _text(body)}"))
    if code is not None or message:
        return Parsed("bad_payload", detail=_short(f"an error in a 200 reply: {message or code}"))
    return None


def _page(body: bytes, headers: Mapping[str, str]) -> str | None:
    """Description of a web page received instead of an API reply: a block, login or error page; else None."""
    if body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"<" and "html" not in headers.get("content-type", "").lower():
        return None
    title = re.search(rb"<title[^>]*>(.*?)</title", body[:100_000], re.IGNORECASE | re.DOTALL)
    named = _text(title[1] if title else body)[:120] or "without a title"
    return f"a web page ({named}) in place of the API's answer; {_BLOCKED}"


def _error_body(body: bytes) -> tuple[int | None, str]:
    """Code and message of CoinGecko's error object, in either nesting (`status.error_code`, `error`)."""
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return None, ""
    if not isinstance(reply, dict):
        return None, ""
    status = reply.get("status")
    error = reply.get("error")
    if not isinstance(status, dict) and isinstance(error, dict):
        status = error.get("status") if isinstance(error.get("status"), dict) else error
    if isinstance(status, dict):
        code = status.get("error_code")
        return (code if isinstance(code, int) else None), _sendable(str(status.get("error_message") or ""))
    return None, _sendable(str(error or reply.get("error_message") or ""))


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait according to a Retry-After header, in seconds or as an HTTP date (RFC 9110, 10.2.3).

    Returns:
        None if missing, invalid or more than a day; never negative.
    """
    if value is None:
        return None
    text = value.strip()
    if re.fullmatch(r"\d{1,9}", text):
        seconds = float(text)
    else:
        try:
            when = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        seconds = max(0.0, (when - now) / timedelta(seconds=1))
    return seconds if seconds <= LONGEST_RETRY_AFTER_S else None


def _text(body: bytes) -> str:
    text = body[:2000].decode("utf-8", errors="replace")
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)).strip()


def _short(text: str) -> str:
    return _sendable(text[:DETAIL_LIMIT])


def _sendable(text: str) -> str:
    """Text encodable in UTF-8: lone surrogates, which JSON may contain, are replaced."""
    return text.encode(errors="replace").decode()


def plain(value: Decimal | None) -> str | None:
    """A decimal as exact text without exponent."""
    return None if value is None else format(value, "f")


def rfc3339(moment: datetime) -> str:
    """UTC time truncated to milliseconds, with `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def tick_to_message(tick: Tick, ingestion_timestamp: datetime) -> dict[str, Any]:
    """A tick as message v1 (`contracts.messages.PRICE_SCHEMA`)."""
    return {
        "coin_id": tick.coin_id,
        "symbol": tick.symbol,
        "name": tick.name,
        **{name: plain(getattr(tick, name)) for name in NUMERIC},
        "last_updated_at": rfc3339(tick.last_updated_at),
        "ingestion_timestamp": rfc3339(ingestion_timestamp),
        "source_payload": tick.payload,
    }


def poll_to_message(
    poll: Poll,
    *,
    poll_id: str,
    source: str,
    asked: int,
    unchanged: int,
    absent: Sequence[str],
    cadence_s: float,
    credits_left: int | None,
    delivered: int,
) -> dict[str, Any]:
    """A poll as message v2 (`contracts.messages.POLL_SCHEMA`); `absent` are coins missing from several polls."""
    detail = poll.detail or ("; ".join((*poll.problems, *poll.nulled)) or None)
    newest = max((tick.last_updated_at for tick in poll.ticks), default=None)
    return {
        "poll_id": poll_id,
        "started_at": rfc3339(poll.started_at),
        "finished_at": rfc3339(poll.finished_at),
        "source": source,
        "outcome": poll.outcome,
        "http_status": poll.http_status,
        "detail": _short(detail) if detail else None,
        "coins_asked": asked,
        "coins_returned": len(poll.ticks),
        "coins_unchanged": unchanged,
        "coins_missing": list(poll.missing),
        "age_s": poll.age_s,
        "latency_ms": round((poll.finished_at - poll.started_at) / timedelta(milliseconds=1), 3),
        "cadence_s": cadence_s,
        "credits_used": poll.credits_used,
        "credits_left": credits_left,
        "delivered": delivered,
        "coins_absent": list(absent),
        "problems": [_short(text) for text in poll.problems],
        "nulled": [_short(text) for text in poll.nulled],
        "quote_age_s": None if newest is None else round((poll.finished_at - newest) / timedelta(seconds=1), 3),
    }
