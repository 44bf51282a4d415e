"""The one protocol that all sources speak.

Does not belong here: any source, or what a poll returns (`crypto_assets.market.quotes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol

from crypto_assets.market.quotes import Poll


class PriceSource(Protocol):
    """Something that can be polled for the current quotes of coins."""

    name: Literal["coingecko", "replay", "simulator"]

    def poll(self, coin_ids: Sequence[str], now: datetime) -> Poll:
        """One look. Never raises for what the outside world does: that is a named failure."""
        ...
