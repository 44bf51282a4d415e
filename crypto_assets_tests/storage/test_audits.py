"""What breaks a blocking rule is not committed, by whichever verb it comes; the error names table, rule and rows."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from crypto_assets.checks import rules
from crypto_assets.contracts.tables import TABLES
from crypto_assets.storage.base import AppendBatch, AuditFailed, OffsetRange
from crypto_assets.storage.store import DeltaStore
from crypto_assets_tests.storage.rows import (
    ALERTS,
    BRONZE,
    FIVE,
    METRICS,
    NOW,
    PREDICTIONS,
    alert,
    app_id,
    forecast,
    hour,
    metrics,
    records,
    table,
    up_to,
)

KEY = "2024-01-01-05:00"


def test_an_append_commits_nothing_that_breaks_a_blocking_rule(store: DeltaStore):
    audit = rules.audit(TABLES[BRONZE], [KEY])
    assert store.append_once(BRONZE, hour(), app_id(), up_to(3), audit=audit).committed
    piece = OffsetRange(0, 3, 6)
    good = records(piece)
    bad = good.set_column(good.schema.get_field_index("kind"), "kind", pa.array(["record", "rumour", "rumour"]))
    with pytest.raises(AuditFailed, match=r"bronze.raw_prices.*known_kind: 2 of 3 rows.*offset=4.*offset=5") as raised:
        store.append_once(BRONZE, hour(), app_id(), lambda _stored: AppendBatch(bad, (piece,)), audit=audit)
    assert {o.name: o.passed for key, o in raised.value.outcomes if key == KEY}["known_kind"] is False
    assert store.read_arrow(BRONZE).num_rows == 3
    twice = records(OffsetRange(0, 3, 5)).take(pa.array([0, 0]))
    with pytest.raises(AuditFailed, match="unique_key"):
        store.append_once(
            BRONZE, hour(), app_id(), lambda _stored: AppendBatch(twice, (OffsetRange(0, 3, 5),)), audit=audit
        )
    assert store.append_once(BRONZE, hour(), app_id(), up_to(6), audit=audit).rows == 3


@pytest.mark.parametrize("mode", ["insert_if_absent", "upsert", "replace_all"])
def test_a_merge_commits_nothing_that_breaks_a_blocking_rule(store: DeltaStore, mode):
    audit = rules.audit(TABLES[ALERTS], [None])
    store.merge(ALERTS, table(ALERTS, [alert("a")]), mode=mode, audit=audit)
    with pytest.raises(AuditFailed, match=r"ops.alerts: 1 blocking.*known_state: 1 of 2 rows.*alert_id=c"):
        store.merge(ALERTS, table(ALERTS, [alert("b"), alert("c", state="maybe")]), mode=mode, audit=audit)
    assert store.read_arrow(ALERTS, columns=["alert_id"]).column(0).to_pylist() == ["a"]


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_not_committed(store: DeltaStore, odd: float):
    with pytest.raises(AuditFailed, match=r"ops.pipeline_metrics.*finite: 1 of 2 rows.*metric=m1"):
        store.replace_slice(
            METRICS, hour(), lambda: metrics(FIVE, [1, odd]), audit=rules.audit(TABLES[METRICS], [KEY]), now=NOW
        )
    rows = table(PREDICTIONS, [{**forecast(FIVE), "upper_90": odd}])
    with pytest.raises(AuditFailed, match=r"gold.price_predictions.*interval_ordered.*finite"):
        store.merge(PREDICTIONS, rows, mode="insert_if_absent", audit=rules.audit(TABLES[PREDICTIONS], [KEY]))
    assert store.read_arrow(METRICS).num_rows + store.read_arrow(PREDICTIONS).num_rows == 0


@pytest.mark.engine("local")
def test_nothing_that_a_record_says_can_keep_the_log_from_being_stored():
    """Blocking rules of tables that are appended to speak of coordinates, which the reader of the log writes."""
    ours = {"topic", "topic_id", "partition", "offset", "kind", "range_start", "range_end", "arrival_hour"}
    ours |= {"bronze_ingested_at", *rules.FILLED_BY_STORE}
    for contract in TABLES.values():
        if contract.write != "append_once":
            continue
        assert {c.name for c in contract.columns if not c.nullable} <= ours
        assert set(contract.key) <= ours
        for rule in contract.rules:
            payload = [c.name for c in contract.columns if c.name in rule.sql and c.name not in ours]
            assert not (rule.blocking and payload), f"{rule.name} could block the log: {payload}"
