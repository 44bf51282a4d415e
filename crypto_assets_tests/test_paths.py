"""Homes in folders of any name: every part works in it, or the folder is refused by name before anything is written."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from datetime import date
from pathlib import Path

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crypto_assets import paths
from crypto_assets.cli.instance import open_instance
from crypto_assets.engine.base import Engine
from crypto_assets.engine.sail import STAGE_ABOVE_BYTES, SailEngine
from crypto_assets.home import Home, HomeError, open_home
from crypto_assets.ml import registry
from crypto_assets.ml.baselines import PRICE_5M, REGISTERED
from crypto_assets.settings import Settings
from crypto_assets.verify import delta
from crypto_assets_tests.e2e.commands import run
from crypto_assets_tests.storage.rows import FIVE, METRICS, NOW, hour, metrics

GOOD = [
    "a b",
    "josé",
    "日本 😀",
    "jose\u0301",
    "a#b",
    "100% mine",
    "a,b",
    "a&b=c;d",
    "a*b{c}",
    'it\'s "x" $HOME ${y}:z ~',
]
"""Names in which everything works."""
BAD = {
    "a%20b": "'%20'",
    "a?b": r"'\?'",
    "a[b]": r"'\[', '\]'",
    "a|b^c": r"'\|', '\^'",
    "a\\b": r"'\\'",
    "a\nb": r"'\\n'",
    "a\x7fb": r"'\\x7f'",
    os.fsdecode(b"caf\xe9"): r"'\\udce9'",
    f"{'x' * 250}/{'y' * 250}": "bytes",
}
"""Names that some part cannot take, and how the message names what it holds."""


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["home_path", "lake_uri"])
@pytest.mark.parametrize("name", [n for n in BAD if n != "a?b" and "/" not in n])
def test_a_folder_that_a_part_cannot_open_is_refused_and_nothing_is_written(tmp_path, setting, name):
    chosen = {"home_path": tmp_path / "h", setting: str(tmp_path / name / "h")}
    with pytest.raises(HomeError, match=f"cannot be .*: its path has {BAD[name]} .*CRYPTO_ASSETS_"):
        open_home(Settings(**chosen))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a?b", f"{'x' * 250}/{'y' * 250}"])
def test_what_sqlite_cannot_open_is_refused_for_a_home(tmp_path, name):
    with pytest.raises(HomeError, match=f"its path has .*{BAD[name]}.*SQLite"):
        open_home(Settings(home_path=tmp_path / name))
    assert list(tmp_path.iterdir()) == []


def test_a_home_of_today_in_such_a_folder_is_refused_too_and_named_with_the_setting(tmp_path):
    home = tmp_path / "plain"
    open_home(Settings(home_path=home))
    moved = home.rename(tmp_path / "50%25")
    with pytest.raises(HomeError, match=r"the home cannot be .*50%25: its path has '%25' .*CRYPTO_ASSETS_HOME"):
        open_home(Settings(home_path=moved))


def test_where_a_link_leads_counts(tmp_path):
    (tmp_path / "a[1]").mkdir()
    (tmp_path / "plain").symlink_to(tmp_path / "a[1]")
    with pytest.raises(HomeError, match=r"it leads to .*a\[1\]/h: its path has '\[', '\]'"):
        open_home(Settings(home_path=tmp_path / "plain" / "h"))
    (tmp_path / "good").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "good")
    assert open_home(Settings(home_path=tmp_path / "link" / "h")).path == tmp_path / "link" / "h"


@pytest.mark.slow
@pytest.mark.parametrize("command", [("demo",), ("broker", "start"), ("produce", "--once")])
def test_commands_refuse_the_working_folder_in_one_line_and_write_nothing(tmp_path, command):
    folder = tmp_path / "50%20 off"
    folder.mkdir()
    done = run(folder, *command)
    assert done.returncode == 2
    said = " ".join((done.stdout + done.stderr).split())
    assert "its path has '%20'" in said
    assert "Traceback" not in said
    assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == [folder]


def test_an_engine_refuses_a_lake_that_it_would_mistake_for_another(tmp_path):
    with pytest.raises(ValueError, match=r"the lake cannot be .*a%20b/lake: its path has '%20'"):
        SailEngine(str(tmp_path / "a%20b" / "lake"))


# --- settings -----------------------------------------------------------------------------------------------------


def test_paths_of_settings_are_absolute_and_know_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "josé"))
    given = Settings(home_path=Path("~/h"), lake_uri="lake", landing_path=Path("~/landed"))
    assert given.home == tmp_path / "josé" / "h"
    assert given.lake == str(tmp_path / "lake")
    assert given.landing == tmp_path / "josé" / "landed"
    assert Settings(lake_uri="s3://bucket/lake").lake == "s3://bucket/lake"
    assert Settings(home_path="", landing_path="", lake_uri="", source="replay").home == (
        tmp_path / ".crypto_assets" / "replay"
    )


# --- every part in odd folders ------------------------------------------------------------------------------------


@pytest.mark.engine("local", "spark")
@pytest.mark.parametrize("name", GOOD)
def test_tables_are_written_read_and_tidied(make_engine, tmp_path, name):
    engine: Engine = make_engine(tmp_path / name / "lake")
    for values in ([1, 2], [3, 4]):
        engine.store.replace_slice(METRICS, hour(), lambda values=values: metrics(FIVE, values), now=NOW)
    assert sorted(r["value"] for r in engine.store.read(METRICS).collect()) == [3, 4]
    assert sorted(r["value"] for r in engine.store.read(METRICS, version=1).collect()) == [1, 2]
    assert engine.store.read_arrow(METRICS).num_rows == 2
    told = engine.store.maintain(METRICS, as_of=NOW, closed_before=NOW, dry_run=True)
    assert told["exists"]
    assert told["files"] == 1
    assert told.get("unreferenced_files", 1) == 1  # the slice that was replaced
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert [p.name for p in (tmp_path / name).iterdir()] == ["lake"]


@pytest.mark.engine("local")
def test_staged_rows_and_links_need_no_plain_folder_for_temporary_files(tmp_path, monkeypatch):
    odd = tmp_path / "tmp é #1"
    odd.mkdir()
    code = (
        "import sys, pyarrow as pa\nfrom pathlib import Path\nfrom crypto_assets import paths\n"
        "from crypto_assets.engine.sail import SailEngine\n"
        f"rows = pa.table({{'n': pa.array(range({STAGE_ABOVE_BYTES // 8 + 1}), pa.int64())}})\n"
        "print(SailEngine(sys.argv[1]).frame(rows).count())\nprint(paths.private_folder())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(odd / "lake")],
        env={**os.environ, "TMPDIR": str(odd)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count, folder = done.stdout.splitlines()
    assert int(count) == STAGE_ABOVE_BYTES // 8 + 1
    assert not folder.startswith(str(odd))
    assert not Path(folder).exists(), "what a process staged is gone with it"


def test_no_folder_for_links_is_named_with_the_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "é"))
    monkeypatch.setattr(paths.os, "access", lambda *_: False)
    monkeypatch.setattr(paths, "_private", [])
    with pytest.raises(ValueError, match=r"no folder for temporary files can be used .*set TMPDIR"):
        paths.plain(str(tmp_path / "josé"))


@pytest.mark.parametrize("name", GOOD)
def test_the_dagster_instance_lies_in_the_home(tmp_path, name):
    home = Home(tmp_path / name / "h", "replay", date(2024, 1, 1))

    @dg.asset
    def toy() -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", "")
        with open_instance(home) as instance:
            quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
            assert dg.materialize([toy], instance=instance, run_config=quiet).success
        with open_instance(home) as instance:
            assert instance.get_latest_materialization_event(dg.AssetKey("toy")) is not None
            assert instance.get_runs_count() == 1
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert {p.parent.name for p in home.path.rglob("*.db")} == {"history", "runs", "schedules"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["100% mine", GOOD[-1]])
def test_a_version_is_registered_in_the_home_from_a_working_folder_of_the_name(tmp_path, monkeypatch, name):
    home = tmp_path / name / "h"
    home.mkdir(parents=True)
    monkeypatch.chdir(home.parent)
    uri = Settings(home_path=home).tracking_uri
    store = registry.Store(uri, uri, "mlflow/artifacts", str(home))
    place, _sha256, run_id = registry.log_version(
        store, PRICE_5M, "1", parameters={"lower": -1.0}, estimator=None, metrics={}, tags={}
    )
    assert (home / place / "parameters.json").is_file()
    assert store.client().get_run(run_id).info.status == "FINISHED"
    assert [v.tags["version"] for v in store.client().search_model_versions(f"name='{REGISTERED[PRICE_5M]}'")] == ["1"]
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert [p.name for p in (tmp_path / name).iterdir()] == ["h"]
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as database:
        assert not [line for line in database.iterdump() if str(tmp_path) in line]


@pytest.mark.parametrize("name", [*GOOD, "a?b", "a[0-9]"])
def test_the_audit_reads_the_files_of_its_lake_alone(tmp_path, name):
    """`a*b` is a pattern that `axxb` fits."""
    for folder, value in ((name, 1), ("axxb", 2), ("axb", 3), ("a5", 4)):
        (tmp_path / folder).mkdir(exist_ok=True)
        pq.write_table(pa.table({"v": [value]}), tmp_path / folder / "part.parquet")
    snapshot = delta.Snapshot(0, {"part.parquet": {}}, columns={"v": "long"})
    with duckdb.connect() as connection:
        delta.create_view(connection, "t", tmp_path / name, snapshot)
        assert connection.execute("SELECT v FROM t").fetchall() == [(1,)]
