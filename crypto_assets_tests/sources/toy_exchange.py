"""A made-up exchange, added in the places that docs/architecture.md names and in no other; run as a program.

It has its own reply format and ids, and its quotes take the whole way: poll, log, Bronze, Silver. A process of its own,
because a source that is registered stays known for as long as its process lives.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

from crypto_assets.assets import bronze, silver
from crypto_assets.contracts.slices import hour_key
from crypto_assets.engine.engines import make_engine
from crypto_assets.engine.inputs import StepInputBuilder
from crypto_assets.market.credits import Budget
from crypto_assets.market.quotes import Poll, Tick
from crypto_assets.producer.loop import open_producer
from crypto_assets.settings import Settings
from crypto_assets.source_facts import SourceFacts
from crypto_assets.sources.base import Source
from crypto_assets.sources.registry import register
from crypto_assets.web import Client, NoReply

# ---- source_facts.py
FACTS = SourceFacts("toy", "LIVE toy exchange", live=True, basket=("bitcoin", "litecoin"))

# ---- market/toy.py
SYMBOLS = {"bitcoin": "XBT", "litecoin": "LTC"}


def ticks_of(body: bytes, asked: Sequence[str]) -> tuple[Tick, ...]:
    """Quotes of the coins asked for: `{"XBT": ["64000.5", <epoch seconds>], ...}`."""
    told = json.loads(body)
    return tuple(
        Tick(coin, symbol, None, Decimal(told[symbol][0]), None, None, None, None, None,
             datetime.fromtimestamp(told[symbol][1], UTC))
        for coin, symbol in SYMBOLS.items() if coin in asked and symbol in told
    )  # fmt: skip


# ---- sources/toy.py
class ToyClient:
    """Polls `/last`."""

    name = FACTS.name

    def __init__(self, url: str, client: Client) -> None:
        self._url, self._client = url, client

    def poll(self, coin_ids: Sequence[str], now: datetime) -> Poll:
        """One call for all coins."""
        try:
            reply = self._client.send("GET", f"{self._url}/last", deadline_s=5)
        except NoReply as error:
            return Poll(now, now, "upstream_down", detail=str(error), credits_used=1)
        ticks = ticks_of(reply.content, coin_ids)
        missing = tuple(set(coin_ids) - {tick.coin_id for tick in ticks})
        return Poll(now, datetime.now(UTC), "ok", ticks, missing, http_status=reply.status, credits_used=1)


class Toy(Source):
    """The exchange as a source."""

    facts = FACTS

    def __init__(self, url: str) -> None:
        self._url = url

    def budget(self, settings: Settings) -> Budget:
        return Budget(per_minute=30, per_month=None)

    @contextmanager
    def open(self, settings: Settings, *, anchor: date) -> Iterator[ToyClient]:
        with Client(trust_env=False) as client:
            yield ToyClient(self._url, client)


def through_the_log(settings: Settings) -> dict[str, Any]:
    """Poll once, and make Bronze and Silver of what arrived."""
    began = datetime.now(UTC)
    with open_producer(settings) as producer:
        tick = producer.tick(began)
        cadence = producer.governor.cadence_s(producer.state.credits, began)
    engine, builder, now = make_engine(settings), StepInputBuilder(settings), datetime.now(UTC)
    hours = sorted({hour_key(began - timedelta(minutes=5)), hour_key(began), hour_key(now)})
    bronze.work(engine, hours, builder.build(now=now, run_id="toy", keys=hours, reads_log="prices"))
    silver.work(engine, hours, builder.build(now=now, run_id="toy", keys=hours))
    rows = engine.store.read_arrow("silver.prices", columns=["coin_id", "source", "price_usd", "symbol"]).to_pylist()
    return {
        "tick": [tick.outcome, tick.delivered, list(tick.missing)],
        "cadence_s": cadence,
        "banner": builder.banner,
        "silver": sorted([r["coin_id"], r["symbol"], r["source"], str(r["price_usd"].normalize())] for r in rows),
    }


if __name__ == "__main__":
    url, folder, servers = sys.argv[1:]
    # ---- sources/registry.py
    register(Toy(url))
    topics = {"kafka_topic": f"prices-{uuid4().hex[:8]}", "kafka_polls_topic": f"polls-{uuid4().hex[:8]}"}
    given = {"_env_file": None, "source": FACTS.name, "kafka_bootstrap_servers": servers, **topics}
    homes = [
        Settings(**given, home_path=Path(folder) / transport, transport=transport)  # type: ignore[arg-type]
        for transport in ("kafka", "landing")
    ]
    print(json.dumps([through_the_log(settings) for settings in homes]))
