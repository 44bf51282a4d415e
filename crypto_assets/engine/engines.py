"""Maps targets to engines.

Creating one starts nothing: a launched run's driver must not start an engine it does not use.
"""

from __future__ import annotations

from crypto_assets.engine import spark
from crypto_assets.engine.base import Engine
from crypto_assets.engine.sail import SailEngine
from crypto_assets.engine.spark import Sessions
from crypto_assets.log.kafka.client import client_config
from crypto_assets.settings import Settings, environment

_SESSIONS: dict[tuple[str, ...], Sessions] = {}
"""Sessions of this process by their configuration; engines of one target share one."""


def make_engine(settings: Settings) -> Engine:
    """Create the engine of the configured target; opens nothing.

    On the driver of a Databricks target, where launched steps write every table, it is the embedded engine on the
    home's own lake, which holds the driver's own tables (`ops.alerts`).
    """
    if settings.role == "remote":
        return _cluster_engine(settings)
    if settings.target == "spark":
        return _spark_engine(settings)
    return SailEngine(settings.lake, lambda: client_config(settings))


def _spark_engine(settings: Settings) -> Engine:
    """Engine on a local JVM or a Spark Connect endpoint, with the lake's folder."""
    warehouse, remote = str(settings.home / "spark-warehouse"), settings.spark_remote

    def session() -> object:
        if remote:
            return spark.remote_session(remote)
        return spark.local_session(settings.spark_master, environment().get("JAVA_HOME"), warehouse=warehouse)

    key = ("spark", remote or settings.spark_master)
    sessions = _SESSIONS.setdefault(key, spark.Sessions(session))  # type: ignore[arg-type]
    return spark.SparkEngine(
        sessions,
        lambda: client_config(settings),
        catalog=settings.spark_catalog,
        lake=settings.lake,
    )


def _cluster_engine(settings: Settings) -> Engine:
    """Engine on the cluster's session, with managed tables of the catalog."""
    sessions = _SESSIONS.setdefault(("cluster",), spark.Sessions(spark.cluster_session))
    return spark.SparkEngine(
        sessions, lambda: client_config(settings), catalog=settings.catalog, kafka_shaded=settings.kafka_shaded
    )
