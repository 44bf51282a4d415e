"""The Dagster instance of a home: its folder, its `dagster.yaml`, and the environment of its processes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

    from crypto_assets.home import Home
    from crypto_assets.settings import Settings


def prepare(home: Home) -> Path:
    """Create DAGSTER_HOME with the packaged `dagster.yaml`; an edited one is left as it is."""
    home.dagster.mkdir(parents=True, exist_ok=True)
    target = home.dagster / "dagster.yaml"
    if not target.exists():
        target.write_text(packaged_yaml(), encoding="utf-8")
    return home.dagster


def packaged_yaml() -> str:
    """Text of the `dagster.yaml` that a new home gets."""
    return resources.files("crypto_assets.automation").joinpath("dagster.yaml").read_text(encoding="utf-8")


def open_instance(home: Home) -> dg.DagsterInstance:
    """The home's Dagster instance."""
    import dagster as dg

    from crypto_assets.settings import export_dagster_home

    folder = prepare(home)
    export_dagster_home(folder)
    return dg.DagsterInstance.from_config(str(folder))


def child_environment(settings: Settings, home: Home, *, automation: bool) -> Mapping[str, str]:
    """Environment of webserver and daemon: the caller's, with this home made explicit."""
    from crypto_assets.settings import environment

    return {
        **environment(),
        "DAGSTER_HOME": str(home.dagster),
        "CRYPTO_ASSETS_HOME": str(home.path),
        "CRYPTO_ASSETS_SOURCE": settings.source,
        "CRYPTO_ASSETS_AUTOMATION": "1" if automation else "0",
        "CRYPTO_ASSETS_PARTITIONS_START": home.partitions_start.isoformat(),
        "PYTHONUNBUFFERED": "1",
    }
