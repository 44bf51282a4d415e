"""A damaged hint or checkpoint costs nothing; what is really damaged is an error that names table, file and repair."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable

from crypto_assets.contracts.slices import HOUR
from crypto_assets.engine.sail import SailEngine
from crypto_assets.storage import attempts, checkpoints, damage, log_files
from crypto_assets.storage.base import StorageError
from crypto_assets.storage.store import DeltaStore
from crypto_assets_tests.storage.rows import BRONZE, FIVE, METRICS, NOW, app_id, hour, metrics, up_to

COMMITS = 33
"""Version 0 creates the table, 1 to 33 write one hour again and again; the checkpoint is at 10."""
CHECKPOINT = "00000000000000000010.checkpoint.parquet"
NEWEST, MIDDLE = f"{COMMITS:020d}.json", f"{20:020d}.json"
SIX = FIVE + HOUR

Damage = Callable[[Path], object]


def write(store: DeltaStore, value: float) -> None:
    store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, [value]), now=NOW)


def values(store: DeltaStore) -> list[float]:
    return store.read_arrow(METRICS, columns=["value"]).column(0).to_pylist()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with one table of many commits, to be copied."""
    lake = tmp_path_factory.mktemp("filled") / "lake"
    store = SailEngine(str(lake), None).store
    for value in range(1, COMMITS + 1):
        write(store, value)
    log = lake / "ops" / "pipeline_metrics" / "_delta_log"
    assert (log / CHECKPOINT).exists()
    return lake


@pytest.fixture
def log(filled: Path, tmp_path: Path) -> Path:
    """Log folder of a copy in the lake of the fixture `store`."""
    shutil.copytree(filled, tmp_path / "lake")
    return tmp_path / "lake" / "ops" / "pipeline_metrics" / "_delta_log"


def hint(content: bytes) -> Damage:
    return lambda log: (log / log_files.HINT).write_bytes(content)


def cut(name: str, size: int) -> Damage:
    return lambda log: os.truncate(log / name, size)


def gone(name: str) -> Damage:
    return lambda log: (log / name).unlink()


def several(*damages: Damage) -> Damage:
    return lambda log: [damage(log) for damage in damages]


def a_folder(log: Path) -> None:
    (log / log_files.HINT).unlink()
    (log / log_files.HINT).mkdir()


def half_a_checkpoint(log: Path) -> None:
    shutil.copy(log / CHECKPOINT, log / "00000000000000000020.checkpoint.0000000001.0000000002.parquet")
    hint(b'{"version":20,"size":3,"parts":2}')(log)


def litter(log: Path) -> None:
    """What killed writers, file managers and other engines leave behind."""
    for name in (".DS_Store", "_commit_1.json.tmp", f"{NEWEST}.tmp", f"{COMMITS:020d}.crc", "notes.json", "x.parquet"):
        (log / name).write_bytes(b"\x00{")
    (log / f"{COMMITS + 1:020d}.json.d").mkdir()


HARMLESS: dict[str, Damage] = {
    "an empty hint": hint(b""),
    "half a hint": hint(b'{"version":'),
    "a hint that is null": hint(b"null"),
    "a hint without a version": hint(b'{"size":1}'),
    "a hint that is a list": hint(b"[]"),
    "a binary hint": hint(b"\xff\x00PAR1"),
    "a hint to text": hint(b'{"version":"10","size":1}'),
    "a hint below zero": hint(b'{"version":-1,"size":1}'),
    "a hint nested too deeply": hint(b"[" * 100_000),
    "a hint to a version without checkpoint": hint(b'{"version":7,"size":1}'),
    "a hint to a later version without checkpoint": hint(b'{"version":30,"size":1}'),
    "a hint that is newer than the log": hint(b'{"version":99,"size":1}'),
    "a hint that is a folder": a_folder,
    "no hint": gone(log_files.HINT),
    "a cut checkpoint": cut(CHECKPOINT, 3000),
    "an empty checkpoint": cut(CHECKPOINT, 0),
    "a lost checkpoint": gone(CHECKPOINT),
    "a cut checkpoint without hint": several(cut(CHECKPOINT, 3000), gone(log_files.HINT)),
    "a cut checkpoint and an empty hint": several(cut(CHECKPOINT, 3000), hint(b"")),
    "a part of a checkpoint": half_a_checkpoint,
    "litter": litter,
    "old commits that the checkpoint replaces": lambda log: [(log / f"{v:020d}.json").unlink() for v in range(10)],
}


@pytest.mark.slow
@pytest.mark.engine("local")
@pytest.mark.parametrize("name", HARMLESS)
def test_what_the_commits_make_up_for_stops_nothing(name: str, store: DeltaStore, log: Path):
    HARMLESS[name](log)
    assert store.version(METRICS) == COMMITS
    assert values(store) == [COMMITS]
    assert store.read(METRICS).count() == 1
    for value in range(COMMITS + 1, 41):  # the checkpoint that is due at 40 is written as usual
        write(store, value)
    assert values(store) == [40]
    assert checkpoints.last(str(log.parent)) == 20
    assert log_files.inspect(log.parent, thorough=True).damages == []
    assert DeltaTable(str(log.parent)).version() == 40


@pytest.mark.parametrize("name", ["a hint that is newer than the log", "a cut checkpoint", "half a hint"])
def test_every_store_reads_and_writes_on(name: str, store: DeltaStore, log: Path):
    HARMLESS[name](log)
    assert store.read(METRICS).count() == 1
    write(store, 77)
    assert values(store) == [77]


def test_what_was_damaged_is_kept_beside_the_lake(store: DeltaStore, log: Path, tmp_path: Path):
    cut(CHECKPOINT, 3000)(log)
    assert values(store) == [COMMITS]
    kept = tmp_path / log_files.ASIDE / METRICS / "_delta_log"
    assert sorted(f.name for f in kept.iterdir()) == [CHECKPOINT, log_files.HINT]


def first_lines(name: str, lines: int) -> Damage:
    def damage(log: Path) -> None:
        text = (log / name).read_bytes().splitlines(keepends=True)
        (log / name).write_bytes(b"".join(text[:lines]))

    return damage


def data_file(log: Path) -> Path:
    """The live data file of the table."""
    return Path(DeltaTable(str(log.parent)).file_uris()[0].removeprefix("file://"))


FATAL: dict[str, tuple[Damage, str]] = {
    "a torn newest commit": (cut(NEWEST, 300), f"{NEWEST} is cut or no JSON"),
    "a newest commit of zero bytes": (cut(NEWEST, 0), f"{NEWEST} is empty"),
    "a newest commit torn between two lines": (first_lines(NEWEST, 1), f"{NEWEST} is cut: it lists 0 of 1 added"),
    "a commit in the middle of zero bytes": (cut(MIDDLE, 0), f"{MIDDLE} is empty"),
    "a lost commit in the middle": (gone(MIDDLE), f"{MIDDLE} is missing"),
    "a torn commit in the middle": (cut(MIDDLE, 100), f"{MIDDLE} is cut or no JSON"),
    "a cut checkpoint whose commits are cleaned up": (
        several(cut(CHECKPOINT, 3000), *(gone(f"{v:020d}.json") for v in range(5))),
        f"{CHECKPOINT} is cut or no Parquet file",
    ),
    "a lost log": (shutil.rmtree, "_delta_log is lost, and"),
    "a lost data file": (lambda log: data_file(log).unlink(), ".parquet is missing"),
    "a cut data file": (lambda log: os.truncate(data_file(log), 200), ".parquet has 200 of"),
    "an empty data file": (lambda log: os.truncate(data_file(log), 0), ".parquet is empty"),
}


@pytest.mark.engine("local")
@pytest.mark.parametrize("name", FATAL)
def test_what_is_really_damaged_is_named_with_its_repair_and_never_tried_again(
    name: str, store: DeltaStore, log: Path, monkeypatch: pytest.MonkeyPatch
):
    damage_it, told = FATAL[name]
    damage_it(log)
    monkeypatch.setattr(attempts.time, "sleep", lambda _s: pytest.fail("a damaged file was taken for a conflict"))
    doings: list[Callable[[], object]] = [
        lambda: store.read_arrow(METRICS),
        lambda: write(store, 77),
        lambda: store.replace_slice(
            "silver.quarantine", hour(), lambda: store.read(METRICS).toArrow().select([]), now=NOW
        ),
    ]
    for do in doings:
        with pytest.raises(StorageError) as raised:
            do()
        text = str(raised.value)
        assert METRICS in text
        assert told in text
        assert log_files.REPAIR in text


def test_every_store_names_a_lost_file(store: DeltaStore, log: Path):
    data_file(log).unlink()
    for do in (lambda: values(store), lambda: write(store, 77)):
        with pytest.raises(StorageError, match=rf"{METRICS} is damaged: .*\.parquet is missing"):
            do()


@pytest.mark.engine("local")
def test_what_cannot_be_reached_fails_at_once_with_its_own_reason(
    store: DeltaStore, log: Path, monkeypatch: pytest.MonkeyPatch
):
    """A plan over a place that the engine cannot read is no conflict, however it puts it."""
    monkeypatch.setattr(attempts.time, "sleep", lambda _s: pytest.fail("taken for a conflict"))
    spark = store.read(METRICS).sparkSession
    elsewhere = str(log.parent.parent / "no%20such")

    def build():
        store.read(METRICS)
        return spark.read.format("delta").option("versionAsOf", 3).load(elsewhere).toArrow()

    with pytest.raises(Exception, match=r"no%20such|No such|not found|commit"):
        store.replace_slice(METRICS, hour(SIX), build, now=NOW)


@pytest.mark.engine("local")
def test_a_commit_that_cannot_be_written_is_no_conflict(store: DeltaStore, log: Path, monkeypatch: pytest.MonkeyPatch):
    """delta-rs says the same of a full disk and of a commit that came first."""
    import deltalake
    from deltalake.exceptions import CommitFailedError

    def full(*_args: object, **_kwargs: object) -> None:
        raise CommitFailedError("Generic LocalFileSystem error: No space left on device (os error 28)")

    monkeypatch.setattr(attempts.time, "sleep", lambda _s: pytest.fail("taken for a conflict"))
    monkeypatch.setattr(deltalake, "write_deltalake", full)
    with pytest.raises(StorageError, match=rf"{METRICS}: .*No space left on device.*Nothing was committed"):
        write(store, 77)


@pytest.mark.engine("local")
@pytest.mark.parametrize("write_first", ["replace", "append"])
def test_a_commit_that_stands_is_reported_whatever_fails_after_it(
    write_first: str, store: DeltaStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    import deltalake

    original = deltalake.write_deltalake

    def failing(*args: object, **kwargs: object) -> None:
        original(*args, **kwargs)  # type: ignore[arg-type]
        raise OSError(5, "Input/output error", "after the commit")

    monkeypatch.setattr(deltalake, "write_deltalake", failing)
    if write_first == "replace":
        done = store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, [1]), now=NOW)
    else:
        done = store.append_once(BRONZE, hour(), app_id(), up_to(3))
    assert (done.committed, done.version_after, done.retries) == (True, 1, 0)
    assert "version 1 is committed; afterwards: [Errno 5] Input/output error" in caplog.text


@pytest.mark.engine("local")
def test_nothing_is_examined_beyond_the_folder_of_a_table_that_is_absent(store: DeltaStore, tmp_path: Path):
    assert damage.diagnose(tmp_path / "lake" / "ops" / "pipeline_metrics") is None
    assert store.read_arrow(METRICS).num_rows == 0
