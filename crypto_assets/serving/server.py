"""Listening: one uvicorn server of one home until it is asked to stop.

Belongs here: address, start, stop, `state/api.url`. Does not belong here: what is answered (`api`), who may ask
(`access`), signals (`cli`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import uvicorn

from crypto_assets.errors import CANNOT, ReportedError, UsageError
from crypto_assets.files import write_atomic
from crypto_assets.serving.access import Limits, refuse_exposed

if TYPE_CHECKING:
    from crypto_assets.home import Home
    from crypto_assets.settings import Settings

GRACE_S = 3
"""Seconds that requests may take to end when the server is asked to stop."""


class CannotListen(ReportedError):
    """The address cannot be listened on; the message names it and the option."""

    exit_code = CANNOT


def refuse_unservable(settings: Settings) -> None:
    """Refuse what the API does not serve, before anything is opened.

    Raises:
        UsageError: The tables are not in a local folder, or others could reach the API without a token.
    """
    if settings.on_databricks or "://" in settings.lake:
        where = f"catalog {settings.catalog}" if settings.on_databricks else settings.lake
        raise UsageError(
            f"the API reads tables in a local folder, and these are in {where}: unset CRYPTO_ASSETS_LAKE and "
            "CRYPTO_ASSETS_TARGET, or use the workspace's own serving (docs/serving.md)"
        )
    refuse_exposed(settings)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address; port 0 = any free one.

    Raises:
        CannotListen: It is taken, or not an address of this machine.
    """
    # With the protocol named, asyncio sends small answers at once instead of waiting 40 ms for an acknowledgement.
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(2048)
    except (OSError, OverflowError) as error:  # OverflowError: no such port
        found.close()
        raise CannotListen(
            f"cannot listen on {host}:{port} ({getattr(error, 'strerror', error)}); choose another port with "
            "--port, or another address with --host"
        ) from error
    return found


def address(listening: socket.socket) -> str:
    """URL of a listening socket, as this machine reaches it."""
    host, port = listening.getsockname()[:2]
    shown = str({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host))  # noqa: S104 - compared, not bound
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


class _Server(uvicorn.Server):
    """Leaves signals to the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no handlers."""
        yield


class ApiServer:
    """The server of a home.

    Args:
        settings: Settings of the home.
        home: The home.
        listening: Socket to answer on.

    Raises:
        UsageError: From `refuse_unservable`.
    """

    def __init__(self, settings: Settings, home: Home, listening: socket.socket) -> None:
        from crypto_assets.serving.api import application
        from crypto_assets.serving.service import Service

        refuse_unservable(settings)
        self._service = Service(settings, home)
        self._home, self._listening, self._url = home, listening, address(listening)
        limits = Limits.of(settings)
        config = uvicorn.Config(
            application(self._service, limits),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
            lifespan="on",
        )
        self._server = _Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        """Answer until `stop`; returns when the last request has ended."""
        # In the main thread uvloop takes the wakeup descriptor of signals, and the command would notice none.
        with ThreadPoolExecutor(1, "api") as thread:
            thread.submit(self._in_loop).result()

    def _in_loop(self) -> None:
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:  # uvloop's, if it is there
            runner.run(self._run())

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        write_atomic(self._home.api_address, self._url)
        try:
            await self._server.serve(sockets=[self._listening])
        finally:
            with contextlib.suppress(OSError):
                if self._home.api_address.read_text(encoding="utf-8") == self._url:
                    self._home.api_address.unlink()

    def stop(self) -> None:
        """Ask it to stop; may be called from any thread."""
        self._server.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._service.hub.close)
