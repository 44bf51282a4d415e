"""The product's own assets by `dagster asset materialize`, launched on the workspace stand-in."""

from __future__ import annotations

import os
import subprocess
import sys

import dagster as dg
import pytest

from crypto_assets_tests.compute.launched.toys import environment
from crypto_assets_tests.databricks_standin import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    with Workspace(tmp_path_factory.mktemp("workspace")) as found:
        yield found
        assert found.unknown == []
        assert found.defects == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_dimension_is_materialized_in_the_workspace_alone(workspace, tmp_path):
    from deltalake import DeltaTable

    home = tmp_path / "dagster"
    home.mkdir()
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\ntouch {tmp_path}/driver-started-a-jvm\nexit 1\n")
    java.chmod(0o755)
    env = {**os.environ, **environment(workspace, tmp_path / "home"), "DAGSTER_HOME": str(home)}
    env |= {"PATH": f"{java.parent}:{env['PATH']}", "JAVA_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "gold/dim_date"]
    done = subprocess.run(
        [*command, "-m", "crypto_assets.definitions"], env=env, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-6000:]
    assert [r.result_state for r in workspace.runs] == ["SUCCESS"]
    table = DeltaTable(str(workspace.table("gold.dim_date")))
    assert table.to_pyarrow_table().num_rows > 700
    assert not (tmp_path / "home" / "lake").exists()
    assert not (tmp_path / "driver-started-a-jvm").exists()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        key = dg.AssetKey(["gold", "dim_date"])
        (record,) = instance.fetch_materializations(key, limit=5).records
        assert record.asset_materialization.metadata["dagster/row_count"].value > 700
        (check,) = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(key, "unique_key"), limit=5
        )
        assert check.evaluation.passed
    assert [p for p in workspace.dbfs.rglob("*") if p.is_file()] == []
