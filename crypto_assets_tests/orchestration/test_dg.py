"""The checkout as a project of the `dg` command line: `dg list defs` reads `[tool.dg]` of pyproject.toml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crypto_assets.definitions import build_definitions
from crypto_assets.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_dg_lists_the_assets_jobs_and_checks_of_the_definitions(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("dg"), "list", "defs", "--json"]
    env = os.environ | {"DAGSTER_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    listed = json.loads(done.stdout)
    repository = build_definitions(Settings(_env_file=None, source="replay")).get_repository_def()  # type: ignore[call-arg]
    graph = repository.asset_graph
    assert {a["asset_key"] for a in listed["assets"]} == {k.to_user_string() for k in graph.get_all_asset_keys()}
    assert {j["name"] for j in listed["jobs"]} >= {"refresh", "daily"}
    assert len(listed["asset_checks"]) == len(graph.asset_check_keys)
