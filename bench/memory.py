"""Peak memory of this process and of the broker, sampled while the load runs."""

from __future__ import annotations

import threading
from types import TracebackType

EVERY_S = 0.05


class PeakMemory:
    """Samples resident memory in a thread between enter and exit; the embedded engine lives in this process.

    Args:
        broker_pid: Process of the broker, counted apart; None for none.
    """

    def __init__(self, broker_pid: int | None = None) -> None:
        import psutil

        self._own = psutil.Process()
        self._broker = psutil.Process(broker_pid) if broker_pid else None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)
        self.before = self.own = self._own.memory_info().rss
        self.broker = 0
        self._lately = 0

    def lately(self) -> int:
        """Highest bytes of this process since this was asked last."""
        found, self._lately = max(self._lately, self._own.memory_info().rss), 0
        return found

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            now = self._own.memory_info().rss
            self.own, self._lately = max(self.own, now), max(self._lately, now)
            if self._broker is not None:
                self.broker = max(self.broker, self._broker.memory_info().rss)
            if self._stop.wait(EVERY_S):
                return
