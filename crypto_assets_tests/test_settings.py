"""Settings: those that depend on one another, what is refused, and that a refusal shows no secret."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from crypto_assets.settings import Settings


@pytest.mark.parametrize(
    ("target", "given", "seconds"),
    [
        ("local", {}, 0),
        ("spark", {}, 0),
        ("databricks", {}, 3600),
        ("databricks-serverless", {}, 3600),
        ("databricks", {"refresh_interval_s": 900}, 900),
        ("databricks", {"refresh_interval_s": 60, "databricks_cluster_id": "0101-a"}, 60),
        ("databricks", {"refresh_interval_s": 60, "databricks_instance_pool_id": "pool"}, 60),
        ("databricks-serverless", {"refresh_interval_s": 60}, 60),
    ],
)
def test_how_often_tables_are_refreshed(target, given, seconds):
    assert Settings(target=target, **given).refresh_every_s == seconds


def test_a_new_cluster_every_few_minutes_is_refused_with_the_ways_out():
    with pytest.raises(ValidationError) as refused:
        Settings(target="databricks", refresh_interval_s=300)
    for named in ("REFRESH_INTERVAL_S=300", "900", "CLUSTER_ID", "INSTANCE_POOL_ID", "crypto-assets stream"):
        assert named in str(refused.value)


def test_a_refusal_shows_no_value_that_may_be_secret():
    with pytest.raises(ValidationError) as refused:
        Settings(target="databricks", refresh_interval_s=300, coingecko_api_key="CG-sesame")
    assert "CG-sesame" not in str(refused.value)


@pytest.mark.parametrize(
    "given", ["127.0.0.1:15002", "http://127.0.0.1:15002", "sc://:15002", "sc://here:port;token=sesame", "sc://here:0"]
)
def test_what_is_no_spark_connect_endpoint_is_refused_without_its_token(monkeypatch, given):
    monkeypatch.setenv("CRYPTO_ASSETS_SPARK_REMOTE", given)
    with pytest.raises(ValidationError, match="sc://host:port") as refused:
        Settings()
    assert "CRYPTO_ASSETS_SPARK_REMOTE" in str(refused.value)
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize("given", ["sc://here:15002", "sc://here", "sc://here/;token=sesame;use_ssl=true"])
def test_spark_connect_endpoints(given):
    assert Settings(spark_remote=given).spark_remote == given
    assert Settings(spark_remote=" ").spark_remote is None


@pytest.mark.parametrize(
    ("name", "address", "without"),
    [
        ("CRYPTO_ASSETS_SPARK_REMOTE", "sc://here/;use_ssl=true;token=sesame-open;user_id=me", "sc://here"),
        ("MLFLOW_TRACKING_URI", "postgresql://mlflow:sesame-open@db:5432/mlflow", "postgresql://mlflow@db:5432/mlflow"),
        ("MLFLOW_REGISTRY_URI", "https://me:sesame-open@mlflow.example", "https://mlflow.example:5000"),
    ],
)
def test_what_an_address_holds_is_a_secret(monkeypatch, name, address, without):
    monkeypatch.setenv(name, address)
    held = Settings()
    assert "sesame" not in f"{held} {held!r}"
    assert held.secrets()[name] == "sesame-open"
    monkeypatch.setenv(name, without)
    assert name not in Settings().secrets()
