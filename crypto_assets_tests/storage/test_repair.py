"""A repaired table can be read, its versions never go back, nothing is deleted, and a killed repair goes on."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from deltalake import DeltaTable

from crypto_assets.contracts.tables import TABLES
from crypto_assets.storage import log_files, repair
from crypto_assets.storage.damage import Diagnosis, diagnose
from crypto_assets.storage.log_files import LogState, table_of
from crypto_assets.storage.store import DeltaStore
from crypto_assets_tests.storage.rows import BRONZE, METRICS, NOW, app_id, hour, up_to
from crypto_assets_tests.storage.test_damages import COMMITS, FATAL, filled, log, values, write

pytestmark = pytest.mark.engine("local")

__all__ = ["filled", "log"]


def repaired(path: Path) -> repair.Loss:
    """What `maintain --repair --apply` does to a derived table."""
    contract = TABLES[table_of(path)]
    found = diagnose(path) or Diagnosis(table_of(path), path, LogState(path))
    loss = repair.loss_of(found, contract)
    repair.repair_log(found, loss, NOW)
    found = diagnose(path) or Diagnosis(table_of(path), path, LogState(path))
    if any(f.problem for f in found.files):
        repair.drop_dead(found)
    repair.finish(found)
    return loss


def contents(*folders: Path) -> set[tuple[str, bytes]]:
    """Names and bytes of all files."""
    return {(f.name.split(".1")[0], f.read_bytes()) for d in folders for f in d.rglob("*") if f.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("name", FATAL)
def test_a_damaged_table_is_repaired_once_and_for_all(name: str, store: DeltaStore, log: Path, tmp_path: Path):
    damage, _ = FATAL[name]
    damage(log)
    path = log.parent
    before = {(name, data) for name, data in contents(path) if name != log_files.HINT}  # written again
    loss = repaired(path)
    assert loss.days == {"2024-01-01"}, "what is to be rebuilt is known"
    assert before <= contents(path, tmp_path / log_files.ASIDE), "nothing was deleted"
    assert diagnose(path) is None or diagnose(path).damages == []  # type: ignore[union-attr]
    assert len(values(store)) <= 1
    assert (store.version(METRICS) or 0) >= (0 if loss.everything else COMMITS)
    write(store, 77)
    assert values(store) == [77]
    assert repaired(path).is_none, "and it is repaired"
    assert values(store) == [77]


@pytest.mark.parametrize("name", ["a lost commit in the middle", "a cut checkpoint whose commits are cleaned up"])
@pytest.mark.parametrize("step", range(1, 6))
def test_a_repair_that_is_killed_goes_on(
    name: str, step: int, store: DeltaStore, log: Path, monkeypatch: pytest.MonkeyPatch
):
    """Killed at its n-th move or write of a file."""
    FATAL[name][0](log)
    path, done = log.parent, 0
    moved, written = log_files._moved, repair.write_atomic

    def killed(original):
        def maybe(*args):
            nonlocal done
            done += 1
            if done > step:
                raise KeyboardInterrupt
            return original(*args)

        return maybe

    with monkeypatch.context() as patch:
        patch.setattr(log_files, "_moved", killed(moved))
        patch.setattr(repair, "write_atomic", killed(written))
        with suppress(KeyboardInterrupt):
            repaired(path)
    loss = repaired(path)
    if done > step:
        assert loss.days == {"2024-01-01"}, "what was lost is not forgotten"
    assert not repair.unfinished(path)
    write(store, 77)
    assert values(store) == [77]


def test_readers_that_know_the_table_up_to_a_version_see_what_was_touched(store: DeltaStore):
    for end in (2, 5):
        store.append_once(BRONZE, hour(), app_id(), up_to(end))
    path = Path(store.path(BRONZE))  # type: ignore[attr-defined]
    (path / "_delta_log" / f"{2:020d}.json").write_bytes(b"")
    loss = repaired_log(path)
    assert loss.hours == {"2024-01-01-05:00"}
    (commit,) = store.commits_after(BRONZE, 1, 10)
    assert (commit.version, commit.operation) == (2, repair.OPERATION)
    assert json.loads(commit.metadata["touched_hours"]) == ["2024-01-01-05:00"]
    assert store.append_once(BRONZE, hour(), app_id(), up_to(5)).rows == 3
    assert store.version(BRONZE) == 3


def repaired_log(path: Path) -> repair.Loss:
    found = diagnose(path)
    assert found is not None
    loss = repair.loss_of(found, TABLES[table_of(path)])
    repair.repair_log(found, loss, NOW)
    return loss


def test_a_checkpoint_is_written_again(store: DeltaStore, log: Path):
    (log / log_files.HINT).write_bytes(b"[]")
    for name in log.glob("*.checkpoint.parquet"):
        name.write_bytes(b"")
    assert repaired(log.parent).is_none
    assert json.loads((log / log_files.HINT).read_text())["version"] == COMMITS - 20
    assert DeltaTable(str(log.parent)).version() == COMMITS
    assert values(store) == [COMMITS]


def test_a_sound_table_is_left_as_it_is(store: DeltaStore, log: Path, tmp_path: Path):
    found = diagnose(log.parent)
    assert found is not None
    assert found.damages == []
    assert found.readable_to == COMMITS
    assert not (tmp_path / log_files.ASIDE).exists()
