"""Synthetic prices of ten coins: a seeded random walk as messages of version 1, about 300 bytes each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from crypto_assets.contracts.slices import Slice
from crypto_assets.market.coins import DEFAULT_COINS
from crypto_assets.market.payload import rfc3339
from crypto_assets.sources.simulator import BASES

SEED = 20240501
LATENCY = timedelta(milliseconds=150)
"""From a quote to its arrival, where quotes are further apart."""
SHORTEST_STEP = timedelta(milliseconds=10)
"""Quotes have milliseconds, and no two of a coin the same."""
COINS = tuple(c for c in DEFAULT_COINS.coins if c.coin_id in BASES)


@dataclass(frozen=True)
class SyntheticPoll:
    """Messages of one moment, one a coin, and when they arrive (UTC)."""

    number: int
    arrival: datetime
    messages: tuple[dict[str, Any], ...]

    @property
    def poll_id(self) -> str:
        """Id of the poll."""
        return f"bench-{self.number:07d}"


def polls(count: int, span: Slice) -> Iterator[SyntheticPoll]:
    """`count` messages spread evenly over a span, ten a moment; every quote of a coin has its own time.

    Raises:
        ValueError: So many moments would come too close to each other.
    """
    import numpy as np

    moments = count // len(COINS)
    step = (span.end - span.start) / moments
    if step < SHORTEST_STEP:
        raise ValueError(f"{count:,} messages in {span.end - span.start} leave {step} between quotes; take more hours")
    latency = min(LATENCY, step / 2)
    generator = np.random.default_rng(SEED)
    levels = np.array([BASES[c.coin_id][0] for c in COINS])
    volatility = np.array([BASES[c.coin_id][1] for c in COINS]) / np.sqrt(moments)
    walk = levels * np.exp(np.cumsum(generator.standard_normal((moments, len(COINS))) * volatility, axis=0))
    changes = generator.normal(0, 2.5, (moments, len(COINS), 3))
    for i in range(moments):
        event = span.start + i * step
        event = event.replace(microsecond=event.microsecond // 1000 * 1000)
        arrival = event + latency
        stamp, received = rfc3339(event), rfc3339(arrival)
        yield SyntheticPoll(
            i, arrival, tuple(_message(j, float(walk[i, j]), changes[i, j], stamp, received) for j in range(len(COINS)))
        )


def _message(j: int, price: float, change: Any, event: str, received: str) -> dict[str, Any]:
    coin = COINS[j]
    _, _, supply, volume = BASES[coin.coin_id]
    return {
        "coin_id": coin.coin_id,
        "symbol": coin.symbol,
        "name": coin.name,
        "price_usd": f"{price:.8f}",
        "market_cap_usd": f"{price * supply:.2f}",
        "volume_24h_usd": f"{price * volume:.2f}",
        "change_1h_pct": f"{change[0] / 5:.5f}",
        "change_24h_pct": f"{change[1]:.5f}",
        "change_7d_pct": f"{change[2]:.5f}",
        "last_updated_at": event,
        "ingestion_timestamp": received,
    }
