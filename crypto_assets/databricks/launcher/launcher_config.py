"""Step launcher configuration: cluster, libraries, environment, secrets; all from `Settings`.

Belongs here: turning settings into the launcher's configuration. Does not belong here: launching (`step_launcher`),
asking the workspace (`preflight`) or the Dagster resource (`resource`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import crypto_assets
from crypto_assets.databricks.clusters import STEP_LIBRARIES, pinned, secret_key
from crypto_assets.databricks.staging import DBFS, VOLUMES, staging_folder
from crypto_assets.log.kafka.broker import bootstrap_of
from crypto_assets.settings import Settings

REMOTE_ENVIRONMENT: Mapping[str, str] = {
    "CRYPTO_ASSETS_TARGET": "target",
    "CRYPTO_ASSETS_SOURCE": "source",
    "CRYPTO_ASSETS_PARTITIONS_START": "partitions_start",
    "CRYPTO_ASSETS_CATALOG": "catalog",
    "CRYPTO_ASSETS_TRANSPORT": "transport",
    "CRYPTO_ASSETS_LANDING": "landing_path",
    "CRYPTO_ASSETS_KAFKA_SHADED": "kafka_shaded",
    "CRYPTO_ASSETS_POLL_INTERVAL_S": "poll_interval_s",
    "CRYPTO_ASSETS_ANOMALY_BUDGET": "anomaly_budget",
    "COINGECKO_PLAN": "coingecko_plan",
    "COINGECKO_BASE_URL": "coingecko_base_url",
    "COINGECKO_MONTHLY_CREDITS": "coingecko_monthly_credits",
    "COINGECKO_CALLS_PER_MINUTE": "coingecko_calls_per_minute",
    "KAFKA_BOOTSTRAP_SERVERS": "kafka_bootstrap_servers",
    "KAFKA_SECURITY_PROTOCOL": "kafka_security_protocol",
    "KAFKA_SASL_MECHANISM": "kafka_sasl_mechanism",
    "KAFKA_SASL_USERNAME": "kafka_sasl_username",
    "KAFKA_SSL_CA_LOCATION": "kafka_ssl_ca_location",
    "KAFKA_TOPIC": "kafka_topic",
    "KAFKA_POLLS_TOPIC": "kafka_polls_topic",
    "MLFLOW_TRACKING_URI": "mlflow_tracking_uri",
    "MLFLOW_REGISTRY_URI": "mlflow_registry_uri",
}
"""Settings that travel in clear, by environment name. A secret never stands here: see `REMOTE_SECRETS`."""

REMOTE_SECRETS = ("COINGECKO_API_KEY", "KAFKA_SASL_PASSWORD")
"""Secrets that a launched step reads; where one is set on the driver, the workspace's scope must hold it."""

STEP_PROCESSES: Mapping[str, Any] = {
    "start_method": {"forkserver": {"preload_modules": ["crypto_assets.definitions", "dagster_databricks"]}}
}
"""How the driver starts the process that waits for a step: forked from one that has imported everything already."""

PACKAGE = Path(crypto_assets.__file__).parent


def environment(settings: Settings) -> dict[str, str]:
    """Settings shipped in clear text to a launched step; unset values are omitted."""
    found = {"CRYPTO_ASSETS_ROLE": "remote"}
    for name, field in REMOTE_ENVIRONMENT.items():
        value = getattr(settings, field)
        if value is not None:
            found[name] = str(value)
    if settings.kafka_bootstrap_servers is None and settings.workspace_is_standin:
        embedded = bootstrap_of(settings.home)  # a workspace on this machine reaches the embedded broker
        if embedded:
            found["KAFKA_BOOTSTRAP_SERVERS"] = embedded
    return found


def secret_entries(settings: Settings) -> list[dict[str, str]]:
    """`secrets_to_env_variables` of every secret that is in force here and read by a launched step."""
    present = settings.secrets()
    return [
        {"name": name, "key": secret_key(name), "scope": settings.databricks_secret_scope}
        for name in REMOTE_SECRETS
        if name in present
    ]


def libraries() -> list[dict[str, Any]]:
    """The `[cluster]` libraries, pinned to what is installed here."""
    return [{"pypi": {"package": package}} for package in pinned(STEP_LIBRARIES)]


def cluster(settings: Settings) -> dict[str, Any]:
    """The `cluster` part of the run configuration: an existing cluster, or a new one of single-user access mode."""
    if settings.databricks_cluster_id:
        return {"existing": settings.databricks_cluster_id}
    new: dict[str, Any] = {
        "spark_version": settings.databricks_spark_version,
        "size": {"num_workers": settings.databricks_workers},
        "nodes": {"instance_pool_id": settings.databricks_instance_pool_id}
        if settings.databricks_instance_pool_id
        else {"node_types": {"node_type_id": settings.databricks_node_type or ""}},
        "data_security_mode": "SINGLE_USER",
        "custom_tags": [
            {"key": "project", "value": settings.databricks_project},
            {"key": "env", "value": settings.databricks_env},
        ],
    }
    if settings.databricks_run_as:
        new["single_user_name"] = settings.databricks_run_as
    if settings.databricks_policy_id:
        new["policy_id"] = settings.databricks_policy_id
    if settings.databricks_workers == 0:
        new["spark_conf"] = {"spark.databricks.cluster.profile": "singleNode", "spark.master": "local[*]"}
        new["custom_tags"].append({"key": "ResourceClass", "value": "SingleNode"})
    spot = {"aws": "SPOT_WITH_FALLBACK", "azure": "SPOT_WITH_FALLBACK_AZURE", "gcp": "PREEMPTIBLE_WITH_FALLBACK_GCP"}
    if settings.databricks_spot != "none":
        new[f"{settings.databricks_spot}_attributes"] = {"availability": spot[settings.databricks_spot]}
    return {"new": new}


def launcher_config(settings: Settings, overrides: Mapping[str, Any], package_root: str) -> dict[str, Any]:
    """The launcher's configuration, validated against its own schema with all defaults filled in.

    Args:
        settings: Where everything comes from.
        overrides: Configuration of the resource from instance, job or launchpad, laid over it key by key.
        package_root: Folder of the staged copy.

    Raises:
        ValueError: The overrides do not fit the launcher's schema, or set what would merge or reveal steps.
    """
    from dagster_databricks import databricks_pyspark_step_launcher

    from crypto_assets.dagster_private import process_config

    given: dict[str, Any] = {
        "run_config": {
            "cluster": cluster(settings),
            "libraries": libraries(),
            "timeout_seconds": settings.databricks_run_timeout_s,
        },
        "permissions": {"job_permissions": {"CAN_VIEW": [{"group_name": settings.databricks_view_group}]}}
        if settings.databricks_view_group
        else {},
        "databricks_host": settings.databricks_host,
        "env_variables": environment(settings),
        "secrets_to_env_variables": secret_entries(settings),
        "local_dagster_job_package_path": package_root,
        "staging_prefix": staging_folder(settings).removeprefix(DBFS),
        "max_completion_wait_time_seconds": settings.databricks_wait_s,
        "poll_interval_sec": settings.databricks_poll_s,
        "verbose_logs": False,
    }
    given |= credentials(settings)
    if "idempotency_token" in (overrides.get("run_config") or {}):
        raise ValueError(
            "step_launcher config: run_config.idempotency_token must not be set; a separate token is made for every "
            "step and attempt, and a fixed one would merge all steps into one run"
        )
    merged = _merge(given, overrides)
    schema = databricks_pyspark_step_launcher.config_schema.config_type
    checked = process_config(schema, merged)
    if not checked.success:
        raise ValueError("step_launcher config: " + "; ".join(e.message for e in checked.errors or []))
    config: dict[str, Any] = {str(name): value for name, value in (checked.value or {}).items()}
    new = config["run_config"]["cluster"].get("new")
    if new and settings.databricks_cluster_logs:
        # Added after the check: the launcher's schema knows no volumes, the SDK that submits does.
        kind = "volumes" if settings.databricks_cluster_logs.startswith(VOLUMES) else "dbfs"
        new.setdefault("cluster_log_conf", {kind: {"destination": settings.databricks_cluster_logs}})
    return config


def credentials(settings: Settings) -> dict[str, Any]:
    """A service principal where it is set, otherwise the token."""
    if settings.databricks_client_id and settings.databricks_client_secret:
        return {
            "oauth_credentials": {
                "client_id": settings.databricks_client_id,
                "client_secret": settings.databricks_client_secret.get_secret_value(),
            }
        }
    return {"databricks_token": settings.databricks_token.get_secret_value()} if settings.databricks_token else {}


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`; the one choice of a selector (existing or new cluster) replaces the other."""
    merged: dict[str, Any] = dict(copy.deepcopy(dict(below)))
    for key, value in above.items():
        if key == "cluster" and set(value) != set(merged.get(key, {})):
            merged[key] = copy.deepcopy(value)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged
