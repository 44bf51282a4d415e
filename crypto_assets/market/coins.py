"""Coin registry: identities, former ids and active periods of the polled coins.

Belongs here: the registry as a value and its TOML and JSON forms. Does not belong here: files (`home`), prices, or
looking coins up at a source.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from crypto_assets.source_facts import facts_of

BEGINNING = datetime(2009, 1, 3, tzinfo=UTC)
"""Start of validity of the built-in coins, before any of them was traded."""


@dataclass(frozen=True)
class Alias:
    """A former id (and symbol) of a coin, in use before `until` (a UTC day, exclusive)."""

    old_id: str
    until: date
    old_symbol: str | None = None


@dataclass(frozen=True)
class Coin:
    """One coin. `active_from` (inclusive) and `active_to` (exclusive, None = still active) are UTC."""

    coin_id: str
    symbol: str
    name: str
    aliases: tuple[Alias, ...] = ()
    active_from: datetime = BEGINNING
    active_to: datetime | None = None

    def active_at(self, moment: datetime) -> bool:
        """True if the coin is polled at `moment`."""
        return self.active_from <= moment and (self.active_to is None or moment < self.active_to)

    def active_within(self, start: datetime, end: datetime) -> bool:
        """True if the coin is polled at any time in [start, end)."""
        return self.active_from < end and (self.active_to is None or start < self.active_to)

    def active_throughout(self, start: datetime, end: datetime) -> bool:
        """True if the coin is polled throughout [start, end)."""
        return self.active_from <= start and (self.active_to is None or end <= self.active_to)


class CoinRegistry:
    """Immutable ordered set of coins; the single source of truth for which coins are active when.

    Raises:
        ValueError: An id or alias is used twice, a name is empty, or a span is empty; the message lists every problem.
    """

    def __init__(self, coins: Iterable[Coin]) -> None:
        self.coins = tuple(coins)
        problems = _problems(self.coins)
        if problems:
            raise ValueError("; ".join(problems))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CoinRegistry) and other.coins == self.coins

    def __hash__(self) -> int:
        return hash(self.coins)

    def __iter__(self) -> Iterator[Coin]:
        return iter(self.coins)

    def __len__(self) -> int:
        return len(self.coins)

    def active_at(self, moment: datetime) -> tuple[Coin, ...]:
        """Coins that are polled at `moment` (UTC)."""
        return tuple(c for c in self.coins if c.active_at(moment))

    def resolve(self, coin_id: str, at: datetime) -> str | None:
        """Canonical id of `coin_id` at a time (UTC), None if unknown then; former ids are valid before their date."""
        day = at.astimezone(UTC).date()
        for coin in self.coins:
            known = coin.coin_id == coin_id or any(a.old_id == coin_id and day < a.until for a in coin.aliases)
            if known:
                return coin.coin_id if coin.active_at(at) else None
        return None

    def add(
        self, coin_id: str, symbol: str, name: str, *, active_from: datetime, aliases: Sequence[Alias] = ()
    ) -> CoinRegistry:
        """Registry with the coin added; a retired coin is reactivated.

        Raises:
            ValueError: The coin is already active, or the result is invalid.
        """
        for i, coin in enumerate(self.coins):
            if coin.coin_id == coin_id:
                if coin.active_to is None:
                    raise ValueError(f"{coin_id} is active already, since {coin.active_from:%Y-%m-%d}")
                revived = replace(coin, active_to=None)
                return CoinRegistry((*self.coins[:i], revived, *self.coins[i + 1 :]))
        return CoinRegistry((*self.coins, Coin(coin_id, symbol.upper(), name, tuple(aliases), active_from)))

    def retire(self, coin_id: str, *, active_to: datetime) -> CoinRegistry:
        """Registry in which the coin is not polled from `active_to` (UTC) on.

        Raises:
            ValueError: The coin is unknown, not active, or the last active one.
        """
        active = [c.coin_id for c in self.coins if c.active_to is None]
        if coin_id not in active:
            raise ValueError(f"{coin_id} is not an active coin; active: {', '.join(active)}")
        if active == [coin_id]:
            raise ValueError(f"{coin_id} is the last active coin; add another first")
        return CoinRegistry(replace(c, active_to=active_to) if c.coin_id == coin_id else c for c in self.coins)

    def to_records(self) -> list[dict[str, Any]]:
        """JSON-serializable records, times as ISO 8601."""
        return [
            {
                **asdict(c),
                "aliases": [{**asdict(a), "until": a.until.isoformat()} for a in c.aliases],
                "active_from": c.active_from.isoformat(),
                "active_to": c.active_to.isoformat() if c.active_to else None,
            }
            for c in self.coins
        ]

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]]) -> CoinRegistry:
        """Rebuild from `to_records`.

        Raises:
            ValueError: A field is missing or malformed, or the registry is invalid; the message lists every problem.
        """
        coins, problems = [], []
        for number, record in enumerate(records, start=1):
            try:
                coins.append(_coin(record))
            except KeyError as error:
                problems.append(f"coin {number} ({record.get('coin_id', '?')}): {error.args[0]} is missing")
            except (TypeError, ValueError) as error:
                name = record.get("coin_id", "?") if isinstance(record, Mapping) else "?"
                problems.append(f"coin {number} ({name}): {error}")
        problems += _problems(coins)
        if problems:
            raise ValueError("; ".join(problems))
        return cls(coins)

    def to_toml(self) -> str:
        """Text of `coins.toml`."""
        lines = ["# The coins of this home. Change it with: crypto-assets coins add|retire"]
        for c in self.coins:
            lines += ["", "[[coin]]", f"coin_id = {_quoted(c.coin_id)}", f"symbol = {_quoted(c.symbol)}"]
            lines.append(f"name = {_quoted(c.name)}")
            lines.append(f'active_from = "{c.active_from.isoformat()}"')
            if c.active_to:
                lines.append(f'active_to = "{c.active_to.isoformat()}"')
            for a in c.aliases:
                lines += ["", "[[coin.aliases]]", f"old_id = {_quoted(a.old_id)}", f'until = "{a.until.isoformat()}"']
                if a.old_symbol:
                    lines.append(f"old_symbol = {_quoted(a.old_symbol)}")
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> CoinRegistry:
        """Parse `coins.toml`.

        Raises:
            ValueError: It is not TOML, has no coin, or a coin is malformed; the message lists every problem.
        """
        records = tomllib.loads(text).get("coin")
        if not records or not isinstance(records, list):
            raise ValueError("there is no coin: each one is a [[coin]] table with coin_id, symbol and name")
        return cls.from_records(records)


def _problems(coins: Iterable[Coin]) -> list[str]:
    problems = []
    seen: dict[str, str] = {}
    for coin in coins:
        if not coin.coin_id or not coin.symbol or not coin.name:
            problems.append(f"coin {coin.coin_id or '(no id)'} lacks id, symbol or name")
        for name in (coin.coin_id, *(a.old_id for a in coin.aliases)):
            if name in seen:
                problems.append(f"id {name!r} is used by {seen[name]} and {coin.coin_id}")
            seen[name] = coin.coin_id
        if coin.active_to is not None and coin.active_to <= coin.active_from:
            problems.append(f"{coin.coin_id} ends ({coin.active_to}) before it begins ({coin.active_from})")
    return problems


def _coin(record: Mapping[str, Any]) -> Coin:
    if not isinstance(record, Mapping):
        raise TypeError("it is no table")
    return Coin(
        coin_id=_text(record, "coin_id"),
        symbol=_text(record, "symbol"),
        name=_text(record, "name"),
        aliases=tuple(_alias(a) for a in record.get("aliases", ())),
        active_from=_moment(record, "active_from") or BEGINNING,
        active_to=_moment(record, "active_to"),
    )


def _alias(record: Mapping[str, Any]) -> Alias:
    if not isinstance(record, Mapping):
        raise TypeError("an alias is no table")
    symbol = _text(record, "old_symbol") if record.get("old_symbol") is not None else None
    return Alias(_text(record, "old_id"), date.fromisoformat(_text(record, "until")), symbol)


def _text(record: Mapping[str, Any], field: str) -> str:
    value = record[field]
    if not isinstance(value, str):
        raise TypeError(f"{field} is not text: {value!r}")
    return value


def _moment(record: Mapping[str, Any], field: str) -> datetime | None:
    if record.get(field) is None:
        return None
    parsed = datetime.fromisoformat(_text(record, field))
    if parsed.tzinfo is None:
        raise ValueError(f"{field} {record[field]!r} has no time zone")
    return parsed.astimezone(UTC)


def _quoted(text: str) -> str:
    """Text as a TOML basic string, whose escapes are those of JSON except for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


DEFAULT_COINS = CoinRegistry(
    (
        Coin("bitcoin", "BTC", "Bitcoin"),
        Coin("ethereum", "ETH", "Ethereum"),
        Coin("solana", "SOL", "Solana"),
        Coin("cardano", "ADA", "Cardano"),
        # Polygon replaced MATIC with POL; CoinGecko lists the new token under another id.
        Coin(
            "polygon-ecosystem-token",
            "POL",
            "POL (ex-MATIC)",
            (Alias("matic-network", date(2024, 9, 4), "MATIC"),),
        ),
        Coin("chainlink", "LINK", "Chainlink"),
        Coin("avalanche-2", "AVAX", "Avalanche"),
        Coin("polkadot", "DOT", "Polkadot"),
        Coin("uniswap", "UNI", "Uniswap"),
        Coin("litecoin", "LTC", "Litecoin"),
    )
)


def default_registry(source: str) -> CoinRegistry:
    """The basket of a new home; see `SourceFacts.basket`."""
    basket = facts_of(source).basket
    return DEFAULT_COINS if basket is None else CoinRegistry(c for c in DEFAULT_COINS.coins if c.coin_id in basket)
