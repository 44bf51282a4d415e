"""The sources that a home can be bound to: chosen by name, never by fallback.

A new exchange is one more object here; `docs/architecture.md` lists everything that it takes.
"""

from __future__ import annotations

from crypto_assets.settings import Settings
from crypto_assets.source_facts import register_facts
from crypto_assets.sources.base import Source
from crypto_assets.sources.coingecko import CoinGecko
from crypto_assets.sources.virtual import VIRTUAL

_SOURCES: dict[str, Source] = {}


def register(source: Source) -> None:
    """Make a source available by its name, to settings and homes too."""
    register_facts(source.facts)
    _SOURCES[source.facts.name] = source


def source_of(settings: Settings) -> Source:
    """The source that the settings name."""
    return _SOURCES[settings.source]


for _source in (CoinGecko(), *VIRTUAL):
    register(_source)
