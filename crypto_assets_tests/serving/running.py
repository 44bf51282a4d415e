"""A real server of a lake in a thread, on a free port of this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from crypto_assets.serving.server import ApiServer, address, listen
from crypto_assets_tests.serving.lakes import Lake

START_S = 60.0


@contextmanager
def running(lake: Lake) -> Iterator[str]:
    """Serve a lake; its address, once the tables are loaded."""
    listening = listen("127.0.0.1", 0)
    server = ApiServer(lake.settings, lake.home, listening)
    thread = threading.Thread(target=server.run)
    thread.start()
    url = address(listening)
    try:
        wait_loaded(url)
        yield url
    finally:
        server.stop()
        thread.join()


def wait_loaded(url: str) -> httpx.Response:
    """Wait until a server has looked at every table; its answer on readiness."""
    end = time.monotonic() + START_S
    while True:
        try:
            answer = httpx.get(f"{url}/readyz", timeout=10)
            if "being loaded" not in answer.text:
                return answer
        except httpx.HTTPError:
            pass
        assert time.monotonic() < end, f"{url} does not answer"
        time.sleep(0.05)
