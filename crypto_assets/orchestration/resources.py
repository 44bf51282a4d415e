"""Typed resources of the code location: shown on the UI's Resources page and overridable per run.

Secrets are never fields: they stay in the settings, which a process reads from its own environment. Does not belong
here: running steps remotely (`databricks.launcher`, `databricks.pipes`).
"""

# Dagster reads the annotations of resources at run time, so this module has no `annotations` future import.
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from crypto_assets.engine.engines import make_engine
from crypto_assets.engine.inputs import StepInputBuilder
from crypto_assets.settings import Settings


def engine_resource(settings: Settings) -> dg.ConfigurableResource:
    """Engine of the configured target; the class is defined here because it holds the settings, secrets included."""

    class EngineResource(dg.ConfigurableResource):
        """Tables of the lakehouse, and a Spark session that starts on first use."""

        __qualname__ = "EngineResource"

        target: str = Field(description="local (Sail and delta-rs), spark, databricks or databricks-serverless.")
        lake_uri: str = Field(description="Root of the tables on this machine: <root>/<schema>/<table>.")
        catalog: str = Field(description="Catalog of the tables on Databricks.")
        spark_master: str = Field(description="Spark master of target spark.")

        def create_resource(self, context: dg.InitResourceContext) -> Any:  # noqa: ARG002
            """Create the engine without opening anything."""
            return make_engine(settings.model_copy(update=dict(self)))

    return EngineResource(
        target=settings.target, lake_uri=settings.lake, catalog=settings.catalog, spark_master=settings.spark_master
    )


def inputs_resource(settings: Settings) -> dg.ConfigurableResource:
    """Builder of step inputs; defined here for the same reason as the engine."""

    class StepInputsResource(dg.ConfigurableResource):
        """Builds step inputs other than tables: offset bounds, coins, cut-offs."""

        __qualname__ = "StepInputsResource"

        source: str = Field(description="Data mode, to which the home is bound.")
        home_path: str = Field(description="Folder of lake, broker, models and Dagster's storage.")
        transport: str = Field(description="kafka, or landing: JSON lines in files.")
        kafka_topic: str = Field(description="Topic of price messages.")
        kafka_polls_topic: str = Field(description="Topic of poll messages.")
        anomaly_budget: float = Field(description="Anomaly flags wanted per coin and day.")

        def create_resource(self, context: dg.InitResourceContext) -> StepInputBuilder:  # noqa: ARG002
            """Create the builder without opening anything."""
            chosen = dict(self)
            return StepInputBuilder(settings.model_copy(update={**chosen, "home_path": Path(chosen["home_path"])}))

    return StepInputsResource(
        source=settings.source,
        home_path=str(settings.home),
        transport=settings.transport,
        kafka_topic=settings.prices_topic,
        kafka_polls_topic=settings.polls_topic,
        anomaly_budget=settings.anomaly_budget,
    )
