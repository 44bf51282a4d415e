"""Rules on Arrow rows: by partition, in DuckDB; the same SQL gives the same verdict on Spark."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.checks import rules
from crypto_assets.contracts.arrow import arrow_schema, empty_rows
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import floor_day, floor_hour
from crypto_assets.contracts.tables import TABLES
from crypto_assets.storage.base import AuditFailed

START = datetime(2024, 3, 1, 5, tzinfo=UTC)
KEYS = ["2024-03-01-05:00", "2024-03-01-06:00"]
BARS = TABLES["gold.bars_1m"]


def bar(minute: int, **changed: Any) -> dict[str, Any]:
    start = START + timedelta(minutes=minute)
    one, two = Decimal("1.000000000000000001"), Decimal(2)
    row: dict[str, Any] = {
        "coin_id": "bitcoin", "symbol": "BTC", "window_start": start, "window_end": start + timedelta(minutes=1),
        "open": one, "high": two, "low": one, "close": two, "price_avg": 1.5, "sample_count": 2,
        "granularity": "tick", "first_event_at": start, "last_event_at": start, "available_at": start,
        "is_closed": True, "is_complete": True, "day": start.date(), "hour": floor_hour(start),
    }  # fmt: skip
    return row | changed


def bars(*made: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(made), arrow_schema(BARS))


def keys_of(table: Table) -> list[str | None]:
    return {"hour": ["2024-03-01-05:00"], "day": ["2024-03-01"], None: [None]}[table.grain]


def rows_of(table: Table, rows: pa.Table, keys: list[Any]) -> dict[Any, int]:
    return {key: found[0].metadata["rows"] for key, found in rules.evaluate(table, rows, keys).items()}


def by_name(outcomes: list) -> dict:
    return {o.name: o for o in outcomes}


@pytest.mark.parametrize("name", TABLES)
def test_every_contract_can_be_evaluated_and_passes_without_rows(name):
    table = TABLES[name]
    (key,) = keys_of(table)
    outcomes = rules.evaluate(table, empty_rows(table), [key])[key]
    assert [o.name for o in outcomes] == ["not_null", "unique_key", *(r.name for r in table.rules)]
    assert all(o.passed and o.metadata["rows"] == 0 for o in outcomes)
    assert rules.blocking(outcomes) == []


def test_good_rows_pass_in_every_partition():
    outcomes = rules.evaluate(BARS, bars(*map(bar, range(90))), KEYS)
    assert {key: by_name(found)["has_samples"].metadata["rows"] for key, found in outcomes.items()} == {
        KEYS[0]: 60,
        KEYS[1]: 30,
    }
    assert all(o.passed for found in outcomes.values() for o in found)


def test_violations_are_counted_in_their_own_partition_with_examples():
    wrong = [bar(minute, low=Decimal(3)) for minute in range(8)]
    outcomes = rules.evaluate(BARS, bars(*wrong, bar(61)), KEYS)
    red, green = by_name(outcomes[KEYS[0]])["ohlc_ordered"], by_name(outcomes[KEYS[1]])["ohlc_ordered"]
    assert (red.passed, red.severity, red.metadata["violations"], red.metadata["rows"]) == (False, "error", 8, 8)
    assert red.metadata["examples"][0] == "coin_id=bitcoin, window_start=2024-03-01T05:00:00+00:00"
    assert len(red.metadata["examples"]) == 5
    assert "8 of 8 rows" in red.description
    assert green.passed
    assert green.metadata["violations"] == 0


def test_a_rule_that_gives_null_is_violated():
    outcomes = by_name(rules.evaluate(BARS, bars(bar(0, low=None)), KEYS)[KEYS[0]])
    assert not outcomes["ohlc_ordered"].passed


def test_nulls_name_every_column_with_its_count():
    outcome = by_name(rules.evaluate(BARS, bars(bar(0, symbol=None), bar(1, symbol=None, open=None)), KEYS)[KEYS[0]])[
        "not_null"
    ]
    assert outcome.metadata["columns"] == {"symbol": 2, "open": 1}
    assert outcome.metadata["violations"] == 3
    assert "symbol (2 of 2)" in outcome.description
    assert "open (1 of 2)" in outcome.description


def test_doubled_keys_are_shown():
    outcome = by_name(rules.evaluate(BARS, bars(bar(0), bar(1), bar(1), bar(1)), KEYS)[KEYS[0]])["unique_key"]
    assert outcome.metadata["violations"] == 2
    assert outcome.metadata["examples"] == ["coin_id=bitcoin, window_start=2024-03-01T05:01:00+00:00"]


def test_a_null_in_a_key_column_is_no_reason_to_miss_a_double():
    alerts = TABLES["ops.alerts"]
    row = {
        "alert_id": None,
        "cause": "c",
        "state": "firing",
        "severity": "warn",
        "summary": "s",
        "at": START,
        "attempts": 0,
    }
    found = by_name(rules.evaluate(alerts, pa.Table.from_pylist([row, row], arrow_schema(alerts)), [None])[None])
    assert not found["unique_key"].passed


def test_warnings_do_not_block_and_errors_do():
    found = rules.evaluate(BARS, bars(bar(0, is_complete=False), bar(1, sample_count=0)), KEYS)[KEYS[0]]
    assert {o.name for o in found if not o.passed} == {"complete_windows", "has_samples"}
    assert by_name(found)["complete_windows"].severity == "warn"
    assert [o.name for o in rules.blocking(found)] == ["has_samples"]
    assert {"not_null", "unique_key", "ohlc_ordered"} <= set(rules.parts(BARS))
    assert not {"complete_windows", "has_rows"} & set(rules.parts(BARS))


def test_the_audit_raises_once_with_every_blocking_violation():
    rows = bars(bar(0, low=Decimal(3)), bar(61, sample_count=0), bar(62, is_complete=False))
    with pytest.raises(AuditFailed, match="nothing was written") as caught:
        rules.audit(BARS, KEYS)(rows)
    message = str(caught.value)
    assert "2024-03-01-05:00: ohlc_ordered" in message
    assert "2024-03-01-06:00: has_samples" in message
    assert "complete_windows" not in message
    assert {(key, o.name) for key, o in caught.value.outcomes if not o.passed} >= {
        (KEYS[0], "ohlc_ordered"),
        (KEYS[1], "complete_windows"),
    }
    rules.audit(BARS, KEYS)(bars(bar(62, is_complete=False)))


def test_rows_outside_of_the_partitions_are_refused_by_name():
    rows = bars(bar(0), bar(150))
    for ask in (rules.evaluate, rules.content_version):
        with pytest.raises(ValueError, match="2024-03-01-07:00"):
            ask(BARS, rows, KEYS)


def test_a_missing_column_is_refused_by_name():
    with pytest.raises(ValueError, match="price_avg"):
        rules.evaluate(BARS, bars(bar(0)).drop_columns(["price_avg"]), KEYS)


def test_columns_that_the_store_fills_in_may_be_absent_from_appended_rows():
    table = TABLES["bronze.raw_prices"]
    rows = empty_rows(table).drop_columns(["seq", "batch_id"])
    assert all(o.passed for o in rules.evaluate(table, rows, ["2024-03-01-05:00"])["2024-03-01-05:00"])


def test_an_unpartitioned_table_has_no_keys():
    table = TABLES["gold.latest_prices"]
    with pytest.raises(ValueError, match="keys=\\[None\\]"):
        rules.evaluate(table, empty_rows(table), KEYS)


def test_reserved_words_are_quoted_but_text_and_keywords_are_not():
    log = TABLES["bronze.raw_prices"]
    assert (
        rules.violates(log, log.rules[0])
        == 'NOT coalesce(("range_start" <= "offset" AND "offset" < "range_end"), false)'
    )
    kind = next(r for r in log.rules if r.name == "known_kind")
    assert rules.violates(log, kind) == "NOT coalesce((\"kind\" IN ('record', 'gap')), false)"


def test_counts_by_partition():
    assert rows_of(BARS, bars(bar(0), bar(1), bar(60)), KEYS) == {KEYS[0]: 2, KEYS[1]: 1}
    assert rows_of(BARS, bars(bar(0)), [None]) == {None: 1}
    day = TABLES["gold.bars_1d"]
    row = {k: v for k, v in bar(0).items() if k != "hour"} | {"day_start": floor_day(START)}
    rows = pa.Table.from_pylist([row], arrow_schema(day))
    assert rows_of(day, rows, ["2024-03-01", "2024-03-02"]) == {"2024-03-01": 1, "2024-03-02": 0}


def version(*made: dict[str, Any], volatile: tuple[str, ...] = ()) -> str:
    return str(rules.content_version(BARS, bars(*made), [KEYS[0]], volatile)[KEYS[0]])


@settings(max_examples=25, deadline=None)
@given(st.permutations(list(range(12))))
def test_the_content_version_ignores_order(order):
    assert version(*map(bar, order)) == version(*map(bar, range(12)))


def test_the_content_version_sees_every_change():
    versions = [
        version(),
        version(bar(0)),
        version(bar(0), bar(0)),
        version(bar(0), bar(1)),
        version(bar(0, close=Decimal("1.999999999999999999"))),
        version(bar(0, price_avg=1.5000000000000002)),
        version(bar(0, price_vol=0.0)),
        version(bar(0, available_at=START + timedelta(microseconds=1))),
        version(bar(0), volatile=("available_at",)),
    ]
    assert len(set(versions)) == len(versions)
    assert version(bar(0), volatile=("available_at",)) == version(
        bar(0, available_at=START + timedelta(days=1)), volatile=("available_at",)
    )


def test_the_content_version_does_not_depend_on_encodings():
    rows = bars(bar(0), bar(1))
    other = rows.set_column(0, "coin_id", rows.column("coin_id").cast(pa.large_string()))
    other = other.set_column(13, "sample_count", other.column("sample_count").cast(pa.int32()))
    assert rules.content_version(BARS, rows, KEYS) == rules.content_version(BARS, other, KEYS)


def test_unknown_volatile_columns_are_refused():
    with pytest.raises(ValueError, match="nonsense"):
        rules.content_version(BARS, bars(), KEYS, ("nonsense",))


def test_the_content_version_is_the_same_in_another_process_and_thread():
    code = (
        "from crypto_assets_tests.checks.test_rules import version, bar;"
        "print(version(bar(0), bar(1, name_of_nothing=1)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = version(bar(0), bar(1))
    elsewhere: list[str] = []
    thread = threading.Thread(target=lambda: elsewhere.append(version(bar(0), bar(1))))
    thread.start()
    thread.join()
    assert printed == here == elsewhere[0]


# --- the same SQL on Spark ----------------------------------------------------------------------------------------


def sample(table: Table, variant: int) -> dict[str, Any]:
    """A row of plausible values; variants differ, some of them breaking rules, some null."""
    texts = ["tick", "record", "firing", "promoted", "live", "5m", "ok"]
    moment = START + timedelta(minutes=7 * variant, seconds=variant)
    values: dict[str, Any] = {
        "string": texts[variant % len(texts)],
        "timestamp": moment,
        "date": date(2024, 3, 1),
        "int": variant % 9,
        "bigint": variant * 3 - 4,
        "double": [0.0, 1e-5, 0.5, 1.0, 101.0, -1.0, 1e-9][variant % 7],
        "boolean": variant % 2 == 0,
        "binary": b"x",
        "decimal(38,18)": Decimal(variant - 2) / 8,
        "array<string>": ["x"] * (variant % 3),
    }
    row = {}
    for position, column in enumerate(table.columns):
        shifted = sample_shift(values, column.type, variant + position, texts)
        row[column.name] = None if (variant + position) % 11 == 5 else shifted
    return row


def sample_shift(values: dict[str, Any], type_: str, step: int, texts: list[str]) -> Any:
    value = values[type_]
    if type_ == "timestamp":
        return value + timedelta(minutes=13 * (step % 7 - 3))
    if type_ == "string":
        return texts[step % len(texts)]
    if type_ == "boolean":
        return step % 2 == 0
    if type_ in ("int", "bigint"):
        return value + step % 5 - 2
    if type_ in ("double", "decimal(38,18)"):
        return value * (step % 3)
    return value


@pytest.mark.parametrize("name", TABLES)
def test_every_rule_gives_the_same_verdict_on_spark(name, spark):
    from pyspark.sql import functions as F

    from crypto_assets.contracts.arrow import spark_schema

    table = TABLES[name]
    nullable = pa.schema([f.with_nullable(True) for f in arrow_schema(table)])
    made = [sample(table, variant) for variant in range(40)]
    rows = pa.Table.from_pylist(made, nullable)
    schema = spark_schema(table)
    for field in schema.fields:
        field.nullable = True
    frame = spark.createDataFrame(rows, schema)
    counted = [F.count_if(F.coalesce(~F.expr(r.sql), F.lit(True))).alias(r.name) for r in table.rules]
    on_spark = frame.select(*counted).collect()[0].asDict()
    on_duckdb = {o.name: o.metadata["violations"] for o in rules.evaluate(table, rows, [None])[None]}
    assert {r.name: on_duckdb[r.name] for r in table.rules} == on_spark


def test_blocking_rules_are_reported_together_and_each_that_fails_is_named():
    low = bars(bar(0, low=Decimal(3)))
    found = rules.folded(BARS, rules.evaluate(BARS, low, KEYS[:1])[KEYS[0]])
    assert [o.name for o in found] == ["contract", "complete_windows"]
    one = found[0]
    assert (one.passed, one.severity, one.metadata["blocking"]) == (False, "error", True)
    assert one.metadata["failed"] == ["ohlc_ordered", "average_within_range"]
    assert (one.metadata["violations"], one.metadata["rows"]) == (2, 1)
    assert "; average_within_range: 1 of 1 rows break" in one.description
    assert one.description.startswith("ohlc_ordered: 1 of 1 rows break")
    assert one.metadata["examples"]["ohlc_ordered"]
    assert "| `ohlc_ordered` | 1 |" in one.metadata["what_failed"].text


def test_a_blocking_rule_that_was_not_evaluated_is_named():
    outcomes = rules.evaluate(BARS, bars(bar(0)), KEYS[:1])[KEYS[0]]
    assert rules.folded(BARS, outcomes)[0].passed
    (one, *rest) = rules.folded(BARS, [o for o in outcomes if o.name != "has_samples"])
    assert (one.passed, one.description) == (False, "has_samples: not evaluated")
    assert [o.name for o in rest] == ["complete_windows"]
    warned = [o for o in outcomes if o.name == "complete_windows"]
    assert rules.folded(BARS, warned) == warned
