"""A Bronze writer in a process of its own, which says how far it is: the parent kills it wherever it likes.

Reads hourly keys from standard input, one line a request of comma-separated keys, and prints one line at each step of
the work; ends when standard input ends.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from crypto_assets.assets import bronze
from crypto_assets.contracts.slices import key_slice
from crypto_assets.engine.sail import SailEngine
from crypto_assets.log.kafka import reading
from crypto_assets_tests.assets.log_tools import START


def say(text: str) -> None:
    print(text, flush=True)


class Telling:
    """The engine with a line printed at every boundary inside a write."""

    def __init__(self, engine: SailEngine) -> None:
        self._engine = engine
        self.store = engine.store
        append_together = engine.store.append_together

        def building(build: Callable, stored: Any) -> Any:
            say("snapshot")
            batch = build(stored)
            say("commit" if batch else "nothing")
            return batch

        def told(table: str, appends: Any, **described: Any) -> Any:
            telling = [replace(one, build=partial(building, one.build)) for one in appends]
            result = append_together(table, telling, **described)
            say("appended")
            return result

        self.store.append_together = told  # type: ignore[method-assign]

    def read_log(self, topic: str, ranges: Any) -> Iterator[Any]:
        for chunk in self._engine.read_log(topic, ranges):
            say("chunk")
            yield chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def main(servers: str, topic: str, lake: str) -> None:
    config = {"bootstrap.servers": servers, "log_level": 0}
    engine: Any = Telling(SailEngine(lake, lambda: config))
    say("ready")
    for line in sys.stdin:
        keys = line.strip().split(",")
        bounds = reading.bounds(config, topic, [key_slice(k, "hour").start for k in keys])
        from crypto_assets.engine.base import StepInputs

        bronze.work(engine, keys, StepInputs(datetime.now(UTC), "child", "replay", START, bounds))
        say("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
