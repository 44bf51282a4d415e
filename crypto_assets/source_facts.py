"""Static facts about every price source: name, banner, live or virtual, basket, topics, first day.

Belongs here: facts available without opening a source. Does not belong here: polling and plan limits (`sources`), or
the coins themselves (`market.coins`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError


@dataclass(frozen=True)
class SourceFacts:
    """One source.

    Args:
        name: Name in settings, `home.json` and every record.
        banner: Sentence that identifies the data on every surface.
        live: True if records carry the log's own time; records of a virtual source carry their virtual arrival.
        prices_topic: Default topic of prices.
        polls_topic: Default topic of polls.
        first_day: First partition of a new home; None = the day before first use, since quotes of yesterday still
            arrive, and a finished day gives the daily assets a partition.
        basket: Ids of the coins that a new home polls; None = all built-in coins.
        history: True if past days can be fetched from it.
    """

    name: str
    banner: str
    live: bool
    prices_topic: str = "crypto-prices-raw"
    polls_topic: str = "crypto-polls"
    first_day: date | None = None
    basket: tuple[str, ...] | None = None
    history: bool = False


def _virtual(name: str, banner: str, basket: tuple[str, ...] | None = None) -> SourceFacts:
    topics = ("crypto-prices-replay", "crypto-polls-replay")
    return SourceFacts(name, banner, False, *topics, first_day=date(2024, 1, 1), basket=basket)


COINGECKO = SourceFacts("coingecko", "LIVE CoinGecko. Data provided by CoinGecko", live=True, history=True)
REPLAY = _virtual(
    "replay",
    "REPLAY Coinbase 2018-04-04/05 via QuantConnect Lean (Apache-2.0): prices are not today's",
    basket=("bitcoin", "ethereum", "litecoin"),
)
SIMULATOR = _virtual("simulator", "SIMULATED prices of ten coins (seeded random walk): no market ever quoted these")

_FACTS = {facts.name: facts for facts in (COINGECKO, REPLAY, SIMULATOR)}


def register_facts(facts: SourceFacts) -> None:
    """Register a source's facts; called by `sources.registry.register`."""
    _FACTS[facts.name] = facts


def facts_of(name: str) -> SourceFacts:
    """Facts of a source.

    Raises:
        KeyError: Unknown source.
    """
    return _FACTS[name]


def every_source() -> tuple[SourceFacts, ...]:
    """Facts of all sources, in display order."""
    return tuple(_FACTS.values())


def listed() -> str:
    """Names of all sources as prose: `coingecko, replay or simulator`."""
    *first, last = _FACTS
    return f"{', '.join(first)} or {last}"


def with_history() -> str:
    """Names of the sources with history, as prose."""
    return " or ".join(facts.name for facts in _FACTS.values() if facts.history)


def _known(name: str) -> str:
    if name not in _FACTS:
        raise PydanticCustomError("unknown_source", "Input should be {names}", {"names": listed()})
    return name


SourceName = Annotated[str, AfterValidator(_known)]
"""Source name as a pydantic field type; the error for an unknown name lists the valid ones."""
