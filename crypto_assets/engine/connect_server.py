"""Spark Connect server with Delta Lake and the Kafka source in this process's JVM, on a free port of 127.0.0.1.

`python -m crypto_assets.engine.connect_server WAREHOUSE` serves until its standard input ends and prints its port; the
caller provides the token in the environment.

Belongs here: the server. Does not belong here: its clients (`engine.spark.remote_session`), what is run on it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets.engine.spark import local_config
from crypto_assets.jvm.fetch import LOCALE, ensure_jars, require_spark_java
from crypto_assets.jvm.jars import SPARK_JARS
from crypto_assets.settings import adopt_environment, environment

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SERVICE = "org.apache.spark.sql.connect.service.SparkConnectService$"
TOKEN = "SPARK_CONNECT_AUTHENTICATE_TOKEN"  # noqa: S105 - the name of a variable
"""Environment variable with the token for local clients."""


@contextmanager
def connect_server(warehouse: Path, token: str, *, master: str = "local[2]") -> Iterator[tuple[SparkSession, int]]:
    """Run the server for the context; yields its own session and its port.

    Args:
        warehouse: Folder of schemas without a location.
        token: Token required from clients.
        master: Spark master.

    Raises:
        JvmError: No Java 17 or later, or the jars could not be fetched.
    """
    require_spark_java(environment().get("JAVA_HOME"))
    adopt_environment({"PYSPARK_PYTHON": sys.executable, **LOCALE})  # workers use this process's Python
    from pyspark.sql import SparkSession

    builder = SparkSession.builder
    given = {
        **local_config(ensure_jars(SPARK_JARS), master=master, warehouse=str(warehouse.resolve())),
        "spark.sql.sources.default": "delta",
        "spark.plugins": "org.apache.spark.sql.connect.SparkConnectPlugin",
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": "0",
        "spark.connect.authenticate.token": token,
    }
    for name, value in given.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    try:
        jvm: Any = session._jvm  # noqa: SLF001 - the only place where a server reports its port
        yield session, getattr(getattr(jvm, SERVICE), "MODULE$").localPort()
    finally:
        session.stop()


if __name__ == "__main__":
    with connect_server(Path(sys.argv[1]), environment()[TOKEN]) as (_, port):
        print(port, flush=True)
        sys.stdin.read()
