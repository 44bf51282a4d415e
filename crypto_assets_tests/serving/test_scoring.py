"""Scores and features on request equal those of the tables, and bad input is named."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from crypto_assets.contracts.slices import DAY
from crypto_assets.contracts.tables import PRICE_FEATURES, PROMOTIONS, TABLES
from crypto_assets.ml import artifacts, challenger, forecasts, scoring
from crypto_assets.ml.baselines import BASELINE, v0_rows
from crypto_assets.ml.panel import FIELDS, panel
from crypto_assets.serving.kept import FEATURES
from crypto_assets.serving.scoring import ANOMALY_OUTPUTS, ANOMALY_TEXTS, needed
from crypto_assets_tests.serving.lakes import COINS, NOON, SLOT, Lake, row, shown
from crypto_assets_tests.serving.running import running

ENDS = [NOON + i * SLOT for i in range(1, 31)]


def _features() -> list[dict[str, Any]]:
    """Feature rows of both coins; the first of each is unknown."""
    random = np.random.default_rng(7)
    found = []
    for coin in COINS:
        for number, end in enumerate(ENDS):
            values = {f: float(random.normal(0, 1e-3)) for f in FIELDS} | {
                "price": 100.0, "s": 1e-3, "s_market": 5e-4, "rv1h": 2e-3, "unchanged_slots": 1,
            }  # fmt: skip
            known = values if number else {"price": 100.0}
            reason = None if number else "no_lag"
            times = {"window_start": end - SLOT, "window_end": end, "available_at": end}
            found.append(row(PRICE_FEATURES, coin_id=coin, null_reason=reason, **times, **known))
    return found


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with features and the baselines in force."""
    lake = Lake(tmp_path / "home")
    lake.replace("features.price_features", _features())
    _promote(lake, [])
    return lake


def _promote(lake: Lake, more: list[dict[str, Any]]) -> None:
    lake.insert("ml.promotions", [row(PROMOTIONS, **values) for values in [*v0_rows(NOON - DAY, NOON - DAY), *more]])
    lake.look()


def _forest(lake: Lake) -> None:
    """Promote a forest."""
    data = panel(lake.store.read_arrow("features.price_features"), ENDS[-1])
    place = "mlflow/artifacts/crypto_anomaly/7"
    levels = {"thresholds": {"*": 0.5, "bitcoin": 0.45}}
    sha256 = artifacts.save(lake.home.path / place, levels, challenger.fit_forest(data))
    promoted = {"artifact_uri": place, "artifact_sha256": sha256, "decision": "promoted", "metrics": "{}"}
    times = {"cutoff": NOON - timedelta(hours=9), "effective_from": NOON - timedelta(hours=8), "decided_at": NOON}
    _promote(lake, [{"model": "anomaly", "version": "7", "algorithm": "isolation_forest", **promoted, **times}])


def _union(lake: Lake) -> None:
    """Promote a version with two scores and windows of one coin."""
    place = "mlflow/artifacts/crypto_anomaly/8"
    learnt = {
        "algorithm": "union",
        "thresholds": {"robust_z": {"*": 0.002, "bitcoin": 0.001}, "market": {"*": 40.0, "bitcoin": 1.0}},
        "windows": {"bitcoin": [{"window_end": 300 * n, "inputs": [n, 0.0, 0.0, 0.0, 0.0]} for n in range(1, 6)]},
    }
    sha256 = artifacts.save(lake.home.path / place, learnt)
    promoted = {"artifact_uri": place, "artifact_sha256": sha256, "decision": "promoted", "metrics": "{}"}
    times = {"cutoff": NOON - timedelta(hours=9), "effective_from": NOON - timedelta(hours=8), "decided_at": NOON}
    _promote(lake, [{"model": "anomaly", "version": "8", "algorithm": "union", **promoted, **times}])


def _offline(lake: Lake) -> pa.Table:
    """All feature rows, sorted."""
    return lake.store.read_arrow("features.price_features").sort_by(
        [("coin_id", "ascending"), ("window_end", "ascending")]
    )


def _inputs(lake: Lake) -> list[dict[str, Any]]:
    rows = lake.store.read_arrow("features.price_features").sort_by(
        [("coin_id", "ascending"), ("window_end", "ascending")]
    )
    return [{name: r[name] for name in ("coin_id", *FIELDS)} for r in rows.to_pylist()]


def _formats(rows: list[dict[str, Any]]) -> dict[str, Any]:
    columns = {name: [r[name] for r in rows] for name in rows[0]}
    return {
        "dataframe_split": {"columns": list(columns), "data": [list(r.values()) for r in rows]},
        "dataframe_records": rows,
        "instances": rows,
        "inputs": columns,
    }


def test_scores_of_all_formats_equal_those_of_the_batch(lake: Lake) -> None:
    _forest(lake)
    rows = _inputs(lake)
    data = panel(lake.store.read_arrow("features.price_features"), ENDS[-1])
    version = _version(lake, "anomaly")
    rows_of = scoring.Scored(data, version)
    batch = [rows_of.row(c, t)["anomaly_score"] for c in range(2) for t in range(data.slots)]
    for form, given in _formats(rows).items():
        answer = lake.client.post("/invocations", json={form: given})
        assert answer.status_code == 200, answer.text
        found = answer.json()["predictions"]
        assert [p["anomaly_score"] for p in found] == batch, form
        assert {p["model_version"] for p in found} == {"7"} == {answer.headers["x-model-version"]}
        assert {(p["coin_id"], p["threshold"]) for p in found} == {("bitcoin", 0.45), ("shiba-inu", 0.5)}
        assert all(
            p["is_anomaly"] == (p["anomaly_score"] is not None and p["anomaly_score"] > p["threshold"]) for p in found
        )
    assert sum(score is not None for score in batch) == 58


def test_every_column_of_two_scores_equals_the_batch(lake: Lake) -> None:
    _union(lake)
    data = panel(lake.store.read_arrow("features.price_features"), ENDS[-1])
    scored = scoring.Scored(data, _version(lake, "anomaly"))
    answer = lake.client.post("/invocations", json={"instances": _inputs(lake)})
    found = answer.json()["predictions"]
    batch = [scored.row(c, t) for c in range(2) for t in range(data.slots)]
    names = (*ANOMALY_OUTPUTS, *ANOMALY_TEXTS)
    texts = [{n: json.loads(b[n]) if n in ANOMALY_TEXTS and b[n] else b[n] for n in names} for b in batch]
    assert [{n: p[n] for n in names} for p in found] == texts
    assert {tuple(p["detectors"]) for p in found} >= {(), ("market", "robust_z")}
    assert {p["threshold"] for p in found} == {1.0}
    assert {(p["coin_id"], p["z_threshold"], p["market_threshold"]) for p in found} == {
        ("bitcoin", 0.001, 1.0),
        ("shiba-inu", 0.002, 40.0),
    }
    assert {len(p["similar_windows"]) for p in found if p["similar_windows"]} == {3}
    missing = lake.client.post("/invocations", json={"instances": [{"rz": 1.0}]})
    assert "features are missing: r15, r1h, r5_market, rv1h, s, s_market" in missing.json()["detail"]


@pytest.mark.parametrize("by_activity", [False, True])
def test_a_version_needs_the_features_of_its_scores_alone(by_activity: bool) -> None:
    levels = {name: {"*": 1.0} for name in ("robust_z", "market", "common")}
    learnt = {"algorithm": "union", "thresholds": levels, **({"by_activity": True} if by_activity else {})}
    found = needed("anomaly", scoring.Version({"version": "9"}, learnt))
    assert {"rz_common", "common_activity"} & {*found} == {"rz_common", *(["common_activity"] if by_activity else [])}


def test_forecasts_equal_those_of_the_batch(lake: Lake) -> None:
    table = lake.store.read_arrow("features.price_features").sort_by(
        [("coin_id", "ascending"), ("window_end", "ascending")]
    )
    batch = forecasts.forecasts(table.to_pylist(), panel(table, ENDS[-1]), _version(lake, "price_1h"), "1h", NOON)
    answer = lake.client.post("/v1/models/price_1h/invocations", json={"instances": _inputs(lake)})
    found = [p for p in answer.json()["predictions"] if p["predicted_price"] is not None]
    names = ("coin_id", "predicted_price", "lower_90", "upper_90", "model_version")
    assert [[p[n] for n in names] for p in found] == [[b[n] for n in names] for b in batch]
    assert len(found) == 58
    assert lake.client.post("/v1/models/crypto_price_1h/invocations", json={"instances": []}).json() == {
        "predictions": []
    }


def _version(lake: Lake, model: str) -> scoring.Version:
    from crypto_assets.serving.scoring import version_in_force

    return version_in_force(lake.service.promotions(), model, NOON, str(lake.home.path))


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("{", "not JSON"),
        ("[1]", "JSON object"),
        ('{"params": {}}', "has none"),
        ('{"inputs": {}, "instances": []}', "has instances and inputs"),
        ('{"inputs": {"rz": [1]}, "other": 1}', "unknown members: other"),
        ('{"inputs": {"rz": [1], "coin_id": []}}', "different lengths"),
        ('{"inputs": {"rz": 1}}', "list of values"),
        ('{"instances": [1]}', "list of rows"),
        ('{"dataframe_records": {"rz": [1]}}', "list of rows"),
        ('{"dataframe_split": {"columns": ["rz"], "data": [[1, 2]]}}', "rows 0 do not have 1 values"),
        ('{"dataframe_split": {"columns": ["rz"]}}', "columns, data"),
        ('{"instances": [{"r15": 1}]}', "features are missing: rz"),
        ('{"instances": [{"rz": "1"}]}', "rz of row 0"),
        ('{"instances": [{"rz": true}]}', "rz of row 0"),
        ('{"instances": [{"rz": 1e999}]}', "rz of row 0"),
        ('{"instances": [{"rz": NaN}]}', "no JSON number"),
        (f'{{"instances": [{{"rz": {10**400}}}]}}', "rz of row 0"),
        ('{"instances": [{"rz": 1, "coin_id": 7}]}', "coin_id of row 0"),
    ],
)
def test_bad_input_is_named(lake: Lake, body: str, named: str) -> None:
    answer = lake.client.post("/invocations", content=body)
    assert answer.status_code == 400
    assert named in answer.json()["detail"]


def test_a_model_file_that_was_altered_does_not_score(lake: Lake) -> None:
    _forest(lake)
    parameters = lake.home.path / "mlflow/artifacts/crypto_anomaly/7/parameters.json"
    parameters.write_text(parameters.read_text(encoding="utf-8").replace("0.5", "0.9"), encoding="utf-8")
    answer = lake.client.post("/invocations", json={"instances": [{"rz": 1.0}]})
    assert answer.status_code == 503
    assert "not what was registered" in answer.json()["detail"]
    for name in ("other", "volatility_1h", "crypto_volatility_1h"):
        assert lake.client.post(f"/v1/models/{name}/invocations", json={"instances": []}).status_code == 404


@pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning")  # MLflow's own, at its import
def test_the_scores_of_mlflows_own_client(lake: Lake) -> None:
    import pandas as pd
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    with running(lake) as url:
        host, port = url.removeprefix("http://").split(":")
        frame = pd.DataFrame([{"coin_id": "bitcoin", "rz": -6.5}, {"coin_id": "shiba-inu", "rz": 1.0}])
        client = ScoringServerClient(host, int(port))
        client.ping()
        found = client.invoke(frame).get_predictions()
    assert list(found["anomaly_score"]) == [6.5, 1.0]
    assert list(found["is_anomaly"]) == [True, False]
    assert set(found["model_version"]) == {BASELINE}


def test_a_lookup_equals_the_offline_row_of_every_slot(lake: Lake) -> None:
    rows = lake.store.read_arrow("features.price_features").sort_by(
        [("coin_id", "ascending"), ("window_end", "ascending")]
    )
    offline = shown("features.price_features", rows, [c.name for c in FEATURES.columns])
    keys = [{"coin_id": r["coin_id"], "at": r["window_end"]} for r in offline]
    answer = lake.client.post("/v1/features/lookup", json={"keys": keys})
    found = json.loads(answer.text, parse_float=Decimal)
    assert [entry["row"] for entry in found["data"]] == offline
    assert [entry["null_reason"] for entry in found["data"]] == [r["null_reason"] for r in offline]
    assert found["data"][0]["null_reason"] == "no_lag"
    assert found["provenance"]["table_version"] == lake.store.version("features.price_features")


def test_a_lookup_is_of_the_newest_slot_that_had_ended(lake: Lake) -> None:
    def of(**key: Any) -> dict[str, Any]:
        return lake.client.post("/v1/features/lookup", json={"keys": [key]}).json()["data"][0]

    between = (ENDS[3] + timedelta(seconds=299)).isoformat()
    assert of(coin_id="bitcoin", at=between)["row"]["window_end"] == ENDS[3].isoformat().replace("+00:00", "Z")
    assert of(coin_id="bitcoin")["row"]["window_end"] == ENDS[-1].isoformat().replace("+00:00", "Z")
    nothing = of(coin_id="bitcoin", at=(ENDS[0] - timedelta(seconds=1)).isoformat())
    assert nothing["row"] is None
    assert "had ended" in nothing["null_reason"]
    for body, status in (
        ({"keys": [{"coin_id": "bitcoin", "at": "2026-11-29T12:00:00"}]}, 422),
        ({"keys": []}, 422),
        ({"keys": [{"coin_id": "bitcoin"}], "set": "other"}, 422),
        ({"keys": [{"coin_id": "bitcoin"}], "version": "99"}, 404),
    ):
        assert lake.client.post("/v1/features/lookup", json=body).status_code == status


def test_metrics_follow_prometheus_conventions(lake: Lake) -> None:
    metric = TABLES["ops.pipeline_metrics"]
    hour = NOON.replace(hour=10)
    values = {"messages_produced": 360.0, "processing_latency_ms_p99": 1500.0, "dedup_rate": None}
    lake.replace(
        "ops.pipeline_metrics",
        [row(metric, metric=name, value=value, hour=hour, measured_over=9) for name, value in values.items()],
    )
    lake.look()
    lake.client.get("/v1/bars/a-coin-of-a-client")
    text = lake.client.get("/metrics").text
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert samples["crypto_assets_messages_produced"] == "360.0"
    assert samples["crypto_assets_processing_latency_p99_seconds"] == "1.5"
    assert "crypto_assets_dedup_ratio" not in samples
    assert samples['crypto_assets_table_version{table="ops.pipeline_metrics"}'] == "1.0"
    assert samples['crypto_assets_http_requests_total{method="GET",route="/v1/bars/{coin}",status="404"}'] == "1.0"
    assert "a-coin-of-a-client" not in text
