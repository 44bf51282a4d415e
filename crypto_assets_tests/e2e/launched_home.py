"""A home whose steps are launched on a workspace stand-in by `dagster asset materialize`, each a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from crypto_assets_tests.compute.launched.toys import environment
from crypto_assets_tests.e2e.commands import clean_environment, command

if TYPE_CHECKING:
    from crypto_assets_tests.databricks_standin import Run, Workspace

JAVA = """#!/bin/sh
echo "$@" >> {told}
exit 1
"""


@dataclass
class LaunchedHome:
    """A home and the workspace that its steps run in.

    Args:
        workspace: The stand-in.
        path: Folder of the home.
        more: Environment beside the launcher's own: topic names, brokers, secrets.
    """

    workspace: Workspace
    path: Path
    more: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dagster_home.mkdir(parents=True, exist_ok=True)
        java = self.path / "bin" / "java"
        java.parent.mkdir(exist_ok=True)
        java.write_text(JAVA.format(told=self.java_calls), encoding="utf-8")
        java.chmod(0o755)

    @property
    def dagster_home(self) -> Path:
        return self.path / "dagster"

    @property
    def java_calls(self) -> Path:
        """File that exists when a driver has started a JVM: all that a driver finds as `java` writes it."""
        return self.path / "driver-started-a-jvm"

    def environment(self) -> dict[str, str]:
        """Environment of a driver. The stand-in has an environment of its own, with the machine's Java."""
        env = {**clean_environment(), **environment(self.workspace, self.path), **self.more}
        env |= {"DAGSTER_HOME": str(self.dagster_home), "JAVA_HOME": str(self.path)}
        return env | {"PATH": f"{self.path / 'bin'}:{env['PATH']}"}

    def materialize(self, select: str, *partitions: str) -> list[Run]:
        """Materialize assets, of one partition or of the range of two, and give the runs that were submitted.

        Raises:
            AssertionError: It failed; has the end of what was said.
        """
        before = len(self.workspace.runs)
        chosen = ["--partition-range", "...".join(partitions)] if len(partitions) > 1 else []
        chosen = ["--partition", partitions[0]] if len(partitions) == 1 else chosen
        call = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "crypto_assets.definitions"]
        done = subprocess.run(
            [*call, "--select", select, *chosen],
            env=self.environment(),
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"{select}: {done.stderr[-8000:]}"
        return self.workspace.runs[before:]

    def verify(self) -> subprocess.CompletedProcess[str]:
        """`crypto-assets verify` on the lake of the workspace."""
        env = self.environment() | {"CRYPTO_ASSETS_LAKE": str(self.workspace.lake)}
        return subprocess.run(
            command("verify"), env=env, cwd=self.path, capture_output=True, text=True, timeout=300, check=False
        )

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """The Dagster instance of the drivers."""
        with dg.DagsterInstance.from_config(str(self.dagster_home)) as instance:
            yield instance

    def rows(self, table: str) -> Any:
        """A table of the workspace as Arrow."""
        from deltalake import DeltaTable

        return DeltaTable(str(self.workspace.table(table))).to_pyarrow_table()
