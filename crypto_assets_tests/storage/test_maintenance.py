"""Housekeeping keeps every row, every range and every file that somebody may still read."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from crypto_assets.contracts.slices import DAY, HOUR
from crypto_assets.storage import checkpoints
from crypto_assets.storage.delta_files import HISTORY_CLEANED
from crypto_assets.storage.maintenance import RETENTION_HOURS
from crypto_assets_tests.storage.rows import (
    ALERTS,
    BRONZE,
    FIVE,
    METRICS,
    NOW,
    alert,
    app_id,
    hour,
    metrics,
    table,
    up_to,
)

pytestmark = pytest.mark.engine("local")

SIX = FIVE + HOUR


def age(files, hours: float) -> None:
    """Make files older than they are."""
    for file in files:
        moment = file.stat().st_mtime - hours * 3600
        os.utime(file, (moment, moment))


def data_files(store, name: str) -> list[Path]:
    return sorted(f for f in Path(store.path(name)).rglob("*.parquet") if "_delta_log" not in f.parts)


def test_an_absent_table_is_left_alone(store):
    found = store.maintain(METRICS, as_of=NOW, closed_before=FIVE, dry_run=False)
    assert found == {"exists": False}
    assert not store.exists(METRICS)


def test_compaction_makes_one_file_of_a_closed_hour_and_keeps_ranges(store):
    for end in (2, 5, 9):
        store.append_once(BRONZE, hour(), app_id(), up_to(end))
    for end in (12, 15):
        store.append_once(BRONZE, hour(SIX), app_id(SIX), up_to(end, at=SIX))
    before = store.read_arrow(BRONZE).sort_by("offset")
    rehearsed = store.maintain(BRONZE, as_of=NOW, closed_before=SIX, dry_run=True)
    done = store.maintain(BRONZE, as_of=NOW, closed_before=SIX, dry_run=False)
    for name in ("files", "compacted_partitions", "files_compacted", "expired_rows"):
        assert rehearsed[name] == done[name], name
    assert (done["compacted_partitions"], done["files_compacted"], done["files_written"]) == (1, 3, 1)
    assert len(DeltaTable(store.path(BRONZE)).file_uris()) == 3
    assert store.read_arrow(BRONZE).sort_by("offset").equals(before)
    result = store.append_once(BRONZE, hour(), app_id(), up_to(9))
    assert not result.committed
    seen = []
    store.append_once(BRONZE, hour(SIX), app_id(SIX), lambda s: seen.append((s.ends, dict(s.previous_ends))))
    assert seen == [({0: 15}, {0: 9})]
    assert store.append_once(BRONZE, hour(), app_id(), lambda s: seen.append(s.max_seq)).committed is False
    assert seen[-1] == 3
    assert DeltaTable(store.path(BRONZE)).transaction_version(app_id()) == 3


def test_a_dry_run_changes_nothing(store):
    for value in range(4):
        store.replace_slice(METRICS, hour(), lambda v=value: metrics(FIVE, [v]), now=NOW)
    before = sorted(p for p in Path(store.path(METRICS)).rglob("*"))
    store.maintain(METRICS, as_of=FIVE + 400 * DAY, closed_before=NOW + DAY, dry_run=True)
    assert sorted(p for p in Path(store.path(METRICS)).rglob("*")) == before


def test_expired_days_go_and_later_ones_stay(store):
    keep = FIVE + 90 * DAY
    store.append_once(BRONZE, hour(), app_id(), up_to(3))
    store.append_once(BRONZE, hour(keep), app_id(keep), up_to(5, at=keep))
    edge = FIVE.replace(hour=0) + 90 * DAY
    assert store.maintain(BRONZE, as_of=edge, closed_before=FIVE, dry_run=False)["expired_rows"] == 0
    assert store.maintain(BRONZE, as_of=edge + DAY, closed_before=FIVE, dry_run=True)["expired_rows"] == 3
    assert store.maintain(BRONZE, as_of=edge + DAY, closed_before=FIVE, dry_run=False)["expired_rows"] == 3
    assert sorted(store.read_arrow(BRONZE, columns=["offset"]).column(0).to_pylist()) == [3, 4]


def test_orphans_and_dead_files_go_after_the_retention_and_not_before(store):
    store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, [1]), now=NOW)
    store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, [2]), now=NOW)
    orphan = Path(store.path(METRICS)) / "day=2024-01-01" / "part-killed-writer.parquet"
    orphan.write_bytes(b"never committed")
    young = store.maintain(METRICS, as_of=NOW, closed_before=FIVE, dry_run=False)
    assert (young["unreferenced_files"], young["vacuumed_files"]) == (2, 0)
    assert orphan.exists()
    age([orphan], RETENTION_HOURS + 1)
    done = store.maintain(METRICS, as_of=NOW, closed_before=FIVE, dry_run=False)
    assert done["vacuumed_files"] == 1
    assert not orphan.exists()
    assert len(data_files(store, METRICS)) == 2
    assert store.read(METRICS, version=1).count() == 1


def test_an_unpartitioned_table_is_compacted(store):
    for name in "abc":
        store.merge(ALERTS, table(ALERTS, [alert(name)]), mode="insert_if_absent")
    done = store.maintain(ALERTS, as_of=NOW, closed_before=FIVE, dry_run=False)
    assert (done["files_compacted"], done["files_written"]) == (3, 1)
    assert store.read_arrow(ALERTS).num_rows == 3


def test_cleaned_history_is_said_and_late_hours_are_found_in_the_rows(store):
    import pyarrow as pa

    def late(stored):
        batch = up_to(3, at=SIX)(stored)
        at = batch.rows.schema.get_field_index("event_hour")
        hours = pa.array([SIX, FIVE - HOUR, SIX], batch.rows.schema.field(at).type)
        return type(batch)(batch.rows.set_column(at, "event_hour", hours), batch.covers, batch.commit_metadata)

    store.append_once(BRONZE, hour(SIX), app_id(SIX), late)
    for end in range(4, 41):
        store.append_once(BRONZE, hour(SIX), app_id(SIX), up_to(end, at=SIX))
    log = Path(store.path(BRONZE)) / "_delta_log"
    age(log.glob("*.json"), RETENTION_HOURS + 1)
    done = store.maintain(BRONZE, as_of=NOW, closed_before=FIVE, dry_run=False)
    assert done["log_files_after"] < done["log_files_before"]
    first, *rest = store.commits_after(BRONZE, 0, 100)
    assert first.operation == HISTORY_CLEANED
    assert first.metadata["missing_from"] == "1"
    assert json.loads(first.metadata["touched_hours"]) == [f"{FIVE - HOUR:%Y-%m-%d-%H:%M}"]
    assert [c.version for c in rest] == list(range(first.version + 1, store.version(BRONZE) + 1))
    assert store.commits_after(BRONZE, store.version(BRONZE), 5) == []
    assert sorted(store.read_arrow(BRONZE, columns=["offset"]).column(0).to_pylist()) == list(range(40))
    store.append_once(BRONZE, hour(SIX), app_id(SIX), up_to(41, at=SIX))
    assert store.read(BRONZE).count() == 41


@pytest.mark.parametrize("name", [BRONZE, METRICS, ALERTS])
def test_table_properties_are_those_of_the_protocol(store, name):
    store.create(name)
    handle = DeltaTable(store.path(name))
    properties = handle.metadata().configuration
    assert properties["delta.isolationLevel"] == "Serializable"
    assert properties["delta.logRetentionDuration"] == f"interval {RETENTION_HOURS} hours"
    assert properties["delta.deletedFileRetentionDuration"] == f"interval {RETENTION_HOURS} hours"
    assert properties["delta.checkpointInterval"] == "10"
    assert "delta.setTransactionRetentionDuration" not in properties
    assert "delta.enableDeletionVectors" not in properties
    if name == BRONZE:
        assert (
            properties["delta.dataSkippingStatsColumns"]
            == "partition,offset,kafka_timestamp,event_hour,range_start,range_end"
        )


def test_a_compaction_beside_a_writer_costs_neither_anything(store):
    """The writer restarts when housekeeping commits between its snapshot and its commit."""
    for end in (2, 4):
        store.append_once(BRONZE, hour(), app_id(), up_to(end))
    calls = []

    def build(stored):
        calls.append(stored.ends)
        if len(calls) == 1:
            store.maintain(BRONZE, as_of=NOW, closed_before=NOW, dry_run=False)
        return up_to(7)(stored)

    result = store.append_once(BRONZE, hour(), app_id(), build)
    assert (result.rows, len(calls)) == (3, 2)
    assert store.read_arrow(BRONZE).num_rows == 7


def test_hourly_housekeeping_keeps_a_busy_table_small(store):
    for value in range(60):
        store.replace_slice(METRICS, hour(), lambda v=value: metrics(FIVE, [v]), now=NOW)
    path = Path(store.path(METRICS))
    age(path.rglob("*"), RETENTION_HOURS + timedelta(hours=1) / HOUR)
    store.maintain(METRICS, as_of=NOW, closed_before=NOW + DAY, dry_run=False)
    assert len(list((path / "_delta_log").iterdir())) < checkpoints.LAG + 5
    assert store.read_arrow(METRICS).column("value").to_pylist() == [59]
