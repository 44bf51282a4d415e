"""Spark of the tasks: jars and settings. The session itself is made in the task (`remote/session.py`)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from crypto_assets_tests import short_lived_jvm


@functools.cache
def jars() -> dict[str, str]:
    """The setting that gives Spark its jars, which the product pins and fetches once.

    Raises:
        JvmError: They cannot be had; says what was tried.
    """
    from crypto_assets.jvm.fetch import ensure_jars
    from crypto_assets.jvm.jars import SPARK_JARS

    folder = ensure_jars(SPARK_JARS)
    return {"spark.jars": ",".join(str(p) for p in sorted(Path(folder).glob("*.jar")))}


LOG4J = """rootLogger.level = error
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex
"""


class SparkSettings:
    """Settings of a workspace's sessions; `remote/session.py` gives them to whatever makes the first session."""

    def __init__(self, root: Path, catalog: str, *, enabled: bool) -> None:
        self.enabled = enabled
        self.conf_dir = root / "runtime" / "conf"
        self._catalog = catalog
        self._warehouse = root / "warehouse"

    def write(self) -> None:
        """Make the folder for SPARK_CONF_DIR: logs go to standard error, so that a task's own output stays readable."""
        self.conf_dir.mkdir(parents=True, exist_ok=True)
        (self.conf_dir / "log4j2.properties").write_text(LOG4J, encoding="utf-8")

    def conf(self, given: Mapping[str, str], folder: Path) -> dict[str, str] | None:
        """Settings of one task; `given` are the cluster's own and win. None = there is no Spark here."""
        if not self.enabled:
            return None
        delta = "org.apache.spark.sql.delta.catalog.DeltaCatalog"
        log = f"-Dlog4j2.configurationFile={(self.conf_dir / 'log4j2.properties').as_uri()}"
        return {
            "spark.master": "local[2]",
            "spark.app.name": "databricks-standin",
            "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
            "spark.sql.catalog.spark_catalog": delta,
            f"spark.sql.catalog.{self._catalog}": delta,
            "spark.sql.warehouse.dir": str(self._warehouse),
            "spark.local.dir": str(folder / "tmp"),
            "spark.executorEnv.STANDIN_SPEC": str(folder / "spec.json"),  # for Python workers (`remote/worker.py`)
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.shuffle.partitions": "1",
            "spark.sql.adaptive.enabled": "false",
            "spark.default.parallelism": "1",
            "spark.databricks.delta.snapshotPartitions": "1",
            "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.memory": "2g",
            # A task has a few thousand rows: generating and compiling code costs more than interpreting expressions.
            "spark.sql.codegen.wholeStage": "false",
            "spark.sql.codegen.factoryMode": "NO_CODEGEN",
            "spark.driver.extraJavaOptions": f"-Duser.timezone=UTC {short_lived_jvm.OPTIONS} {log}",
            **jars(),
            **{k: v for k, v in given.items() if not k.startswith(("spark.databricks.cluster", "spark.master"))},
        }
