"""Spark of serverless compute: a Spark Connect server in this process's JVM, and a client without one.

What serverless compute refuses is refused here too: a SparkContext, settings beyond a short list, caching.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

SETTABLE = (
    "spark.databricks.execution.timeout",
    "spark.sql.legacy.timeParserPolicy",
    "spark.sql.session.timeZone",
    "spark.sql.shuffle.partitions",
    "spark.sql.ansi.enabled",
)
"""Settings that a serverless session can change, as its documentation lists them."""
SERVICE = "org.apache.spark.sql.connect.service.SparkConnectService$"


class NotOnServerless(Exception):
    """Something that serverless compute refuses."""


def start(conf: Mapping[str, str]) -> tuple[Any, Any]:
    """A server with these settings on a free port of 127.0.0.1: its classic session, and a client of it."""
    from pyspark.sql.connect.session import SparkSession as Client

    given = {
        **{k: v for k, v in conf.items() if k != "spark.master"},
        "spark.connect.grpc.binding.port": "0",
        "spark.connect.grpc.binding.address": "127.0.0.1",
    }
    _allow_server()
    Client._start_connect_server(conf["spark.master"], given)
    from pyspark.sql.session import SparkSession as Classic

    server: Any = Classic._instantiatedSession
    port = _service(server).localPort()
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
    client = Client.builder.remote(f"sc://localhost:{port}").create()
    hide_classic()
    _refuse()
    return server, client


def prepare(server: Any, client: Any, catalog: str) -> None:
    """Let the catalog's name stand for the same tables in the client's session as in the server's own."""
    service, none = _service(server), server._jvm.scala.Option.empty()
    held = service.getOrCreateIsolatedSession(client.client._user_id or "", client.session_id, none)
    manager = held.session().sessionState().catalogManager()
    manager.catalog(catalog).setDelegateCatalog(manager.v2SessionCatalog())


def _service(server: Any) -> Any:
    return getattr(getattr(server._jvm, SERVICE), "MODULE$")


_plain: dict[str, Any] = {}


def hide_classic() -> None:
    """Refuse a SparkContext, which serverless compute does not have."""
    from pyspark.core.context import SparkContext

    def refused(*_: Any, **__: Any) -> Any:
        raise NotOnServerless("[JVM_ATTRIBUTE_NOT_SUPPORTED] SparkContext is not available on serverless compute")

    _plain.setdefault("init", SparkContext.__init__)
    _plain.setdefault("getOrCreate", vars(SparkContext)["getOrCreate"])
    SparkContext.__init__ = refused  # type: ignore[method-assign]
    SparkContext.getOrCreate = classmethod(refused)  # type: ignore[assignment]


def _allow_server() -> None:
    from pyspark.core.context import SparkContext

    SparkContext.__init__ = _plain["init"]  # type: ignore[method-assign]
    SparkContext.getOrCreate = _plain["getOrCreate"]


def _refuse() -> None:
    """Settings and caching that serverless compute refuses."""
    from pyspark.sql.connect.conf import RuntimeConf
    from pyspark.sql.connect.dataframe import DataFrame

    change = RuntimeConf.set

    def set_(self: Any, key: str, value: Any) -> None:
        if key not in SETTABLE:
            raise NotOnServerless(f"[CONFIG_NOT_AVAILABLE] Configuration {key} is not available. SQLSTATE: 42K0I")
        change(self, key, value)

    def cache(*_: Any, **__: Any) -> Any:
        raise NotOnServerless("[NOT_SUPPORTED_WITH_SERVERLESS] PERSIST TABLE is not supported on serverless compute.")

    RuntimeConf.set = set_  # type: ignore[method-assign]
    DataFrame.cache = DataFrame.persist = cache  # type: ignore[method-assign]
