"""Opens the source of a home: chosen by its mode, never by fallback.

Replay and simulator homes poll a stand-in in this process over loopback HTTP with the very client that polls
CoinGecko, so that their prices take the live path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime
from typing import TYPE_CHECKING

from crypto_assets.market.quotes import Poll
from crypto_assets.sources.coingecko import CoinGeckoSource, base_url

if TYPE_CHECKING:
    from crypto_assets.settings import Settings
    from crypto_assets.sources.feed import Feed


class VirtualSource(CoinGeckoSource):
    """The client against a stand-in: time is the caller's, and the feed's headers go with every poll."""

    def __init__(self, url: str, feed: Feed, name: str) -> None:
        super().__init__(url, name=name, extra_headers=_now_header)  # type: ignore[arg-type]
        self._feed = feed

    def poll(self, coin_ids: Sequence[str], now: datetime) -> Poll:
        """One look at the virtual moment `now`; the answer counts as complete at that moment."""
        poll = super().poll(coin_ids, now)
        return replace(poll, finished_at=now, headers=self._feed.headers(now))


def _now_header(now: datetime) -> Mapping[str, str]:
    from crypto_assets.sources.standin import NOW_HEADER

    return {NOW_HEADER: now.isoformat()}


def make_feed(settings: Settings, anchor: date) -> Feed:
    """The feed of a virtual home.

    Args:
        settings: Its mode and seed.
        anchor: Day on which the recording's whole day is played.
    """
    from crypto_assets.sources.replay import ReplayFeed
    from crypto_assets.sources.simulator import SimulatorFeed

    return SimulatorFeed(settings.simulator_seed) if settings.source == "simulator" else ReplayFeed(anchor)


@contextmanager
def open_source(settings: Settings, *, anchor: date) -> Iterator[CoinGeckoSource]:
    """The source of the configured mode.

    Args:
        settings: Mode, plan, key.
        anchor: See `make_feed`; ignored by a live home.

    Raises:
        BadBaseUrl: COINGECKO_BASE_URL is not acceptable.
    """
    if settings.is_live:
        source = CoinGeckoSource(
            base_url(settings.plan, settings.coingecko_base_url), settings.plan, settings.coingecko_api_key
        )
        try:
            yield source
        finally:
            source.close()
        return
    from crypto_assets.sources.standin import StandIn

    feed = make_feed(settings, anchor)
    with StandIn(feed) as standin:
        source = VirtualSource(standin.url, feed, settings.source)
        try:
            yield source
        finally:
            source.close()
