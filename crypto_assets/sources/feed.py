"""Quotes served by the stand-in at a moment, from a recording or a simulator.

Does not belong here: HTTP (`standin`) or any feed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from crypto_assets.market.coins import Coin


@dataclass(frozen=True)
class Quote:
    """A coin's quote as a source would give it; money in USD, changes in percent, None = not known."""

    coin_id: str
    symbol: str
    name: str
    price: Decimal
    last_updated_at: datetime
    market_cap: Decimal | None = None
    volume_24h: Decimal | None = None
    change_1h_pct: Decimal | None = None
    change_24h_pct: Decimal | None = None
    change_7d_pct: Decimal | None = None


class Feed(Protocol):
    """A deterministic function of time."""

    name: str
    coins: tuple[Coin, ...]

    def quotes(self, now: datetime) -> list[Quote]:
        """Newest quote of every coin at `now`; a coin that was not quoted yet is absent."""
        ...

    def headers(self, now: datetime) -> dict[str, str]:
        """Kafka headers with the origin of the quotes at `now`."""
        ...

    def history(self, coin_id: str, times: Sequence[datetime]) -> list[tuple[datetime, Decimal]]:
        """Prices at the given times, if known; nothing for coins not in `coins`."""
        ...


def change_pct(new: Decimal, old: Decimal | None) -> Decimal | None:
    """Percentage change, to 5 decimals; None without an old price."""
    return None if old is None else ((new / old - 1) * 100).quantize(Decimal("0.00001"))
