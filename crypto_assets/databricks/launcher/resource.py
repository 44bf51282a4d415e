"""The Dagster resource `step_launcher`, which imports nothing heavy until a step is launched."""

# Dagster reads the annotations of resources at run time, so this module has no `annotations` future import.
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from crypto_assets.databricks.launcher.launcher_config import PACKAGE
from crypto_assets.settings import Settings


def launcher_resource(
    settings: Settings, reads_log: Mapping[str, str | None], packages: Sequence[Path] = (PACKAGE,)
) -> dg.ResourceDefinition | dg.ConfigurableResource:
    """The resource `step_launcher`: launches on the driver of target databricks, is nothing everywhere else.

    Args:
        settings: Where the launcher's configuration comes from.
        reads_log: By op name: the logical topic whose bounds the step needs, or None.
        packages: Package folders that are shipped.
    """
    if settings.is_remote or settings.target != "databricks":
        return dg.ResourceDefinition.none_resource()

    class StepLauncherResource(dg.ConfigurableResource):
        """Launches every step as a separate Databricks run; `overrides` is merged into its configuration."""

        __qualname__ = "StepLauncherResource"

        # With defaults: a launchpad that gives one field replaces the whole of the others.
        databricks_host: str | None = Field(default=settings.databricks_host, description="Workspace.")
        databricks_cluster_id: str | None = Field(
            default=settings.databricks_cluster_id, description="Running cluster; none = a new job cluster per run."
        )
        databricks_spark_version: str = Field(
            default=settings.databricks_spark_version, description="Runtime of a new cluster."
        )
        databricks_staging: str | None = Field(
            default=settings.databricks_staging, description="Folder that steps are staged in."
        )
        overrides: dict[str, Any] = Field(
            default={}, description="Configuration of dagster-databricks: run_config, ..."
        )

        def create_resource(self, context: dg.InitResourceContext) -> Any:  # noqa: ARG002
            """The launcher; stages the code and asks nothing of the workspace."""
            from crypto_assets.databricks.launcher.step_launcher import StepLauncher

            chosen = {name: value for name, value in self if name != "overrides"}
            return StepLauncher.from_settings(settings.model_copy(update=chosen), self.overrides, reads_log, packages)

    return StepLauncherResource()
