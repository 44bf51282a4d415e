"""Comparing two lakes: what counts as the same, and how differences are told."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from crypto_assets.cli import lake_difference
from crypto_assets.cli.lake_difference import NOT_COMPARED, compare
from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.base import Engine
from crypto_assets_tests.engine_fixtures import MakeEngine
from crypto_assets_tests.storage.rows import ALERTS, METRICS, NOW, alert, hour, metrics, table

FIVE = datetime(2024, 1, 1, 5, tzinfo=UTC)
ONLY = {name: TABLES[name] for name in (METRICS, ALERTS)}


def write(engine: Engine, values: list[float], alerts: list[dict[str, Any]]) -> None:
    engine.store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, values), now=NOW)
    engine.store.merge(ALERTS, table(ALERTS, alerts), mode="upsert")


@pytest.fixture
def lakes(make_engine: MakeEngine, tmp_path: Path) -> tuple[Path, Path]:
    one, two = tmp_path / "one", tmp_path / "two"
    write(make_engine(one), [1.0, 2.0, 0.0], [alert("a"), alert("b")])
    write(make_engine(two), [1.0 + 1e-10, 2.0, 1e-13], [alert("b"), alert("a")])
    return one, two


def test_order_and_the_last_bits_of_doubles_are_no_difference(lakes: tuple[Path, Path]) -> None:
    found = compare(*lakes, ONLY)
    assert [(d.table, d.rows, d.differences) for d in found] == [(METRICS, (3, 3), 0), (ALERTS, (2, 2), 0)]


def test_a_value_a_key_and_a_table_that_differ_are_named(
    lakes: tuple[Path, Path], make_engine: MakeEngine, tmp_path: Path
) -> None:
    one, _ = lakes
    other = tmp_path / "other"
    write(make_engine(other), [1.0, 2.00001, 0.0, 4.0], [alert("a", state="resolved"), alert("b")])
    numbers, alerts = compare(one, other, ONLY)
    assert (numbers.only, numbers.cells) == ((0, 1), {"value": 1})
    assert any("value of" in e and "2.0 and 2.00001" in e for e in numbers.examples)
    assert any(e.startswith("only in the second: ") and "m3" in e for e in numbers.examples)
    assert alerts.cells == {"state": 1}
    nothing = tmp_path / "nothing"
    assert [(d.differences, str(nothing) in d.note) for d in compare(one, nothing, ONLY)] == [(3, True), (2, True)]


def test_what_is_not_compared_are_random_identifiers_of_real_columns() -> None:
    assert all(column in TABLES[name].column_names for name, columns in NOT_COMPARED.items() for column in columns)


def test_what_a_clock_measured_is_no_difference(
    lakes: tuple[Path, Path], make_engine: MakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = lakes
    other = tmp_path / "slower"
    write(make_engine(other), [1.0, 900.0, 0.0], [alert("a"), alert("b")])
    assert [d.differences for d in compare(one, other, ONLY)] == [1, 0]
    (named,) = lake_difference.MEASURED.values()
    measured = named.replace("model_inference_latency_ms", "m1")
    monkeypatch.setattr(lake_difference, "MEASURED", {METRICS: measured})
    assert [d.differences for d in compare(one, other, ONLY)] == [0, 0]
    assert named.split("'")[1] in TABLES[METRICS].column("metric").description + TABLES[METRICS].description
