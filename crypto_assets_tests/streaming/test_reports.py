"""What Dagster is told: one materialization a partition and minute, and the rest at the end."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from crypto_assets.engine.base import CheckOutcome, PartitionResult, TableResult
from crypto_assets.streaming.reports import Reports

KEY = dg.AssetKey(["gold", "bars_1m"])
HOUR = "2024-05-01-10:00"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def result(rows: int, passed: bool = True) -> TableResult:
    checks = [CheckOutcome("has_rows", passed, f"{rows} rows", "warn", {"rows": rows})]
    return TableResult({HOUR: PartitionResult(rows, f"version-{rows}", {"delta_version": rows}, checks)})


def told(instance: dg.DagsterInstance) -> list[dg.AssetMaterialization]:
    records = instance.fetch_materializations(KEY, limit=100).records
    return [r.asset_materialization for r in reversed(records) if r.asset_materialization]


def test_one_report_a_partition_and_minute_and_the_last_at_the_end(instance: dg.DagsterInstance):
    clock = Clock()
    reports = Reports(instance, "REPLAY", clock=clock)
    for second in range(0, 150, 10):
        clock.now = 1000.0 + second
        reports.offer_result("gold.bars_1m", result(second))
        reports.flush()
    assert [m.metadata["dagster/partition_row_count"].value for m in told(instance)] == [0, 60, 120]
    assert reports.flush() == 0, "its minute is not over"
    assert reports.flush(everything=True) == 1
    last = told(instance)[-1]
    assert (last.partition, last.metadata["dagster/partition_row_count"].value) == (HOUR, 140)
    assert last.tags == {"dagster/data_version": "version-140"}
    assert last.metadata["source"].value == "REPLAY"
    assert reports.flush(everything=True) == 0
    assert instance.get_materialized_partitions(KEY) == {HOUR}


def test_checks_of_a_partition_may_turn_red_and_green_again(instance: dg.DagsterInstance):
    reports = Reports(instance)
    check = dg.AssetCheckKey(KEY, "has_rows")
    found = []
    for passed in (True, False, True):
        reports.offer_result("gold.bars_1m", result(7, passed))
        reports.flush(everything=True)
        record = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check]
        found.append((record.evaluation.passed, record.evaluation.description))  # type: ignore[union-attr]
    assert found == [(p, f"{HOUR}: 7 rows") for p in (True, False, True)]


def test_what_a_step_said_of_a_finished_partition_is_not_replaced_by_less(instance: dg.DagsterInstance):
    reports = Reports(instance)
    reports.offer_result("gold.bars_1m", result(9), final=True)
    reports.offer("gold.bars_1m", HOUR, {"covered_until": "later"})
    reports.flush(everything=True)
    assert [m.metadata["dagster/partition_row_count"].value for m in told(instance)] == [9]


def test_without_an_instance_nothing_is_kept():
    reports = Reports(None)
    reports.offer_result("gold.bars_1m", result(1))
    assert reports.flush(everything=True) == 0
