"""Libraries that a task finds on a cluster: what the venv has, without the product, and wheels that it asks for."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
import zipfile
from pathlib import Path

from crypto_assets_tests.databricks_standin.runs import Run, TaskRun
from crypto_assets_tests.databricks_standin.state import State

HIDDEN = re.compile(r".*\.pth$|__editable__|crypto_assets|a1_coverage|__pycache__")
"""What the venv has and a cluster does not: the product itself, however it is installed, and start-up hooks."""


class LibraryFailure(Exception):
    """A library of the task cannot be installed."""


def make_site(source: Path, target: Path) -> None:
    """A folder of links to everything in site-packages that a cluster could have too."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for entry in source.iterdir():
        if not HIDDEN.match(entry.name):
            (target / entry.name).symlink_to(entry)


def install(workspace: State, run: Run, task: TaskRun, folder: Path) -> list[Path]:
    """Install the libraries of a task, and give the folders to put before site-packages.

    Wheels are unpacked; requirements are satisfied by the venv, or not at all.

    Raises:
        LibraryFailure: A wheel is missing or broken, or the venv lacks a requirement.
    """
    wheels: list[str] = []
    for number, wanted in enumerate(_wanted(run, task)):
        if not wanted.endswith(".whl"):
            _require(wanted)
            continue
        place = folder / str(number)
        try:
            zipfile.ZipFile(workspace.workspace_file(wanted)).extractall(place)
        except Exception as error:
            raise LibraryFailure(f"Library installation failed for library {wanted}: {error}") from error
        wheels.append(str(place))
    return [Path(w) for w in wheels]


def _wanted(run: Run, task: TaskRun) -> list[str]:
    """Requirements and wheel paths: of the libraries, or of the environment that the task names."""
    found = []
    for library in task.spec.get("libraries") or []:
        found += [library["whl"]] if "whl" in library else [library["pypi"]["package"]] if "pypi" in library else []
    if key := task.spec.get("environment_key"):
        environments = {e["environment_key"]: e.get("spec") or {} for e in run.request.get("environments") or []}
        found += environments[key].get("dependencies") or []
    return found


def _require(text: str) -> None:
    from packaging.requirements import InvalidRequirement, Requirement

    failed = f"Library installation failed for library due to user error for pypi {{package: {text!r}}}:"
    try:
        wanted = Requirement(text)
    except InvalidRequirement as error:
        raise LibraryFailure(f"{failed} {error}") from None
    if wanted.marker is not None and not wanted.marker.evaluate():
        return
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        raise LibraryFailure(f"{failed} No matching distribution found for {text}") from None
    if not wanted.specifier.contains(version, prereleases=True):
        raise LibraryFailure(f"{failed} {version} is what Python {sys.version_info[0]} has here")
