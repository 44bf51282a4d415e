"""The workspace stand-in and the toy location, for tests of launching."""

from __future__ import annotations

import dagster as dg
import pytest

from crypto_assets.settings import load_settings
from crypto_assets_tests.databricks.launched.toys import Toys
from crypto_assets_tests.databricks_standin import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, jvms):
    with Workspace(tmp_path_factory.mktemp("workspace"), jvms=jvms) as found:
        found.volumes_api.create("crypto_analytics.ops.staging")
        yield found
        assert found.unknown == []
        assert found.defects == []


@pytest.fixture
def toys(workspace, tmp_path, monkeypatch):
    workspace.faults.clear()
    workspace.uploads.clear()
    workspace.secrets.clear()
    workspace.volumes_api.read_only.clear()
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        found = Toys(workspace, instance, monkeypatch)
        found.configure(tmp_path / "home")
        yield found
        load_settings.cache_clear()
        assert workspace.faults.pending == 0
        assert found.staged() == [], "whatever came of a launch, nothing of it stays"
