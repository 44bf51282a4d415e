"""Price messages read by Python's own JSON parser and decimals, for the audit.

Belongs here: one record's values, by rules implemented a second time. Does not belong here: which records need it
(`laws.records` reads the common layout in SQL), and anything that compares records with tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any

MOST_CHARACTERS = 50_000
MOST_NESTED = 100
LARGEST_EXPONENT = 60
NUMBERS = ("price_usd", "market_cap_usd", "volume_24h_usd", "change_1h_pct", "change_24h_pct", "change_7d_pct")
NULL_ALLOWED = ("market_cap_usd", "volume_24h_usd", "change_24h_pct", "change_7d_pct")

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE]([+-]?[0-9]+))?")
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[ Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


class _Bare(str):
    """A JSON number as written."""

    __slots__ = ()


class _Object(list):
    """Members of a JSON object as pairs, repeated names and all."""


@dataclass(frozen=True)
class Message:
    """Values of a record.

    Args:
        sound: Whether it fulfils the message contract, as far as its value shows.
        coin_id: As written.
        symbol: In capitals.
        name: None if not a text.
        numbers: By field; None for absent, null, unreadable, or beyond decimal(38,18).
        last_updated_at: UTC; None if not a time.
        ingestion_timestamp: As `last_updated_at`.
    """

    sound: bool = False
    coin_id: str | None = None
    symbol: str | None = None
    name: str | None = None
    numbers: tuple[Decimal | None, ...] = (None,) * len(NUMBERS)
    last_updated_at: datetime | None = None
    ingestion_timestamp: datetime | None = None


def read_message(text: str | None) -> Message:
    """One value of the prices topic; `Message()` for anything but one JSON object with distinct names."""
    record = _record(text)
    if record is None:
        return Message()
    read = {name: _number(record.get(name)) for name in NUMBERS}
    coin_id, symbol, name = (_text(record.get(n)) for n in ("coin_id", "symbol", "name"))
    updated, ingested = (_time(record.get(n)) for n in ("last_updated_at", "ingestion_timestamp"))
    sound = (
        bool(coin_id and symbol and updated and ingested)
        and read["price_usd"][1] is not None
        and all(n in record for n in NULL_ALLOWED)
        and all(is_number for is_number, _ in read.values())
    )
    numbers = tuple(value for _, value in read.values())
    return Message(sound, coin_id, symbol.upper() if symbol else symbol, name, numbers, updated, ingested)


def _record(text: str | None) -> dict[str, Any] | None:
    if text is None or len(text) > MOST_CHARACTERS:
        return None
    try:
        found = json.loads(
            text, object_pairs_hook=_Object, parse_int=_Bare, parse_float=_Bare, parse_constant=_no_constant
        )
        if not isinstance(found, _Object):
            return None
        nested = 0
        for value in _everything(found):
            nested += isinstance(value, list)
            if isinstance(value, str):
                value.encode()
    except (ValueError, RecursionError):  # UnicodeEncodeError, of a lone surrogate, is a ValueError
        return None
    record = dict(found)
    return record if len(record) == len(found) and nested <= MOST_NESTED else None


def _everything(value: Any) -> Iterator[Any]:
    """A value and all values and names within it."""
    pending = [value]
    while pending:
        found = pending.pop()
        yield found
        if isinstance(found, _Object):
            for name, member in found:
                pending += (name, member)
        elif isinstance(found, list):
            pending += found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and not isinstance(value, _Bare) else None


def _number(value: object) -> tuple[bool, Decimal | None]:
    """Whether a value may stand in a numeric field, and its decimal(38,18)."""
    if value is None:
        return True, None
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return False, None
    power = (match[1] or "0").lstrip("+-").lstrip("0") or "0"
    if len(power) > 2 or int(power) > LARGEST_EXPONENT:
        return True, None
    exact = Decimal(match[0])
    if abs(exact) >= Decimal(10) ** 20:
        return True, None
    with localcontext() as context:
        context.prec = 60
        rounded = exact.quantize(Decimal("1e-18"), ROUND_HALF_UP)
    return True, rounded if abs(rounded) < Decimal(10) ** 20 else None


def _time(value: object) -> datetime | None:
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    micros = int((match[7] or "").ljust(6, "0")[:6])
    away = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0))
    if not 1900 <= year <= 8999 or int(match[10] or 0) > 59 or away > timedelta(hours=18):
        return None
    try:
        local = datetime(year, month, day, hour, minute, second, micros, UTC)
        return local + away if match[8] == "-" else local - away
    except ValueError:
        return None
