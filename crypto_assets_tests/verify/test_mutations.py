"""Every way in which a table can be wrong is noticed by the law that judges it; an untouched home keeps all laws."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from crypto_assets.contracts.model import CHAIN_COLUMNS
from crypto_assets.verify import coverage
from crypto_assets.verify.laws.base import LOG_TABLES
from crypto_assets_tests.verify import table_mutations
from crypto_assets_tests.verify.full_home import FullHome
from crypto_assets_tests.verify.mutations import (
    Mutation,
    Row,
    Rows,
    break_it,
    change,
    delete,
    double,
    dropped,
    emptied,
    moved,
    null,
    read,
    swap,
)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]  # the home takes a minute, many where others work


@pytest.fixture
def home(full_home: FullHome, tmp_path: Path) -> Path:
    """A copy of the home, to be broken; files are shared, since Delta never rewrites one."""
    shutil.copytree(full_home.settings.home, tmp_path / "home", copy_function=os.link)
    return tmp_path / "home"


def features() -> Iterator[Mutation]:
    table, law = "features.price_features", "features_are_bars_recomputed"
    yield change(table, "r5", law)
    yield change(table, "s", law)
    yield change(table, "price_at", law)
    yield change(table, "basket_hash", law)
    yield change(table, "is_complete", law)
    yield null(table, "macd_signal", law)
    yield change(table, "rv15m", law)
    yield change(table, "rv4h", law)
    yield change(table, "rv24h", law)
    yield null(table, "rv24h", law)
    yield change(table, "s_market", law)
    yield null(table, "s_market", law)
    yield change(table, "rz_common", law)
    yield null(table, "rz_common", law)
    yield change(table, "common_activity", law)
    yield null(table, "common_activity", law)
    yield change(table, "unchanged_slots", law)
    yield null(table, "unchanged_slots", law)
    yield null(table, "null_reason", law)
    yield swap(table, "rsi14", law)
    yield delete(table, law)
    yield double(table, law)
    yield moved(table, law)
    yield dropped(table)
    yield emptied(table)


def anomalies() -> Iterator[Mutation]:
    table, law = "gold.anomalies", "anomalies_are_features_scored"
    yield change(table, "anomaly_score", law)
    yield change(table, "anomaly_score", law, where=lambda r: "forest" in r["model_version"])
    yield change(table, "threshold", law)
    yield change(table, "is_anomaly", law)
    yield change(table, "is_anomaly", law, to=False, where=lambda r: r["is_anomaly"])
    yield change(table, "explanation", law, to=lambda text: text.replace(json.loads(text)[0]["feature"], "rsi14", 1))
    yield change(table, "scope", law, to="market_wide", where=lambda r: r["scope"] == "coin_specific")
    yield change(table, "scope", law, to="market_wide", where=lambda r: r["detectors"] == ["market"])
    yield change(table, "anomaly_score", law, where=by_both)
    yield change(table, "detectors", law, to=["market", "robust_z"], where=lambda r: r["detectors"] == ["market"])
    yield null(table, "detectors", law)
    yield change(table, "z_threshold", law, where=by_both)
    yield null(table, "market_threshold", law)
    yield change(table, "market_score", law)
    yield change(table, "common_score", law)
    yield null(table, "common_score", law)
    yield change(table, "common_threshold", law)
    yield null(table, "common_threshold", law)
    yield swap(table, "size_market_sigma", law)
    yield change(
        table,
        "similar_windows",
        law,
        to=lambda text: text.replace("T0", "T1", 1) if "T0" in text else text[:-1] + ",{}]",
    )
    yield null(table, "similar_windows", law)
    yield change(table, "suspicion", law, to="frozen", where=lambda r: r["suspicion"] is None)
    yield change(table, "model_version", "anomalies_refer_rightly", to="17")
    yield change(table, "latency_s", law)
    yield change(table, "inference_ms", law, to=-1.0)
    yield change(table, "symbol", law)
    yield change(table, "previous_is_anomaly", law, to=True, where=lambda r: r["previous_is_anomaly"] is None)
    yield null(table, "suspicion", law)
    yield swap(table, "size_sigma", law)
    yield delete(table, law)
    yield double(table, law)
    yield moved(table, law)
    yield dropped(table)
    yield emptied(table)


def by_both(row: Row) -> bool:
    return row["model_version"].endswith("-union")


def ledgers() -> Iterator[Mutation]:
    table, law = "gold.price_predictions", "predictions_chains_are_whole"
    yield change(table, "predicted_price", law)
    yield change(table, "upper_90", law, where=newest)
    yield change(table, "median", law)
    yield change(table, "tracked_lower", law)
    yield change(table, "tracked_upper", law, where=newest)
    yield change(table, "coverage_7d", law, to=0.5, where=newest)
    yield null(table, "skill_verdict", law)
    yield change(table, "null_reason", law)
    yield change(table, "mode", law, to="live")
    yield change(table, "predicted_at", law)
    yield change(table, "model_version", "predictions_refer_rightly", to="17")
    yield change(table, "chain_seq", law)
    yield change(table, "chain_previous", law)
    yield change(table, "chain_commit", law, where=newest)
    yield null(table, "chain_commit_hash", law)
    yield swap(table, "price", law)
    yield delete(table, law)
    yield Mutation(table, "the newest row of a chain deleted", without_newest, law)
    yield Mutation(table, "the newest commit deleted", without_newest_commit, law)
    yield Mutation(table, "a whole chain deleted", lambda rows: [r for r in rows if r["coin_id"] != "solana"], law)
    yield double(table, law)
    yield Mutation(table, "a row planted beside the chains", with_planted, law)
    yield moved(table, law)
    yield dropped(table)
    yield emptied(table)
    table, law = "gold.volatility_forecasts", "volatility_chains_are_whole"
    yield change(table, "volatility_pct", law)
    yield change(table, "last_value_pct", law, where=newest)
    yield change(table, "predicted_at", law)
    yield swap(table, "ewma_pct", law)
    yield delete(table, law)
    yield Mutation(table, "the newest row of a chain deleted", without_newest, law)
    yield Mutation(table, "the newest commit deleted", without_newest_commit, law)
    yield double(table, law)
    yield dropped(table)
    yield emptied(table)
    table, law = "ml.promotions", "promotions_chains_are_whole"
    yield change(table, "metrics", law, where=lambda r: r["version"] != "v0")
    yield change(table, "decision", law, to="rejected")
    yield change(table, "artifact_sha256", law)
    yield change(table, "decided_at", law)
    yield change(table, "cutoff", law)
    yield change(table, "provisional", law)
    yield null(table, "chain_previous", law)
    yield swap(table, "why", law)
    yield delete(table, law)
    yield Mutation(table, "the newest row of a chain deleted", without_newest, law)
    yield Mutation(table, "the newest commit deleted", without_newest_commit, law)
    yield double(table, law)
    yield dropped(table)
    yield emptied(table)

    law = "promotions_are_of_their_files_and_runs"
    yield change(
        table, "metrics", law, to=lambda text: text.replace("flags", "flag", 1), where=lambda r: "flags" in r["metrics"]
    )
    yield change(table, "content_hash", law)
    yield change(table, "run_id", law, where=lambda r: r["run_id"] != "")
    yield change(table, "algorithm", law, where=lambda r: r["version"] != "v0")
    yield change(table, "decision", law, to="promoted", where=lambda r: r["decision"] == "rejected")
    yield change(table, "decision", law, to="rolled_back", where=lambda r: r["decision"] == "rejected")


def accuracy() -> Iterator[Mutation]:
    table, law = "gold.prediction_accuracy", "accuracy_is_forecasts_scored"
    yield change(table, "forecasts", law)
    yield change(table, "mae_pct", law)
    yield change(table, "skill", law)
    yield change(table, "mode", law, to="live")
    yield change(table, "day_start", law)
    yield null(table, "coverage_90", law)
    yield change(table, "winkler_pct", law)
    yield change(table, "width_pct", law)
    yield change(table, "below_lower", law)
    yield change(table, "below_median", law)
    yield null(table, "below_upper", law)
    yield change(table, "direction_hit", law, to=0.5, where=lambda r: r["direction_hit"] is None)
    yield swap(table, "rmse_pct", law)
    yield delete(table, law)
    yield double(table, law)
    yield moved(table, law, ("day",))
    yield dropped(table)
    yield emptied(table, law)
    table, law = "gold.volatility_accuracy", "volatility_accuracy_is_forecasts_scored"
    yield change(table, "qlike", law)
    yield change(table, "qlike_ewma", law)
    yield null(table, "qlike_last_value", law)
    yield swap(table, "qlike_ratio", law)
    yield change(table, "outcome_pct", law)
    yield change(table, "volatility_pct", law)
    yield change(table, "forecasts", law)
    yield change(table, "mode", law, to="live")
    yield delete(table, law)
    yield double(table, law)
    yield moved(table, law, ("day",))
    yield dropped(table)
    yield emptied(table, law)
    table, law = "gold.volatility_forecasts", "volatility_follows_from_versions"
    yield change(table, "volatility_pct", law, to=lambda v: v * 1.0001)
    yield change(table, "ewma_pct", law, to=lambda v: v * 0.9999)
    yield null(table, "last_value_pct", law)
    yield change(table, "target_at", law)
    yield change(table, "mode", law, to="live")
    yield change(table, "horizon", law, to="24h", where=lambda r: r["window_end"].minute == 35)
    yield change(table, "model_version", "volatility_refers_rightly", to="17")
    yield delete(table, law)
    table, law = "gold.price_predictions", "predictions_are_consistent"
    yield change(table, "target_at", law)
    yield change(table, "predicted_price", law)
    yield change(table, "lower_90", law, to=lambda v: v * 0.999, where=lambda r: r["model_version"] == "v0")
    yield change(table, "median", law, to=lambda v: v * 1.5)
    yield change(table, "coverage_28d", law, to=1.5)
    yield change(table, "skill_verdict", law, to="splendid")
    yield null(table, "null_reason", law)
    yield null(table, "tracked_upper", law)
    yield delete(table, law)


def newest(row: Row) -> bool:
    """Rows of the newest commit of forecasts."""
    return row["chain_commit"] == 2


def without_newest(rows: Rows) -> Rows:
    last = max(rows, key=lambda r: (r["chain_commit"], r["chain_seq"]))
    return [r for r in rows if r is not last]


def without_newest_commit(rows: Rows) -> Rows:
    last = max(r["chain_commit"] for r in rows)
    return [r for r in rows if r["chain_commit"] != last]


def with_planted(rows: Rows) -> Rows:
    row = rows[len(rows) // 2]
    beside = dict.fromkeys(CHAIN_COLUMNS)
    return [*rows, row | beside | {"model_version": "v1", "predicted_at": row["predicted_at"] + timedelta(days=1)}]


ALL = [*features(), *anomalies(), *ledgers(), *accuracy(), *table_mutations.all_tables()]
MUTATED_HERE = (
    "features.price_features", "gold.anomalies", "gold.price_predictions", "ml.promotions", "gold.prediction_accuracy",
    "gold.volatility_forecasts", "gold.volatility_accuracy",
    *table_mutations.MUTATED,
)  # fmt: skip


def test_an_untouched_home_keeps_every_law(full_home: FullHome, home: Path):
    report = full_home.audit(home)
    assert report.broken == [], report.rows()
    skipped = {f.law for f in report.findings if f.outcome == "skipped"}
    assert skipped == {"bronze_holds_the_topic", "polls_holds_the_topic", "history_is_of_its_days"}


@pytest.mark.parametrize("mutation", ALL, ids=lambda m: m.name)
def test_a_mutation_is_caught(full_home: FullHome, home: Path, mutation: Mutation):
    break_it(home, mutation)
    broker = full_home.with_broker() if mutation.table in LOG_TABLES else {}
    report = full_home.audit(home, only=mutation.law, **broker)
    found = {f.law: f for f in report.broken}
    assert mutation.law in found, report.rows()
    assert found[mutation.law].violations >= 1
    assert found[mutation.law].examples
    assert "cannot be judged" not in found[mutation.law].examples[0]


def test_an_hour_of_features_without_the_columns_of_version_2_keeps_the_law(full_home: FullHome, home: Path):
    table, law = "features.price_features", "features_are_bars_recomputed"

    def earlier(rows: Rows) -> Rows:
        newest = max(r["hour"] for r in rows)
        none = dict.fromkeys(("rv15m", "rv4h", "rv24h", "s_market", "unchanged_slots", "rz_common", "common_activity"))
        return [{**r, **none} if r["hour"] == newest else r for r in rows]

    break_it(home, Mutation(table, "an hour of version 1", earlier, law))
    assert full_home.audit(home, only=law).broken == []


def test_an_hour_of_scores_from_before_there_were_two_keeps_the_law(full_home: FullHome, home: Path):
    table, law = "gold.anomalies", "anomalies_are_features_scored"
    since = (
        *("detectors", "z_threshold", "market_score", "market_threshold", "size_market_sigma", "similar_windows"),
        *("common_score", "common_threshold"),
    )

    def earlier(rows: Rows) -> Rows:
        newest = max(r["hour"] for r in rows if r["model_version"] == "v0")
        return [{**r, **dict.fromkeys(since)} if r["hour"] == newest else r for r in rows]

    break_it(home, Mutation(table, "an hour of the first release", earlier, law))
    assert full_home.audit(home, only=law).broken == []


def test_an_altered_model_file_is_caught(full_home: FullHome, home: Path):
    law = "promotions_are_of_their_files_and_runs"
    folder = next((home / "mlflow" / "artifacts" / "anomaly").glob("*-union"))
    text = (folder / "parameters.json").read_text()
    (folder / "parameters.json").unlink()
    (folder / "parameters.json").write_text(text.replace('"*": ', '"*": 1'))
    found = {f.law: f for f in full_home.audit(home, only=law).broken}
    assert "another sha256" in found[law].examples[0]
    shutil.rmtree(folder)
    found = {f.law: f for f in full_home.audit(home, only=law).broken}
    assert "no model files" in found[law].examples[0]


def test_a_metric_that_mlflow_has_otherwise_is_caught(full_home: FullHome, home: Path):
    database = home / "mlflow" / "mlflow.db"
    content = database.read_bytes()
    database.unlink()
    database.write_bytes(content)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE latest_metrics SET value = value + 1 WHERE key = 'flags'")
        connection.commit()
    found = {f.law: f for f in full_home.audit(home).broken}
    assert set(found) == {"promotions_are_of_their_files_and_runs"}
    assert "flags" in found["promotions_are_of_their_files_and_runs"].examples[0]


JUDGED = sorted({(t, c) for law in coverage.all_laws() for t, columns in law.covers.items() for c in columns})


@pytest.mark.full
@pytest.mark.parametrize(("table", "column"), JUDGED, ids=lambda v: v)
def test_any_change_of_a_judged_column_is_caught(full_home: FullHome, home: Path, table: str, column: str):
    rows = read(home, table) if (home / "lake" / table.replace(".", "/")).exists() else []
    if not any(row[column] is not None for row in rows):
        pytest.skip("the home has no value in this column")
    break_it(home, change(table, column, ""))
    assert {f.law for f in full_home.audit(home).broken}, f"{table}.{column} changed unseen"


def test_every_table_is_mutated_at_least_twice():
    mutated = Counter(m.table for m in ALL)
    assert {t: mutated[t] for t in MUTATED_HERE if mutated[t] < 2} == {}
