"""Checkpoints of local tables stay behind, so that what a step has pinned stays readable while others commit."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from crypto_assets.contracts.slices import HOUR
from crypto_assets.storage import checkpoints
from crypto_assets_tests.storage.rows import BRONZE, FIVE, METRICS, NOW, app_id, hour, metrics, up_to

pytestmark = pytest.mark.engine("local")

SIX = FIVE + HOUR


def commit(store, ends: range) -> None:
    """One commit of one record for each."""
    for end in ends:
        assert store.append_once(BRONZE, hour(), app_id(), up_to(end)).committed


def test_a_frame_stays_readable_while_others_commit(store):
    commit(store, range(1, 29))  # a checkpoint was written before
    first = store.version(BRONZE)
    frames = {}
    for end in range(29, 29 + checkpoints.LAG):
        frames[store.version(BRONZE)] = store.read(BRONZE)
        commit(store, range(end, end + 1))
    assert checkpoints.last(store.path(BRONZE)) > 0
    assert min(frames) == first
    assert {version: frame.count() for version, frame in frames.items()} == {version: version for version in frames}


def test_every_version_is_read_however_many_checkpoints_came_after(store):
    commit(store, range(1, 46))
    assert checkpoints.last(store.path(BRONZE)) == 20
    assert len(list((Path(store.path(BRONZE)) / "_delta_log").glob("*.checkpoint.parquet"))) == 2
    for version in range(46):
        frame = store.read(BRONZE, hour(), version=version)
        assert sorted(r.offset for r in frame.select("offset").collect()) == list(range(version))
        assert store.read(BRONZE, hour(SIX), version=version).count() == 0


def test_a_checkpoint_and_what_came_after_are_the_table(store):
    commit(store, range(1, 46))
    log = Path(store.path(BRONZE)) / "_delta_log"
    for version in range(checkpoints.last(store.path(BRONZE))):
        (log / f"{version:020d}.json").unlink()  # as cleaning does
    assert store.read(BRONZE).count() == 45
    assert DeltaTable(store.path(BRONZE)).count() == 45
    commit(store, range(46, 47))
    assert sorted(store.read_arrow(BRONZE, columns=["offset"]).column(0).to_pylist()) == list(range(46))


def test_a_write_whose_input_fell_out_of_reach_is_built_anew(store):
    """Another engine writes checkpoints of the newest commit, also between a frame and its rows."""
    commit(store, range(1, 10))
    built = []

    def build():
        frame = store.read(BRONZE)
        if not built:
            commit(store, range(10, 12))
            DeltaTable(store.path(BRONZE)).create_checkpoint()
        built.append(frame)
        return pa.concat_tables([metrics(FIVE, [float(frame.count())])])

    written = store.replace_slice(METRICS, hour(), build, now=NOW)
    assert written.committed
    assert written.retries == 1
    assert store.read_arrow(METRICS, columns=["value"]).column(0).to_pylist() == [11.0]


def test_a_checkpoint_that_cannot_be_written_fails_no_commit(store, monkeypatch, caplog):
    def full(_handle: DeltaTable) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DeltaTable, "create_checkpoint", full)
    commit(store, range(1, 32))
    assert store.read(BRONZE).count() == 31
    assert checkpoints.last(store.path(BRONZE)) == 0
    assert "no checkpoint behind version 30: [Errno 28] No space left on device" in caplog.text
