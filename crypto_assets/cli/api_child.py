"""The API beside Dagster: a child of `up` and `ui` that is started again when it dies, and never ends Dagster.

Belongs here: its port, starting, starting again. Does not belong here: what it serves (`serving`).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from crypto_assets.cli import output
from crypto_assets.cli.processes import Supervised
from crypto_assets.errors import UsageError
from crypto_assets.home import Home
from crypto_assets.serving.server import CannotListen, address, listen, refuse_unservable
from crypto_assets.settings import Settings

WAITS_S = (0.0, 1.0, 2.0, 5.0, 15.0, 60.0)
"""Between its end and the next start; the last is repeated. One that lived for a minute begins at the first."""
LIVED_S = 60.0


def api_of(settings: Settings, ui_port: int) -> ApiChild | None:
    """The API beside a UI; None, with a line that says why, where the home's tables cannot be served.

    Its port is the one after the UI's, or any free one where that is taken, unless the settings name one.
    """
    try:
        refuse_unservable(settings)
    except UsageError as error:
        output.say(f"api   not served: {error}")
        return None
    wanted = settings.api_port or ui_port + 1
    return ApiChild(settings.api_host, wanted if settings.api_port or _free(settings.api_host, wanted) else 0)


def _free(host: str, port: int) -> bool:
    try:
        listen(host, port).close()
    except (CannotListen, OverflowError):
        return False
    return True


class ApiChild:
    """The process.

    Args:
        host: Address to listen on.
        port: Port; 0 = any free one, chosen here so that it stays the same over restarts.
        clock: Returns seconds.
    """

    def __init__(self, host: str, port: int, clock: Callable[[], float] = time.monotonic) -> None:
        with listen(host, port) as probe:
            self.url = address(probe)
            self._port = probe.getsockname()[1]
        self._clock = clock
        self._child: Supervised | None = None
        self._failures, self._started_at, self._next_at = 0, 0.0, 0.0

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The process; None while the next start is waited for."""
        return None if self._child is None else self._child.process

    def start(self, home: Home, environment: Mapping[str, str]) -> None:
        """Start it."""
        self._home, self._environment = home, environment
        self._started_at = self._clock()
        command = ("-m", "crypto_assets.cli.main", "serve", "--home", str(home.path), "--port", str(self._port))
        self._child = Supervised("api", [sys.executable, *command], environment, home.path / "logs" / "api.log")

    def keep(self) -> None:
        """Start it again when it has died and its wait is over."""
        if self._child is not None:
            if self._child.alive():
                return
            if self._clock() - self._started_at > LIVED_S:
                self._failures = 0
            wait = WAITS_S[min(self._failures, len(WAITS_S) - 1)]
            self._failures += 1
            self._next_at = self._clock() + wait
            code = self._child.process.returncode
            again = f"in {wait:g} s" if wait else "now"
            output.say(f"the API has ended with code {code}; starting it again {again} (see {self._child.log})")
            self._child = None
        if self._clock() >= self._next_at:
            self.start(self._home, self._environment)

    def stop(self) -> None:
        """Stop it."""
        if self._child is not None:
            self._child.stop()
        self._home.api_address.unlink(missing_ok=True)
