"""Settings: those that depend on one another, what is refused, and that a refusal shows no secret."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from crypto_assets.errors import UsageError
from crypto_assets.settings import Settings, environment, reach_this_machine_directly


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


PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy")


@pytest.mark.parametrize(
    ("given", "spared"),
    [
        ({"http_proxy": "http://p:1"}, {"no_proxy": [], "NO_PROXY": []}),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.example, 127.0.0.1"}, {"no_proxy": ["a.example"]}),
        ({"grpc_proxy": "http://p:1", "no_grpc_proxy": "b.example"}, {"no_grpc_proxy": ["b.example"]}),
        ({"ALL_PROXY": "http://p:1", "no_proxy": "a.example", "NO_PROXY": "b.example"}, {"NO_PROXY": ["b.example"]}),
        ({"https_proxy": "http://p:1", "no_proxy": "*"}, {"no_proxy": ["*"]}),
    ],
)
def test_this_machine_is_reached_without_the_proxy_and_others_as_before(given, spared, monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("no_proxy", "NO_PROXY"):  # to be restored, whoever sets them
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        reach_this_machine_directly()
        for name, kept in spared.items():
            listed = environment()[name].replace(" ", "").split(",")
            assert set(kept) | {"127.0.0.1", "localhost", "::1"} == set(listed)
            assert len(listed) == len(set(listed))
    assert {n: environment()[n] for n in given if not n.lower().startswith("no_")} == {
        n: v for n, v in given.items() if not n.lower().startswith("no_")
    }


def test_without_a_proxy_nothing_is_set(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    reach_this_machine_directly()
    assert not {"no_proxy", "NO_PROXY"} & set(environment())


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("CONFLUENT_BOOTSTRAP_SERVERS", "kafka_bootstrap_servers"),
        ("CONFLUENT_API_KEY", "kafka_sasl_username"),
        ("COINGECKO_API_BASE", "coingecko_base_url"),
    ],
)
def test_other_names_of_settings_work_and_a_conflict_is_refused_by_name(monkeypatch, tmp_path, name, field):
    preferred = Settings.model_fields[field].validation_alias.choices[0]
    for each in (name, preferred):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "one.example:1")
    assert getattr(Settings(_env_file=None), field) == "one.example:1"
    monkeypatch.setenv(preferred, "one.example:1")
    assert getattr(Settings(_env_file=None), field) == "one.example:1", "the same value twice is no conflict"
    monkeypatch.delenv(preferred)
    dotenv = tmp_path / "settings.env"
    dotenv.write_text(f"{preferred}=two.example:2\n")
    with pytest.raises(UsageError, match=f"{preferred} and {name} are names of one setting") as refused:
        Settings(_env_file=dotenv)
    assert "example" not in str(refused.value)


def test_a_sasl_user_name_asks_for_sasl_unless_the_protocol_is_set():
    assert Settings().security_protocol == "PLAINTEXT"
    assert Settings(kafka_sasl_username="key").security_protocol == "SASL_SSL"
    assert Settings(kafka_sasl_username="key", kafka_security_protocol="SASL_PLAINTEXT").security_protocol == (
        "SASL_PLAINTEXT"
    )
