"""Contracts as Dagster checks: specs, evaluations by partition, aggregates, column metadata."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from crypto_assets.checks import factories as checks
from crypto_assets.checks import rules
from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.base import CheckOutcome

KEY = dg.AssetKey(["gold", "bars_1m"])
BARS = TABLES["gold.bars_1m"]
RED = CheckOutcome(
    "ohlc_ordered", False, "2 of 60 rows", "error",
    {"violations": 2, "rows": 60, "blocking": True, "examples": ["coin_id=x"], "columns": {"open": 2}, "at": None,
     "seen": {"b", "a"}, "when": datetime(2024, 1, 1, tzinfo=UTC)},
)  # fmt: skip
GREEN = CheckOutcome("ohlc_ordered", True, "holds for 60 rows", metadata={"violations": 0, "rows": 60})


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_checks_that_can_fail(name):
    table = TABLES[name]
    specs = {s.name: s for s in checks.specs(table.asset_key, table)}
    assert ("has_rows" in specs) == (table.grain is not None)
    warnings = {r.name for r in table.rules if not r.blocking}
    assert warnings <= set(specs)
    assert all(name in (specs["contract"].description or "") for name in rules.parts(table))
    assert not set(rules.parts(table)) & set(specs)
    assert all(s.description and s.asset_key == dg.AssetKey(list(table.asset_key)) for s in specs.values())
    blocking = {s.name for s in specs.values() if s.blocking}
    assert blocking == {"contract"}


def test_extra_checks_are_added_and_may_not_hide_the_contract():
    assert checks.specs(("ml", "anomaly_model"), None, {"enough_data": "28 days"})[0].name == "enough_data"
    assert checks.specs(KEY.path, BARS, {"balance": "it adds up"})[-1].name == "balance"
    with pytest.raises(ValueError, match="not_null"):
        checks.specs(KEY.path, BARS, {"not_null": "mine"})


def test_an_evaluation_carries_partition_severity_and_metadata():
    event = checks.evaluation(RED, KEY, "2024-03-01-05:00")
    assert (event.asset_key, event.check_name, event.passed) == (KEY, "ohlc_ordered", False)
    assert event.partition == "2024-03-01-05:00"
    assert event.severity is dg.AssetCheckSeverity.ERROR
    assert event.blocking
    assert event.metadata["violations"].value == 2
    assert event.metadata["examples"].value == ["coin_id=x"]
    assert event.metadata["columns"].value == {"open": 2}
    assert event.metadata["seen"].value == ["a", "b"]
    assert event.metadata["when"].value == "2024-01-01T00:00:00+00:00"
    assert "at" not in event.metadata
    warned = checks.evaluation(CheckOutcome("complete_windows", False, "few", "warn"), KEY, None)
    assert warned.severity is dg.AssetCheckSeverity.WARN


def test_evaluations_are_stored_and_read_back_by_partition():
    @dg.asset(
        key=KEY,
        partitions_def=dg.StaticPartitionsDefinition(["a", "b"]),
        check_specs=[dg.AssetCheckSpec("ohlc_ordered", asset=KEY, blocking=True)],
    )
    def bars(context):
        context.log_event(checks.evaluation(GREEN, KEY, "a"))
        context.log_event(checks.evaluation(RED, KEY, "b"))
        return dg.MaterializeResult(
            check_results=[checks.aggregate(KEY, "ohlc_ordered", {"2026-01-01": GREEN, "2026-01-02": RED})]
        )

    with dg.DagsterInstance.ephemeral() as instance:
        tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "b"}
        # A red blocking check fails its step; the steps audit before they write, so that it comes to this only there.
        assert not dg.materialize([bars], instance=instance, tags=tags, raise_on_error=False).success
        records = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(KEY, "ohlc_ordered"), limit=10
        )
    stored = [r.event.dagster_event.asset_check_evaluation_data for r in records]  # type: ignore[union-attr]
    assert {(e.partition, e.passed) for e in stored} == {("a", True), ("b", False), (None, False)}


def test_the_aggregate_names_what_failed():
    result = checks.aggregate(
        KEY, "ohlc_ordered", {"2026-01-01": GREEN, "2026-01-03": RED, "2026-01-02": RED, "2026-01-05": RED}
    )
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.ERROR
    assert "3 of 4 partitions: 2026-01-02..2026-01-03, 2026-01-05. " in (result.description or "")
    assert result.metadata["failing_partitions"].value == 3
    assert result.metadata["violations"].value == 6
    assert result.metadata["rows"].value == 240


def test_the_aggregate_of_many_failures_stays_short():
    result = checks.aggregate(KEY, "ohlc_ordered", {f"{1600 + 2 * y}-01-01": RED for y in range(500)})
    assert "and 490 more" in (result.description or "")
    assert len(result.metadata["failing"].value) == 10  # type: ignore[arg-type]


def test_the_aggregate_warns_when_all_failures_are_warnings():
    warned = CheckOutcome("complete_windows", False, "few", "warn")
    assert (
        checks.aggregate(KEY, "complete_windows", {"2026-01-01": warned, "2026-01-02": warned}).severity
        is dg.AssetCheckSeverity.WARN
    )
    assert checks.aggregate(KEY, "complete_windows", {None: warned}).severity is dg.AssetCheckSeverity.WARN


def test_a_check_that_nobody_evaluated_is_red():
    result = checks.aggregate(KEY, "ohlc_ordered", {})
    assert not result.passed
    assert "did not evaluate" in (result.description or "")


def test_green_aggregates():
    assert checks.aggregate(KEY, "ohlc_ordered", {"a": GREEN, "b": GREEN}).passed
    assert checks.aggregate(KEY, "ohlc_ordered", {"a": GREEN}).description == GREEN.description
    assert checks.aggregate(KEY, "ohlc_ordered", {None: GREEN}).metadata["rows"].value == 60


@pytest.mark.parametrize("name", TABLES)
def test_column_metadata_shows_schema_and_lineage(name):
    table = TABLES[name]
    metadata = checks.column_metadata(table)
    schema = metadata["dagster/column_schema"]
    assert [(c.name, c.type, c.constraints.nullable) for c in schema.columns] == [
        (c.name, c.type, c.nullable) for c in table.columns
    ]
    lineage = {c.name: c.lineage for c in table.columns if c.lineage}
    assert ("dagster/column_lineage" in metadata) == bool(lineage)
    if lineage:
        deps = metadata["dagster/column_lineage"].deps_by_column
        found = {n: {".".join([*d.asset_key.path, d.column_name]) for d in ds} for n, ds in deps.items()}
        assert found == {n: set(texts) for n, texts in lineage.items()}


def test_coverage_versions_depend_on_every_partition_and_their_order():
    assert checks.coverage_version(["a", "b"]) == checks.coverage_version(["a", "b"])
    assert len({checks.coverage_version(v) for v in (["a", "b"], ["b", "a"], ["ab"], ["a"])}) == 4
