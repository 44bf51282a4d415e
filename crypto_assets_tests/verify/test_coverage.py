"""Every table and column of the contracts is judged by a law, or excused with a reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crypto_assets.contracts.model import Column
from crypto_assets.contracts.tables import TABLES
from crypto_assets.verify import coverage
from crypto_assets.verify.report import Finding, Report


def test_no_column_is_left_out():
    assert coverage.gaps() == []


def test_a_new_column_and_a_new_table_need_a_law(monkeypatch: pytest.MonkeyPatch):
    bars = TABLES["gold.bars_5m"]
    extra = Column("vwap", "double", "A new column.")
    monkeypatch.setitem(TABLES, "gold.bars_5m", replace(bars, columns=(*bars.columns, extra)))
    monkeypatch.setitem(TABLES, "gold.order_books", replace(bars, name="order_books", columns=(extra,)))
    assert coverage.gaps() == ["gold.bars_5m.vwap is judged by no law", "gold.order_books.vwap is judged by no law"]


def test_every_law_has_its_own_name_and_says_how_it_compares():
    laws = coverage.all_laws()
    assert len({law.name for law in laws}) == len(laws)
    assert [law.name for law in laws if not law.recomputed] == []


def test_the_report_says_per_table_what_was_judged_and_how():
    findings = [
        Finding("sums", "sums agree", "holds", 3, tables=("gold.bars_1h",), recomputed="SQL from silver.prices"),
        Finding("keys", "keys are unique", "broken", 3, 1, ("doubled",), tables=("gold.bars_1h", "gold.dim_coin")),
        Finding("topic", "the topic is stored", "skipped", tables=("ops.polls",), recomputed="the topic read again"),
    ]
    report = Report(findings, {"gold.bars_1h": 3, "gold.dim_coin": 2})
    rows = {row["table"]: row for row in report.tables({"gold.dim_coin": {"name": "only the registry knows it"}})}
    assert [row["holds"] for row in rows.values()] == ["NO", "NO", "skipped"]
    assert rows["gold.bars_1h"]["laws"] == "sums, keys"
    assert rows["gold.bars_1h"]["rows"] == 3
    assert rows["gold.bars_1h"]["recomputed by"].startswith("SQL from silver.prices")
    assert rows["gold.dim_coin"]["not judged"] == "name: only the registry knows it"
