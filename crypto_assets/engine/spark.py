"""Engine on Spark: a local JVM, a Spark Connect endpoint, or the session of a Databricks cluster.

Belongs here: sessions and their settings. Does not belong here: how tables are written (`storage.delta_spark`), how the
log is read (`log.kafka.spark_source`), what is computed.

Creating an engine starts nothing. A local session comes from dagster-pyspark's resource, which also finds the session
of a cluster.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from crypto_assets import paths
from crypto_assets.engine.base import Engine
from crypto_assets.errors import UsageError
from crypto_assets.jvm.fetch import LOCALE, ensure_jars, require_spark_java
from crypto_assets.jvm.jars import SPARK_JARS
from crypto_assets.log.kafka.spark_source import read_ranges, source_options
from crypto_assets.settings import adopt_environment, reach_this_machine_directly
from crypto_assets.storage.base import OffsetRange
from crypto_assets.storage.delta_spark import SparkBackend
from crypto_assets.storage.store import DeltaStore

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

UTC_SESSION = {"spark.sql.session.timeZone": "UTC"}
"""Runtime settings that every session must have."""

SHORT_QUERIES = {
    # Rows of larger Arrow tables are then not computed by the optimizer: on one core, without generated code.
    "spark.sql.execution.arrow.localRelationThreshold": "1MB",
    # A micro-batch alone runs a hundred queries: with Spark's cache of 100, their code is recompiled each time.
    "spark.sql.codegen.cache.maxEntries": "5000",
}
"""Static settings of a session that runs many short queries over rows of the driver, as a stream does."""


REACH_S = 10.0
"""Seconds within which an endpoint must accept a connection."""


def local_config(jars: Path, *, master: str, warehouse: str) -> dict[str, str]:
    """Settings of a session that this process starts.

    Args:
        jars: Folder of the pinned jars (Delta, Kafka source).
        master: Spark master, e.g. `local[*]`.
        warehouse: Folder of schemas without a location.
    """
    # Tasks of a shuffle, a listing and a Delta snapshot: Spark's defaults cost a small table more than its work.
    few = "2"
    folder = paths.plain(str(jars))  # Spark expects a list of patterns
    return {
        "spark.master": master,
        "spark.app.name": "crypto-assets",
        "spark.jars": ",".join(f"{folder}/{jar.name}" for jar in sorted(jars.glob("*.jar"))),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.driver.memory": "2g",
        # Code generated for a transform exceeds the 8,000 bytes beyond which HotSpot interprets it.
        "spark.driver.extraJavaOptions": "-XX:-DontCompileHugeMethods",
        # Adaptive execution makes every stage a separate job, planned when the one before it ends: no gain for small
        # inputs.
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.shuffle.partitions": few,
        "spark.default.parallelism": few,
        "spark.databricks.delta.snapshotPartitions": few,
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": few,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.sql.warehouse.dir": warehouse,
        **SHORT_QUERIES,
        **UTC_SESSION,
    }


class Sessions:
    """Provides one session for the life of the process, created on first use.

    Args:
        make: Creates it.
    """

    def __init__(self, make: Callable[[], SparkSession]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._session: SparkSession | None = None

    def __call__(self) -> SparkSession:
        """The session; its time zone is UTC."""
        with self._lock:
            if self._session is None:
                session = self._make()
                for name, value in UTC_SESSION.items():
                    session.conf.set(name, value)
                self._session = session
            return self._session

    @property
    def started(self) -> bool:
        """Whether the session has been requested."""
        return self._session is not None


def local_session(master: str, java_home: str | None, *, warehouse: str) -> SparkSession:
    """JVM session of this process, or the one that it has.

    Raises:
        JvmError: No Java 17 or later, or the jars could not be fetched.
    """
    require_spark_java(java_home)
    adopt_environment(LOCALE)  # of the JVM that PySpark starts
    from dagster_pyspark import LazyPySparkResource

    config = local_config(ensure_jars(SPARK_JARS), master=master, warehouse=warehouse)
    return LazyPySparkResource(spark_config=config).spark_session


def reach(url: str) -> str:
    """The `host:port` of a Spark Connect endpoint (`sc://host:port`) that accepts a connection.

    Raises:
        ValueError: Nothing listens there. PySpark itself would retry for ten minutes and ignore signals.
    """
    at = urlsplit(url)
    host, port = at.hostname or "", at.port or 15002
    try:
        socket.create_connection((host, port), timeout=REACH_S).close()
    except OSError as error:
        raise UsageError(
            f"no Spark Connect server answers at {host}:{port} ({error}); start one there, or mend or unset "
            "CRYPTO_ASSETS_SPARK_REMOTE"
        ) from None
    return f"{host}:{port}"


def remote_session(url: str) -> SparkSession:
    """A session of a Spark Connect endpoint (`sc://host:port`).

    Raises:
        ValueError: Nothing listens there.
    """
    reach_this_machine_directly()
    reach(url)
    from pyspark.sql import SparkSession

    return SparkSession.builder.remote(url).getOrCreate()


def cluster_session() -> SparkSession:
    """Session of the cluster on which this process runs."""
    from dagster_pyspark import LazyPySparkResource

    return LazyPySparkResource(spark_config={}).spark_session


class SparkEngine(Engine):
    """Engine of the targets `spark` and `databricks`. Creating one opens nothing.

    Args:
        session: Returns the session on first use.
        kafka_config: Returns librdkafka options when the log is first read.
        catalog: Catalog of the tables; None = the session's own.
        lake: Folder of external tables; None = managed tables.
        kafka_shaded: Whether Spark's Kafka classes have Databricks' package prefix.
    """

    def __init__(
        self,
        session: Callable[[], SparkSession],
        kafka_config: Callable[[], Mapping[str, Any]],
        *,
        catalog: str | None = None,
        lake: str | None = None,
        kafka_shaded: bool = False,
    ) -> None:
        self._session = session
        self.kafka_config = kafka_config
        self._kafka_shaded = kafka_shaded
        self.store = DeltaStore(SparkBackend(session, catalog, lake=lake))

    @property
    def spark(self) -> SparkSession:
        """The session, started on first use; its time zone is UTC."""
        return self._session()

    def frame(self, rows: pa.Table) -> DataFrame:
        """Arrow rows as a frame; see `engine.base.Engine.frame`."""
        from pyspark.sql.pandas.types import from_arrow_schema

        return self.spark.createDataFrame(rows, from_arrow_schema(rows.schema))

    def read_log(self, topic: str, ranges: Sequence[OffsetRange]) -> Iterator[pa.Table]:
        """Read exact offset ranges with Spark's own source; see `engine.base.Engine.read_log`.

        Raises:
            LogTrimmed: Records of a range are no longer retained.
            LogUnavailable: The broker cannot be reached.
        """
        options = source_options(self.kafka_config(), shaded=self._kafka_shaded)
        return read_ranges(self.spark, options, topic, ranges)
