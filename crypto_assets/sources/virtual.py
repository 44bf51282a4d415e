"""The sources whose time is the caller's: the recording and the simulator.

Their homes poll a stand-in in this process over loopback HTTP with the very client that polls CoinGecko, so that their
prices take the live path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime

from crypto_assets import source_facts
from crypto_assets.market.credits import QUOTE_CACHE_S, Budget
from crypto_assets.market.quotes import Poll
from crypto_assets.settings import Settings
from crypto_assets.source_facts import SourceFacts
from crypto_assets.sources.base import Source
from crypto_assets.sources.coingecko import CoinGeckoClient
from crypto_assets.sources.feed import Feed
from crypto_assets.sources.replay import ReplayFeed
from crypto_assets.sources.simulator import SimulatorFeed
from crypto_assets.sources.standin import NOW_HEADER, StandIn


class VirtualClient(CoinGeckoClient):
    """The client against a stand-in: time is the caller's, and the feed's headers go with every poll."""

    def __init__(self, url: str, feed: Feed, name: str) -> None:
        super().__init__(url, name=name, extra_headers=lambda now: {NOW_HEADER: now.isoformat()})
        self._feed = feed

    def poll(self, coin_ids: Sequence[str], now: datetime) -> Poll:
        """Ask at the virtual moment `now`; the answer counts as complete at that moment."""
        poll = super().poll(coin_ids, now)
        return replace(poll, finished_at=now, headers=self._feed.headers(now))


@dataclass(frozen=True)
class VirtualSource(Source):
    """A feed behind the stand-in; never metered.

    Args:
        facts: Its facts.
        feed: The quotes as a function of time; takes the settings and the anchor, see `Source.open`.
    """

    facts: SourceFacts
    feed: Callable[[Settings, date], Feed]

    def budget(self, settings: Settings) -> Budget:  # noqa: ARG002
        """As good as none: the stand-in is in this process."""
        return Budget(per_minute=600, per_month=None)

    def quotes_every_s(self, settings: Settings) -> float:
        """A minute of the virtual clock: at speed 10 there is a new quote every 6 s."""
        return QUOTE_CACHE_S / settings.replay_speed

    @contextmanager
    def open(self, settings: Settings, *, anchor: date) -> Iterator[VirtualClient]:
        """Start a stand-in that serves the feed, and a client of it."""
        feed = self.feed(settings, anchor)
        with StandIn(feed) as standin, closing(VirtualClient(standin.url, feed, self.facts.name)) as client:
            yield client


VIRTUAL = (
    VirtualSource(source_facts.REPLAY, lambda _settings, anchor: ReplayFeed(anchor)),
    VirtualSource(source_facts.SIMULATOR, lambda settings, _anchor: SimulatorFeed(settings.simulator_seed)),
)
