"""`maintain --repair` on a home with a real log: rehearsed, done, and proved by the audit."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from crypto_assets.cli import repair, verify
from crypto_assets.cli.main import app
from crypto_assets.home import HomeError
from crypto_assets.storage import log_files
from crypto_assets.storage.base import StorageError
from crypto_assets_tests.home_fixtures import SmallHome

pytestmark = pytest.mark.kafka

BRONZE, POLLS, BARS = "bronze.raw_prices", "ops.polls", "gold.bars_1h"


def folder(home: SmallHome, table: str) -> Path:
    return home.home.path.joinpath("lake", *table.split("."))


def files_of(home: SmallHome, table: str, hour: str) -> list[Path]:
    """Data files of an arrival hour."""
    text = f"{hour[:10]}%20{hour[11:13]}%3A00"
    return sorted(f for f in folder(home, table).rglob("*.parquet") if text in str(f))


def everything_in(path: Path) -> dict[str, int]:
    return {str(f.relative_to(path)): f.stat().st_size for f in path.rglob("*") if f.is_file()}


def repaired(home: SmallHome, capsys: pytest.CaptureFixture[str], *, apply: bool) -> tuple[int, dict[str, dict]]:
    capsys.readouterr()
    code = repair.run(home.settings, now=datetime.now(UTC), apply=apply, as_json=True)
    return code, {row["table"]: row for row in json.loads(capsys.readouterr().out)}


@pytest.mark.slow
def test_damages_are_named_rehearsed_repaired_and_nothing_is_missing_afterwards(
    small_home: SmallHome, capsys: pytest.CaptureFixture[str]
):
    before = small_home.everything()
    lost, cut = files_of(small_home, BRONZE, small_home.hour(1)), files_of(small_home, BRONZE, small_home.hour(26))
    for file in lost:
        file.unlink()
    os.truncate(cut[0], 100)
    polls = folder(small_home, POLLS) / "_delta_log"
    newest = max(polls.glob("*.json"))
    newest.write_bytes(b"")
    (folder(small_home, "silver.prices") / "_delta_log" / log_files.HINT).write_bytes(b'{"version":')
    (bars,) = {f for f in folder(small_home, BARS).rglob("*.parquet") if small_home.days[1] in str(f)} & live(
        small_home, BARS
    )
    bars.unlink()
    with pytest.raises(StorageError, match=rf"{BRONZE} is damaged.*maintain --repair"):
        small_home.engine.store.read_arrow(BRONZE, columns=["raw_json"])

    kept = everything_in(small_home.home.path / "lake")
    code, told = repaired(small_home, capsys, apply=False)
    assert code == 1
    assert everything_in(small_home.home.path / "lake") == kept, "a rehearsal changes nothing"
    assert set(told) == {BRONZE, POLLS, BARS, "silver.prices"}
    assert [told[t]["lost"] for t in (BRONZE, POLLS, "silver.prices")] == ["nothing"] * 3
    assert lost[0].name in told[BRONZE]["damage"]
    assert f"{cut[0].name} has 100 of" in told[BRONZE]["damage"]
    assert f"{newest.name} is empty" in told[POLLS]["damage"]
    assert told[BARS]["then"] == f"crypto-assets backfill {small_home.days[1]}"

    code, done = repaired(small_home, capsys, apply=True)
    assert code == 0
    assert [row for row in done.values() if row["failed"]] == []
    assert cut[0].name in {f.name for f in (small_home.home.path / log_files.ASIDE / BRONZE).rglob("*")}
    assert repaired(small_home, capsys, apply=False) == (0, {})
    small_home.run("gold/bars_1h", [h for h in small_home.hours if h.startswith(small_home.days[1])])
    after = small_home.everything()
    assert [name for name in before if before[name] != after[name]] == []
    assert verify.run(small_home.settings, now=datetime.now(UTC), as_json=True) == 0, capsys.readouterr().out


def live(home: SmallHome, table: str) -> set[Path]:
    """Data files of the table's present version."""
    from crypto_assets.storage.damage import diagnose

    found = diagnose(folder(home, table))
    assert found is not None
    return {folder(home, table) / f.file for f in found.files}


def test_nothing_is_repaired_while_the_home_is_served(small_home: SmallHome):
    with small_home.home.lock("serve", doing="up"), pytest.raises(HomeError, match="in use by process"):
        repair.run(small_home.settings, now=datetime.now(UTC), apply=True, as_json=True)


def test_the_command_says_that_nothing_is_damaged(small_home: SmallHome, monkeypatch: pytest.MonkeyPatch):
    done = CliRunner().invoke(app, ["maintain", "--repair", "--home", str(small_home.home.path)])
    assert (done.exit_code, "nothing to repair" in done.output) == (0, True), done.output
