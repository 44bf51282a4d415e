"""A source as an object, and what it gives when it is opened.

Belongs here: the protocols and what every source shares. Does not belong here: any source, or what a poll returns
(`crypto_assets.market.quotes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from typing import Any, Protocol

from crypto_assets.errors import CANNOT, ReportedError, UsageError
from crypto_assets.market.credits import QUOTE_CACHE_S, Budget
from crypto_assets.market.quotes import Poll, Tick
from crypto_assets.settings import Settings
from crypto_assets.source_facts import SourceFacts


class Unconfirmed(ReportedError, ValueError):
    """The source gave no usable answer about a coin; the message describes its answer."""

    exit_code = CANNOT


class Poller(Protocol):
    """An open source: it can be polled for the current quotes of coins."""

    name: str

    def poll(self, coin_ids: Sequence[str], now: datetime) -> Poll:
        """Ask for the quotes of coins, once. Never raises for what the outside world does: that is a named failure.

        Args:
            coin_ids: Coins to ask for.
            now: Time of the poll (UTC); virtual where the source is.
        """
        ...


class Archive(Protocol):
    """An open source of past prices."""

    def market_chart_range(
        self, coin_id: str, start: datetime, end: datetime, now: datetime
    ) -> tuple[dict[str, Any] | None, Poll]:
        """Points of a coin in [start, end), or None with a poll that names the failure."""
        ...


class Source(Protocol):
    """One source of prices: its facts, its budget, and how it is opened. It holds nothing open itself."""

    facts: SourceFacts
    more_credits: str = ""
    """How a home gets more credits, for a finding."""

    def budget(self, settings: Settings) -> Budget:
        """Calls that the home may make."""
        ...

    def open(self, settings: Settings, *, anchor: date) -> AbstractContextManager[Poller]:
        """Open it for polls.

        Args:
            settings: Settings of the home.
            anchor: UTC day on which a recording's whole day is played; a live source ignores it.

        Raises:
            UsageError: The settings name no acceptable address.
        """
        ...

    def open_archive(self, settings: Settings) -> AbstractContextManager[Archive]:  # noqa: ARG002
        """Open it for past prices.

        Raises:
            UsageError: It has none (`facts.history`).
        """
        raise UsageError(f"{self.facts.name} has no history to fetch")

    def quotes_every_s(self, settings: Settings) -> float:  # noqa: ARG002
        """Seconds between new quotes: polling faster brings none."""
        return QUOTE_CACHE_S

    def plan(self, settings: Settings) -> str | None:  # noqa: ARG002
        """Name of the plan in force; None where nothing is metered."""
        return None

    def missing_key(self, settings: Settings) -> tuple[str, str] | None:  # noqa: ARG002
        """Problem and fix if the plan needs an API key that is not set, else None."""
        return None

    def address(self, settings: Settings) -> str | None:  # noqa: ARG002
        """URL of a host outside this machine that is polled, if one is."""
        return None


def confirmed_coin(source: Poller, coin_id: str, now: datetime) -> Tick:
    """The quote of a coin, by which the source confirms that it knows it.

    Raises:
        UsageError: The source does not know it.
        Unconfirmed: No usable answer; the message describes it.
    """
    poll = source.poll([coin_id], now)
    if poll.outcome == "unknown_coin":
        raise UsageError(f"the source does not know {coin_id!r}; ids are listed at https://www.coingecko.com")
    if poll.outcome != "ok" or not poll.ticks:
        raise Unconfirmed(f"the source did not confirm {coin_id!r}: {poll.outcome} ({poll.detail or poll.problems})")
    return poll.ticks[0]
