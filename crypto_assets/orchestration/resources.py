"""Resources of the code location with typed fields: what the UI's Resources page shows, and what a run may override.

Secrets are never fields: they stay in the settings, which a process reads from its own environment. Does not belong
here: what runs steps remotely (`databricks.launcher`, `databricks.pipes`).
"""

# Dagster reads the annotations of resources at run time, so this module has no `annotations` future import.
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from crypto_assets.engine.engines import make_engine
from crypto_assets.engine.inputs import StepInputBuilder, input_builder
from crypto_assets.settings import Settings


def engine_resource(settings: Settings) -> dg.ConfigurableResource:
    """The engine of the configured target. The class is made here because it keeps the settings, secrets included."""

    class EngineResource(dg.ConfigurableResource):
        """Tables of the lakehouse, and a Spark session that starts at its first use."""

        __qualname__ = "EngineResource"

        target: str = Field(description="local (Sail and delta-rs), spark, databricks or databricks-serverless.")
        lake_uri: str = Field(description="Root of the tables on this machine: <root>/<schema>/<table>.")
        catalog: str = Field(description="Catalog of the tables on Databricks.")
        spark_master: str = Field(description="Spark master of target spark.")

        def create_resource(self, context: dg.InitResourceContext) -> Any:  # noqa: ARG002
            """The engine; opens nothing."""
            return make_engine(settings.model_copy(update=dict(self)))

    return EngineResource(
        target=settings.target, lake_uri=settings.lake, catalog=settings.catalog, spark_master=settings.spark_master
    )


def inputs_resource(settings: Settings) -> dg.ConfigurableResource:
    """What builds the inputs of steps; made here for the same reason."""

    class StepInputsResource(dg.ConfigurableResource):
        """Builds what a step is given beside its tables: offset bounds, coins, cut-offs."""

        __qualname__ = "StepInputsResource"

        source: str = Field(description="Data mode, to which the home is bound.")
        home_path: str = Field(description="Folder of lake, broker, models and Dagster's storage.")
        transport: str = Field(description="kafka, or landing: JSON lines in files.")
        kafka_topic: str = Field(description="Topic of price messages.")
        kafka_polls_topic: str = Field(description="Topic of poll messages.")
        anomaly_budget: float = Field(description="Anomaly flags wanted per coin and day.")

        def create_resource(self, context: dg.InitResourceContext) -> StepInputBuilder:  # noqa: ARG002
            """The builder; opens nothing."""
            chosen = dict(self)
            return input_builder(settings.model_copy(update={**chosen, "home_path": Path(chosen["home_path"])}))

    return StepInputsResource(
        source=settings.source,
        home_path=str(settings.home),
        transport=settings.transport,
        kafka_topic=settings.prices_topic,
        kafka_polls_topic=settings.polls_topic,
        anomaly_budget=settings.anomaly_budget,
    )
