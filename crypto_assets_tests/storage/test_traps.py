"""What the libraries do silently, and we build on or around: a new version that behaves otherwise shows here."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from pyspark.errors import AnalysisException

from crypto_assets.contracts.slices import HOUR
from crypto_assets.contracts.tables import TABLES
from crypto_assets.storage import checkpoints
from crypto_assets_tests.storage.rows import FIVE, METRICS, NOW, hour, metrics

pytestmark = pytest.mark.engine("local")

SIX = FIVE + HOUR
ONCE = CommitProperties(max_commit_retries=0)


@pytest.fixture
def path(store) -> str:
    rows = pa.concat_tables([metrics(FIVE, [1]), metrics(SIX, [2])])
    store.replace_slice(METRICS, hour(FIVE, 2), lambda: rows, now=NOW)
    return store.path(METRICS)


def test_without_retries_any_commit_in_between_is_a_conflict(path):
    """Also of two blind appends, which Delta itself would let pass: the write protocol rests on it."""
    one, other = DeltaTable(path), DeltaTable(path)
    write_deltalake(one, metrics(FIVE, [3]), mode="append", commit_properties=ONCE)
    with pytest.raises(CommitFailedError):
        write_deltalake(other, metrics(SIX, [4]), mode="append", commit_properties=ONCE)
    predicate = hour(SIX).predicate(TABLES[METRICS])
    with pytest.raises(CommitFailedError):
        write_deltalake(other, metrics(SIX, [4]), mode="overwrite", predicate=predicate, commit_properties=ONCE)
    with pytest.raises(CommitFailedError):
        other.delete(predicate, commit_properties=ONCE)


def test_an_equal_transaction_on_a_fresh_handle_is_accepted_silently(path):
    """So a transaction id alone protects nothing: the ranges in the rows do."""
    for _ in range(2):
        properties = CommitProperties(app_transactions=[Transaction("a/b/c", 1)], max_commit_retries=0)
        write_deltalake(DeltaTable(path), metrics(FIVE, [3]), mode="append", commit_properties=properties)
    assert DeltaTable(path).transaction_version("a/b/c") == 1
    assert DeltaTable(path).count() == 4


def test_delta_rs_refuses_rows_outside_a_predicate_of_bare_literals(path):
    predicate = hour().predicate(TABLES[METRICS])
    with pytest.raises(DeltaError):
        write_deltalake(DeltaTable(path), metrics(SIX, [9]), mode="overwrite", predicate=predicate)
    write_deltalake(DeltaTable(path), metrics(FIVE, [9]), mode="overwrite", predicate=predicate)
    assert DeltaTable(path).count() == 2


def test_a_frame_without_a_version_shows_commits_made_after_it(spark, path):
    frame = spark.read.format("delta").load(path)
    pinned = spark.read.format("delta").option("versionAsOf", 1).load(path)
    write_deltalake(DeltaTable(path), metrics(FIVE, [3]), mode="append")
    assert (frame.count(), pinned.count()) == (3, 2)


def test_sail_reads_only_the_files_that_a_slice_can_be_in(spark, store, path, capsys):
    tomorrow = FIVE + 24 * HOUR
    store.replace_slice(METRICS, hour(tomorrow), lambda: metrics(tomorrow, [1]), now=NOW)
    store.read(METRICS, hour()).explain()
    plan = capsys.readouterr().out
    assert "day=2024-01-01" in plan
    assert "day=2024-01-02" not in plan


def test_sail_ignores_the_transaction_and_the_predicate_of_a_writer(spark, path, tmp_path):
    """Why the embedded engine never writes: `replaceWhere` takes any row, `txnAppId` is not looked at."""
    copy = str(tmp_path / "copy")
    frame = spark.createDataFrame(metrics(FIVE, [1]))
    frame.write.format("delta").save(copy)
    for _ in range(2):
        writer = frame.write.format("delta").mode("append").option("txnAppId", "a").option("txnVersion", 1)
        writer.save(copy)
    assert DeltaTable(copy).count() == 3
    outside = spark.createDataFrame(metrics(SIX, [2]))
    outside.write.format("delta").mode("overwrite").option("replaceWhere", "hour < '2024-01-01T06:00:00Z'").save(copy)
    assert store_hours(copy) == {SIX}


def store_hours(path: str) -> set:
    from crypto_assets.storage.delta_files import open_table, query

    handle = open_table(path)
    assert handle is not None
    return set(query(handle, "SELECT hour FROM t").column("hour").to_pylist())


def test_sail_cannot_reach_a_version_before_the_last_checkpoint(spark, path):
    """So checkpoints stay behind (`storage.checkpoints`) and old versions are read by delta-rs."""
    for value in range(6):
        write_deltalake(DeltaTable(path), metrics(FIVE, [value]), mode="append")
    frame = spark.read.format("delta").option("versionAsOf", 5).load(path)
    assert frame.count() == 2 + 4
    DeltaTable(path).create_checkpoint()
    with pytest.raises(AnalysisException, match=checkpoints.OUT_OF_REACH):
        frame.count()
