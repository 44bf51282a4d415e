"""Terraform in its JSON syntax: the catalog, its grants, the secret scope with its ACLs, the cluster policy.

Belongs here: what Terraform owns, and only that. Does not belong here: values of secrets (they would lie in the state),
schemas, volumes and jobs (the bundle), tables and their grants (`databricks.deploy.unity`).
"""

from __future__ import annotations

import json
from typing import Any

from crypto_assets.databricks.deploy.names import PIPELINE_ROLES, PROJECT, default
from crypto_assets.databricks.deploy.unity import CATALOG, ROLES, group_of

PATH = "deploy/terraform/main.tf.json"
MAX_WORKERS = 8
POLICY = f"{PROJECT}-jobs"


def _text(description: str, value: Any = None, kind: str = "string") -> dict[str, Any]:
    found: dict[str, Any] = {"type": kind, "description": description}
    return found if value is None else {**found, "default": value}


def _principal(role: str) -> str:
    return f'${{var.groups["{role}"]}}'


def policy() -> dict[str, Any]:
    """Definition of the cluster policy: what the preflight asks for is fixed, what costs money is bounded."""
    return {
        "spark_version": {"type": "fixed", "value": "${var.spark_version}"},
        "data_security_mode": {"type": "fixed", "value": "SINGLE_USER", "hidden": True},
        "node_type_id": {"type": "allowlist", "values": "${var.node_types}"},
        "num_workers": {"type": "range", "minValue": 0, "maxValue": MAX_WORKERS, "defaultValue": 0},
        "autotermination_minutes": {"type": "unlimited", "isOptional": True, "defaultValue": 20},
        "custom_tags.project": {"type": "fixed", "value": default("databricks_project")},
    }


def document() -> dict[str, Any]:
    """The whole configuration."""
    definition = json.dumps(policy())
    # A list cannot stand in a JSON text as it is: jsonencode puts it there.
    definition = definition.replace('"${var.node_types}"', "${jsonencode(var.node_types)}")
    return {
        "//": "Rendered by `python -m crypto_assets.databricks.deploy`; do not edit. Set variables in a .tfvars file.",
        "terraform": {
            "required_version": ">= 1.5",
            "required_providers": {"databricks": {"source": "databricks/databricks", "version": "~> 1.50"}},
        },
        "variable": {
            "catalog": _text("Catalog of the tables (CRYPTO_ASSETS_CATALOG).", CATALOG),
            "storage_root": {**_text("Managed location of the catalog; null = the metastore's own."), "default": None},
            "groups": _text("Group by role.", {r: group_of(r) for r in ROLES}, "map(string)"),
            "spark_version": _text("Runtime (CRYPTO_ASSETS_DATABRICKS_SPARK_VERSION).",
                                   default("databricks_spark_version")),
            "node_types": _text("Node types that clusters may have, as the workspace lists them.", None,
                                "list(string)"),
            "secret_scope": _text("Secret scope (CRYPTO_ASSETS_DATABRICKS_SECRET_SCOPE).",
                                  default("databricks_secret_scope")),
        },
        "provider": {"databricks": {}},
        "resource": {
            "databricks_catalog": {
                "this": {
                    "name": "${var.catalog}",
                    "storage_root": "${var.storage_root}",
                    "comment": "Live crypto prices: Bronze, Silver, Gold, features, models.",
                    "lifecycle": {"prevent_destroy": True},
                }
            },
            "databricks_grants": {
                "catalog": {
                    "catalog": "${databricks_catalog.this.name}",
                    "grant": [{"principal": _principal(r), "privileges": ["USE_CATALOG"]} for r in ROLES],
                }
            },
            "databricks_secret_scope": {"this": {"name": "${var.secret_scope}"}},
            "databricks_secret_acl": {
                role: {
                    "scope": "${databricks_secret_scope.this.name}",
                    "principal": _principal(role),
                    "permission": "READ",
                }
                for role in PIPELINE_ROLES
            },
            "databricks_cluster_policy": {"jobs": {"name": POLICY, "definition": definition}},
            "databricks_permissions": {
                "policy": {
                    "cluster_policy_id": "${databricks_cluster_policy.jobs.id}",
                    "access_control": [
                        {"group_name": _principal(r), "permission_level": "CAN_USE"} for r in PIPELINE_ROLES
                    ],
                }
            },
        },
        "output": {"policy_id": {"value": "${databricks_cluster_policy.jobs.id}",
                                 "description": "CRYPTO_ASSETS_DATABRICKS_POLICY_ID"}},
    }  # fmt: skip


def text() -> str:
    """`main.tf.json`."""
    return json.dumps(document(), indent=2) + "\n"
