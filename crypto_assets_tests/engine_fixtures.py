"""Fixtures with a real engine, for any test of the suite (a pytest plugin).

`spark` (session) is the process's session; `engine` (function) is an engine on an empty lake that shares it;
`kafka_engine` also reads the log of the session's embedded broker. Which engine it is says `--engine`: local (Sail and
delta-rs, the default), spark (JVM Spark and delta-spark) or connect (the same behind Spark Connect). A process can hold
one of them only, since PySpark decides by process whether its functions speak to a JVM or to Connect.
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crypto_assets.engine.base import Engine
from crypto_assets.engine.connect_server import TOKEN
from crypto_assets.engine.sail import SailEngine
from crypto_assets.engine.spark import Sessions, SparkEngine, local_config, remote_session
from crypto_assets.jvm.fetch import ensure_jars
from crypto_assets.jvm.jars import SPARK_JARS
from crypto_assets_tests import short_lived_jvm

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from crypto_assets_tests.kafka_fixtures import RunningBroker

ENGINES = ("local", "spark", "connect")
MakeEngine = Callable[..., Engine]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", choices=ENGINES, default="local", help="engine of the fixtures (default: local)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of one engine's own parts are left out, not skipped, where the fixtures have another."""
    chosen = config.getoption("--engine")
    other = [i for i in items if (m := i.get_closest_marker("engine")) and chosen not in m.args]
    if other:
        config.hook.pytest_deselected(items=other)
        items[:] = [i for i in items if i not in set(other)]


_SHORT_LIVED = f"-XX:-DontCompileHugeMethods {short_lived_jvm.OPTIONS}"
"""A stream runs the same queries again and again: without the second compiler it is half as slow again."""


def jvm_session(master: str, warehouse: Path, *, short_lived: bool) -> SparkSession:
    """A classic session with Delta and the Kafka source."""
    from pyspark.sql import SparkSession

    config = local_config(ensure_jars(SPARK_JARS), master=master, warehouse=str(warehouse))
    if short_lived:
        config["spark.driver.extraJavaOptions"] = _SHORT_LIVED
    builder = SparkSession.builder
    for name, value in config.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


@pytest.fixture(scope="session")
def engine_name(pytestconfig: pytest.Config) -> str:
    """Which engine the fixtures have."""
    return pytestconfig.getoption("--engine")


@pytest.fixture(scope="session")
def spark_remote(engine_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | None]:
    """With `connect`, URL of a server in a process and on a port of its own: this process has no JVM then."""
    if engine_name != "connect":
        yield None
        return
    command = [sys.executable, "-m", "crypto_assets.engine.connect_server", str(tmp_path_factory.mktemp("served"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKEN, str(uuid.uuid4()))
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            assert port, f"the Spark Connect server did not start: `{' '.join(command)}` says why"
            yield f"sc://localhost:{port}"
            server.stdin.close()


@pytest.fixture(scope="session")
def make_engine(
    pytestconfig: pytest.Config, engine_name: str, spark_remote: str | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeEngine]:
    """`make_engine(lake, kafka_config=None) -> Engine`; all share one session; `--full`: on the product's JVM."""
    warehouse = tmp_path_factory.mktemp("warehouse")
    sessions = None
    if spark_remote:
        sessions = Sessions(lambda: remote_session(spark_remote))
    elif engine_name == "spark":
        short_lived = not pytestconfig.getoption("--full")
        sessions = Sessions(lambda: jvm_session("local[2]", warehouse, short_lived=short_lived))

    def make(lake: Path | str, kafka_config: Callable[[], dict[str, Any]] | None = None) -> Engine:
        if sessions is None:
            return SailEngine(str(lake), kafka_config)
        return SparkEngine(sessions, lambda: kafka_config() if kafka_config else {}, lake=str(lake))

    yield make
    if sessions is not None and sessions.started:
        sessions().stop()


@pytest.fixture(scope="session")
def spark(make_engine: MakeEngine, tmp_path_factory: pytest.TempPathFactory) -> SparkSession:
    """The session that every engine of this process shares; it ends with the process."""
    return make_engine(tmp_path_factory.mktemp("no-lake")).spark


@pytest.fixture
def engine(make_engine: MakeEngine, tmp_path: Path) -> Engine:
    """An engine on an empty lake, without a log. Nothing starts until it is used."""
    return make_engine(tmp_path / "lake")


@pytest.fixture
def kafka_engine(make_engine: MakeEngine, tmp_path: Path, kafka_broker: RunningBroker) -> Engine:
    """An engine on an empty lake that reads the embedded broker's log (needs the `kafka_fixtures` plugin)."""
    return make_engine(tmp_path / "lake", lambda: kafka_broker.config)
