"""The product's own assets by `dagster asset materialize`, launched on the workspace stand-in."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import dagster as dg
import pytest

from crypto_assets.contracts.slices import DAY, Slice, day_key, floor_day, hour_key
from crypto_assets_tests.e2e.launched_home import LaunchedHome

HOURLY = (
    *(
        "bronze/raw_prices",
        "ops/polls",
        "silver/prices",
        "silver/quarantine",
        "gold/bars_1m",
        "gold/bars_5m",
        "gold/bars_1h",
    ),
    *("features/price_features", "gold/anomalies", "gold/price_predictions", "gold/volatility_forecasts"),
    "ops/pipeline_metrics",
)
HOURLY_STEPS = len(HOURLY) - 2
"""Bars of three lengths are of one step."""
DAILY = ("gold/bars_1d", "gold/prediction_accuracy", "gold/volatility_accuracy")
PLAIN = ("gold/latest_prices", "gold/leaderboard_24h", "gold/dim_coin", "gold/dim_date")


def materialized(instance: dg.DagsterInstance, asset: str) -> list[str | None]:
    """Partitions of an asset's materializations, sorted."""
    found = instance.fetch_materializations(dg.AssetKey(asset.split("/")), limit=50).records
    return sorted((r.partition_key for r in found), key=str)


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("by", ["range", pytest.param("partition", marks=pytest.mark.full)])
def test_every_asset_is_launched_from_kafka_to_gold_and_verify_passes(workspace, publish, by):
    settings, hours = publish(2)
    home = LaunchedHome.of(workspace, settings, MLFLOW_TRACKING_URI=workspace.mlflow_uri)
    runs = []
    for chosen in [hours] if by == "range" else [hours[:1], hours[1:]]:
        runs += home.materialize(",".join(HOURLY), *chosen)
    runs += home.materialize(",".join(DAILY), hours[0][:10])
    runs += home.materialize(",".join(PLAIN))
    assert {r.result_state for r in runs} == {"SUCCESS"}
    steps = [r.tasks[0].cluster["custom_tags"]["asset"] for r in runs]
    assert len(set(steps)) == HOURLY_STEPS + len(DAILY) + len(PLAIN)
    assert len(steps) == len(set(steps)) + (0 if by == "range" else HOURLY_STEPS)
    assert home.jvms == [], "the driver asks Kafka for bounds and has no use for a JVM"
    assert [path for _, path, _ in workspace.requests if "dbfs" in path] == [], "everything was staged in the volume"
    assert not (home.path / "lake").exists()

    with home.instance() as instance:
        for asset in HOURLY:
            assert materialized(instance, asset) == hours, asset
        for asset in DAILY:
            assert materialized(instance, asset) == [hours[0][:10]], asset
        for asset in PLAIN:
            assert materialized(instance, asset) == [None], asset
        passed = {
            f"{asset} {key.name}": record.evaluation.passed
            for asset in ("bronze/raw_prices", "silver/prices", "gold/bars_5m")
            for key, record in instance.event_log_storage.get_latest_asset_check_execution_by_key(
                [dg.AssetCheckKey(dg.AssetKey(asset.split("/")), n) for n in ("has_rows", "contract")]
            ).items()
        }
        assert len(passed) == 6
        assert [name for name, good in passed.items() if not good] == []
    stored = home.rows("bronze.raw_prices")
    assert {hour_key(h) for h in stored.column("kafka_timestamp").to_pylist()} == set(hours)
    assert home.rows("silver.prices").num_rows == stored.num_rows > 0
    told = home.verify()
    assert told.returncode == 0, told.stdout[-6000:] + told.stderr[-2000:]
    assert "every law holds" in told.stdout


@pytest.mark.acceptance
@pytest.mark.timeout(900)
def test_models_are_trained_registered_and_used_in_the_workspace(workspace, tmp_path):
    from mlflow import MlflowClient

    from crypto_assets.engine.sail import SailEngine
    from crypto_assets_tests.builders import START
    from crypto_assets_tests.ml.synthetic import feature_rows, panel_of, walk

    coins = ("bitcoin", "ethereum", "litecoin")
    panel = replace(panel_of(walk(21, 3, 10 * 288), START), coins=coins)
    ten_days, last = Slice(START, START + 10 * DAY), START + 9 * DAY
    features = SailEngine(str(workspace.lake)).store
    features.replace_slice("features.price_features", ten_days, lambda: feature_rows(panel), now=ten_days.end)
    more = {
        "CRYPTO_ASSETS_PARTITIONS_START": START.date().isoformat(),
        "MLFLOW_TRACKING_URI": workspace.mlflow_uri,
    }
    home = LaunchedHome(workspace, tmp_path / "home", more)
    runs = home.materialize("ml/anomaly_model,ml/price_model", day_key(last - DAY))
    runs += home.materialize("gold/anomalies,gold/price_predictions", hour_key(last))
    assert [r.result_state for r in runs] == ["SUCCESS"] * 4
    assert home.jvms == []

    registry = MlflowClient(workspace.mlflow_uri)
    promotions = {p["version"]: p for p in home.rows("ml.promotions").to_pylist() if p["model"] == "anomaly"}
    scored = home.rows("gold.anomalies").to_pylist()
    assert len(scored) == 36
    (used,) = {r["model_version"] for r in scored} - {"v0"}
    assert promotions[used]["artifact_uri"].startswith("/Volumes/crypto_analytics/ml/artifacts/anomaly/")
    champion = registry.get_model_version_by_alias("crypto_anomaly", "champion")
    assert champion.tags["version"] == used
    assert champion.tags["sha256"] == promotions[used]["artifact_sha256"]
    assert json.loads(promotions[used]["metrics"])
    assert home.rows("gold.price_predictions").num_rows == 72


@pytest.mark.acceptance
@pytest.mark.timeout(600)
def test_market_history_is_fetched_by_the_workspace_with_a_key_from_its_scope(workspace, tmp_path):
    from crypto_assets.sources.simulator import SimulatorFeed
    from crypto_assets.sources.standin import StandIn

    key, day = "CG-key-of-the-workspace", floor_day(datetime.now(UTC)) - 2 * DAY
    workspace.secrets["crypto-assets"] = {"coingecko-api-key": key}
    with StandIn(SimulatorFeed(7)) as source:
        more = {
            "CRYPTO_ASSETS_SOURCE": "coingecko",
            "CRYPTO_ASSETS_PARTITIONS_START": day.date().isoformat(),
            "COINGECKO_API_KEY": key,
            "COINGECKO_BASE_URL": source.url,
        }
        home = LaunchedHome(workspace, tmp_path / "home", more)
        (run,) = home.materialize("bronze/market_history", day_key(day))
        assert run.result_state == "SUCCESS"
        rows = home.rows("bronze.market_history").to_pylist()
        assert source.requests == len(rows) == 10
    assert {r["day"] for r in rows} == {day.date()}
    assert all(key.encode() not in u.data for u in workspace.uploads)
    assert key not in run.stdout + run.stderr
