"""Training and scoring on a real lake: which version scores what, and that a decision stands."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from crypto_assets.assets import anomalies, anomaly_model, predictions, price_model, training
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.model import CHAIN_COLUMNS
from crypto_assets.contracts.slices import DAY, HOUR, Slice, day_key, hour_key
from crypto_assets.contracts.tables import PROMOTIONS, TABLES
from crypto_assets.engine.base import CheckOutcome, Result, StepInputs
from crypto_assets.engine.sail import SailEngine
from crypto_assets.ml import artifacts, challenger
from crypto_assets.ml.baselines import REGISTERED, V0_THRESHOLD
from crypto_assets.ml.panel import Panel
from crypto_assets.ml.registry import Store
from crypto_assets.storage.base import AuditFailed
from crypto_assets_tests.builders import START, step_inputs
from crypto_assets_tests.ml.synthetic import SLOT, feature_rows, names, panel_of, registry_of, walk

NOW = START + 60 * DAY
COINS = names(3)
MONDAY = START + 9 * DAY
"""First day after the nine that models are trained on here: one for the scale, eight with scores."""


def market(days: int = 10) -> Panel:
    """Features of three coins since `START`."""
    return panel_of(walk(21, 3, days * 288), START)


@pytest.fixture(scope="module")
def data() -> Panel:
    return market()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty registry, whose tables take a while to make."""
    root = tmp_path_factory.mktemp("registry")
    Store(f"sqlite:///{root}/mlflow.db", f"sqlite:///{root}/mlflow.db", str(root)).client().search_experiments()
    return root / "mlflow.db"


@pytest.fixture
def inputs(database: Path, tmp_path: Path) -> Callable[..., StepInputs]:
    """Inputs of a step at a time, with a registry of the test's own."""
    copy = tmp_path / "mlflow.db"
    copy.write_bytes(database.read_bytes())
    params = {
        "tracking_uri": f"sqlite:///{copy}",
        "registry_uri": f"sqlite:///{copy}",
        "artifact_root": str(tmp_path / "artifacts"),
    }

    def make(now: datetime = NOW, **changed: Any) -> StepInputs:
        return step_inputs(now, coins=registry_of(COINS), params=params, **changed)

    return make


@pytest.fixture
def lake(engine: SailEngine, data: Panel) -> SailEngine:
    """A lake with ten days of features."""
    write_features(engine, feature_rows(data))
    return engine


TEN_DAYS = Slice(START, START + 10 * DAY)


def write_features(engine: SailEngine, rows: pa.Table, slice_: Slice = TEN_DAYS) -> None:
    engine.store.replace_slice("features.price_features", slice_, lambda: rows, now=NOW)


def changed(rows: pa.Table, row: Callable[[dict[str, Any]], dict[str, Any]]) -> pa.Table:
    """Rows with columns changed one by one."""
    return pa.Table.from_pylist([{**r, **row(r)} for r in rows.to_pylist()], schema=rows.schema)


def rows_of(engine: SailEngine, table: str, where: str | None = None) -> list[dict[str, Any]]:
    contract = TABLES[table]
    found = engine.store.read_arrow(table, where=where).to_pylist()
    return sorted(found, key=lambda r: tuple(str(r[k]) for k in contract.key))


def outcome(result: Result, table: str, key: str, check: str) -> CheckOutcome:
    return next(c for c in result.tables[table].partitions[key].checks if c.name == check)


def promotion(model: str, version: str, cutoff: datetime, **changed: Any) -> dict[str, Any]:
    """A row of the promotions as if someone else had decided it."""
    plain = {
        "model": model,
        "version": version,
        "algorithm": "robust_z" if model == "anomaly" else "persistence",
        "cutoff": cutoff,
        "effective_from": cutoff,
        "decision": "promoted",
        "provisional": True,
        "why": "planted",
        "metrics": json.dumps({"threshold": 0.5} if model == "anomaly" else {"interval_sigma": 0.5}),
        "artifact_uri": "builtin:v0",
        "artifact_sha256": "",
        "content_hash": version,
        "run_id": "",
        "decided_at": NOW,
    }
    return {**plain, **changed}


def plant(engine: SailEngine, *rows: Mapping[str, Any]) -> None:
    """Promotions written past the step and its audit."""
    table = pa.Table.from_pylist([dict(r) for r in rows], schema=arrow_schema(PROMOTIONS))
    engine.store.merge(PROMOTIONS.full_name, table, mode="insert_if_absent")


# --- which version scores what ------------------------------------------------------------------------------------


def test_before_any_training_the_baseline_scores_and_is_named(
    lake: SailEngine, inputs: Callable[..., StepInputs]
) -> None:
    key = hour_key(MONDAY)
    result = anomalies.work(lake, [key], inputs(MONDAY + HOUR))
    rows = rows_of(lake, "gold.anomalies")
    assert len(rows) == 36
    assert {(r["model_name"], r["model_version"], r["threshold"]) for r in rows} == {("anomaly", "v0", V0_THRESHOLD)}
    assert outcome(result, "gold.anomalies", key, "cutoff_before_window").passed
    predictions.work(lake, [key], inputs(MONDAY + HOUR))
    assert {r["model_version"] for r in rows_of(lake, "gold.price_predictions")} == {"v0"}
    assert lake.store.exists("ml.promotions")


def test_scoring_an_old_hour_today_gives_that_days_rows(lake: SailEngine, inputs: Callable[..., StepInputs]) -> None:
    """Versions that were promoted for later days do not score it, nor does the alias."""
    hour = hour_key(MONDAY + 3 * HOUR)
    for day in (7, 8):
        anomaly_model.work(lake, [day_key(START + day * DAY)], inputs(START + (day + 1) * DAY))
    anomalies.work(lake, [hour], inputs(MONDAY + 4 * HOUR))
    predictions.work(lake, [hour], inputs(MONDAY + 4 * HOUR))
    then, forecast = rows_of(lake, "gold.anomalies"), rows_of(lake, "gold.price_predictions")
    assert {r["model_version"] for r in then} == {"2024-01-09-union"}

    price_model.work(lake, [day_key(MONDAY)], inputs())
    anomaly_model.work(lake, [day_key(MONDAY)], inputs())
    plant(lake, promotion("anomaly", "much-later", MONDAY + 30 * DAY), promotion("price_5m", "later", MONDAY + DAY))
    assert Store.of(inputs().params).client().get_model_version_by_alias("crypto_price_5m", "champion")
    result = anomalies.work(lake, [hour], inputs())
    predictions.work(lake, [hour], inputs())
    assert not result.tables["gold.anomalies"].partitions[hour].metadata["written"]
    assert rows_of(lake, "gold.anomalies") == then
    assert rows_of(lake, "gold.price_predictions") == forecast
    # In a lake where it was never scored, today's scoring says the same.
    shutil.rmtree(lake.store.path("gold.price_predictions"))
    predictions.work(lake, [hour], inputs())
    again = rows_of(lake, "gold.price_predictions")
    told = _without_times(forecast)
    assert _without_times(again) == told
    assert {r["mode"] for r in again} == {"backfill"}


def _without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{n: v for n, v in r.items() if n not in ("predicted_at", "mode", *CHAIN_COLUMNS)} for r in rows]


def test_versions_change_at_midnight_of_their_cutoff(lake: SailEngine, inputs: Callable[..., StepInputs]) -> None:
    anomaly_model.work(lake, [day_key(START + 8 * DAY)], inputs())
    keys = [hour_key(MONDAY - HOUR), hour_key(MONDAY)]
    anomalies.work(lake, keys, inputs())
    by_hour = {(r["hour"], r["model_version"]) for r in rows_of(lake, "gold.anomalies")}
    assert by_hour == {(MONDAY - HOUR, "v0"), (MONDAY, "2024-01-09-union")}


def test_a_decision_by_hand_changes_the_version_within_a_day(
    lake: SailEngine, inputs: Callable[..., StepInputs]
) -> None:
    training.promotions(lake, inputs())
    at = MONDAY + 2 * HOUR
    for model in ("anomaly", "price_5m"):
        plant(lake, promotion(model, "by-hand", START, effective_from=at, decision="rolled_back"))
    keys = [hour_key(MONDAY + n * HOUR) for n in range(4)]
    anomalies.work(lake, keys, inputs())
    predictions.work(lake, keys, inputs())
    scored = {(r["hour"], r["model_version"]) for r in rows_of(lake, "gold.anomalies")}
    assert scored == {(MONDAY + n * HOUR, "by-hand" if n >= 2 else "v0") for n in range(4)}
    forecast = {(r["hour"], r["horizon"]): r["model_version"] for r in rows_of(lake, "gold.price_predictions")}
    assert forecast == {
        (MONDAY + n * HOUR, horizon): "by-hand" if n >= 2 and horizon == "5m" else "v0"
        for n in range(4)
        for horizon in ("5m", "1h")
    }


def test_a_training_under_a_rollback_is_recorded_and_does_not_serve(
    lake: SailEngine, inputs: Callable[..., StepInputs]
) -> None:
    training.promotions(lake, inputs())
    held = promotion("anomaly", "v0", START, effective_from=START + HOUR, decision="rolled_back", decided_at=START)
    plant(lake, held)
    result = anomaly_model.work(lake, [day_key(START + 8 * DAY)], inputs())
    rows = [r for r in rows_of(lake, "ml.promotions") if r["version"] != "v0" and r["model"] == "anomaly"]
    assert rows
    assert {r["decision"] for r in rows} == {"rejected"}
    assert all(r["why"].startswith("held by the rollback to v0") for r in rows)
    assert result.tables["ml.anomaly_model"].partitions[day_key(START + 8 * DAY)].metadata["why"] in {
        r["why"] for r in rows
    }
    anomalies.work(lake, [hour_key(MONDAY)], inputs())
    assert {r["model_version"] for r in rows_of(lake, "gold.anomalies")} == {"v0"}


@pytest.mark.parametrize("step", [anomalies, predictions])
def test_a_version_that_has_seen_a_slot_stops_the_write(
    step: Any, lake: SailEngine, inputs: Callable[..., StepInputs]
) -> None:
    """The check `cutoff_before_window` goes red, and nothing is written."""
    training.promotions(lake, inputs())
    model, table = ("anomaly", "gold.anomalies") if step is anomalies else ("price_1h", "gold.price_predictions")
    plant(lake, promotion(model, "peeks", MONDAY + DAY, effective_from=MONDAY))
    with pytest.raises(AuditFailed, match=r"cutoff_before_window.*had seen their slot \(peeks\)") as stopped:
        step.work(lake, [hour_key(MONDAY - HOUR), hour_key(MONDAY)], inputs())
    found: dict[str, CheckOutcome] = dict(stopped.value.outcomes)  # type: ignore[arg-type]
    assert found[hour_key(MONDAY - HOUR)].passed
    assert not found[hour_key(MONDAY)].passed
    assert found[hour_key(MONDAY)].metadata["violations"] == 36
    assert rows_of(lake, table) == []


def test_a_row_by_such_a_version_in_the_ledger_keeps_the_check_red(
    lake: SailEngine, inputs: Callable[..., StepInputs]
) -> None:
    key = hour_key(MONDAY)
    predictions.work(lake, [key], inputs())
    one = rows_of(lake, "gold.price_predictions")[:1]
    plant(lake, promotion("price_5m", "peeks", MONDAY + SLOT, effective_from=MONDAY + DAY))
    schema = arrow_schema(TABLES["gold.price_predictions"])
    for version in ("peeks", "unknown"):
        row = pa.Table.from_pylist(
            [{**one[0], "horizon": "5m", "model_name": "price_5m", "model_version": version}], schema=schema
        )
        lake.store.merge("gold.price_predictions", row, mode="insert_if_absent")
    check = outcome(predictions.work(lake, [key], inputs()), "gold.price_predictions", key, "cutoff_before_window")
    assert not check.passed
    assert check.severity == "error"
    assert check.metadata["violations"] == 2
    assert "(peeks, unknown)" in check.description


def test_a_promotion_that_serves_before_its_cutoff_is_not_recorded(
    engine: SailEngine, inputs: Callable[..., StepInputs]
) -> None:
    with pytest.raises(AuditFailed, match="serves_after_cutoff"):
        training.record(engine, [promotion("anomaly", "peeks", MONDAY + DAY, effective_from=MONDAY)])
    assert [r["version"] for r in training.promotions(engine, inputs())] == ["v0"] * len(REGISTERED)


# --- training -----------------------------------------------------------------------------------------------------


def test_training_sees_nothing_after_its_cutoff(
    lake: SailEngine, data: Panel, inputs: Callable[..., StepInputs], tmp_path: Path
) -> None:
    """Rows after the cut-off, and rows before it that became available later, leave the content hash as it is."""
    key, cutoff = day_key(START + 8 * DAY), MONDAY
    late = cutoff - 5 * HOUR

    def spoil(r: dict[str, Any]) -> dict[str, Any]:
        if r["window_end"] <= late or (r["window_end"] <= cutoff and r["available_at"] <= cutoff):
            return {}
        return {"rz": 1000.0, "r5": 0.9, "price": 1.0, "s": 1e-5}

    def held_back(r: dict[str, Any]) -> dict[str, Any]:
        return {"available_at": cutoff + HOUR} if late < r["window_end"] <= cutoff else {}

    hashes = []
    for number, rows in enumerate(
        (changed(feature_rows(data), held_back), changed(changed(feature_rows(data), held_back), spoil))
    ):
        engine = SailEngine(str(tmp_path / f"lake-{number}"))
        write_features(engine, rows)
        mine = replace(inputs(), params={**inputs().params, "artifact_root": str(tmp_path / f"artifacts-{number}")})
        for step, asset in ((anomaly_model, "ml.anomaly_model"), (price_model, "ml.price_model")):
            hashes.append((asset, step.work(engine, [key], mine).tables[asset].partitions[key].data_version))
    assert len(hashes) == 4
    assert len(set(hashes)) == 2, hashes
    with_all = anomaly_model.work(lake, [key], inputs()).tables["ml.anomaly_model"].partitions[key]
    assert ("ml.anomaly_model", with_all.data_version) not in hashes, "what was held back would have been learnt from"


def test_a_decision_stands_when_its_day_is_trained_again(
    lake: SailEngine, data: Panel, inputs: Callable[..., StepInputs]
) -> None:
    key = day_key(START + 8 * DAY)
    steps = ((anomaly_model, "ml.anomaly_model"), (price_model, "ml.price_model"))
    first = {asset: step.work(lake, [key], inputs()).tables[asset].partitions[key] for step, asset in steps}
    assert all(done.metadata["reproduced"] for done in first.values())
    decided = rows_of(lake, "ml.promotions")
    again = {asset: step.work(lake, [key], inputs()).tables[asset].partitions[key] for step, asset in steps}
    assert {a: p.data_version for a, p in again.items()} == {a: p.data_version for a, p in first.items()}
    write_features(
        lake, changed(feature_rows(data), lambda r: {"rz": r["rz"] and r["rz"] * 2, "s": r["s"] and r["s"] * 2})
    )
    for step, asset in steps:
        restated = step.work(lake, [key], inputs(NOW + DAY)).tables[asset].partitions[key]
        assert restated.data_version == first[asset].data_version
        assert not restated.metadata["reproduced"]
    assert rows_of(lake, "ml.promotions") == decided


def test_restated_inputs_are_told_by_a_warning(
    lake: SailEngine, data: Panel, inputs: Callable[..., StepInputs]
) -> None:
    key = day_key(START + 8 * DAY)
    now = datetime.now(UTC)  # commits carry the wall clock

    def check() -> CheckOutcome:
        done = anomaly_model.work(lake, [key], inputs(now))
        return outcome(done, "ml.anomaly_model", key, "inputs_restated_after_training")

    first = check()
    assert first.passed
    assert first.description == "trained for the first time"
    rows = feature_rows(data)
    # A slice of the day after, and one that only reaches into the window.
    write_features(lake, _doubled(rows, MONDAY, MONDAY + HOUR), Slice(MONDAY, MONDAY + HOUR))
    assert check().passed
    write_features(lake, _doubled(rows, MONDAY - HOUR, MONDAY + HOUR), Slice(MONDAY - HOUR, MONDAY + HOUR))
    red = check()
    assert (red.passed, red.severity, red.metadata["rewritten_slices"]) == (False, "warn", 1)


def _doubled(rows: pa.Table, start: datetime, end: datetime) -> pa.Table:
    kept = [{**r, "rz": r["rz"] * 2} for r in rows.to_pylist() if start <= r["window_start"] < end]
    return pa.Table.from_pylist(kept, schema=rows.schema)


def test_too_little_data_makes_nothing_but_a_red_check(lake: SailEngine, inputs: Callable[..., StepInputs]) -> None:
    result = anomaly_model.work(lake, [day_key(START + 3 * DAY), day_key(START + 4 * DAY)], inputs())
    assert result.tables == {}
    (check,) = result.skipped["ml.anomaly_model"]
    assert (check.name, check.passed) == ("enough_data", False)
    assert "needs 3 more days: 4 of the 7 days with scores" in check.description
    assert check.metadata == {"days": 4, "days_needed": 7}
    assert {r["version"] for r in rows_of(lake, "ml.promotions")} == {"v0"}
    refused = anomaly_model.work(lake, [day_key(START + 8 * DAY)], inputs(anomaly_budget=1 / 7))
    assert "fewer than 28 days" in refused.skipped["ml.anomaly_model"][0].description
    empty = price_model.work(lake, [day_key(START - DAY)], inputs())
    assert "needs 500 more outcomes" in empty.skipped["ml.price_model"][0].description


def test_days_with_and_without_enough_data_in_one_run(lake: SailEngine, inputs: Callable[..., StepInputs]) -> None:
    keys = [day_key(START + d * DAY) for d in (8, 2)]
    done = anomaly_model.work(lake, keys, inputs()).tables["ml.anomaly_model"]
    assert list(done.partitions) == keys[:1]
    assert [text.split(":")[0] for text in done.metadata["run_days_without_enough_data"]] == keys[1:]


def test_a_price_model_without_evaluation_is_persistence_and_says_what_is_missing(
    lake: SailEngine, data: Panel, inputs: Callable[..., StepInputs]
) -> None:
    key = day_key(START + 8 * DAY)
    result = price_model.work(lake, [key], inputs())
    missing = outcome(result, "ml.price_model", key, "enough_data")
    assert not missing.passed
    assert "needs 33 more days" in missing.description
    assert (missing.metadata["days"], missing.metadata["days_needed"]) == (9, 42)
    gate = outcome(result, "ml.price_model", key, "promotion_gate")
    assert gate.passed, "the decision follows the rule, whoever won"
    assert "the interval's scale last_hour needs 5 more days" in gate.description
    decided = {r["model"]: r for r in rows_of(lake, "ml.promotions", "version <> 'v0'")}
    assert {m: (r["version"], r["provisional"]) for m, r in decided.items()} == dict.fromkeys(
        ("price_5m", "price_1h"), ("2024-01-09-persistence-own-sigma", True)
    )
    parameters, model = artifacts.load(
        Path(decided["price_5m"]["artifact_uri"]), decided["price_5m"]["artifact_sha256"]
    )
    known = data.cut(0, 9 * 288 - 1)  # the last slot became available a second after the cut-off
    outcomes = known["r5"][:, 1:] / known["s"][:, :-1]
    assert model is None
    assert parameters["scale"]["own"] == pytest.approx(list(np.nanquantile(outcomes, [0.05, 0.5, 0.95])))


# --- anomalies ----------------------------------------------------------------------------------------------------


def test_every_row_tells_score_threshold_and_why(
    lake: SailEngine, data: Panel, inputs: Callable[..., StepInputs]
) -> None:
    spike = MONDAY + 7 * SLOT
    stale, null, frozen = MONDAY + 3 * SLOT, MONDAY + 5 * SLOT, MONDAY + 6 * SLOT
    learnt_run = 8

    def edit(r: dict[str, Any]) -> dict[str, Any]:
        coin, end = r["coin_id"], r["window_end"]
        if end == spike and coin != COINS[2]:
            rz = -30.0 if coin == COINS[0] else 25.0
            return {"rz": rz, "r5_market": 0.0, "rz_common": -20.0, "common_activity": 1.5625, "sample_count": 1}
        if coin == COINS[2] and end == MONDAY - 3 * HOUR:
            return {"unchanged_slots": learnt_run}
        if end == MONDAY + 11 * SLOT and coin == COINS[1]:
            return {"rz": 12.0, "r5_market": 0.02}
        if end == frozen and coin == COINS[2]:
            return {"unchanged_slots": learnt_run + 1, "sample_count": 1}
        if coin == COINS[0] and end == stale:
            return {"staleness_s": 400.0}
        if coin == COINS[0] and end == null:
            return {
                **dict.fromkeys(
                    ("price", "r5", "rz", "r15", "r1h", "r5_market", "rz_common", "common_activity", "rv1h")
                ),
                "null_reason": "stale_price",
            }
        return {"is_complete": False} if coin == COINS[2] and end == stale else {}

    write_features(lake, changed(feature_rows(data), edit))
    anomaly_model.work(lake, [day_key(START + 8 * DAY)], inputs())
    now, key = MONDAY + HOUR + 2 * SLOT, hour_key(MONDAY)
    result = anomalies.work(lake, [key], inputs(now))
    rows = {(r["coin_id"], r["window_end"]): r for r in rows_of(lake, "gold.anomalies")}
    assert len(rows) == 36
    assert result.tables["gold.anomalies"].partitions[key].rows == 36
    stored = rows_of(lake, "ml.promotions", "model = 'anomaly' AND version <> 'v0'")[0]
    learnt = artifacts.load(Path(stored["artifact_uri"]), stored["artifact_sha256"])[0]
    levels = {c: (learnt["thresholds"]["robust_z"][c], learnt["thresholds"]["market"][c]) for c in COINS}
    hit = rows[COINS[0], spike]
    common = learnt["thresholds"]["common"][COINS[0]]
    highest = max(30.0 / levels[COINS[0]][0], 16.0 / common)
    assert (hit["anomaly_score"], hit["threshold"], hit["is_anomaly"]) == (highest, 1.0, True)
    assert (hit["size_sigma"], hit["detectors"]) == (30.0, ["common", "robust_z"])
    assert (hit["common_score"], hit["common_threshold"]) == (16.0, common)
    assert json.loads(hit["explanation"])[0] == {"feature": "rz", "sigma": -30.0}
    assert (hit["scope"], hit["suspicion"]) == ("market_wide", "single_sample"), "the others moved alike"
    assert len(json.loads(hit["similar_windows"])) == 3
    assert all(datetime.fromisoformat(w["window_end"]) <= MONDAY for w in json.loads(hit["similar_windows"]))
    assert (hit["model_version"], hit["scored_at"], hit["revision"]) == ("2024-01-09-union", now, 0)
    assert hit["previous_is_anomaly"] is None
    assert hit["latency_s"] == (now - spike).total_seconds()
    assert (hit["symbol"], hit["price"]) == (COINS[0].upper(), pytest.approx(data["price"][0, 9 * 288 + 6]))
    assert {(r["z_threshold"], r["market_threshold"]) for (c, _), r in rows.items() if c == COINS[1]} == {
        levels[COINS[1]]
    }
    alone = rows[COINS[1], MONDAY + 11 * SLOT]
    assert (alone["is_anomaly"], alone["scope"], alone["suspicion"]) == (True, "coin_specific", None)
    assert alone["detectors"] == ["market", "robust_z"]
    s, s_market = (data[n][1, 9 * 288 + 10] for n in ("s", "s_market"))
    assert alone["market_score"] == pytest.approx(0.02 / math.sqrt(s_market * max(s_market, 0.3 * s)))
    assert alone["size_market_sigma"] == pytest.approx(0.02 / s_market)
    assert alone["anomaly_score"] == pytest.approx(alone["market_score"] / levels[COINS[1]][1])
    assert rows[COINS[2], frozen]["suspicion"] == "frozen"
    assert rows[COINS[0], stale]["suspicion"] == "stale"
    assert rows[COINS[2], stale]["suspicion"] == "incomplete"
    unknown = rows[COINS[0], null]
    assert [unknown[n] for n in ("anomaly_score", "is_anomaly", "size_sigma", "suspicion")] == [
        None,
        False,
        None,
        "stale",
    ]
    assert all(r["is_anomaly"] == ((r["anomaly_score"] or 0) > r["threshold"]) for r in rows.values())


def test_the_newest_slot_of_an_hour_is_scored(lake: SailEngine, inputs: Callable[..., StepInputs]) -> None:
    """Its row became available a second after the slice's end, as the newest one always does."""
    anomalies.work(lake, [hour_key(MONDAY)], inputs())
    last = [r for r in rows_of(lake, "gold.anomalies") if r["window_end"] == MONDAY + HOUR]
    assert len(last) == 3
    assert all(r["anomaly_score"] is not None for r in last)


def test_old_hours_whose_features_were_fetched_later_are_scored(
    lake: SailEngine, data: Panel, inputs: Callable[..., StepInputs]
) -> None:
    write_features(lake, changed(feature_rows(data), lambda _: {"available_at": NOW}))
    anomalies.work(lake, [hour_key(MONDAY)], inputs())
    predictions.work(lake, [hour_key(MONDAY)], inputs())
    assert len(rows_of(lake, "gold.anomalies", "anomaly_score IS NOT NULL")) == 36
    assert len(rows_of(lake, "gold.price_predictions")) == 72


def test_restated_rows_get_a_revision_and_remember_their_flag(
    lake: SailEngine, data: Panel, inputs: Callable[..., StepInputs]
) -> None:
    key, slot = hour_key(MONDAY), MONDAY + 4 * SLOT
    anomalies.work(lake, [key], inputs(MONDAY + HOUR))
    before = {(r["coin_id"], r["window_end"]): r for r in rows_of(lake, "gold.anomalies")}

    def restate(size: float) -> dict[Any, dict[str, Any]]:
        def edit(r):
            return {"rz": size} if (r["coin_id"], r["window_end"]) == (COINS[1], slot) else {}

        write_features(lake, changed(feature_rows(data), edit))
        anomalies.work(lake, [key], inputs())
        return {(r["coin_id"], r["window_end"]): r for r in rows_of(lake, "gold.anomalies")}

    after = restate(50.0)
    row = after.pop((COINS[1], slot))
    assert (row["is_anomaly"], row["revision"], row["previous_is_anomaly"]) == (True, 1, False)
    assert row["scored_at"] == MONDAY + HOUR, "when it was scored first"
    assert row["latency_s"] == before.pop((COINS[1], slot))["latency_s"]
    assert after == before, "what did not change keeps its revision and its time"
    row = restate(0.1)[COINS[1], slot]
    assert (row["is_anomaly"], row["revision"], row["previous_is_anomaly"]) == (False, 2, True)
    again = anomalies.work(lake, [key], inputs(NOW + DAY))
    assert not again.tables["gold.anomalies"].partitions[key].metadata["written"]


def test_an_hour_without_features_is_empty_and_red(lake: SailEngine, inputs: Callable[..., StepInputs]) -> None:
    key = hour_key(MONDAY + 5 * DAY)
    result = anomalies.work(lake, [key], inputs())
    check = outcome(result, "gold.anomalies", key, "has_rows")
    assert not check.passed
    assert "features of this hour are empty" in check.description


def test_rows_from_before_the_second_score_are_no_revisions_when_scored_again(
    lake: SailEngine, inputs: Callable[..., StepInputs]
) -> None:
    key = hour_key(MONDAY)
    anomalies.work(lake, [key], inputs(MONDAY + HOUR))
    stored = lake.store.read_arrow("gold.anomalies")
    first = changed(stored, lambda _: dict.fromkeys(anomalies.SECOND))
    lake.store.replace_slice("gold.anomalies", Slice(MONDAY, MONDAY + HOUR), lambda: first, now=NOW)
    assert {r["detectors"] is None for r in rows_of(lake, "gold.anomalies")} == {True}
    anomalies.work(lake, [key], inputs())
    again = rows_of(lake, "gold.anomalies")
    assert {(r["revision"], r["scored_at"]) for r in again} == {(0, MONDAY + HOUR)}
    assert again == sorted(stored.to_pylist(), key=lambda r: (r["coin_id"], str(r["window_end"])))


# --- the challenger and its gate ----------------------------------------------------------------------------------


@pytest.fixture
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(challenger, "TREES", 10)


SUNDAY = START + 13 * DAY


def scored_from_start(data: Panel) -> Panel:
    """As if a day before had made the scale known, so that the first week can be fitted on."""
    return replace(data, values={n: np.where(np.isfinite(v), v, np.nanmedian(v)) for n, v in data.values.items()})


def test_a_week_ends_with_a_comparison_whose_decision_is_green(
    engine: SailEngine, inputs: Callable[..., StepInputs], few_trees: None
) -> None:
    rows = feature_rows(scored_from_start(market(15)))
    write_features(engine, rows, Slice(START, START + 15 * DAY))
    keys = [day_key(SUNDAY - DAY), day_key(SUNDAY), day_key(SUNDAY + DAY)]
    result = anomaly_model.work(engine, keys, inputs())
    gates = [outcome(result, "ml.anomaly_model", key, "promotion_gate") for key in keys]
    assert [g.passed for g in gates] == [True] * 3
    decided = {r["version"]: r for r in rows_of(engine, "ml.promotions", "model = 'anomaly' AND version <> 'v0'")}
    day = f"{SUNDAY:%Y-%m-%d}"
    assert {v: d["decision"] for v, d in decided.items()} == {
        f"{SUNDAY - DAY:%Y-%m-%d}-union": "promoted",
        f"{day}-forest": "rejected",
        f"{day}-union": "promoted",
        f"{SUNDAY + DAY:%Y-%m-%d}-union": "promoted",
    }
    figures = json.loads(decided[f"{day}-forest"]["metrics"])["gate"]
    assert not challenger.wins(figures)
    assert gates[1].description == decided[f"{day}-union"]["why"]
    store = Store.of(inputs().params)
    client = store.client()
    aliases = {a: client.get_model_version_by_alias("crypto_anomaly", a) for a in ("champion", "challenger")}
    assert aliases["challenger"].tags["version"] == f"{day}-forest"
    assert aliases["champion"].tags["version"] == f"{SUNDAY + DAY:%Y-%m-%d}-union"
    run = decided[f"{day}-forest"]["run_id"]
    assert {f.path for f in client.list_artifacts(run)} >= {"gate.svg", "parameters.json"}
    served = json.loads(decided[f"{SUNDAY + DAY:%Y-%m-%d}-union"]["metrics"])["served"]
    assert (served["coin_days"], served["budget"]) == (pytest.approx(3, abs=0.02), 1)
    assert 0 <= served["flags"] < 15


def test_a_forest_that_wins_serves_its_week_and_the_days_own_versions_wait(
    engine: SailEngine, inputs: Callable[..., StepInputs], few_trees: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = feature_rows(scored_from_start(market(22)))
    write_features(engine, rows, Slice(START, START + 22 * DAY))
    better = {"value": 0.3, "lower": 0.2, "upper": 0.4}
    monkeypatch.setattr(challenger, "_figures", lambda *_: better)
    sunday, monday = day_key(SUNDAY), day_key(SUNDAY + DAY)
    anomaly_model.work(engine, [sunday], inputs())
    monkeypatch.undo()
    monkeypatch.setattr(challenger, "TREES", 10)
    waits = anomaly_model.work(engine, [monday], inputs())
    assert outcome(waits, "ml.anomaly_model", monday, "promotion_gate").passed
    anomalies.work(engine, [hour_key(SUNDAY + 3 * DAY)], inputs())
    assert {r["model_version"] for r in rows_of(engine, "gold.anomalies")} == {f"{sunday}-forest"}
    assert {tuple(r["detectors"]) for r in rows_of(engine, "gold.anomalies")} <= {(), ("isolation_forest",)}
    anomaly_model.work(engine, [day_key(SUNDAY + 7 * DAY)], inputs())
    decided = {r["version"]: r for r in rows_of(engine, "ml.promotions", "model = 'anomaly' AND version <> 'v0'")}
    assert {v: d["decision"] for v, d in decided.items()} == {
        f"{sunday}-union": "rejected",
        f"{sunday}-forest": "promoted",
        f"{monday}-union": "rejected",
        f"{day_key(SUNDAY + 7 * DAY)}-union": "promoted",
        f"{day_key(SUNDAY + 7 * DAY)}-forest": "rejected",
    }
    assert decided[f"{monday}-union"]["why"] == f"{sunday}-forest serves until the end of its week"


def test_a_decision_that_its_figures_do_not_support_is_red(
    lake: SailEngine, inputs: Callable[..., StepInputs], few_trees: None
) -> None:
    training.promotions(lake, inputs())
    cutoff = MONDAY
    figures = {"gate": {"difference": {"injected": {"value": -0.3, "lower": -0.4, "upper": -0.2}}}}
    plant(
        lake,
        promotion("anomaly", "union", cutoff, algorithm="union", decision="rejected", metrics="{}"),
        promotion("anomaly", "forest", cutoff, algorithm="isolation_forest", metrics=json.dumps(figures)),
    )
    rows = training.decided_on(training.promotions(lake, inputs()), "anomaly", cutoff)
    red = anomaly_model.gate(rows, None)
    assert not red.passed
    assert "by the figures union serves, and isolation_forest was promoted" in red.description


@pytest.mark.parametrize(
    ("flags", "days", "passed"), [(28, 28, True), (70, 28, False), (10, 28, False), (70, 27, True)]
)
def test_flags_are_held_against_the_budget_of_28_days(flags: int, days: int, passed: bool) -> None:
    """One coin at one flag a day, as trainings recorded it."""
    per_day = [flags // days + (n < flags % days) for n in range(days)]
    rows = [
        promotion(
            "anomaly",
            f"v{n}",
            MONDAY - n * DAY,
            metrics=json.dumps({"served": {"flags": of_day, "coin_days": 1.0, "budget": 1.0}}),
        )
        for n, of_day in enumerate(per_day)
    ]
    old = promotion("anomaly", "older", MONDAY - 28 * DAY, metrics=rows[0]["metrics"])
    check = anomaly_model.in_budget([*rows, old], MONDAY, 1.0)
    assert (check.passed, check.severity) == (passed, "warn")
    if days == 28:
        assert f"{flags / 28:.2f} times the budget of 1" in check.description
    else:
        assert check.description.startswith("27 of the 28 days")


# --- forecasts ----------------------------------------------------------------------------------------------------


def test_forecasts_are_inserted_once_and_never_rewritten(
    lake: SailEngine, data: Panel, inputs: Callable[..., StepInputs]
) -> None:
    key, early = hour_key(MONDAY), MONDAY + 20 * SLOT
    predictions.work(lake, [key], inputs(early))
    first = rows_of(lake, "gold.price_predictions")
    assert len(first) == 72
    assert {r["predicted_at"] for r in first} == {early}
    write_features(lake, changed(feature_rows(data), lambda r: {"price": r["price"] * 2, "s": r["s"] and r["s"] * 3}))
    result = predictions.work(lake, [key], inputs(NOW))
    assert rows_of(lake, "gold.price_predictions") == first
    assert not result.tables["gold.price_predictions"].partitions[key].metadata["written"]
    assert result.tables["gold.price_predictions"].partitions[key].rows == 72
    price_model.work(lake, [day_key(START + 8 * DAY)], inputs())
    predictions.work(lake, [key], inputs(NOW))
    both = rows_of(lake, "gold.price_predictions")
    assert [r for r in both if r["model_version"] == "v0"] == first
    assert len(both) == 144
    assert {r["mode"] for r in both if r["model_version"] != "v0"} == {"backfill"}


def test_only_what_was_written_before_its_target_is_live(lake: SailEngine, inputs: Callable[..., StepInputs]) -> None:
    now = MONDAY + HOUR + SLOT
    predictions.work(lake, [hour_key(MONDAY)], inputs(now))
    rows = rows_of(lake, "gold.price_predictions")
    assert {r["target_at"] - r["window_end"] for r in rows if r["horizon"] == "5m"} == {SLOT}
    assert {r["target_at"] - r["window_end"] for r in rows if r["horizon"] == "1h"} == {HOUR}
    assert all((r["mode"] == "live") == (r["target_at"] > now) for r in rows)
    # The target at the very time of writing is no longer ahead.
    assert [r["mode"] for r in rows if r["target_at"] == now] == ["backfill"] * 6
    assert {r["mode"] for r in rows} == {"live", "backfill"}


def test_the_baseline_forecasts_no_change_with_an_interval_of_its_sigma(
    lake: SailEngine, data: Panel, inputs: Callable[..., StepInputs]
) -> None:
    predictions.work(lake, [hour_key(MONDAY)], inputs())
    row = rows_of(lake, "gold.price_predictions", f"coin_id = '{COINS[2]}' AND horizon = '1h'")[0]
    assert (row["window_end"], row["predicted_return"]) == (MONDAY + SLOT, 0)
    price, s = data["price"][2, 9 * 288], data["s"][2, 9 * 288]
    half = 1.6449 * s * math.sqrt(12)
    found = [row[n] for n in ("price", "predicted_price", "lower_90", "upper_90")]
    assert found == pytest.approx([price, price, price * math.exp(-half), price * math.exp(half)])


def test_a_trained_model_forecasts_and_the_baseline_stands_in_where_inputs_are_unknown(
    lake: SailEngine, data: Panel, inputs: Callable[..., StepInputs], tmp_path: Path
) -> None:
    from sklearn.linear_model import Ridge

    from crypto_assets.ml.price import inputs as model_inputs

    known = np.isfinite(model_inputs(data)).all(axis=-1)
    model = Ridge().fit(model_inputs(data)[known], model_inputs(data)[known][:, 0] * 0.3)
    sha256 = artifacts.save(tmp_path / "ridge", {"lower": -1.0, "upper": 2.0}, model)
    training.promotions(lake, inputs())
    where = {"artifact_uri": str(tmp_path / "ridge"), "artifact_sha256": sha256}
    plant(lake, promotion("price_5m", "trained", MONDAY, **where))
    gap = MONDAY + 6 * SLOT

    def edit(r):
        return {"macd_hist": None} if r["window_end"] == gap and r["coin_id"] == COINS[0] else {}

    write_features(lake, changed(feature_rows(data), edit))
    predictions.work(lake, [hour_key(MONDAY)], inputs())
    rows = {(r["coin_id"], r["window_end"]): r for r in rows_of(lake, "gold.price_predictions", "horizon = '5m'")}
    assert {k for k, r in rows.items() if r["model_version"] == "v0"} == {(COINS[0], gap)}
    assert len(rows) == 36
    t = 9 * 288 + 11
    row = rows[COINS[1], MONDAY + HOUR]
    assert row["predicted_return"] == pytest.approx(0.3 * data["rz"][1, t] * data["s"][1, t], rel=0.01)
    drift, s = row["predicted_return"], data["s"][1, t]
    assert row["upper_90"] == pytest.approx(row["price"] * math.exp(drift + 2 * s))


def test_a_tampered_model_stops_scoring(lake: SailEngine, inputs: Callable[..., StepInputs]) -> None:
    anomaly_model.work(lake, [day_key(START + 8 * DAY)], inputs())
    stored = rows_of(lake, "ml.promotions", "model = 'anomaly' AND version <> 'v0'")[0]
    file = Path(stored["artifact_uri"]) / artifacts.PARAMETERS_FILE
    file.write_text(file.read_text(encoding="utf-8").replace('"days"', '"Days"'), encoding="utf-8")
    with pytest.raises(artifacts.ArtifactRefused, match="is not what was registered"):
        anomalies.work(lake, [hour_key(MONDAY)], inputs())
    assert rows_of(lake, "gold.anomalies") == []


# --- drift --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_drift_is_named_and_answered_by_one_comparison_until_the_cool_down_is_over(
    engine: SailEngine, inputs: Callable[..., StepInputs], few_trees: None
) -> None:
    """From day 35 on each quote of one coin is given twice; the weeks end on Sundays, here the days 34 and 41."""
    prices = walk(21, 3, 45 * 288)
    frozen = prices[1, 35 * 288 :]
    prices[1, 35 * 288 :] = frozen[np.arange(len(frozen)) // 2 * 2]
    write_features(engine, feature_rows(panel_of(prices, START)), Slice(START, START + 45 * DAY))
    steady, *red = (day_key(START + day * DAY) for day in (33, 37, 38, 43))
    checks = {}
    for key in (steady, *red):
        result = anomaly_model.work(engine, [key], inputs())
        checks[key] = outcome(result, "ml.anomaly_model", key, "drift")
        assert outcome(result, "ml.anomaly_model", key, "promotion_gate").passed
    assert [checks[key].passed for key in (steady, *red)] == [True, False, False, False]
    assert checks[steady].description == "no drift in 3 coins"
    assert all(checks[key].description.startswith("coin-01: ") for key in red)
    assert "a forest was compared at once" in checks[red[0]].description
    assert "no forest is compared again so soon" in checks[red[1]].description
    assert set(checks[red[0]].metadata["psi"]) == set(COINS)
    forests = [r["version"] for r in rows_of(engine, "ml.promotions", "algorithm = 'isolation_forest'")]
    assert forests == [f"{red[0]}-forest"], "once, and not again within seven days"


def test_every_version_has_a_card(lake: SailEngine, inputs: Callable[..., StepInputs]) -> None:
    key = day_key(START + 8 * DAY)
    anomaly_model.work(lake, [key], inputs())
    price_model.work(lake, [key], inputs())
    client = Store.of(inputs().params).client()
    for row in rows_of(lake, "ml.promotions", "version <> 'v0'"):
        files = {f.path for f in client.list_artifacts(row["run_id"])}
        assert "card.md" in files, row["version"]
        run = client.get_run(row["run_id"])
        card = Path(run.info.artifact_uri.removeprefix("file://"), "card.md").read_text(encoding="utf-8")
        assert card.splitlines()[0].endswith(row["version"])
        assert row["why"] in card
