"""`append_once` and `merge`, on every store."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from crypto_assets.contracts.arrow import ContractViolation
from crypto_assets.contracts.slices import HOUR
from crypto_assets.storage.base import AppendBatch, AuditFailed, OffsetRange, SliceAppend, WriteResult
from crypto_assets.storage.ranges import batches_of
from crypto_assets_tests.storage.rows import (
    ALERTS,
    BRONZE,
    DIM_COIN,
    FIVE,
    METRICS,
    PREDICTIONS,
    alert,
    app_id,
    coin,
    forecast,
    hour,
    metrics,
    overtaken_once,
    records,
    table,
    up_to,
)

SIX = FIVE + HOUR


def offsets(store) -> list[int]:
    return sorted(store.read_arrow(BRONZE, columns=["offset"]).column(0).to_pylist())


def test_appending_goes_on_where_the_rows_end(store):
    for end in (3, 3, 5):
        store.append_once(BRONZE, hour(), app_id(), up_to(end))
    rows = store.read_arrow(BRONZE).sort_by("offset").to_pylist()
    assert [(r["offset"], r["range_start"], r["range_end"], r["seq"]) for r in rows] == [
        (0, 0, 3, 1),
        (1, 0, 3, 1),
        (2, 0, 3, 1),
        (3, 3, 5, 2),
        (4, 3, 5, 2),
    ]
    assert len({r["batch_id"] for r in rows}) == 2


def test_the_result_and_the_commit_name_the_transaction(store):
    result = store.append_once(BRONZE, hour(), app_id(), up_to(3))
    assert (result.committed, result.rows, result.metadata["seq"], result.metadata["ends"]) == (True, 3, 1, {0: 3})
    commit = store.commits_after(BRONZE, 0, 10)[-1]
    assert commit.metadata["app_id"] == app_id()
    assert commit.metadata["batch_id"] == result.metadata["batch_id"]
    assert commit.metadata["touched_hours"] == "[]"
    from deltalake import DeltaTable

    assert DeltaTable(store.path(BRONZE)).transaction_version(app_id()) == 1


def test_nothing_to_append_is_no_commit(store):
    store.append_once(BRONZE, hour(), app_id(), up_to(3))
    result = store.append_once(BRONZE, hour(), app_id(), up_to(3))
    assert not result.committed
    assert store.version(BRONZE) == 1
    empty = store.append_once(BRONZE, hour(), app_id(), lambda _s: AppendBatch(records(OffsetRange(0, 3, 3)), ()))
    assert not empty.committed


def test_the_slices_of_a_version_are_named_in_order(store):
    assert store.slices(BRONZE) == []
    for at, topic_id in ((SIX, "new"), (FIVE, "old")):
        store.append_once(BRONZE, hour(at), app_id(at, topic_id), up_to(3, at=at, topic_id=topic_id))
    assert store.slices(BRONZE) == [FIVE, SIX]
    assert store.slices(BRONZE, version=store.version(BRONZE) - 1) == [SIX]


def test_rows_by_partition_are_read_from_the_log(store):
    assert store.rows_by_partition(BRONZE) == {}
    appended(store, hours_up_to(3, 3, 5))
    store.append_once(BRONZE, hour(FIVE), app_id(FIVE, "other"), up_to(4, topic_id="other"))
    assert store.rows_by_partition(BRONZE) == {FIVE: 7, FIVE + 2 * HOUR: 2}
    store.merge(DIM_COIN, table(DIM_COIN, [coin("a")]), mode="upsert")
    assert store.rows_by_partition(DIM_COIN) == {}


def test_ranges_of_neighbours_are_those_of_the_incarnation(store):
    seen = {}
    store.append_once(BRONZE, hour(FIVE), app_id(FIVE), up_to(10))
    store.append_once(BRONZE, hour(FIVE), app_id(FIVE), up_to(4, partition=1))
    store.append_once(BRONZE, hour(SIX), app_id(SIX), up_to(15, at=SIX))
    store.append_once(BRONZE, hour(SIX), app_id(SIX, "other"), up_to(99, at=SIX, topic_id="other"))

    def look(at, topic_id="topic-id-1"):
        def build(stored):
            seen["found"] = (
                stored.ends,
                stored.max_seq,
                dict(stored.previous_ends),
                dict(stored.next_starts),
            )

        store.append_once(BRONZE, hour(at), app_id(at, topic_id), build)
        return seen["found"]

    assert look(FIVE) == ({0: 10, 1: 4}, 2, {}, {0: 10})
    assert look(SIX) == ({0: 15}, 1, {0: 10, 1: 4}, {})
    assert look(SIX + HOUR) == ({}, 0, {0: 15, 1: 4}, {})
    assert look(SIX + HOUR, "other") == ({}, 0, {0: 99}, {})


def test_neighbours_far_away_are_found(store):
    for hours in range(0, 80, 8):
        at = FIVE + hours * HOUR
        store.append_once(BRONZE, hour(at), app_id(at), up_to(hours + 1, at=at))
    store.append_once(BRONZE, hour(FIVE), app_id(FIVE), up_to(7, partition=2))
    found = {}

    def build(stored):
        found.update(
            before=stored.previous_ends.get(2), after=stored.next_starts.get(0), absent=stored.previous_ends.get(9)
        )

    at = FIVE + 100 * HOUR
    store.append_once(BRONZE, hour(at), app_id(at), build)
    assert found == {"before": 7, "after": None, "absent": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: AppendBatch(records(OffsetRange(0, 0, 3), topic_id="x"), b.covers), "incarnation x"),
        (lambda b: AppendBatch(records(OffsetRange(0, 0, 3), at=SIX), b.covers), "arrival_hour outside"),
        (lambda b: AppendBatch(b.rows, (OffsetRange(0, 0, 4),)), r"\[0, 3\), which is not among those covered"),
        (lambda b: AppendBatch(b.rows.append_column("seq", pa.array([1] * 3)), b.covers), "seq is filled in"),
        (lambda b: AppendBatch(b.rows.drop_columns(["raw_json"]), b.covers), "raw_json is missing"),
    ],
)
def test_a_batch_that_is_not_what_it_says_is_refused(store, change, message):
    good = AppendBatch(records(OffsetRange(0, 0, 3)), (OffsetRange(0, 0, 3),))
    with pytest.raises(ContractViolation, match=message):
        store.append_once(BRONZE, hour(), app_id(), lambda _stored: change(good))
    assert offsets(store) == []


def test_a_range_that_is_stored_already_is_refused(store):
    store.append_once(BRONZE, hour(), app_id(), up_to(3))
    again = AppendBatch(records(OffsetRange(0, 2, 5)), (OffsetRange(0, 2, 5),))
    with pytest.raises(ContractViolation, match=r"\[2, 5\) begins before 3"):
        store.append_once(BRONZE, hour(), app_id(), lambda _stored: again)
    assert offsets(store) == [0, 1, 2]


def test_an_app_id_names_an_incarnation(store):
    with pytest.raises(ValueError, match="must be <name>/<topic_id>/<slice>"):
        store.append_once(BRONZE, hour(), "bronze", up_to(3))


def test_a_builder_that_fails_half_way_commits_nothing(store):
    def build(_stored):
        raise OSError("log gone")

    with pytest.raises(OSError, match="log gone"):
        store.append_once(BRONZE, hour(), app_id(), build)
    assert offsets(store) == []


def test_a_table_whose_creator_was_killed_is_created_all_the_same(store):
    """It leaves the folder of the log without a commit."""
    (Path(store.path(BRONZE)) / "_delta_log").mkdir(parents=True)
    assert not store.exists(BRONZE)
    assert store.read_arrow(BRONZE).num_rows == 0
    store.append_once(BRONZE, hour(), app_id(), up_to(3))
    assert offsets(store) == [0, 1, 2]


# --- merge --------------------------------------------------------------------------------------------------------


def alerts(store) -> dict[str, tuple[str, int]]:
    rows = store.read_arrow(ALERTS).to_pylist()
    assert len(rows) == len({r["alert_id"] for r in rows})
    return {r["alert_id"]: (r["state"], r["attempts"]) for r in rows}


def test_insert_if_absent_never_changes_a_row(store):
    store.merge(ALERTS, table(ALERTS, [alert("a"), alert("b")]), mode="insert_if_absent")
    result = store.merge(ALERTS, table(ALERTS, [alert("a", attempts=9), alert("c")]), mode="insert_if_absent")
    assert result.rows == 1
    assert alerts(store) == {"a": ("firing", 0), "b": ("firing", 0), "c": ("firing", 0)}
    assert not store.merge(ALERTS, table(ALERTS, [alert("c", attempts=9)]), mode="insert_if_absent").committed


def test_insert_if_absent_of_a_table_by_day(store):
    late = FIVE.replace(hour=23)
    rows = [forecast(late), forecast(late + 2 * HOUR)]
    store.merge(PREDICTIONS, table(PREDICTIONS, rows), mode="insert_if_absent")
    again = [forecast(late, 2.0), forecast(late + timedelta(days=3))]
    store.merge(PREDICTIONS, table(PREDICTIONS, again), mode="insert_if_absent")
    stored = store.read_arrow(PREDICTIONS).sort_by("window_end").column("price").to_pylist()
    assert stored == [1.0, 1.0, 1.0]


def test_upsert_changes_and_inserts_and_leaves_the_rest(store):
    store.merge(ALERTS, table(ALERTS, [alert("a"), alert("b")]), mode="upsert")
    store.merge(ALERTS, table(ALERTS, [alert("b", "resolved", 2), alert("c")]), mode="upsert")
    assert alerts(store) == {"a": ("firing", 0), "b": ("resolved", 2), "c": ("firing", 0)}
    version = store.version(ALERTS)
    result = store.merge(ALERTS, table(ALERTS, [alert("b", "resolved", 2)]), mode="upsert")
    assert not result.committed
    assert store.version(ALERTS) == version


def test_upsert_of_a_table_by_day_rewrites_only_those_days(store):
    both = pa.concat_tables([metrics(FIVE, [1.0]), metrics(FIVE + timedelta(days=2), [1.0])])
    store.merge(METRICS, both, mode="upsert")
    store.merge(METRICS, metrics(FIVE, [5.0]), mode="upsert")
    rows = store.read_arrow(METRICS).sort_by("hour").column("value").to_pylist()
    assert rows == [5.0, 1.0]


def test_replace_all_makes_the_table_equal(store):
    store.merge(DIM_COIN, table(DIM_COIN, [coin("a", ["x", "y"]), coin("b")]), mode="replace_all")
    store.merge(DIM_COIN, table(DIM_COIN, [coin("b"), coin("c", ["z"])]), mode="replace_all")
    rows = store.read_arrow(DIM_COIN).sort_by("coin_id").to_pylist()
    assert [(r["coin_id"], r["aliases"]) for r in rows] == [("b", []), ("c", ["z"])]
    again = store.merge(DIM_COIN, table(DIM_COIN, [coin("c", ["z"]), coin("b")]), mode="replace_all")
    assert not again.committed
    changed = store.merge(DIM_COIN, table(DIM_COIN, [coin("c", ["q"]), coin("b")]), mode="replace_all")
    assert changed.committed
    assert store.merge(DIM_COIN, table(DIM_COIN, []), mode="replace_all").committed
    assert store.read_arrow(DIM_COIN).num_rows == 0


@pytest.mark.parametrize("mode", ["insert_if_absent", "upsert", "replace_all"])
def test_a_key_that_occurs_twice_is_refused(store, mode):
    with pytest.raises(ContractViolation, match=r"'alert_id': 'a'.* occurs 2 times"):
        store.merge(ALERTS, table(ALERTS, [alert("a"), alert("a", "resolved")]), mode=mode)


def test_a_merge_that_fails_its_audit_commits_nothing(store):
    def audit(_rows):
        raise AuditFailed("no")

    with pytest.raises(AuditFailed):
        store.merge(ALERTS, table(ALERTS, [alert("a")]), mode="upsert", audit=audit)
    assert not store.exists(ALERTS) or store.read_arrow(ALERTS).num_rows == 0


# --- several slices in one commit ---------------------------------------------------------------------------------


def hours_up_to(*ends: int, audit=None) -> list[SliceAppend]:
    """An append of each of the hours from five o'clock on, up to an offset each."""
    starts = [FIVE + n * HOUR for n in range(len(ends))]
    return [SliceAppend(hour(at), app_id(at), up_to(end, at=at), audit) for at, end in zip(starts, ends, strict=True)]


def appended(store, appends: list[SliceAppend]) -> list[WriteResult]:
    """Results of all appends, however many commits they take."""
    results: list[WriteResult] = []
    while len(results) < len(appends):
        results += store.append_together(BRONZE, appends[len(results) :])
    return results


def test_slices_appended_together_are_as_if_each_came_alone(store):
    store.append_once(BRONZE, hour(FIVE), app_id(FIVE), up_to(1))
    results = appended(store, hours_up_to(3, 3, 7))
    assert [(r.committed, r.rows, r.metadata.get("seq"), r.metadata.get("ends")) for r in results] == [
        (True, 2, 2, {0: 3}),
        (False, 0, None, None),
        (True, 4, 1, {0: 7}),
    ]
    rows = store.read_arrow(BRONZE).sort_by("offset").to_pylist()
    assert [(r["offset"], r["arrival_hour"], r["range_start"], r["range_end"], r["seq"]) for r in rows] == [
        (0, FIVE, 0, 1, 1),
        *((o, FIVE, 1, 3, 2) for o in (1, 2)),
        *((o, FIVE + 2 * HOUR, 3, 7, 1) for o in (3, 4, 5, 6)),
    ]
    ids = {r["batch_id"] for r in rows}
    assert len(ids) == 3
    named = [b for c in store.commits_after(BRONZE, 0, 10) for b in batches_of(c.metadata)]
    assert [(app, seq) for app, seq, _ in named] == [(app_id(), 1), (app_id(), 2), (app_id(FIVE + 2 * HOUR), 1)]
    assert {batch_id for _, _, batch_id in named} == ids
    from deltalake import DeltaTable

    handle = DeltaTable(store.path(BRONZE))
    assert [handle.transaction_version(app_id(FIVE + n * HOUR)) for n in range(3)] == [2, None, 1]
    assert not any(r.committed for r in appended(store, hours_up_to(3, 3, 7)))


def test_slices_together_are_one_commit_where_the_store_can(store):
    appended(store, hours_up_to(*range(1, 6)))
    most = store.slices_together
    assert store.version(BRONZE) == -(-5 // most)


def test_a_slice_that_fails_comes_after_those_before_it(store):
    def refuse(_rows: pa.Table) -> None:
        raise AuditFailed("no", [])

    good, bad = hours_up_to(2, 4, 6), hours_up_to(2, 4, 6, audit=refuse)
    appends = [good[0], good[1], bad[2]]
    with pytest.raises(AuditFailed):
        appended(store, appends)
    assert offsets(store) == [0, 1, 2, 3]
    appended(store, good)
    assert offsets(store) == list(range(6))


def test_a_commit_of_many_rows_takes_no_further_slice(store, monkeypatch):
    monkeypatch.setattr("crypto_assets.storage.store.ROWS_TOGETHER", 4)
    assert len(store.append_together(BRONZE, hours_up_to(2, 4, 6, 8))) == min(2, store.slices_together)


def test_slices_overtaken_are_built_again_one_by_one(store):
    calls: list[dict[int, int]] = []
    first, second = SliceAppend(hour(), app_id(), overtaken_once(store, 6, calls), None), hours_up_to(0, 9)[1]
    (result,) = store.append_together(BRONZE, [first, second])
    assert (result.rows, result.retries, result.metadata["seq"]) == (2, 1, 2)
    assert calls == [{}, {0: 4}]
    appended(store, [first, second])
    assert offsets(store) == list(range(9))
