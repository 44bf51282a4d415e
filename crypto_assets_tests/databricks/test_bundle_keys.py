"""Keys of the bundles' resources: by a list of our own, and by the Databricks CLI's schema where it is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import crypto_assets
from crypto_assets.contracts.tables import PRICE_FEATURES
from crypto_assets.databricks.deploy.unity import MODELS_SCHEMA, ROLES, group_of
from crypto_assets.databricks.endpoint import SUFFIX
from crypto_assets.ml.baselines import REGISTERED
from crypto_assets.serving.render.boards import PAGES
from crypto_assets.serving.scoring import MODELS
from crypto_assets_tests.databricks.test_deploy_files import bundle, texts

ROOT = Path(crypto_assets.__file__).parents[1]
PATH = "deploy/databricks.yml"
ONLINE = "deploy/online/databricks.yml"
BUNDLES = {path: bundle(ROOT / path) for path in (PATH, ONLINE)}

PERMISSIONS = {"level", "group_name", "user_name", "service_principal_name"}
KEYS: Mapping[str, set[str]] = {
    "dashboards.*": {
        *("display_name", "file_path", "warehouse_id", "dataset_catalog", "dataset_schema", "embed_credentials"),
        *("permissions", "parent_path", "lifecycle"),
    },
    "dashboards.*.permissions[]": PERMISSIONS,
    "alerts.*": {
        *("display_name", "custom_summary", "custom_description", "query_text", "warehouse_id", "evaluation"),
        *("schedule", "permissions", "parent_path", "run_as", "lifecycle"),
    },
    "alerts.*.evaluation": {"source", "comparison_operator", "threshold", "empty_result_state", "notification"},
    "alerts.*.evaluation.source": {"name", "display", "aggregation"},
    "alerts.*.evaluation.threshold": {"value", "column"},
    "alerts.*.evaluation.threshold.value": {"double_value", "bool_value", "string_value"},
    "alerts.*.evaluation.notification": {"notify_on_ok", "retrigger_seconds", "subscriptions"},
    "alerts.*.evaluation.notification.subscriptions[]": {"destination_id", "user_email"},
    "alerts.*.schedule": {"quartz_cron_schedule", "timezone_id", "pause_status"},
    "model_serving_endpoints.*": {
        *("name", "config", "description", "permissions", "route_optimized", "rate_limits", "tags", "ai_gateway"),
        *("email_notifications", "budget_policy_id", "telemetry_config", "lifecycle"),
    },
    "model_serving_endpoints.*.config": {"served_entities", "traffic_config", "auto_capture_config"},
    "model_serving_endpoints.*.config.served_entities[]": {
        *("name", "entity_name", "entity_version", "workload_size", "workload_type", "scale_to_zero_enabled"),
        *("environment_vars", "instance_profile_arn", "min_provisioned_throughput", "max_provisioned_throughput"),
    },
    "model_serving_endpoints.*.permissions[]": PERMISSIONS,
    "database_instances.*": {"name", "capacity", "stopped", "node_count", "permissions", "lifecycle"},
    "synced_database_tables.*": {"name", "database_instance_name", "logical_database_name", "spec", "lifecycle"},
    "synced_database_tables.*.spec": {
        *("source_table_full_name", "primary_key_columns", "timeseries_key", "scheduling_policy"),
        *("create_database_objects_if_missing", "new_pipeline_spec", "existing_pipeline_id"),
    },
    "synced_database_tables.*.spec.new_pipeline_spec": {"storage_catalog", "storage_schema", "budget_policy_id"},
}
"""Keys that a resource may have, by its place; names of resources are `*`."""
KINDS = {path.split(".")[0] for path in KEYS}
VALUES: Mapping[str, set[str]] = {
    "comparison_operator": {"GREATER_THAN", "LESS_THAN", "GREATER_THAN_OR_EQUAL", "LESS_THAN_OR_EQUAL", "EQUAL"},
    "aggregation": {"SUM", "COUNT", "COUNT_DISTINCT", "AVG", "MEDIAN", "MIN", "MAX", "STDDEV"},
    "empty_result_state": {"UNKNOWN", "TRIGGERED", "OK", "ERROR"},
    "pause_status": {"PAUSED", "UNPAUSED", "${var.alerts_pause_status}"},
    "scheduling_policy": {"SNAPSHOT", "TRIGGERED", "CONTINUOUS"},
    "workload_size": {"Small", "Medium", "Large"},
}
"""Values that a key may have, wherever it stands."""


def objects(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of a document with its place."""
    if isinstance(value, dict):
        yield path, value
        for key, child in value.items():
            yield from objects(child, f"{path}.{key}")
    elif isinstance(value, list):
        for child in value:
            yield from objects(child, f"{path}[]")


def problems(document: Mapping[str, Any]) -> list[str]:
    """Keys and values of resources that the lists above do not have."""
    found = []
    for kind in KINDS & set(document["resources"]):
        for name, resource in document["resources"][kind].items():
            for path, each in objects(resource, f"{kind}.*"):
                found += [f"{name}: {path} has no {key}" for key in sorted(set(each) - KEYS.get(path, set()))]
                found += [f"{name}: {key} is {value}" for key, value in each.items()
                          if key in VALUES and value not in VALUES[key]]  # fmt: skip
    return found


@pytest.mark.parametrize("path", BUNDLES)
def test_resources_have_keys_that_exist(path: str):
    assert problems(BUNDLES[path]) == []


def test_every_dashboard_of_a_bundle_exists():
    for path, document in BUNDLES.items():
        for dashboard in document["resources"].get("dashboards", {}).values():
            assert (ROOT / path).parent.joinpath(dashboard["file_path"]).is_file()


def test_whoever_may_see_the_dashboard_may_read_its_tables():
    (permission,) = BUNDLES[PATH]["resources"]["dashboards"]["boards"]["permissions"]
    assert permission["group_name"] == group_of("dashboard")
    read = {table for page in PAGES for query in page.queries for table in query.tables}
    assert read <= set(ROLES["dashboard"].readable())


def test_alerts_are_paused_until_someone_asks_for_them():
    alerts = BUNDLES[PATH]["resources"]["alerts"].values()
    assert {alert["schedule"]["pause_status"] for alert in alerts} == {"${var.alerts_pause_status}"}
    assert BUNDLES[PATH]["variables"]["alerts_pause_status"]["default"] == "PAUSED"


def test_variables_of_the_online_bundle_lead_somewhere():
    document = BUNDLES[ONLINE]
    referred = {m for text in texts(document) for m in re.findall(r"\$\{([\w.]+)\}", text)}
    instances = {f"resources.database_instances.{name}.name" for name in document["resources"]["database_instances"]}
    assert referred - instances - {"bundle.target"} == {f"var.{name}" for name in document["variables"]}
    assert document["targets"].keys() == BUNDLES[PATH]["targets"].keys()
    for name, target in document["targets"].items():
        beside = BUNDLES[PATH]["targets"][name]
        assert (target["variables"], target["run_as"]) == (beside["variables"], beside["run_as"])


def test_every_model_that_scores_a_row_has_an_endpoint_with_the_name_it_is_published_under():
    endpoints = BUNDLES[ONLINE]["resources"]["model_serving_endpoints"]
    served = {key: e["config"]["served_entities"] for key, e in endpoints.items()}
    assert served.keys() == set(MODELS)
    for model, (entity,) in served.items():
        assert entity["entity_name"] == f"${{var.catalog}}.{MODELS_SCHEMA}.{REGISTERED[model]}{SUFFIX}"
        assert entity["entity_version"] == f"${{var.{model}_version}}"


def test_the_synced_table_has_the_newest_features_of_every_coin():
    (synced,) = BUNDLES[ONLINE]["resources"]["synced_database_tables"].values()
    spec = synced["spec"]
    assert spec["source_table_full_name"] == f"${{var.catalog}}.{PRICE_FEATURES.full_name}"
    assert [*spec["primary_key_columns"], spec["timeseries_key"]] == list(PRICE_FEATURES.key)


def test_planted_faults_are_found():
    document = deepcopy(BUNDLES[PATH])
    alert = document["resources"]["alerts"]["prices_stale"]
    alert["evaluation"]["condition"] = alert["evaluation"].pop("threshold")
    alert["schedule"]["pause_status"] = "ON"
    document["resources"]["dashboards"]["boards"]["catalog"] = "x"
    document["resources"] |= deepcopy(BUNDLES[ONLINE]["resources"])
    document["resources"]["synced_database_tables"]["price_features"]["spec"]["timeseries_column"] = "window_end"
    assert sorted(problems(document)) == [
        "boards: dashboards.* has no catalog",
        "price_features: synced_database_tables.*.spec has no timeseries_column",
        "prices_stale: alerts.*.evaluation has no condition",
        *(
            f"prices_stale: alerts.*.evaluation.condition{end}"
            for end in (" has no value", ".value has no double_value")
        ),
        "prices_stale: pause_status is ON",
    ]


# --- the schema that the CLI prints -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    if shutil.which("databricks") is None:
        pytest.skip("databricks bundle schema: databricks is not installed")
    done = subprocess.run(["databricks", "bundle", "schema"], check=True, capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout)


def unknown(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], path: str) -> list[str]:
    """Places of keys that a JSON schema does not have. Texts with variables are accepted everywhere."""
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return unknown(value, target, root, path)
    choices = schema.get("oneOf") or schema.get("anyOf")
    if choices:
        return min((unknown(value, choice, root, path) for choice in choices), key=len)
    if isinstance(value, dict):
        if schema.get("type") != "object":
            return [path]
        known, more = schema.get("properties", {}), schema.get("additionalProperties")
        found = []
        for key, child in value.items():
            if key in known:
                found += unknown(child, known[key], root, f"{path}.{key}")
            elif isinstance(more, dict):
                found += unknown(child, more, root, f"{path}.{key}")
            else:
                found.append(f"{path}.{key}")
        return found
    if isinstance(value, list):
        if schema.get("type") != "array":
            return [path]
        return [p for n, child in enumerate(value) for p in unknown(child, schema["items"], root, f"{path}[{n}]")]
    if isinstance(value, str) and "enum" in schema and "${" not in value and value not in schema["enum"]:
        return [f"{path}={value}"]
    return []


@pytest.mark.parametrize("path", BUNDLES)
def test_the_schema_of_the_cli_has_every_key(path: str, schema: dict[str, Any]):
    assert unknown(BUNDLES[path], schema, schema, "") == []
    wrong = deepcopy(BUNDLES[path])
    kind = next(iter(set(wrong["resources"]) & KINDS))
    next(iter(wrong["resources"][kind].values()))["planted"] = 1
    assert [place.rpartition(".")[2] for place in unknown(wrong, schema, schema, "")] == ["planted"]
