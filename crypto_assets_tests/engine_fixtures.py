"""Fixtures with the real laptop engine, for any test of the suite (a pytest plugin).

`spark` (session) is the process's Sail session; `engine` (function) is a `SailEngine` on an empty lake that shares
it; `kafka_engine` also reads the log of the session's embedded broker.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crypto_assets.compute.sail import SailEngine

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from crypto_assets_tests.kafka_fixtures import RunningBroker


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> SparkSession:
    """The Sail session that every engine of this process shares; it ends with the process."""
    return SailEngine(str(tmp_path_factory.mktemp("no-lake"))).spark


@pytest.fixture
def engine(tmp_path: Path) -> SailEngine:
    """An engine on an empty lake, without a log. Nothing starts until it is used."""
    return SailEngine(str(tmp_path / "lake"))


@pytest.fixture
def kafka_engine(tmp_path: Path, kafka_broker: RunningBroker) -> SailEngine:
    """An engine on an empty lake that reads the embedded broker's log (needs the `kafka_fixtures` plugin)."""
    return SailEngine(str(tmp_path / "lake"), lambda: kafka_broker.config)
