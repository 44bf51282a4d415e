"""Fixtures for everyone: a real broker, a real engine, and settings of a throw-away home."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

pytest_plugins = [
    "crypto_assets_tests.kafka_fixtures",
    "crypto_assets_tests.engine_fixtures",
    "crypto_assets_tests.home_fixtures",
    "crypto_assets_tests.workspace_fixtures",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="also the long variants (marker full)")


FILLED = {"filled_home", "small_home", "full_home"}
"""Fixtures that fill a home through Kafka and every asset, which takes longer than any one test may."""


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks tests on a filled home as slow, leaves out long variants, and puts files with slow tests first.

    With the short files at the end, no worker waits there for another.
    """
    for item in items:
        if FILLED & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    long = [] if config.getoption("--full") else [item for item in items if item.get_closest_marker("full")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in set(long)]
    slow = {i.path for i in items if i.get_closest_marker("slow") or i.get_closest_marker("acceptance")}
    items.sort(key=lambda item: (item.path not in slow, not _shares_a_home(item.path)))


@lru_cache
def _shares_a_home(path: Path) -> bool:
    """Whether the tests of a file use copies of the session's filled home."""
    return "small_home" in path.read_text(encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """A worker takes a file; one takes all files that share the filled home, since every session fills one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "filled home" if _shares_a_home(config.rootpath / file) else file

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def _no_ambient_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """No test sees a developer's own variables or `.env`."""
    from crypto_assets.settings import Settings, environment

    prefixes = ("CRYPTO_ASSETS_", "KAFKA_", "COINGECKO_", "MLFLOW_", "DATABRICKS_", "CONFLUENT_", "ALERT_", "DAGSTER_")
    for name in list(environment()):
        if name.startswith(prefixes):
            monkeypatch.delenv(name)
    monkeypatch.setitem(Settings.model_config, "env_file", None)
