"""The judge of racing writers finds what it is there to find."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from bench import race_judge
from crypto_assets.storage.base import AppendBatch, OffsetRange
from crypto_assets_tests.storage.rows import BRONZE, FIVE, METRICS, app_id, hour, records

pytestmark = pytest.mark.engine("local")


def append(store, start: int, end: int) -> None:
    piece = OffsetRange(0, start, end)
    rows = records(piece, FIVE)
    keys = pa.array([str(o) for o in range(start, end)])
    rows = rows.set_column(rows.schema.get_field_index("message_key"), "message_key", keys)
    store.append_once(BRONZE, hour(), app_id(), lambda _stored: AppendBatch(rows, (piece,)))


def wrong(store, offsets: range) -> dict[str, int]:
    found = race_judge.judge(Path(store.lake), Path(store.lake), METRICS, {str(o) for o in offsets}, 0)
    return {what: count for what, count in found.wrong.items() if count}


def test_an_exact_lake_has_nothing_wrong(store):
    append(store, 0, 5)
    append(store, 5, 9)
    assert wrong(store, range(9)) == {}


def test_a_record_that_is_absent_is_lost_and_one_too_many_is_named(store):
    append(store, 0, 5)
    assert wrong(store, range(1, 7)) == {"lost records": 2, "records that were never produced": 1}


def test_rows_that_are_stored_twice_are_found(store):
    append(store, 0, 5)
    write_deltalake(DeltaTable(store.path(BRONZE)), store.read_arrow(BRONZE).slice(0, 2), mode="append")
    assert wrong(store, range(5)) == {"doubled offsets": 2, "doubled records": 2}


def test_a_hole_and_an_overlap_break_the_chain(store):
    append(store, 0, 5)
    append(store, 7, 9)
    assert wrong(store, range(9)) == {"lost records": 2, "broken chains of ranges": 1}


def test_a_slice_written_from_older_sources_than_before_is_stale(tmp_path):
    log = tmp_path / "silver" / "prices" / "_delta_log"
    log.mkdir(parents=True)
    for version, read in enumerate((3, 7, 5)):
        info = f'"slice_start": "a", "slice_end": "b", "read_versions": "{{\\"bronze.raw_prices\\": {read}}}"'
        (log / f"{version:020d}.json").write_text(f'{{"commitInfo": {{{info}}}}}\n', encoding="utf-8")
    verdict = race_judge.Verdict()
    race_judge._silver(verdict, tmp_path)
    assert verdict.examples["stale slices"] == [(2, "a", "b", 5, 7)]
