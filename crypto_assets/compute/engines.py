"""Which engine a target means, as a lazy Dagster resource.

Creating the resource starts nothing: a launched run's driver must not start an engine it does not use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from crypto_assets.compute.base import Engine
    from crypto_assets.settings import Settings


class TargetUnavailable(Exception):
    """The configured target has no engine in this version; the message names the ones that do."""


def make_engine(settings: Settings) -> Engine:
    """The engine of the configured target; opens nothing.

    Raises:
        TargetUnavailable: The target is not built yet.
    """
    if settings.target != "local":
        raise TargetUnavailable(
            f"CRYPTO_ASSETS_TARGET={settings.target} is not available in this version; use CRYPTO_ASSETS_TARGET=local"
        )
    from crypto_assets.compute.sail import SailEngine
    from crypto_assets.kafka.client import client_config

    return SailEngine(settings.lake, lambda: client_config(settings))


def engine_resource(settings: Settings) -> dg.ResourceDefinition:
    """The engine as a resource: one a process, shared by its steps."""

    @dg.resource(description=f"Engine of target {settings.target}: a lazy Spark session and the tables.")
    def engine(_context: dg.InitResourceContext) -> Engine:
        return make_engine(settings)

    return engine
