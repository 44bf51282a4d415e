"""Pausing the cyclic garbage collector while many objects are made, which it would walk again and again."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class _Collector:
    """Threads that want the collector off: the last one turns it on again."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    pauses: int = 0
    was_enabled: bool = True


_COLLECTOR = _Collector()


@contextmanager
def collector_paused(*, lasting: bool = False) -> Iterator[None]:
    """Keep the collector off within the context, in all threads; contexts may overlap.

    Args:
        lasting: What is made stays until the process ends: the collector never walks it.
    """
    with _COLLECTOR.lock:
        if not _COLLECTOR.pauses:
            _COLLECTOR.was_enabled = gc.isenabled()
            gc.disable()
        _COLLECTOR.pauses += 1
    try:
        yield
    finally:
        with _COLLECTOR.lock:
            _COLLECTOR.pauses -= 1
            if not _COLLECTOR.pauses and _COLLECTOR.was_enabled:
                if lasting:
                    gc.freeze()
                gc.enable()
