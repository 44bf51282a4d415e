"""`coins list|add|retire`: the registry of a home, in its `coins.toml`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from crypto_assets.assets import dims
from crypto_assets.cli import output
from crypto_assets.contracts.slices import day_key
from crypto_assets.engine.engines import make_engine
from crypto_assets.engine.inputs import StepInputBuilder
from crypto_assets.errors import UsageError
from crypto_assets.files import write_atomic
from crypto_assets.home import Home, existing_home, open_home
from crypto_assets.market.coins import CoinRegistry
from crypto_assets.settings import Settings
from crypto_assets.sources.base import confirmed_coin
from crypto_assets.sources.registry import source_of


@contextmanager
def _refusals() -> Iterator[None]:
    """Report errors of the registry as usage errors."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from None


def show(settings: Settings, *, as_json: bool) -> None:
    """Print the registry.

    Raises:
        HomeError: There is no home.
    """
    records = existing_home(settings).registry().to_records()
    if as_json:
        output.as_json(records)
    else:
        output.table("Coins", [{k: str(v) for k, v in r.items()} for r in records])


def add(settings: Settings, coin_id: str, *, now: datetime) -> None:
    """Add a coin after the source has confirmed it.

    Raises:
        UsageError: The source does not know it, or it is active already.
        Unconfirmed: The source did not answer.
    """
    home = open_home(settings)
    with source_of(settings).open(settings, anchor=now.date()) as source:
        coin = confirmed_coin(source, coin_id, now)
    name = coin.name or coin_id
    with _refusals():
        registry = home.registry().add(coin_id, coin.symbol, name, active_from=now)
    _save(settings, home, registry, now)
    output.say(
        f"{coin_id} ({coin.symbol}, {name}) is polled from now on; credits: no more, one call asks for all coins"
    )
    output.say("partitions that exist keep their basket; to fetch days before today:")
    output.say(f"  crypto-assets backfill <first day>..{day_key(now)} --from history")


def retire(settings: Settings, coin_id: str, *, now: datetime) -> None:
    """Stop polling a coin.

    Raises:
        UsageError: It is not active.
    """
    home = open_home(settings)
    with _refusals():
        registry = home.registry().retire(coin_id, active_to=now)
    _save(settings, home, registry, now)
    output.say(f"{coin_id} is no longer polled; what was recorded of it stays")


def _save(settings: Settings, home: Home, registry: CoinRegistry, now: datetime) -> None:
    """Write the registry, and the dimension with it, so that both change together for readers.

    Where the dimension is in a workspace, its next run applies the change; prints how to start one.
    """
    write_atomic(home.coins_file, registry.to_toml())
    if settings.on_databricks:
        output.say("gold/dim_coin is in the workspace: its daily run takes the change; materialize it to have it now")
        return
    inputs = StepInputBuilder(settings).build(now=now, run_id="coins")
    dims.work_dim_coin(make_engine(settings), [None], inputs)
