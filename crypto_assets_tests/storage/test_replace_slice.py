"""`replace_slice` and reading, on every store."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from crypto_assets.contracts.arrow import ContractViolation, arrow_schema
from crypto_assets.contracts.slices import DAY, HOUR
from crypto_assets.contracts.tables import TABLES
from crypto_assets.storage.base import AuditFailed, SliceRefused
from crypto_assets_tests.storage.rows import ANOMALIES, FIVE, METRICS, NOW, hour, metrics, table

SIX = FIVE + HOUR


def values(store, slice_=None) -> list[float]:
    return sorted(store.read_arrow(METRICS, slice_).column("value").to_pylist())


def test_an_absent_table_reads_as_empty_with_the_contracts_schema(store):
    assert not store.exists(METRICS)
    assert store.version(METRICS) is None
    rows = store.read_arrow(METRICS)
    assert rows.num_rows == 0
    assert rows.schema == arrow_schema(TABLES[METRICS])
    frame = store.read(METRICS, hour())
    assert frame.columns == TABLES[METRICS].column_names
    assert frame.toArrow().schema == arrow_schema(TABLES[METRICS])
    assert not store.exists(METRICS)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_contract_can_be_created_and_read_back_with_its_schema(store, name):
    store.create(name)
    assert store.version(name) == 0
    assert not store.create(name)
    assert store.read_arrow(name).schema == arrow_schema(TABLES[name])
    assert store.read(name).toArrow().schema == arrow_schema(TABLES[name])


@pytest.mark.engine("local", "spark")
def test_a_slice_is_one_file_however_many_pieces_its_rows_come_in(store):
    store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, range(25_000)), now=NOW)
    files = [p for p in Path(store.path(METRICS)).rglob("*.parquet") if "_delta_log" not in p.parts]
    assert len(files) == 1
    assert len(values(store)) == 25_000


def test_a_slice_is_replaced_and_nothing_else(store):
    store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, [1, 2, 3]), now=NOW)
    store.replace_slice(METRICS, hour(SIX), lambda: metrics(SIX, [10]), now=NOW)
    result = store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, [7]), now=NOW)
    assert result.committed
    assert (result.rows, result.metadata["rows_before"]) == (1, 3)
    assert result.version_after == result.version_before + 1
    assert values(store) == [7, 10]
    assert values(store, hour()) == [7]
    assert values(store, hour(SIX)) == [10]
    assert [r["value"] for r in store.read(METRICS, hour()).toArrow().to_pylist()] == [7]


def test_a_slice_of_several_hours_over_midnight(store):
    late = FIVE.replace(hour=23)
    both = hour(late, 2)
    store.replace_slice(METRICS, hour(late - HOUR), lambda: metrics(late - HOUR, [5]), now=NOW)
    rows = pa.concat_tables([metrics(late, [1]), metrics(late + HOUR, [2])])
    store.replace_slice(METRICS, both, lambda: rows, now=NOW)
    assert values(store, both) == [1, 2]
    assert values(store) == [1, 2, 5]
    assert store.read(METRICS, both).count() == 2


def test_equal_rows_in_another_order_are_not_written_again(store):
    rows = metrics(FIVE, [3, 1, 2])
    store.replace_slice(METRICS, hour(), lambda: rows, now=NOW)
    version = store.version(METRICS)
    result = store.replace_slice(METRICS, hour(), lambda: rows.take([2, 0, 1]), now=NOW)
    assert not result.committed
    assert result.rows == 3
    assert store.version(METRICS) == version


def test_a_difference_in_volatile_columns_alone_is_not_written(store):
    def scored(at, threshold=3.0):
        row = {
            "coin_id": "b",
            "symbol": "B",
            "window_start": FIVE,
            "window_end": FIVE + timedelta(minutes=5),
            "anomaly_score": 1.0,
            "threshold": threshold,
            "is_anomaly": False,
            "model_name": "m",
            "model_version": "1",
            "scored_at": at,
            "latency_s": 1.0,
            "revision": 0,
            "day": FIVE.date(),
            "hour": FIVE,
        }
        return lambda: table(ANOMALIES, [row])

    store.replace_slice(ANOMALIES, hour(), scored(FIVE), now=NOW)
    assert not store.replace_slice(ANOMALIES, hour(), scored(NOW), now=NOW).committed
    assert store.read_arrow(ANOMALIES).column("scored_at").to_pylist() == [FIVE]
    assert store.replace_slice(ANOMALIES, hour(), scored(NOW, 4.0), now=NOW).committed


def test_an_empty_slice_stays_empty_without_a_commit(store):
    result = store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, []), now=NOW)
    assert not result.committed
    assert result.rows == 0


def test_losing_all_rows_of_an_hour_needs_rebuild(store):
    rows = pa.concat_tables([metrics(FIVE, [1]), metrics(SIX, [2])])
    store.replace_slice(METRICS, hour(FIVE, 2), lambda: rows, now=NOW)
    with pytest.raises(SliceRefused, match=r"2024-01-01-06:00\. .*rebuild = true"):
        store.replace_slice(METRICS, hour(FIVE, 2), lambda: metrics(FIVE, [1]), now=NOW)
    with pytest.raises(SliceRefused, match="2024-01-01-05:00, 2024-01-01-06:00"):
        store.replace_slice(METRICS, hour(FIVE, 2), lambda: metrics(FIVE, []), now=NOW)
    assert values(store) == [1, 2]
    result = store.replace_slice(METRICS, hour(FIVE, 2), lambda: metrics(FIVE, []), now=NOW, rebuild=True)
    assert result.committed
    assert values(store) == []


def test_a_slice_older_than_its_inputs_is_refused_even_for_a_rebuild(store):
    built = []

    def build():
        built.append(1)
        return metrics(FIVE, [1])

    limit = FIVE + timedelta(days=90) - DAY
    store.replace_slice(METRICS, hour(), build, now=limit, input_retention_days=90)
    for rebuild in (False, True):
        with pytest.raises(SliceRefused, match="90 days"):
            store.replace_slice(
                METRICS, hour(), build, now=limit + timedelta(seconds=1), input_retention_days=90, rebuild=rebuild
            )
    assert len(built) == 1


def test_rows_outside_the_slice_are_refused(store):
    with pytest.raises(ContractViolation, match=r"1 row\(s\) have hour outside"):
        store.replace_slice(METRICS, hour(), lambda: metrics(SIX, [1]), now=NOW)
    assert store.read_arrow(METRICS).num_rows == 0


def test_what_does_not_fit_is_listed_completely(store):
    rows = metrics(FIVE, [1, 2])
    wrong = pa.table(
        {
            "metric": pa.array(["a", None]),
            "value": ["text", "text"],
            "measured_over": [1, 2],
            "day": rows.column("day"),
            "hour": pa.array([0, 0], pa.timestamp("us")),
            "extra": [1, 2],
        }
    )
    with pytest.raises(ContractViolation) as caught:
        store.replace_slice(METRICS, hour(), lambda: wrong, now=NOW)
    text = str(caught.value)
    assert text.startswith(METRICS)
    for part in ("unit is missing", "extra is not", "metric has 1 null", "value is string", "hour is timestamp[us]"):
        assert part in text


def test_an_audit_that_fails_commits_nothing(store):
    seen = []

    def audit(rows):
        seen.append(rows.num_rows)
        raise AuditFailed("no", ["outcome"])

    with pytest.raises(AuditFailed):
        store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, [1, 2]), now=NOW, audit=audit)
    assert seen == [2]
    assert store.read_arrow(METRICS).num_rows == 0


def test_a_frame_is_as_good_as_arrow_rows(store, spark):
    frame = spark.createDataFrame(metrics(FIVE, [1, 2]))
    store.replace_slice(METRICS, hour(), lambda: frame, now=NOW)
    assert values(store) == [1, 2]


def test_a_frame_keeps_showing_the_version_it_was_made_on(store):
    store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, [1]), now=NOW)
    pinned = store.read(METRICS)
    first = store.version(METRICS)
    store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, [2, 3]), now=NOW)
    assert pinned.count() == 1
    assert store.read(METRICS).count() == 2
    assert store.read(METRICS, version=first).count() == 1
    assert store.read_arrow(METRICS, version=first).column("value").to_pylist() == [1]


def test_reading_columns_in_the_order_asked_for_and_by_condition(store):
    store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, [1, 2, 3]), now=NOW)
    rows = store.read_arrow(METRICS, hour(), columns=["value", "metric"], where="value > 1 OR metric = 'm0'")
    assert rows.column_names == ["value", "metric"]
    assert rows.num_rows == 3
    assert store.read_arrow(METRICS, hour(SIX), where="value > 1 OR metric = 'm0'").num_rows == 0


def test_a_commit_says_what_it_covers_and_what_it_read(store):
    store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, [1]), now=NOW)

    def build():
        store.read(METRICS, hour())
        return metrics(SIX, [2])

    store.replace_slice(METRICS, hour(SIX), build, now=NOW, commit_metadata={"run_id": "r", "bronze_version": "7"})
    last = store.commits_after(METRICS, 1, 10)[-1]
    assert last.version == 2
    assert (last.metadata["run_id"], last.metadata["bronze_version"]) == ("r", "7")
    assert last.metadata["slice_start"] == SIX.isoformat()
    assert last.metadata["slice_end"] == (SIX + HOUR).isoformat()
    assert json.loads(last.metadata["read_versions"]) == {METRICS: 1}


def test_commits_come_in_order_and_bounded(store):
    for value in range(5):
        store.replace_slice(METRICS, hour(), lambda value=value: metrics(FIVE, [value]), now=NOW)
    assert [c.version for c in store.commits_after(METRICS, 1, 2)] == [2, 3]
    assert [c.version for c in store.commits_after(METRICS, 3, 100)] == [4, 5]
    assert store.commits_after(METRICS, 5, 100) == []
    assert store.commits_after("ops.alerts", -1, 100) == []


def test_a_table_whose_columns_are_not_the_contracts_is_refused(store):
    from deltalake import write_deltalake

    write_deltalake(store.path(METRICS), pa.table({"metric": ["a"], "value": [1]}))
    with pytest.raises(ContractViolation) as caught:
        store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, [1]), now=NOW)
    for part in ("unit is not stored", "value is stored as int64", "metric is stored as nullable"):
        assert part in str(caught.value)


def test_an_unknown_table_is_named(store):
    with pytest.raises(KeyError, match=r"no contract for table 'gold\.nothing'"):
        store.read_arrow("gold.nothing")
