"""Settings of a home, and the batch's own lake beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crypto_assets_tests.streaming import tools

if TYPE_CHECKING:
    from crypto_assets.engine.base import Engine
    from crypto_assets.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, kafka_broker, topic_factory) -> Settings:
    """A replay home with topics of its own; nothing is in them."""
    return tools.home_settings(tmp_path / "home", kafka_broker, topic_factory)


@pytest.fixture
def other(make_engine, tmp_path: Path, kafka_broker) -> Engine:
    """A second, empty lake on the same log: the batch's."""
    return make_engine(tmp_path / "batch-lake", lambda: kafka_broker.config)
