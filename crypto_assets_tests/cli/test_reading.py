"""Commands that only read leave no trace: no home where there is none, and nothing changed in the one that is there."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from crypto_assets.cli.instance import open_instance
from crypto_assets.home import existing_home, first_day, in_force, open_home
from crypto_assets.settings import Settings
from crypto_assets_tests.cli.commands import invoke, one_line

READING = (
    "status",
    "prices",
    "query",
    "alerts",
    "doctor",
    "maintain",
    "coins list",
    "broker status",
    "backfill --dry-run",
)
NEEDS_A_HOME = (*(c for c in READING if c != "doctor"), "verify", "parity", "ui", "broker stop")
SIDE_FILES = ("-wal", "-shm", "-journal")
"""SQLite makes them beside a database that is opened, also for reading."""


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file and folder, but for SQLite's side files and the folders that hold them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name.endswith(SIDE_FILES):
            continue
        facts = path.stat()
        holds = path.is_dir() and any(p.suffix == ".db" for p in path.iterdir())
        found[str(path.relative_to(folder))] = (0, 0) if holds else (facts.st_size, facts.st_mtime_ns)
    return found


@pytest.mark.parametrize("command", NEEDS_A_HOME)
def test_without_a_home_they_make_none(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    name, *flags = command.split(" --")
    done = invoke(name, *(f"--{flag}" for flag in flags))
    assert "there is no home at" in one_line(done)
    assert "crypto-assets up" in done.stderr
    assert done.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_doctor_makes_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert invoke("doctor").exit_code == 0
    assert not list(tmp_path.iterdir())


def test_loading_the_definitions_makes_no_home(tmp_path: Path):
    from crypto_assets.settings import environment

    root = str(Path(__file__).parents[2])
    variables = {**environment(), "CRYPTO_ASSETS_SOURCE": "coingecko", "PYTHONPATH": root}
    code = "import crypto_assets.definitions as d; print(len(d.defs.resolve_asset_graph().get_all_asset_keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert int(done.stdout) > 15
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("storage", [False, True], ids=["before its first run", "with Dagster's storage"])
@pytest.mark.parametrize("command", READING)
def test_they_change_nothing_in_a_home(command: str, storage: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings(source="simulator", home_path=tmp_path / "home", partitions_start=date(2024, 5, 1))
    bound = open_home(settings)
    if storage:
        with open_instance(bound):
            pass
        invoke("status", "--home", str(bound.path))  # what Dagster itself does once, on first opening
    before = _tree(tmp_path)
    name, *flags = command.split(" --")
    done = invoke(name, "--home", str(bound.path), *(f"--{flag}" for flag in flags))
    assert done.exit_code in (0, 1, 3), done.output
    assert _tree(tmp_path) == before


def test_homes_that_are_here_are_named_with_the_flag_that_opens_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    open_home(Settings(source="simulator", home_path=Path(".crypto_assets/demo-simulator")))
    for command in ("status", "verify", "alerts"):
        assert "--home .crypto_assets/demo-simulator" in one_line(invoke(command))


@pytest.mark.parametrize("by", ["--home", "the environment", ".env"])
def test_another_first_day_than_the_home_has_is_refused_however_it_is_said(by, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bound = open_home(Settings(source="simulator", home_path=tmp_path / "home", partitions_start=date(2024, 5, 1)))
    if by == ".env":
        monkeypatch.setitem(Settings.model_config, "env_file", ".env")
        (tmp_path / ".env").write_text(
            f"CRYPTO_ASSETS_HOME={bound.path}\nCRYPTO_ASSETS_SOURCE=simulator\nCRYPTO_ASSETS_PARTITIONS_START=2025-01-01\n"
        )
    else:
        monkeypatch.setenv("CRYPTO_ASSETS_PARTITIONS_START", "2025-01-01")
    if by == "the environment":
        monkeypatch.setenv("CRYPTO_ASSETS_HOME", str(bound.path))
    done = invoke("alerts", *(["--home", str(bound.path)] if by == "--home" else []))
    line = one_line(done)
    assert done.exit_code == 2
    assert "2024-05-01" in line
    assert "CRYPTO_ASSETS_PARTITIONS_START says 2025-01-01" in line


def test_a_home_of_the_environment_brings_what_it_is_bound_to(tmp_path, monkeypatch):
    open_home(Settings(source="simulator", home_path=tmp_path / "home", transport="landing"))
    monkeypatch.setenv("CRYPTO_ASSETS_HOME", str(tmp_path / "home"))
    settings = in_force(Settings())
    assert (settings.source, settings.transport) == ("simulator", "landing")
    monkeypatch.setenv("CRYPTO_ASSETS_SOURCE", "replay")
    assert "it holds simulator data" in one_line(invoke("alerts"))
    assert "Bound" not in invoke("coins list", "--home", str(tmp_path / "home")).stderr  # the flag is nearer


def test_a_live_home_begins_the_day_before_its_first_use(tmp_path):
    live = Settings(source="coingecko", home_path=tmp_path / "live")
    before = datetime.now(UTC) - timedelta(days=1)
    bound = open_home(live)
    assert before.date() <= bound.partitions_start <= (datetime.now(UTC) - timedelta(days=1)).date()
    assert first_day(live) == existing_home(live).partitions_start == bound.partitions_start
    chosen = Settings(source="coingecko", home_path=tmp_path / "chosen", partitions_start=date(2024, 1, 1))
    assert open_home(chosen).partitions_start == date(2024, 1, 1)
    for source in ("replay", "simulator"):
        assert open_home(Settings(source=source, home_path=tmp_path / source)).partitions_start == date(2024, 1, 1)


def test_every_process_of_a_home_has_its_first_day(tmp_path):
    from crypto_assets.cli.instance import child_environment
    from crypto_assets.databricks.launcher.launcher_config import environment
    from crypto_assets.wiring import build_definitions

    live = Settings(source="coingecko", home_path=tmp_path / "live", partitions_start=date(2026, 5, 1))
    bound = open_home(live)
    unsaid = in_force(Settings(source="coingecko", home_path=tmp_path / "live"))
    assert environment(unsaid)["CRYPTO_ASSETS_PARTITIONS_START"] == "2026-05-01"
    assert child_environment(unsaid, bound, automation=False)["CRYPTO_ASSETS_PARTITIONS_START"] == "2026-05-01"
    graph = build_definitions(Settings(source="coingecko", home_path=tmp_path / "live")).resolve_asset_graph()
    partitions = next(d for n in graph.asset_nodes if (d := n.partitions_def) is not None)
    assert partitions.get_first_partition_key().startswith("2026-05-01")


def test_a_launched_step_must_be_given_the_first_day():
    with pytest.raises(Exception, match="CRYPTO_ASSETS_PARTITIONS_START is not set"):
        first_day(Settings(source="coingecko", role="remote"))
