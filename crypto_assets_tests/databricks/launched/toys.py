"""Launching the toy steps on the stand-in, in this process, on a real Dagster instance."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.execution.api import execute_job
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from crypto_assets.settings import load_settings

if TYPE_CHECKING:
    from crypto_assets_tests.databricks_standin import Workspace

FOLDER = Path(__file__).parent
VOLUME = "/Volumes/crypto_analytics/ops/staging"
DBFS = "tmp/crypto_assets"
TOY = dg.AssetKey(["ml", "toy"])
PLAIN = dg.AssetKey(["ml", "plain"])


@dataclass
class Toys:
    """The toy location against a workspace.

    Attributes:
        workspace: The stand-in.
        instance: Dagster instance of the driver.
        monkeypatch: Sets the driver's environment.
    """

    workspace: Workspace
    instance: dg.DagsterInstance
    monkeypatch: pytest.MonkeyPatch

    def configure(self, home: Path, **more: str) -> None:
        """Set the driver's environment."""
        values = {**environment(self.workspace, home), **more}
        for name, value in values.items():
            self.monkeypatch.setenv(name, value)

    def staged(self) -> list[Path]:
        """Files and folders that lie below the place of staging."""
        return sorted(p for place in (self.volume, self.workspace.dbfs / DBFS) for p in place.glob("*"))

    @property
    def volume(self) -> Path:
        """Folder of the volume that steps are staged in."""
        return self.workspace.volumes / "crypto_analytics" / "ops" / "staging"

    def uploaded(self) -> dict[str, bytes]:
        """What was uploaded for the last step, by file name; all of it lay below the place of staging."""
        uploads = [u for u in self.workspace.uploads if "/probe-" not in u.path]
        assert {u.path.rsplit("/", 3)[0] for u in uploads} <= {VOLUME, f"/{DBFS}"}
        return {u.path.rsplit("/", 1)[-1]: u.data for u in uploads}

    def keep_staging(self, folder: Path) -> Path:
        """Copy what is staged into a folder before it is removed at the end of a launch."""
        from crypto_assets.databricks.launcher.step_launcher import StepLauncher

        remove = StepLauncher._remove_staging

        def copied(launcher: StepLauncher, *args: Any) -> None:
            shutil.copytree(self.volume, folder, dirs_exist_ok=True)
            remove(launcher, *args)

        self.monkeypatch.setattr(StepLauncher, "_remove_staging", copied)
        return folder

    def launch(
        self,
        *,
        plan: str = "",
        keys: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        launcher: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> dg.ExecuteJobResult:
        """Materialize the plain toy, or with keys the hourly one."""
        load_settings.cache_clear()
        for name in [m for m in sys.modules if m.startswith("toy_assets")]:
            del sys.modules[name]
        # The working directory of this machine must not be asked for on the other side.
        repository = ReconstructableRepository.for_module("toy_assets.definitions", "defs", str(FOLDER))
        job = ReconstructableJob(repository, "__ASSET_JOB")
        tags = {ASSET_PARTITION_RANGE_START_TAG: keys[0], ASSET_PARTITION_RANGE_END_TAG: keys[-1]} if keys else {}
        if len(keys) == 1:
            tags = {"dagster/partition": keys[0]}
        given = {"env_variables": {"TOY_PLAN": plan, **(env or {})}, **(launcher or {})}
        config: dict[str, Any] = {"resources": {"step_launcher": {"config": {"overrides": given}}}}
        if options:
            config["ops"] = {"toy_hourly" if keys else "toy_plain": {"config": dict(options)}}
        return execute_job(
            job,
            instance=self.instance,
            asset_selection=[TOY if keys else PLAIN],
            tags=tags,
            run_config=config,
            raise_on_error=False,
        )


def environment(workspace: Workspace, home: Path) -> dict[str, str]:
    """What a driver of the stand-in is configured with."""
    return {
        "CRYPTO_ASSETS_TARGET": "databricks",
        "CRYPTO_ASSETS_HOME": str(home),
        "DATABRICKS_HOST": workspace.host,
        "DATABRICKS_TOKEN": workspace.token,
        "CRYPTO_ASSETS_DATABRICKS_NODE_TYPE": "m5d.large",
        "CRYPTO_ASSETS_DATABRICKS_POLL_S": "0.2",
    }


def failure(result: dg.ExecuteJobResult) -> Any:
    """The one failure of a run: its `StepFailureData`."""
    (event,) = [e for e in result.all_events if e.is_step_failure]
    return event.step_failure_data


def logged(toys: Toys, result: dg.ExecuteJobResult) -> str:
    """Every event and message of a run."""
    return repr([r.event_log_entry for r in toys.instance.get_records_for_run(result.run_id).records])


def failure_metadata(result: dg.ExecuteJobResult) -> dict[str, Any]:
    """Metadata of the one failure, as plain values."""
    return {k: v.value for k, v in failure(result).user_failure_data.metadata.items()}
