"""The Dagster resource `step_launcher`, which imports nothing heavy until a step is launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from crypto_assets.databricks.launcher.launcher_config import PACKAGE

if TYPE_CHECKING:
    from crypto_assets.settings import Settings


def launcher_resource(
    settings: Settings, reads_log: Mapping[str, str | None], packages: Sequence[Path] = (PACKAGE,)
) -> dg.ResourceDefinition:
    """The resource `step_launcher`: launches on the driver of target databricks, is nothing everywhere else.

    Args:
        settings: Where the launcher's configuration comes from.
        reads_log: By op name: the logical topic whose bounds the step needs, or None.
        packages: Package folders that are shipped.
    """
    if settings.is_remote or settings.target != "databricks":
        return dg.ResourceDefinition.none_resource()

    @dg.resource(
        config_schema=dg.Field(dg.Permissive(), is_required=False),
        description="Launches steps on Databricks. Everything comes from the settings; configuration given here is "
        "laid over it (run_config, permissions, ...).",
    )
    def step_launcher(context: dg.InitResourceContext) -> Any:
        from crypto_assets.databricks.launcher.step_launcher import StepLauncher

        return StepLauncher.from_settings(settings, dict(context.resource_config or {}), reads_log, packages)

    return step_launcher
