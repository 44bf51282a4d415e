"""A lake in which a regression of the interval's width serves: its rows do not depend on the hours scored together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pytest

from crypto_assets.assets import predictions, price_model, training
from crypto_assets.assets.forecast_ledgers import within
from crypto_assets.contracts.model import CHAIN_COLUMNS
from crypto_assets.contracts.slices import DAY, HOUR, Slice, day_key, hour_key
from crypto_assets.engine.base import StepInputs
from crypto_assets.engine.sail import SailEngine
from crypto_assets.ml import forecasts, registry
from crypto_assets.ml.baselines import HORIZONS
from crypto_assets.ml.promotions import effective
from crypto_assets.serving.scoring import SHOWN, needed
from crypto_assets.serving.scoring import predictions as on_request
from crypto_assets.verify import coverage
from crypto_assets.verify.audit import audit
from crypto_assets.verify.laws.intervals import intervals_law
from crypto_assets_tests.builders import START, step_inputs
from crypto_assets_tests.ml.synthetic import SIGMA, feature_rows, names, panel_of, registry_of
from crypto_assets_tests.ml.test_intervals import clustered, rolling_scale

DAYS = 31
CUTOFF = START + 30 * DAY
NOW = CUTOFF + 12 * HOUR


@pytest.fixture
def inputs(tmp_path: Path) -> Callable[..., StepInputs]:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    params = {"tracking_uri": store, "registry_uri": store, "artifact_root": str(tmp_path / "artifacts")}

    def make(now: datetime = NOW) -> StepInputs:
        return step_inputs(now, coins=registry_of(names(3)), params=params)

    return make


def made(lake: SailEngine, inputs: StepInputs, hours: list[int]) -> list[dict[str, Any]]:
    """Forecasts of hours after the cut-off, as written; times of writing and chains left out."""
    result = predictions.work(lake, [hour_key(CUTOFF + h * HOUR) for h in hours], inputs)
    assert all(
        check.passed
        for partition in result.tables["gold.price_predictions"].partitions.values()
        for check in partition.checks
        if check.severity == "error"
    )
    rows = lake.store.read_arrow("gold.price_predictions").to_pylist()
    kept = [{n: v for n, v in r.items() if n not in ("predicted_at", "mode", *CHAIN_COLUMNS)} for r in rows]
    return sorted(kept, key=lambda r: (r["horizon"], r["window_end"], r["coin_id"]))


@pytest.mark.slow
def test_a_regression_serves_and_its_rows_are_equal_however_they_are_scored(
    engine: SailEngine, inputs: Callable[..., StepInputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = rolling_scale(panel_of(clustered(1, 3, DAYS), START, scale=SIGMA))
    table = feature_rows(data)
    for begin in range(0, DAYS, 8):
        span = Slice(START + begin * DAY, START + min(begin + 8, DAYS) * DAY)
        engine.store.replace_slice("features.price_features", span, lambda span=span: within(table, span), now=NOW)
    result = price_model.work(engine, [day_key(CUTOFF - DAY)], inputs())
    checks = {c.name: c for c in result.tables["ml.price_model"].partitions[day_key(CUTOFF - DAY)].checks}
    assert checks["promotion_gate"].passed
    decided = training.promotions(engine, inputs())
    serving = {h: effective(decided, f"price_{h}", CUTOFF) for h in HORIZONS}
    assert serving["5m"]["algorithm"] == "persistence+har"
    assert serving["5m"]["version"] == "2024-01-30-persistence-har"
    assert "har" in json.loads(serving["5m"]["metrics"])["interval"]["scales"]

    together = made(engine, inputs(), [0, 1, 2, 3, 4])
    shutil.rmtree(engine.store.path("gold.price_predictions"))
    for hour in (4, 2):
        made(engine, inputs(), [hour])
    assert made(engine, inputs(), [0, 3, 1]) == together
    assert len(together) == 2 * 3 * 60

    for horizon in HORIZONS:
        version = registry.load(serving[horizon])
        rows = [r for r in together if r["horizon"] == horizon]
        assert {r["model_version"] for r in rows} == {version.name}
        assert {r["skill_verdict"] for r in rows} == {"not evaluated"}
        assert all(r["lower_90"] < r["median"] < r["upper_90"] for r in rows)
        assert all(abs(r["coverage_7d"] - 0.9) < 0.03 for r in rows)
        assert {(r["coverage_28d"], r["null_reason"]) for r in rows} == {
            (None, "coverage over 28 d: too few days of this coin lie before the version's cut-off")
        }
        tracked = np.array([r["tracked_upper"] for r in rows if r["coin_id"] == "coin-00"])
        began = version.parameters["scale"]["tracked"]["coin-00"][1]
        assert tracked[0] == began
        assert len(set(tracked)) > 20
        # The same rows one by one, without the day before them.
        features = {(r["coin_id"], r["window_end"]): r for r in table.to_pylist()}
        given = [
            {n: features[r["coin_id"], r["window_end"]][n] for n in ("coin_id", *needed(f"price_{horizon}", version))}
            | {n: r[n] for n in forecasts.TRACKED}
            for r in rows
        ]
        answers = on_request(f"price_{horizon}", version, given, NOW)
        assert [{n: a[n] for n in SHOWN} for a in answers] == [{n: r[n] for n in SHOWN} for r in rows]
        without = on_request(f"price_{horizon}", version, [{**given[0], **dict.fromkeys(forecasts.TRACKED)}], NOW)
        assert without[0]["upper_90"] == rows[0]["upper_90"], "the first slot of the day has the state at the cut-off"
    monkeypatch.setattr(coverage, "all_laws", lambda: [intervals_law()])
    audited_and_broken(engine)


def audited_and_broken(engine: SailEngine) -> None:
    """The audit recomputes every interval from the version's files, and finds and names one that was altered."""
    law = intervals_law()
    path = engine.store.path("gold.price_predictions")

    def judged() -> Any:
        report = audit(Path(path).parents[1], None, now=NOW)
        return next(f for f in report.findings if f.law == law.name)

    sound = judged()
    assert (sound.outcome, sound.checked, sound.note) == ("holds", 2 * 3 * 60, "")
    kept = deltalake.DeltaTable(path).to_pyarrow_table()
    for column, change in (
        ("upper_90", lambda v: v * 1.0001), ("lower_90", lambda v: v * 0.9999), ("median", lambda v: v * 1.0001),
        ("tracked_lower", lambda v: v + 0.01), ("coverage_7d", lambda v: v + 0.001),
        ("skill_verdict", lambda _: "skill"),
    ):  # fmt: skip
        rows = kept.to_pylist()
        row = min(rows, key=lambda r: (r["window_end"], r["coin_id"], r["horizon"]))
        row[column] = change(row[column])
        deltalake.write_deltalake(path, pa.Table.from_pylist(rows, schema=kept.schema), mode="overwrite")
        broken = judged()
        assert (broken.outcome, broken.violations) == ("broken", 1), column
        assert row["coin_id"] in broken.examples[0]
        assert column in broken.examples[0]


def test_a_decision_against_its_own_figures_is_red() -> None:
    row = {
        "model": "price_1h", "algorithm": "persistence+har", "decision": "promoted", "why": "planted",
        "metrics": json.dumps({"interval": {"present": "own_sigma", "winkler": 1.0, "days": 14, "scales": {"har": {
            "winkler": 0.9, "coverage": {"bitcoin": 0.9},
            "gain": {"value": 0.1, "lower": -0.1, "upper": 0.3, "days": 14},
            "over_constant": {"value": 0.1, "lower": 0.05, "upper": 0.3, "days": 14},
        }}}}),
    }  # fmt: skip
    gate = price_model._gate([row])
    assert not gate.passed
    assert gate.description == "price_1h: by the figures persistence+own_sigma serves, not persistence+har"
    assert price_model._gate([{**row, "algorithm": "persistence+own_sigma"}]).passed
