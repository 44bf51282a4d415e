"""Four of the product's own assets by serverless Pipes: the tables that the embedded engine makes from the same log."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from crypto_assets.cli.lake_difference import compare
from crypto_assets.contracts.slices import DAY, Slice, day_key, floor_day
from crypto_assets.contracts.tables import TABLES
from crypto_assets_tests.e2e.launched_home import LaunchedHome
from crypto_assets_tests.home_fixtures import VOLATILE, opened

ASSETS = ("bronze/raw_prices", "silver/prices", "gold/bars_5m", "features/price_features")


@pytest.mark.acceptance
@pytest.mark.kafka
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("by", ["range", pytest.param("partition", marks=pytest.mark.full)])
def test_four_assets_equal_those_of_the_embedded_engine(workspace, publish, tmp_path, by):
    settings, hours = publish(2)
    pieces = [hours] if by == "range" else [hours[:1], hours[1:]]
    home = LaunchedHome.of(workspace, settings, CRYPTO_ASSETS_TARGET="databricks-serverless")
    runs = [run for piece in pieces for run in home.materialize(",".join(ASSETS), *piece)]
    assert [r.result_state for r in runs] == ["SUCCESS"] * len(pieces) * len(ASSETS)
    assert {t.cluster_id for r in runs for t in r.tasks} == {None}, "no cluster was started"
    assert {r.request["environments"][0]["environment_key"] for r in runs} == {"step"}
    wheels = {d for r in runs for d in r.request["environments"][0]["spec"]["dependencies"] if d.endswith(".whl")}
    assert sorted(u.path for u in workspace.uploads if u.path.endswith(".whl")) == sorted(wheels), "each code once"
    assert [p for _, p, _ in workspace.requests if "dbfs" in p] == []
    assert home.jvms == []
    assert not (home.path / "lake").exists()

    embedded = settings.model_copy(update={"home_path": tmp_path / "embedded"})
    with opened(embedded, floor_day(datetime.now(UTC)), hours) as local:
        for piece in pieces:
            for asset in ASSETS:
                local.run_partitions({dg.AssetKey(asset.split("/")): piece})
    tables = {name: TABLES[name] for name in (asset.replace("/", ".") for asset in ASSETS)}
    for found in compare(Path(embedded.lake), workspace.lake, tables):
        assert found.rows[0] == found.rows[1] > 0, found.table
        assert found.only == (0, 0), found.examples
        assert {c: n for c, n in found.cells.items() if c not in VOLATILE} == {}, found.examples

    with home.instance() as instance:
        for asset in ASSETS:
            key = dg.AssetKey(asset.split("/"))
            records = instance.fetch_materializations(key, limit=20).records
            assert sorted(str(r.partition_key) for r in records) == hours, asset
            checks = [dg.AssetCheckKey(key, n) for n in ("has_rows", "contract")]
            latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
            assert {
                k.name: r.evaluation is not None and r.evaluation.passed for k, r in latest.items()
            } == dict.fromkeys(("has_rows", "contract"), True), asset
    audit = home.verify()
    assert audit.returncode == 0, audit.stdout[-6000:] + audit.stderr[-2000:]
    assert "every law holds" in audit.stdout


@pytest.mark.acceptance
@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_daily_model_is_trained_and_registered_by_pipes(workspace, tmp_path):
    from mlflow import MlflowClient

    from crypto_assets.engine.sail import SailEngine
    from crypto_assets_tests.builders import START
    from crypto_assets_tests.ml.synthetic import feature_rows, panel_of, walk

    panel = replace(panel_of(walk(21, 3, 10 * 288), START), coins=("bitcoin", "ethereum", "litecoin"))
    ten_days, last = Slice(START, START + 10 * DAY), START + 9 * DAY
    features = SailEngine(str(workspace.lake)).store
    features.replace_slice("features.price_features", ten_days, lambda: feature_rows(panel), now=ten_days.end)
    more = {
        "CRYPTO_ASSETS_TARGET": "databricks-serverless",
        "CRYPTO_ASSETS_PARTITIONS_START": START.date().isoformat(),
        "MLFLOW_TRACKING_URI": workspace.mlflow_uri,
    }
    home = LaunchedHome(workspace, tmp_path / "home", more)
    (trained,) = home.materialize("ml/anomaly_model", day_key(last - DAY))
    assert trained.result_state == "SUCCESS"
    champion = MlflowClient(workspace.mlflow_uri).get_model_version_by_alias("crypto_anomaly", "champion")
    promotions = {p["version"]: p for p in home.rows("ml.promotions").to_pylist()}
    assert champion.tags["sha256"] == promotions[champion.tags["version"]]["artifact_sha256"]
    # The first day of the lake has too little data: red checks of the day, and nothing that counts as materialized.
    (short,) = home.materialize("ml/anomaly_model", day_key(START))
    assert short.result_state == "SUCCESS"
    with home.instance() as instance:
        key = dg.AssetKey(["ml", "anomaly_model"])
        made = instance.fetch_materializations(key, limit=5).records
        assert [r.partition_key for r in made] == [day_key(last - DAY)]
        check = dg.AssetCheckKey(key, "enough_data")
        (record, *_) = instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
        assert record.evaluation is not None
        assert not record.evaluation.passed
