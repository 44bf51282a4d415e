"""The Databricks bundle: schemas, volumes, jobs and the declarative pipeline, for a dev and a prod target.

Belongs here: what the bundle owns, and only that. Does not belong here: catalog, secrets and policy (`terraform`),
tables, views and grants (`databricks.deploy.unity`; the job `setup` runs them).
"""

from __future__ import annotations

from typing import Any

from crypto_assets.contracts.tables import MARKET_HISTORY
from crypto_assets.databricks.clusters import secret_key
from crypto_assets.databricks.deploy.unity import CATALOG, SCHEMAS, VOLUMES
from crypto_assets.databricks.deploy.yaml_text import to_yaml
from crypto_assets.databricks.pipeline.configuration import PREFIX, SCHEMA_SUFFIX
from crypto_assets.engine.spark import SHORT_QUERIES
from crypto_assets.settings import Settings

PATH = "deploy/databricks.yml"
PROJECT = "crypto-assets"
POLICY = f"{PROJECT}-jobs"
"""Cluster policy that Terraform makes."""
SETUP = "databricks/setup.py"
COMMAND = "databricks/command.py"
PIPELINE = "databricks/pipeline.py"
PIPELINE_SUFFIX = SCHEMA_SUFFIX
PIPELINE_SCHEMAS = ("bronze", "silver", "gold")
PIPELINE_LIBRARIES = ("pydantic", "pydantic-settings")
"""Packages imported by the dataset declarations, besides Spark."""

HEADER = """Databricks bundle. Rendered by `python -m crypto_assets.rendered_files`; do not edit by hand.
It owns schemas, volumes, jobs and the pipeline; Terraform owns catalog, secret scope and cluster policy; the job
`setup` makes tables, views and grants. Not tried against a real workspace: docs/databricks.md says what that means."""

COMMENTS = {
    "sync": "The package is taken from the checkout: no wheel has to be built for these jobs.",
    "variables.run_as": "The service principal's application id; a member of every pipeline group.",
    "resources.jobs.setup": "Tables, keys, constraints, views, tags and grants. Run it after each deployment.",
    "resources.jobs.stream": "Freshness of seconds. Paused: start it only where hourly runs are too slow.",
    "resources.pipelines.sdp": "The same transforms as a declarative pipeline, beside the tables and not instead.",
    "resources.pipelines.sdp.configuration": "Keys: crypto_assets/databricks/pipeline/configuration.py. No secrets.",
    "targets.dev": "Not `mode: development`: that puts a prefix before schemas, and contracts name them exactly.",
}


def default(field: str) -> str:
    """Default of a setting as text."""
    return str(Settings.model_fields[field].default)


def _variable(description: str, value: str | None = None) -> dict[str, str]:
    return {"description": description} if value is None else {"description": description, "default": value}


def _schemas() -> dict[str, Any]:
    found = {name: {"catalog_name": "${var.catalog}", "name": name, "comment": text} for name, text in SCHEMAS.items()}
    for name in PIPELINE_SCHEMAS:
        own = f"{name}{PIPELINE_SUFFIX}"
        comment = f"{name} of the declarative pipeline."
        found[own] = {"catalog_name": "${var.catalog}", "name": own, "comment": comment}
    return found


def _volumes() -> dict[str, Any]:
    return {
        f"{v.schema}_{v.name}": {
            "catalog_name": "${var.catalog}",
            "schema_name": f"${{resources.schemas.{v.schema}.name}}",
            "name": v.name,
            "volume_type": "MANAGED",
            "comment": v.description,
        }
        for v in VOLUMES
    }


def _setup_job() -> dict[str, Any]:
    parameters = ["--package", "${workspace.file_path}", "--catalog", "${var.catalog}"]
    return {
        "name": f"{PROJECT}-setup-${{bundle.target}}",
        "max_concurrent_runs": 1,
        "timeout_seconds": 3600,
        "tasks": [
            {
                "task_key": "setup",
                "environment_key": "default",
                "spark_python_task": {"python_file": SETUP, "parameters": parameters},
            }
        ],
        "environments": [{"environment_key": "default", "spec": {"environment_version": "4"}}],
    }


def _stream_job(libraries: list[str]) -> dict[str, Any]:
    scope = default("databricks_secret_scope")
    return {
        "name": f"{PROJECT}-stream-${{bundle.target}}",
        "max_concurrent_runs": 1,
        "continuous": {"pause_status": "PAUSED"},
        "tasks": [
            {
                "task_key": "stream",
                "job_cluster_key": "stream",
                "max_retries": 0,
                "spark_python_task": {
                    "python_file": COMMAND,
                    "parameters": ["--package", "${workspace.file_path}", "stream"],
                },
                "libraries": [{"pypi": {"package": pinned}} for pinned in libraries],
            }
        ],
        "job_clusters": [
            {
                "job_cluster_key": "stream",
                "new_cluster": {
                    "policy_id": "${var.policy_id}",
                    "spark_version": "${var.spark_version}",
                    "node_type_id": "${var.node_type_id}",
                    "num_workers": 1,
                    "data_security_mode": "SINGLE_USER",
                    "custom_tags": {"project": default("databricks_project"), "env": "${bundle.target}"},
                    "spark_conf": SHORT_QUERIES,
                    "spark_env_vars": {
                        "CRYPTO_ASSETS_TARGET": "databricks",
                        "CRYPTO_ASSETS_ROLE": "remote",
                        "CRYPTO_ASSETS_SOURCE": "coingecko",
                        "CRYPTO_ASSETS_CATALOG": "${var.catalog}",
                        "CRYPTO_ASSETS_PARTITIONS_START": "${var.partitions_start}",
                        "KAFKA_BOOTSTRAP_SERVERS": "${var.kafka_bootstrap_servers}",
                        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                        "KAFKA_SASL_USERNAME": "${var.kafka_sasl_username}",
                        "KAFKA_SASL_PASSWORD": f"{{{{secrets/{scope}/{secret_key('KAFKA_SASL_PASSWORD')}}}}}",
                    },
                },
            }
        ],
    }


def _pipeline(libraries: list[str]) -> dict[str, Any]:
    secret = f"{default('databricks_secret_scope')}/{secret_key('KAFKA_SASL_PASSWORD')}"
    live = Settings.model_construct(source="coingecko")
    configuration = {
        "package": "${workspace.file_path}",
        "source": live.source,
        "partitions_start": "${var.partitions_start}",
        "topic": live.prices_topic,
        "kafka_bootstrap_servers": "${var.kafka_bootstrap_servers}",
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_username": "${var.kafka_sasl_username}",
        "kafka_sasl_password_at": secret,
        "history": f"${{var.catalog}}.{MARKET_HISTORY.full_name}",
    }
    return {
        "name": f"{PROJECT}-sdp-${{bundle.target}}",
        "catalog": "${var.catalog}",
        "schema": f"${{resources.schemas.gold{PIPELINE_SUFFIX}.name}}",
        "serverless": True,
        "libraries": [{"file": {"path": PIPELINE}}],
        "environment": {"dependencies": [p for p in libraries if p.split("==")[0] in PIPELINE_LIBRARIES]},
        "configuration": {
            **{PREFIX + key: value for key, value in configuration.items()},
            "spark.sql.session.timeZone": "UTC",
        },
    }


def _targets() -> dict[str, Any]:
    run_as = {"service_principal_name": "${var.run_as}"}
    return {
        "dev": {
            "default": True,
            "presets": {"trigger_pause_status": "PAUSED"},
            "variables": {"catalog": f"{CATALOG}_dev"},
            "run_as": run_as,
        },
        "prod": {
            "mode": "production",
            "workspace": {"root_path": f"/Workspace/Shared/.bundle/{PROJECT}/prod"},
            "variables": {"catalog": CATALOG},
            "run_as": run_as,
        },
    }


def document(libraries: list[str]) -> dict[str, Any]:
    """The whole bundle.

    Args:
        libraries: `name==version` of what the stream's cluster installs beside its runtime.
    """
    return {
        "bundle": {"name": PROJECT},
        "sync": {"paths": [".", "../crypto_assets"], "exclude": ["terraform/**", ".env"]},
        "variables": {
            "catalog": _variable("Catalog, as CRYPTO_ASSETS_CATALOG."),
            "run_as": _variable("Application id of the service principal that runs everything."),
            "policy_id": {
                "description": "Cluster policy, as CRYPTO_ASSETS_DATABRICKS_POLICY_ID.",
                "lookup": {"cluster_policy": POLICY},
            },
            "spark_version": _variable("As CRYPTO_ASSETS_DATABRICKS_SPARK_VERSION.",
                                       default("databricks_spark_version")),
            "node_type_id": _variable("As CRYPTO_ASSETS_DATABRICKS_NODE_TYPE."),
            "partitions_start": _variable("First UTC day with partitions, as in the home.json of the driver."),
            "kafka_bootstrap_servers": _variable("As KAFKA_BOOTSTRAP_SERVERS."),
            "kafka_sasl_username": _variable("As KAFKA_SASL_USERNAME."),
        },
        "resources": {
            "schemas": _schemas(),
            "volumes": _volumes(),
            "jobs": {"setup": _setup_job(), "stream": _stream_job(libraries)},
            "pipelines": {"sdp": _pipeline(libraries)},
        },
        "targets": _targets(),
    }  # fmt: skip


def text(libraries: list[str]) -> str:
    """`databricks.yml`; see `document`."""
    return to_yaml(document(libraries), HEADER, COMMENTS)
