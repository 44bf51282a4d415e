"""A lake in which a regression of volatility serves: versions, forecasts, their accuracy, and the audit of all."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

from crypto_assets.assets import training, volatility, volatility_accuracy, volatility_model
from crypto_assets.assets.forecast_ledgers import within
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.model import CHAIN_COLUMNS
from crypto_assets.contracts.slices import DAY, HOUR, Slice, day_key, floor_hour, hour_key
from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.base import StepInputs
from crypto_assets.engine.sail import SailEngine
from crypto_assets.ml import registry
from crypto_assets.ml.baselines import BASELINE, REGISTERED
from crypto_assets.ml.promotions import Undecidable, by_hand, effective
from crypto_assets.verify import coverage
from crypto_assets.verify.audit import audit
from crypto_assets.verify.laws import ledgers, promotions
from crypto_assets.verify.laws import volatility as laws
from crypto_assets_tests.builders import START, step_inputs
from crypto_assets_tests.ml.synthetic import SIGMA, feature_rows, names, panel_of, registry_of
from crypto_assets_tests.ml.test_intervals import clustered, rolling_scale

TABLE, ACCURACY = "gold.volatility_forecasts", "gold.volatility_accuracy"
DAYS = 32
CUTOFF = START + 31 * DAY
NOW = CUTOFF + 12 * HOUR


@pytest.fixture
def inputs(tmp_path: Path) -> Callable[..., StepInputs]:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    params = {"tracking_uri": store, "registry_uri": store, "artifact_root": str(tmp_path / "artifacts")}

    def make(now: datetime = NOW) -> StepInputs:
        return step_inputs(now, coins=registry_of(names(3)), params=params)

    return make


def written(lake: SailEngine, inputs: StepInputs, begin: datetime, hours: list[int]) -> list[dict[str, Any]]:
    """Forecasts of hours, as written; times of writing and chains left out."""
    result = volatility.work(lake, [hour_key(begin + h * HOUR) for h in hours], inputs)
    checks = [c for p in result.tables[TABLE].partitions.values() for c in p.checks]
    assert all(c.passed for c in checks), [c for c in checks if not c.passed]
    rows = lake.store.read_arrow(TABLE).to_pylist()
    kept = [{n: v for n, v in r.items() if n not in ("predicted_at", "mode", *CHAIN_COLUMNS)} for r in rows]
    return sorted(kept, key=lambda r: (r["horizon"], r["window_end"], r["coin_id"]))


@pytest.mark.slow
def test_a_regression_serves_and_its_rows_are_equal_however_they_are_written(
    engine: SailEngine, inputs: Callable[..., StepInputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = feature_rows(rolling_scale(panel_of(clustered(1, 3, DAYS), START, scale=SIGMA)))
    for begin in range(0, DAYS, 8):
        span = Slice(START + begin * DAY, START + min(begin + 8, DAYS) * DAY)
        engine.store.replace_slice("features.price_features", span, lambda span=span: within(table, span), now=NOW)
    young = volatility_model.work(engine, [day_key(START + 20 * DAY)], inputs())
    (refused,) = young.skipped["ml.volatility_model"]
    assert refused.description == "needs 9 more days with inputs and outcomes: 19 of 28"

    result = volatility_model.work(engine, [day_key(CUTOFF - DAY)], inputs())
    checks = {c.name: c for c in result.tables["ml.volatility_model"].partitions[day_key(CUTOFF - DAY)].checks}
    assert all(c.passed for c in checks.values()), checks
    decided = training.promotions(engine, inputs())
    hourly = effective(decided, "volatility_1h", CUTOFF)
    assert (hourly["version"], hourly["algorithm"]) == ("2024-01-31-log-har", "log_har")
    assert json.loads(hourly["metrics"])["gain"]["ewma"]["lower"] > 0
    assert effective(decided, "volatility_1h", CUTOFF - HOUR)["version"] == BASELINE
    client = registry.Store.of(inputs().params).client()
    champion = client.get_model_version_by_alias("crypto_volatility_1h", "champion")
    assert champion.tags["version"] == hourly["version"]
    assert {"card.md", "gain.svg", "parameters.json"} <= {
        Path(f.path).name for f in client.list_artifacts(hourly["run_id"])
    }
    again = volatility_model.work(engine, [day_key(CUTOFF - DAY)], inputs())
    assert again.tables["ml.volatility_model"].partitions[day_key(CUTOFF - DAY)].metadata["reproduced"]

    together = written(engine, inputs(), CUTOFF - 2 * HOUR, [0, 1, 2, 3, 4, 5])
    shutil.rmtree(engine.store.path(TABLE))
    for hour in (4, 2):
        written(engine, inputs(), CUTOFF - 2 * HOUR, [hour])
    assert written(engine, inputs(), CUTOFF - 2 * HOUR, [0, 3, 1, 5]) == together
    by_horizon = {h: [r for r in together if r["horizon"] == h] for h in ("1h", "24h")}
    assert len(by_horizon["1h"]) == 3 * 12 * 6, "from every slot"
    assert len(by_horizon["24h"]) == 3 * 6, "from every full hour"
    assert {r["window_end"] - floor_hour(r["window_end"]) for r in by_horizon["24h"]} == {timedelta(0)}
    assert {(r["window_end"] > CUTOFF, r["model_version"]) for r in by_horizon["1h"]} == {
        (False, BASELINE),
        (True, "2024-01-31-log-har"),
    }
    assert all(r["volatility_pct"] == r["ewma_pct"] for r in together if r["model_version"] == BASELINE)
    features = {(r["coin_id"], r["window_end"]): r for r in table.to_pylist()}
    for row in together:
        past = features[row["coin_id"], row["window_end"]]["rv1h" if row["horizon"] == "1h" else "rv24h"]
        assert row["last_value_pct"] == pytest.approx(100 * past)
        assert 0.2 * past < row["volatility_pct"] / 100 < 5 * past

    volatility_accuracy.work(engine, [day_key(CUTOFF)], inputs(NOW + 2 * DAY))
    monkeypatch.setattr(
        coverage,
        "all_laws",
        lambda: [
            *(laws.references_law(), laws.values_law(), laws.accuracy_law(), ledgers.chain_law(TABLE)),
            promotions.promotions_law(),
        ],
    )
    audited_and_broken(engine)


def audited_and_broken(engine: SailEngine) -> None:
    """The audit recomputes every figure from features and the version's files, and finds and names one that is not."""

    def judged(table: str) -> dict[str, Any]:
        report = audit(Path(engine.store.path(table)).parents[1], None, now=NOW)
        return {f.law: f for f in report.findings if f.outcome != "skipped"}

    sound = judged(TABLE)
    assert {f.outcome for f in sound.values()} == {"holds"}, sound
    assert sound["volatility_follows_from_versions"].checked == 3 * 13 * 6
    assert sound["volatility_follows_from_versions"].note == ""
    for table, law, column, change in (
        (TABLE, "volatility_follows_from_versions", "volatility_pct", lambda v: v * 1.0001),
        (TABLE, "volatility_follows_from_versions", "ewma_pct", lambda v: v * 1.0001),
        (TABLE, "volatility_follows_from_versions", "last_value_pct", lambda _: None),
        (TABLE, "volatility_follows_from_versions", "target_at", lambda v: v + timedelta(minutes=5)),
        (TABLE, "volatility_chains_are_whole", "volatility_pct", lambda v: v * (1 + 1e-12)),
        (ACCURACY, "volatility_accuracy_is_forecasts_scored", "qlike", lambda v: v * 1.0001),
        (ACCURACY, "volatility_accuracy_is_forecasts_scored", "qlike_ratio", lambda v: v * 1.0001),
    ):
        path = engine.store.path(table)
        kept = deltalake.DeltaTable(path)
        version, rows = kept.version(), kept.to_pyarrow_table().to_pylist()
        row = min(rows, key=lambda r: (r["horizon"], r["coin_id"], r["model_version"]))
        row[column] = change(row[column])
        schema = kept.to_pyarrow_table().schema
        deltalake.write_deltalake(path, pa.Table.from_pylist(rows, schema=schema), mode="overwrite")
        broken = judged(table)[law]
        assert broken.outcome == "broken", (law, column)
        assert row["coin_id"] in broken.examples[0]
        deltalake.DeltaTable(path).restore(version)
    path = engine.store.path("features.price_features")
    emptied = deltalake.DeltaTable(path).to_pyarrow_table().slice(0, 0)
    deltalake.write_deltalake(path, emptied, mode="overwrite")
    assert judged(TABLE)["volatility_refers_rightly"].violations == 3 * 13 * 6


def forecast(end: datetime, **changed: Any) -> dict[str, Any]:
    """A row of the ledger: bitcoin at 1 % an hour, the average at 2 %, the last value at 3 %."""
    plain = {
        "coin_id": "coin-00", "window_end": end, "horizon": "1h", "target_at": end + HOUR, "volatility_pct": 1.0,
        "ewma_pct": 2.0, "last_value_pct": 3.0, "model_name": "volatility_1h", "model_version": "v0", "mode": "live",
        "predicted_at": end, "day": (end - timedelta(minutes=5)).date(),
        "hour": floor_hour(end - timedelta(minutes=5)),
    }  # fmt: skip
    return {**plain, **changed}


def test_accuracy_is_the_loss_of_each_arm_and_keeps_backfill_apart(
    engine: SailEngine, inputs: Callable[..., StepInputs]
) -> None:
    features = feature_rows(panel_of(clustered(2, 1, 3), START, scale=SIGMA))
    engine.store.replace_slice("features.price_features", Slice(START, START + 3 * DAY), lambda: features, now=NOW)
    noon, midnight = START + DAY + 12 * HOUR, START + 2 * DAY
    rows = [
        forecast(noon),
        forecast(noon + HOUR, volatility_pct=1.5, last_value_pct=None),
        forecast(noon, mode="backfill", model_version="other", last_value_pct=None),
        forecast(midnight - HOUR, model_version="to midnight"),
        forecast(midnight - 24 * HOUR, horizon="24h", target_at=midnight, model_name="volatility_24h"),
        forecast(noon, coin_id="coin-99"),
    ]
    engine.store.merge(TABLE, pa.Table.from_pylist(rows, schema=arrow_schema(TABLES[TABLE])), mode="insert_if_absent")
    volatility_accuracy.work(engine, [day_key(START + DAY)], inputs())
    found = {
        (r["coin_id"], r["horizon"], r["model_version"], r["mode"]): r
        for r in engine.store.read_arrow(ACCURACY).to_pylist()
    }
    assert len(found) == 5
    realised = {r["window_end"]: r for r in features.to_pylist()}

    def loss(end: datetime, forecast: float, name: str = "rv1h") -> float:
        ratio = (100 * realised[end][name] / forecast) ** 2
        return ratio - math.log(ratio) - 1

    live = found["coin-00", "1h", "v0", "live"]
    assert (live["forecasts"], live["without_outcome"]) == (2, 0)
    assert live["qlike"] == pytest.approx((loss(noon + HOUR, 1.0) + loss(noon + 2 * HOUR, 1.5)) / 2)
    assert live["qlike_ewma"] == pytest.approx((loss(noon + HOUR, 2.0) + loss(noon + 2 * HOUR, 2.0)) / 2)
    assert live["qlike_last_value"] == pytest.approx(loss(noon + HOUR, 3.0))
    assert live["qlike_ratio"] == pytest.approx(live["qlike"] / min(live["qlike_ewma"], live["qlike_last_value"]))
    assert live["volatility_pct"] == 1.25
    assert found["coin-00", "1h", "other", "backfill"]["qlike_last_value"] is None
    assert found["coin-00", "1h", "to midnight", "live"]["forecasts"] == 1, "midnight belongs to the day that ends"
    assert found["coin-00", "24h", "v0", "live"]["qlike"] == pytest.approx(loss(midnight, 1.0, "rv24h"))
    without = found["coin-99", "1h", "v0", "live"]
    assert (without["forecasts"], without["without_outcome"], without["qlike"], without["qlike_ratio"]) == (
        0, 1, None, None
    )  # fmt: skip


def test_a_week_that_is_worse_than_the_average_is_red_and_named() -> None:
    def day(n: int, served: float, average: float, horizon: str = "1h") -> dict[str, Any]:
        return {"day_start": n, "horizon": horizon, "forecasts": 100, "qlike": served, "qlike_ewma": average}

    worse = volatility_accuracy._judged([day(n, 0.5, 0.4) for n in range(7)])
    assert (worse.passed, worse.severity, worse.metadata) == (False, "warn", {"judged": 1, "worse": 1})
    assert "1h 0.500 (0.400)" in worse.description
    assert volatility_accuracy._judged([day(n, 0.4, 0.4) for n in range(7)]).passed
    young = volatility_accuracy._judged([day(n, 0.5, 0.4) for n in range(5)])
    assert young.passed
    assert "yet" in young.description


def test_a_home_from_before_gets_the_baselines_and_keeps_what_it_decided(
    engine: SailEngine, inputs: Callable[..., StepInputs]
) -> None:
    baselines = [r for r in training.promotions(engine, inputs()) if not r["model"].startswith("volatility")]
    shutil.rmtree(engine.store.path("ml.promotions"))
    training.record(engine, [{n: v for n, v in r.items() if n not in CHAIN_COLUMNS} for r in baselines])
    before = engine.store.read_arrow("ml.promotions").to_pylist()
    with pytest.raises(Undecidable, match="volatility_1h has no version yet: the first refresh writes its baseline"):
        by_hand(before, "volatility_1h", None, "rolled_back", "why", NOW)
    now = training.promotions(engine, inputs())
    assert {r["model"] for r in now} == set(REGISTERED)
    kept = [r for r in now if not r["model"].startswith("volatility")]
    assert sorted(kept, key=lambda r: r["model"]) == sorted(before, key=lambda r: r["model"])
    assert len(training.promotions(engine, inputs())) == len(REGISTERED)


def test_a_version_is_put_into_service_by_hand_and_back(engine: SailEngine, inputs: Callable[..., StepInputs]) -> None:
    decided = training.promotions(engine, inputs())
    planted = {**decided[0], "model": "volatility_24h", "version": "x", "algorithm": "log_har", "cutoff": NOW - 9 * DAY}
    planted = {**planted, "effective_from": NOW - 9 * DAY, "decided_at": NOW - 8 * DAY}
    back = by_hand([*decided, planted], "volatility_24h", None, "rolled_back", "it was worse", NOW)
    assert (back["version"], back["algorithm"], back["decision"]) == (BASELINE, "ewma", "rolled_back")
