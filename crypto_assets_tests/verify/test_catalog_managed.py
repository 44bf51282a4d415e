"""The audit judges no old version: what a catalog keeps is named, skipped, and never part of "every law holds"."""

from __future__ import annotations

from pathlib import Path

import pytest

from crypto_assets.verify.audit import audit
from crypto_assets.verify.coverage import UNJUDGED
from crypto_assets_tests.storage import catalog_managed
from crypto_assets_tests.storage.rows import FIVE, NOW, PREDICTIONS, forecast, table


@pytest.mark.engine("local")
@pytest.mark.parametrize("keep", [catalog_managed.by_commit, catalog_managed.by_checkpoint])
def test_its_laws_are_skipped_and_the_report_says_why(engine, keep):
    engine.store.merge(PREDICTIONS, table(PREDICTIONS, [forecast(FIVE)]), mode="insert_if_absent")
    path = Path(engine.store.path(PREDICTIONS))
    before = audit(engine.lake, None, now=NOW)
    assert {f.outcome for f in before.findings if f.law == "predictions_chains_are_whole"} == {"holds"}
    keep(path)
    report = audit(engine.lake, None, now=NOW)
    assert not report.ok
    assert report.broken == []
    (why,) = report.unread.values()
    assert why.startswith(f"{PREDICTIONS} at {path}: a catalog keeps the newest commits (table feature catalogManaged)")
    assert why.endswith("ALTER TABLE gold.price_predictions DROP FEATURE catalogManaged")
    laws = [f for f in report.findings if PREDICTIONS in f.tables]
    assert len(laws) > 3
    assert {f.outcome for f in laws} == {"skipped"}
    assert {f.note for f in laws} == {f"a catalog keeps the commits of {PREDICTIONS}"}
    assert {row["table"]: row["holds"] for row in report.tables(UNJUDGED)}[PREDICTIONS] == "skipped"
    assert any(why in row["what"] for row in report.rows())
