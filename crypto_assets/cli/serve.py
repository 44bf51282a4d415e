"""`serve`: the REST API of a home and the follower of its market rules, without Dagster, until Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from crypto_assets.alerts.market import MarketAlerts
from crypto_assets.cli import output
from crypto_assets.cli.signals import stop_requested
from crypto_assets.errors import FAILED, SUCCESS
from crypto_assets.home import existing_home
from crypto_assets.settings import Settings
from crypto_assets.storage.delta_rs import DeltaRsStore

PORT = 3001
STOP_WITHIN_S = 5.0
"""How long a delivery in progress delays the end; what it has not sent is sent by whoever follows next."""


def run(settings: Settings) -> int:
    """Serve until a signal.

    Args:
        settings: Settings of an existing home; `api_host` and `api_port` say where.

    Returns:
        Exit code.

    Raises:
        UsageError: What the settings ask for is not served, or not without a token.
        HomeError: There is no home.
        CannotListen: The address cannot be listened on.
    """
    from crypto_assets.serving import server

    server.refuse_unservable(settings)
    home = existing_home(settings)
    listening = server.listen(settings.api_host, settings.api_port or PORT)
    api = server.ApiServer(settings, home, listening)
    with stop_requested() as asked:
        output.say(settings.source_facts.banner, style="bold")
        output.say(f"api   {server.address(listening)}   (page at /, documentation at /docs; Ctrl-C stops it)")

        def stop() -> None:
            asked.wait()
            api.stop()

        threading.Thread(target=stop, name="stop", daemon=True).start()
        with _market_alerts(settings):
            api.run()
        return SUCCESS if asked.is_set() else FAILED


@contextmanager
def _market_alerts(settings: Settings) -> Iterator[None]:
    """Follow the tables that market rules read, meanwhile: an alert leaves within seconds of its row's commit.

    Not on target spark, where Spark writes `ops.alerts`: there the alert sensor alone evaluates.
    """
    if settings.target == "spark":
        yield
        return
    over = threading.Event()
    market = MarketAlerts(settings, DeltaRsStore(settings.lake, _no_session))
    following = threading.Thread(target=market.follow, args=(over,), name="market-alerts", daemon=True)
    following.start()
    try:
        yield
    finally:
        over.set()
        following.join(STOP_WITHIN_S)


def _no_session() -> Any:
    raise AssertionError("market alerts need no Spark session")
