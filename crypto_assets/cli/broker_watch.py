"""Keeping the embedded broker of a home alive while a command serves the home.

Belongs here: noticing that it has died, starting it again, saying so. Does not belong here: how it is started
(`log.kafka.broker`), and what its clients do meanwhile: they wait and reconnect, since the port stays the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from crypto_assets.log.kafka.broker import EmbeddedBroker

LOOK_EVERY_S = 1.0
WAITS_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Between attempts to start it; the last is repeated. A broker that lived for the sum of them begins at the first."""


class BrokerWatch:
    """Starts the broker again whenever it dies.

    A broker that a person stops (`crypto-assets broker stop`) stays down until that person starts it. One that cannot
    be started is tried again for ever, since what else is served still works; every reason is said.

    Args:
        broker: The broker.
        say: Prints a line; called from another thread.
    """

    def __init__(self, broker: EmbeddedBroker, say: Callable[[str], object]) -> None:
        self._broker, self._say = broker, say
        self._over = threading.Event()
        self._failures = 0
        self.started_it = False
        """True if the running broker was started here."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the context is open; the broker runs at its beginning."""
        thread = threading.Thread(target=self._watch, name="broker-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _watch(self) -> None:
        alive_for, down = 0.0, False
        while not self._over.wait(LOOK_EVERY_S):
            status = self._broker.status()
            if status.running:
                if down:
                    self._say(f"kafka {status.bootstrap_servers} runs again")
                alive_for, down = alive_for + LOOK_EVERY_S, False
                self._failures = 0 if alive_for > sum(WAITS_S) else self._failures
                continue
            alive_for = 0.0
            # A stop removes the record of the process a moment after its end: only what is still dead then has died.
            how = self._broker.died() and not self._over.wait(LOOK_EVERY_S) and self._broker.died()
            if how:
                down = False
                self._start_again(how)
            elif not down and not self._over.is_set() and not self._broker.status().running:
                down = True
                self._say("kafka was stopped: nothing is polled or read until: crypto-assets broker start")

    def _start_again(self, how: str) -> None:
        wait = WAITS_S[min(self._failures, len(WAITS_S)) - 1] if self._failures else 0.0
        self._failures += 1
        self._say(f"kafka has died ({how}); starting it again" + (f" in {wait:g} s" if wait else ""))
        if self._over.wait(wait):
            return
        try:
            status = self._broker.start()
        except Exception as error:  # noqa: BLE001 - whatever it is, a later attempt may succeed
            self._say(f"kafka cannot be started: {error}")
        else:
            self.started_it = True
            self._say(f"kafka {status.bootstrap_servers} runs again")
