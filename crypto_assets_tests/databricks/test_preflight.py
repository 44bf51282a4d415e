"""Preflight: every finding in one error, before anything is submitted."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from crypto_assets.databricks.clusters import NEVER_ON_A_CLUSTER, STEP_LIBRARIES
from crypto_assets.databricks.launcher.launcher_config import (
    PACKAGE,
    REMOTE_ENVIRONMENT,
    REMOTE_SECRETS,
    environment,
    launcher_config,
    libraries,
)
from crypto_assets.databricks.launcher.preflight import kafka_findings, library_findings, settings_findings
from crypto_assets.settings import Settings
from crypto_assets_tests.databricks.launched.toys import failure

DRIVER_ONLY = {
    *("home_path", "lake_uri", "spark_master", "spark_remote", "spark_catalog"),
    *("replay_speed", "simulator_seed", "automation", "refresh_interval_s"),
    *("alert_webhook_url", "alert_channels", "alert_rules"),
    *("api_host", "api_port", "api_token", "api_allowed_hosts", "api_requests_per_minute"),
    "start_timeout_s",
    *("kafka_port", "kafka_partitions", "kafka_replication_factor"),
}
"""Settings that no launched step asks for: folders of the home, other targets, producer, broker, alerts, UI."""


def settings(**given: Any) -> Settings:
    return Settings(**{"target": "databricks", **given})


def said(result: Any) -> str:
    return failure(result).user_failure_data.description


def test_everything_that_is_wrong_is_said_together_and_nothing_is_submitted(toys):
    toys.monkeypatch.setenv("KAFKA_SASL_PASSWORD", "not-in-the-scope")
    # Another name of the same address, which is not taken for a workspace on this machine.
    toys.monkeypatch.setenv("DATABRICKS_HOST", toys.workspace.host.replace("127.0.0.1", "127.1"))
    toys.monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "10.0.0.5:9092")
    before = len(toys.workspace.runs)
    toys.workspace.volumes_api.read_only.add("crypto_analytics.ops.staging")
    cluster = {
        "new": {
            "spark_version": "17.3.x-scala2.13",
            "data_security_mode": "USER_ISOLATION",
            "nodes": {"node_types": {"node_type_id": "no-such-node"}},
            "policy_id": "no-such-policy",
        }
    }
    wrong = [{"pypi": {"package": "dagster==1.0.0"}}, {"pypi": {"package": "pyspark==4.2.0"}}]
    result = toys.launch(launcher={"run_config": {"cluster": cluster, "libraries": wrong}})
    assert not result.success
    found = said(result)
    for part in (
        "access mode USER_ISOLATION",
        "Spark 4.0",
        "no-such-node",
        "no-such-policy",
        "GRANT READ VOLUME, WRITE VOLUME ON VOLUME crypto_analytics.ops.staging TO `standin@example.com`",
        "databricks-serverless",
        "kafka-sasl-password",
        "Kafka at 10.0.0.5:9092 is a loopback or private address",
        "dagster==1.0.0 is not the version",
        "pyspark==4.2.0 must not be installed",
    ):
        assert part in found
    assert "not-in-the-scope" not in found
    assert len(toys.workspace.runs) == before
    assert toys.workspace.uploads == []


def test_an_absent_volume_and_a_workspace_without_dbfs_are_named_with_their_fix(toys):
    toys.monkeypatch.setenv("CRYPTO_ASSETS_DATABRICKS_STAGING", "/Volumes/crypto_analytics/ops/absent")
    (found,) = [line for line in said(toys.launch()).splitlines() if line.startswith("- ")]
    assert "volume crypto_analytics.ops.absent does not exist" in found
    assert "CREATE VOLUME crypto_analytics.ops.absent" in found
    toys.monkeypatch.setenv("CRYPTO_ASSETS_DATABRICKS_STAGING", "dbfs:/tmp/mine")
    (found,) = [line for line in said(toys.launch()).splitlines() if line.startswith("- ")]
    assert "DBFS cannot be written at /tmp/mine (Public DBFS root is disabled" in found
    assert "unset CRYPTO_ASSETS_DATABRICKS_STAGING" in found


@pytest.mark.parametrize("given", ["/tmp/mine", "/Volumes/a/b", "s3://bucket/mine", "dbfs:/"])
def test_a_place_of_staging_that_no_workspace_has_is_refused(given):
    with pytest.raises(ValueError, match="neither a folder of a volume"):
        settings(databricks_staging=given)


@pytest.mark.parametrize(("given", "kind"), [("/Volumes/c/ops/staging/logs", "volumes"), ("dbfs:/logs", "dbfs")])
def test_cluster_logs_go_to_a_volume_or_dbfs(given, kind):
    config = launcher_config(settings(databricks_host="h", databricks_cluster_logs=given), {}, "/code")
    assert config["run_config"]["cluster"]["new"]["cluster_log_conf"] == {kind: {"destination": given}}


def test_a_cluster_of_somebody_else_is_refused(toys):
    toys.workspace.clusters.add("theirs", single_user_name="somebody@example.com")
    result = toys.launch(launcher={"run_config": {"cluster": {"existing": "theirs"}}})
    assert not result.success
    assert "belongs to somebody@example.com" in said(result)


def test_things_that_do_not_exist_are_named(toys):
    result = toys.launch(launcher={"run_config": {"cluster": {"existing": "no-such-cluster"}}})
    assert "cluster no-such-cluster cannot be used" in said(result)
    toys.monkeypatch.setenv("CRYPTO_ASSETS_DATABRICKS_INSTANCE_POOL_ID", "no-such-pool")
    toys.monkeypatch.setenv("CRYPTO_ASSETS_DATABRICKS_SPARK_VERSION", "99.9.x")
    found = said(toys.launch())
    assert "instance pool no-such-pool cannot be used" in found
    assert "no runtime 99.9.x" in found


def test_a_secret_in_the_clear_environment_is_refused(toys):
    toys.monkeypatch.setenv("COINGECKO_API_KEY", "CG-in-the-clear")
    toys.workspace.secrets["crypto-assets"] = {"coingecko-api-key": "CG-in-the-clear"}
    found = said(toys.launch(env={"MINE": "x CG-in-the-clear"}))
    assert "MINE would travel in clear with the value of COINGECKO_API_KEY" in found
    assert "CG-in-the-clear" not in found


@pytest.mark.parametrize(
    "address", ["localhost:9092", "127.0.0.1:9092", "10.0.0.5:9092", "[::1]:9092", "192.168.1.2:9"]
)
def test_an_address_that_a_workspace_cannot_reach_is_refused(address):
    real = settings(
        databricks_host="https://adb-1.azuredatabricks.net", kafka_bootstrap_servers=f"b.example.com:1,{address}"
    )
    (found,) = kafka_findings(real)
    assert address in found
    assert "b.example.com" not in found
    assert "landing" in found
    near = settings(databricks_host="http://127.0.0.1:8080", kafka_bootstrap_servers=address)
    assert kafka_findings(near) == []


def test_the_embedded_broker_is_refused_with_a_real_host():
    (found,) = kafka_findings(settings(databricks_host="adb-1.azuredatabricks.net"))
    assert "embedded broker" in found


@pytest.mark.parametrize("given", [{}, {"landing_path": "/home/me/landing"}])
def test_a_landing_folder_that_a_cluster_does_not_see_is_refused(given):
    real = settings(databricks_host="http://127.0.0.1:8080", databricks_token="token", transport="landing", **given)
    (found,) = settings_findings(real)
    assert "CRYPTO_ASSETS_LANDING=/Volumes/crypto_analytics/bronze/landing" in found
    volume = real.model_copy(update={"landing_path": Path("/Volumes/crypto_analytics/bronze/landing")})
    assert settings_findings(volume) == []
    assert environment(volume)["CRYPTO_ASSETS_LANDING"] == "/Volumes/crypto_analytics/bronze/landing"


def test_settings_alone_tell_what_is_missing():
    found = "\n".join(settings_findings(settings()))
    assert "DATABRICKS_HOST" in found
    assert "no credentials" in found
    both = settings(
        databricks_client_id="a", databricks_client_secret="secret", databricks_token="token", databricks_host="h"
    )
    assert any("unset DATABRICKS_TOKEN" in f for f in settings_findings(both))


def test_our_libraries_are_pinned_and_never_the_runtimes_own():
    assert library_findings(libraries()) == []
    assert set(STEP_LIBRARIES).isdisjoint(NEVER_ON_A_CLUSTER)
    assert library_findings([{"pypi": {"package": "anything"}}]) != []


def test_no_secret_is_on_the_list_of_what_travels_in_clear():
    secret = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert secret.isdisjoint(REMOTE_ENVIRONMENT.values())
    assert set(REMOTE_ENVIRONMENT.values()) <= set(Settings.model_fields) | {"catalog"}


def test_every_setting_travels_or_is_for_the_driver_alone():
    travels = set(REMOTE_ENVIRONMENT.values()) | {name.lower() for name in REMOTE_SECRETS} | {"role"}
    fields = {name for name in Settings.model_fields if not name.startswith("databricks_")}
    assert fields - travels - DRIVER_ONLY == set()
    assert fields - travels >= DRIVER_ONLY


def test_the_cluster_extra_is_what_is_launched_and_what_the_lock_pins():
    root = PACKAGE.parent
    extra = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]["cluster"]
    assert [library["pypi"]["package"] for library in libraries()] == extra
    locked = {line.split(" ")[0] for line in (root / "requirements.lock").read_text().splitlines() if "==" in line}
    assert set(extra) <= locked


def test_a_password_in_the_address_of_mlflow_is_refused_before_it_travels(toys):
    toys.monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:in-the-clear@mlflow.example")
    before = len(toys.workspace.runs)
    found = said(toys.launch())
    assert "MLFLOW_TRACKING_URI would travel in clear with the value of MLFLOW_TRACKING_URI" in found
    assert "in-the-clear" not in found
    assert len(toys.workspace.runs) == before
