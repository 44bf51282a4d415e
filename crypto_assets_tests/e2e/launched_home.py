"""A home whose steps are launched on a workspace stand-in by `dagster asset materialize`, each a process of its own.

Every driver is watched: none may start a JVM, and the watching itself must have seen the driver and its steps.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from crypto_assets_tests.databricks.launched.toys import environment
from crypto_assets_tests.e2e.commands import clean_environment, command
from crypto_assets_tests.e2e.drivers import watched

if TYPE_CHECKING:
    from crypto_assets.settings import Settings
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

    Attributes:
        jvms: Command lines of the JVMs that drivers started, whichever java they took.
    """

    workspace: Workspace
    path: Path
    more: Mapping[str, str] = field(default_factory=dict)
    jvms: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dagster_home.mkdir(parents=True, exist_ok=True)
        java = self.path / "bin" / "java"
        java.parent.mkdir(exist_ok=True)
        java.write_text(JAVA.format(told=self.java_calls), encoding="utf-8")
        java.chmod(0o755)

    @classmethod
    def of(cls, workspace: Workspace, settings: Settings, **more: str) -> LaunchedHome:
        """The home of these settings, with their topics and first partition."""
        assert settings.partitions_start is not None
        assert settings.kafka_bootstrap_servers is not None
        given = {
            "CRYPTO_ASSETS_PARTITIONS_START": settings.partitions_start.isoformat(),
            "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
            "KAFKA_TOPIC": settings.prices_topic,
            "KAFKA_POLLS_TOPIC": settings.polls_topic,
        }
        return cls(workspace, settings.home, {**given, **more})

    @property
    def dagster_home(self) -> Path:
        return self.path / "dagster"

    @property
    def java_calls(self) -> Path:
        """What the `java` on a driver's path writes: each call of it, however short."""
        return self.path / "driver-called-java"

    def environment(self) -> dict[str, str]:
        """Environment of a driver. The stand-in has an environment of its own, with the machine's Java."""
        env = {**clean_environment(), **environment(self.workspace, self.path)}
        env |= {"CRYPTO_ASSETS_DATABRICKS_CONCURRENT_STEPS": "2", "CRYPTO_ASSETS_DATABRICKS_POLL_S": "0.5", **self.more}
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
        with (
            tempfile.TemporaryDirectory(prefix="driver-") as temporary,  # short: sockets lie in it
            subprocess.Popen(
                [*call, "--select", select, *chosen],
                env=self.environment() | {"TMPDIR": temporary},
                cwd=self.path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as driver,
            watched(driver) as seen,
        ):
            try:
                said = driver.communicate(timeout=900)[1]
            except BaseException:
                driver.kill()
                raise
            left = [path.name for path in Path(temporary).glob("crypto-assets-*")]
        assert driver.returncode == 0, f"{select}: {said[-8000:]}"
        assert left == [], "what was gathered to be shipped stayed behind"
        lines = list(seen.processes.values())
        assert [line for line in lines if "asset materialize" in line], "the driver was not seen"
        assert [line for line in lines if "multiprocessing" in line], "no process of a step was seen"
        self.jvms += seen.jvms
        if self.java_calls.exists():
            self.jvms += self.java_calls.read_text(encoding="utf-8").splitlines()
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


def staged(workspace: Workspace) -> list[Path]:
    """What lies in the volume beside wheels: at the end of a launch, however it ended, nothing."""
    volume = workspace.volumes / "crypto_analytics" / "ops" / "staging"
    return [path for path in volume.rglob("*") if path.is_file() and path.suffix != ".whl"]
