"""What runs by itself where tables are in a workspace: late records are restated, tables are tidied."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import timedelta

import pytest

from crypto_assets.contracts.slices import DAY, HOUR, Slice, floor_hour, key_slice
from crypto_assets_tests.e2e.commands import command
from crypto_assets_tests.e2e.launched_home import LaunchedHome
from crypto_assets_tests.home_fixtures import SmallHome
from crypto_assets_tests.orchestration.test_restatement import target, tick


def said(home: LaunchedHome, *call: str, code: int = 0) -> str:
    """What a command that must end with this exit code prints, on one line."""
    done = subprocess.run(
        call, env=home.environment(), cwd=home.path, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == code, done.stdout[-4000:] + done.stderr[-8000:]
    return re.sub(r"\s+", " ", done.stdout + done.stderr)


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["databricks", "databricks-serverless"])
def test_tables_are_tidied_in_the_workspace_by_a_launched_step(workspace, tmp_path, kind):
    from deltalake import DeltaTable

    from crypto_assets.engine.sail import SailEngine
    from crypto_assets_tests.builders import START
    from crypto_assets_tests.ml.synthetic import feature_rows, panel_of, walk

    store = SailEngine(str(workspace.lake)).store
    rows = feature_rows(panel_of(walk(21, 1, 288), START))
    for hour in (START, START + HOUR):
        span = Slice(hour, hour + HOUR)
        within = rows.filter([hour < at <= span.end for at in rows.column("window_end").to_pylist()])
        store.replace_slice("features.price_features", span, lambda within=within: within, now=START + DAY)
    table = str(workspace.table("features.price_features"))
    before = DeltaTable(table)

    home = LaunchedHome(workspace, tmp_path / "home", {"CRYPTO_ASSETS_TARGET": kind, "CRYPTO_ASSETS_SOURCE": "replay"})
    said(home, *command("coins", "list"))  # binds the home
    assert "not yet done" in said(home, *command("maintain"))
    job = [
        sys.executable,
        "-m",
        "dagster",
        "job",
        "execute",
        "-m",
        "crypto_assets.definitions",
        "-j",
        "maintain_tables",
    ]
    told = said(home, *job)
    (run,) = workspace.runs
    assert run.result_state == "SUCCESS", told[-2000:]
    assert not (home.path / "lake").exists()
    after = DeltaTable(table)
    assert "OPTIMIZE" in [h["operation"] for h in after.history(after.version() - before.version())]
    assert len(after.file_uris()) < len(before.file_uris())
    assert "last done" in said(home, *command("maintain"))


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_a_late_record_of_a_launched_step_asks_for_exactly_its_hour(workspace, publish):
    from crypto_assets.definitions import build_definitions
    from crypto_assets.home import open_home

    settings, hours = publish(2)
    home = LaunchedHome.of(workspace, settings)
    home.materialize("bronze/raw_prices,silver/prices", *hours)
    first = key_slice(hours[0], "hour").start
    arrival = first + 2 * HOUR + timedelta(minutes=10)
    driver = settings.model_copy(update={"target": "databricks"})
    with home.instance() as instance:
        here = SmallHome(driver, open_home(driver), instance, build_definitions(driver), first)
        settled = tick(here, None, "databricks")
        assert not settled.run_requests
        here.send_late(first + timedelta(minutes=20), arrival, "9999.5")
    home.materialize("bronze/raw_prices", here.hour(2))
    with home.instance() as instance:
        here = SmallHome(driver, open_home(driver), instance, build_definitions(driver), first)
        result = tick(here, settled.cursor, "databricks")
        assert target(result.run_requests[0]) == {"silver/prices": [hours[0]]}
        assert int(result.cursor) == int(settled.cursor) + 1
    home.materialize("silver/prices", hours[0])
    with home.instance() as instance:
        here = SmallHome(driver, open_home(driver), instance, build_definitions(driver), first)
        assert not tick(here, settled.cursor, "databricks").run_requests
    assert floor_hour(arrival) in home.rows("bronze.raw_prices").column("arrival_hour").to_pylist()
    assert "in catalog crypto_analytics of the workspace" in said(home, *command("status"), code=1)  # nothing serves it
    assert not (home.path / "lake").exists()
