from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import stamina
from pydantic import SecretStr

from crypto_assets.sources.coingecko import ATTEMPTS, CoinGeckoClient
from crypto_assets_tests.sources.raw_server import RawServer


@pytest.fixture(autouse=True)
def _retries_without_waiting() -> Iterator[None]:
    """As many attempts as ever, but no seconds between them."""
    stamina.set_testing(True, attempts=ATTEMPTS, cap=True)
    yield
    stamina.set_testing(False)


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer() as running:
        yield running


@pytest.fixture
def client(server) -> Iterator[Callable[..., CoinGeckoClient]]:
    """Opens the client that polls `server`; closed at the end."""
    opened: list[CoinGeckoClient] = []

    def open_client(plan: str = "keyless", key: str | None = None, **options: Any) -> CoinGeckoClient:
        source = CoinGeckoClient(server.url, plan, SecretStr(key) if key else None, **options)
        opened.append(source)
        return source

    yield open_client
    for source in opened:
        with closing(source):
            pass
