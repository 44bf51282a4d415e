"""The Dagster instance of a home: its folder, its `dagster.yaml`, and the environment of its processes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets.files import UnreadableFile, read_text, write_atomic
from crypto_assets.home import Home
from crypto_assets.settings import Settings, environment, export_dagster_home

if TYPE_CHECKING:
    import dagster as dg

CODE_LOCATION = "crypto_assets.definitions"
"""Module that the code server loads, and so the name of the code location in the UI."""
RENEW = "correct it, or delete it: the next start writes it again"


MOVED_MODULES = {"crypto_assets.automation.event_log": "crypto_assets.orchestration.event_log"}
"""Modules that the `dagster.yaml` of an earlier home names, by what they are called today."""


def prepare(home: Home) -> Path:
    """Create DAGSTER_HOME with the packaged `dagster.yaml`; an edited one keeps all but the names of moved modules."""
    home.dagster.mkdir(parents=True, exist_ok=True)
    target = home.dagster / "dagster.yaml"
    if not target.exists():
        target.write_text(packaged_yaml(), encoding="utf-8")
        return home.dagster
    text = renamed = read_text(target)
    for earlier, today in MOVED_MODULES.items():
        renamed = renamed.replace(earlier, today)
    if renamed != text:
        write_atomic(target, renamed)
    return home.dagster


def packaged_yaml() -> str:
    """Text of the `dagster.yaml` that a new home gets."""
    return resources.files("crypto_assets.orchestration").joinpath("dagster.yaml").read_text(encoding="utf-8")


def open_instance(home: Home, *, reading: bool = False) -> dg.DagsterInstance:
    """The home's Dagster instance.

    Args:
        home: The home.
        reading: Make nothing: where the home has no instance yet, an empty one in a temporary folder stands for it.

    Raises:
        UnreadableFile: `dagster.yaml` cannot be used.
    """
    import dagster as dg

    kept = home.dagster / "dagster.yaml"
    if reading and not (kept.exists() and (home.dagster / "history").exists()):
        return dg.DagsterInstance.local_temp()
    folder = prepare(home)
    instance_settings(folder)
    export_dagster_home(folder)
    try:
        return dg.DagsterInstance.from_config(str(folder))
    except dg.DagsterInvalidConfigError as error:
        raise UnreadableFile(f"{kept}: {error}; {RENEW}") from None


def instance_settings(folder: Path) -> dict[str, Any]:
    """Contents of a DAGSTER_HOME's `dagster.yaml`.

    Raises:
        UnreadableFile: It is not UTF-8, not YAML, or no mapping.
        OSError: It is absent or may not be read.
    """
    import yaml

    kept = folder / "dagster.yaml"
    try:
        found = yaml.safe_load(read_text(kept)) or {}
    except yaml.YAMLError as error:
        raise UnreadableFile(f"{kept} is not YAML ({error}); {RENEW}") from None
    if not isinstance(found, dict):
        raise UnreadableFile(f"{kept} holds a {type(found).__name__}, and a mapping is expected; {RENEW}")
    return found


def child_environment(settings: Settings, home: Home, *, automation: bool) -> Mapping[str, str]:
    """Environment of webserver and daemon: the caller's, with this home made explicit."""
    return {
        **environment(),
        "DAGSTER_HOME": str(home.dagster),
        "CRYPTO_ASSETS_HOME": str(home.path),
        "CRYPTO_ASSETS_SOURCE": settings.source,
        "CRYPTO_ASSETS_AUTOMATION": "1" if automation else "0",
        "CRYPTO_ASSETS_PARTITIONS_START": home.partitions_start.isoformat(),
        "PYTHONUNBUFFERED": "1",
    }
