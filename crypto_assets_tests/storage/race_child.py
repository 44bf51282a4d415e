"""What racing processes run; a module of its own, because spawned children import it."""

from __future__ import annotations

from typing import Any

from crypto_assets.engine.sail import SailEngine
from crypto_assets_tests.storage.rows import BRONZE, METRICS, NOW, app_id, hour, metrics, up_to


def create(lake: str, barrier: Any) -> bool:
    store: Any = SailEngine(lake).store
    barrier.wait(60)
    return store.create(METRICS)


def append(lake: str, barrier: Any, ends: list[int]) -> int:
    store = SailEngine(lake).store
    barrier.wait(60)
    return sum(store.append_once(BRONZE, hour(), app_id(), up_to(end)).rows for end in ends)


def replace(lake: str, barrier: Any, start: Any, values: list[float]) -> int:
    store = SailEngine(lake).store
    barrier.wait(60)
    retries = 0
    for value in values:
        retries += store.replace_slice(METRICS, hour(start), lambda v=value: metrics(start, [v]), now=NOW).retries
    return retries
