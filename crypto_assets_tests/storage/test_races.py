"""Writers that race: threads, spawned processes, and commits in the middle of somebody else's build."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Barrier, Event

import pytest

from crypto_assets.contracts.slices import HOUR
from crypto_assets.engine.sail import SailEngine
from crypto_assets.storage import delta_rs
from crypto_assets.storage.base import WriteConflict
from crypto_assets_tests.storage import race_child
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
    overtaken_once,
    table,
    up_to,
)

SIX = FIVE + HOUR
WRITERS = 3


def offsets(store) -> list[int]:
    return sorted(store.read_arrow(BRONZE, columns=["offset"]).column(0).to_pylist())


def values(store, slice_=None) -> list[float]:
    return sorted(store.read_arrow(METRICS, slice_).column("value").to_pylist())


def in_processes(tmp_path: Path, work, *arguments):
    """Run one child per argument tuple, all released by one barrier; their results."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(len(arguments), mp_context=context) as pool:
        barrier = manager.Barrier(len(arguments))
        asked = [pool.submit(work, str(tmp_path / "lake"), barrier, *a) for a in arguments]
        return [a.result(120) for a in asked]


def test_threads_that_append_the_same_records_store_each_once(store, engine_name):
    barrier = Barrier(WRITERS)
    step = 2 if engine_name == "local" else 20  # a commit of Spark takes a second

    def write(_n: int) -> int:
        barrier.wait(30)
        return sum(store.append_once(BRONZE, hour(), app_id(), up_to(end)).rows for end in range(step, 41, step))

    with ThreadPoolExecutor(WRITERS) as pool:
        written = list(pool.map(write, range(WRITERS)))
    assert sum(written) == 40
    assert offsets(store) == list(range(40))


@pytest.mark.engine("local")
def test_processes_that_append_the_same_records_store_each_once(tmp_path):
    written = in_processes(tmp_path, race_child.append, *[([*range(3, 33, 3)],)] * WRITERS)
    assert sum(written) == 30
    store = SailEngine(str(tmp_path / "lake")).store
    assert offsets(store) == list(range(30))
    rows = store.read_arrow(BRONZE, columns=["seq", "range_start", "range_end"]).to_pylist()
    by_seq = {r["seq"]: (r["range_start"], r["range_end"]) for r in rows}
    ends = [by_seq[s] for s in sorted(by_seq)]
    assert sorted(by_seq) == list(range(1, len(by_seq) + 1))
    assert all(one[1] == other[0] for one, other in pairwise(ends))


@pytest.mark.engine("local")
def test_one_of_many_processes_creates_a_table(tmp_path):
    created = in_processes(tmp_path, race_child.create, *[()] * WRITERS)
    assert sorted(created) == [False] * (WRITERS - 1) + [True]


@pytest.mark.engine("local")
def test_processes_that_replace_hours_of_one_day_lose_nothing(tmp_path):
    hours = [FIVE + i * HOUR for i in range(WRITERS)]
    in_processes(tmp_path, race_child.replace, *[(h, [float(v) for v in range(6)]) for h in hours])
    store = SailEngine(str(tmp_path / "lake")).store
    assert [values(store, hour(h)) for h in hours] == [[5.0]] * WRITERS


def test_another_hour_of_the_day_committed_meanwhile_restarts_the_build(store):
    builds = []

    def build():
        builds.append(1)
        if len(builds) == 1:
            store.replace_slice(METRICS, hour(SIX), lambda: metrics(SIX, [6]), now=NOW)
        return metrics(FIVE, [5])

    result = store.replace_slice(METRICS, hour(), build, now=NOW)
    assert (len(builds), result.retries) == (2, 1)
    assert values(store) == [5, 6]


def test_a_stale_run_cannot_overwrite_newer_rows(store):
    """A build reads its source, a newer run replaces source and target, then the first one wants to commit."""
    source = [100]

    def stale():
        read = source[0]
        if read == 100:
            source[0] = 120
            store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, range(120)), now=NOW)
        return metrics(FIVE, range(read))

    result = store.replace_slice(METRICS, hour(), stale, now=NOW)
    assert not result.committed  # the restarted build read what the newer run had read
    assert store.read_arrow(METRICS).num_rows == 120


def test_a_run_that_began_first_does_not_hide_from_one_that_began_after_a_compaction(store):
    """Both replace the same slice; the one that opened an older version reads newer sources and commits first."""
    source, begun, read, committed = [100], Event(), Event(), Event()
    store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, range(50)), now=NOW)
    store.merge(METRICS, metrics(SIX, [6]), mode="insert_if_absent")  # a second file of the day

    def first() -> None:
        def build():
            begun.set()
            assert read.wait(60)
            source[0] = 120
            return metrics(FIVE, range(120))

        store.replace_slice(METRICS, hour(), build, now=NOW)
        committed.set()

    def second():
        rows = source[0]
        read.set()
        assert committed.wait(60)
        return metrics(FIVE, range(rows))

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(first)
        assert begun.wait(60)
        version = store.version(METRICS)
        assert store.maintain(METRICS, as_of=NOW, closed_before=NOW, dry_run=False)["compacted_partitions"] == 1
        assert store.version(METRICS) > version
        store.replace_slice(METRICS, hour(), second, now=NOW)
        running.result(60)
    assert store.read_arrow(METRICS, hour()).num_rows == 120


def test_rows_appended_meanwhile_are_not_sent_again(store):
    calls: list[dict[int, int]] = []
    result = store.append_once(BRONZE, hour(), app_id(), overtaken_once(store, 6, calls))
    assert calls == [{}, {0: 4}]
    assert (result.rows, result.retries, result.metadata["seq"]) == (2, 1, 2)
    assert offsets(store) == list(range(6))


def test_an_hour_appended_meanwhile_is_seen_by_its_neighbour(store):
    """Blind appends of two hours do not conflict for Delta; here the later must know where the earlier ended."""
    calls = []

    def build(stored):
        calls.append(stored.previous_ends.get(0))
        if len(calls) == 1:
            store.append_once(BRONZE, hour(), app_id(), up_to(4))
        return up_to(6, at=SIX)(stored)

    store.append_once(BRONZE, hour(SIX), app_id(SIX), build)
    assert calls == [None, 4]
    assert offsets(store) == list(range(6))
    # Created, and two batches: none was stored first and withdrawn later, which a killed writer could not do.
    assert store.version(BRONZE) == 2


def test_threads_that_merge_lose_nothing(store, engine_name):
    merges = 5 if engine_name == "local" else 3  # each takes a second on Spark, and longer after a conflict

    def write(n: int) -> None:
        for i in range(merges):
            store.merge(ALERTS, table(ALERTS, [alert(f"{n}-{i}")]), mode="upsert" if n % 2 else "insert_if_absent")

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    assert store.read_arrow(ALERTS).num_rows == WRITERS * merges


@pytest.mark.engine("local")
def test_endless_conflicts_end_in_a_named_error(store, monkeypatch):
    patience = delta_rs.DeltaRsBackend.patience
    monkeypatch.setattr(delta_rs.DeltaRsBackend, "patience", replace(patience, attempts=3))
    numbers = iter(range(100))

    def build():
        store.replace_slice(METRICS, hour(SIX), lambda: metrics(SIX, [next(numbers)]), now=NOW)
        return metrics(FIVE, [5])

    with pytest.raises(WriteConflict, match="3 attempts"):
        store.replace_slice(METRICS, hour(), build, now=NOW)
    assert values(store, hour()) == []
