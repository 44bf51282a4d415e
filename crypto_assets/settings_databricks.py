"""Settings of Databricks targets, as a base class of `Settings`.

Belongs here: where a launched step runs (workspace, credentials, cluster, staging, secrets) and how long it may take.
Does not belong here: what is asked of the workspace with them (`databricks.launcher.launcher_config`,
`databricks.launcher.preflight`), or any reading of the environment (`settings`).
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

LOOPBACK = ("localhost", "127.0.0.1", "::1")
WORKSPACE_FOLDER = re.compile(r"(/Volumes/[^/]+/[^/]+/[^/]+|dbfs:/[^/])[^ ]*$")


def _ours(name: str) -> AliasChoices:
    return AliasChoices(f"CRYPTO_ASSETS_DATABRICKS_{name}")


class DatabricksSettings(BaseSettings):
    """How steps are launched on Databricks. Times are seconds."""

    databricks_cluster_id: str | None = Field(
        None,
        validation_alias=_ours("CLUSTER_ID"),
        description="Existing all-purpose cluster for launched steps. Default: a new job cluster per step.",
    )
    databricks_spark_version: str = Field(
        "19.0.x-scala2.13",
        validation_alias=_ours("SPARK_VERSION"),
        description="Runtime of new clusters; Spark 4.2 is the tested one.",
    )
    databricks_node_type: str | None = Field(
        None,
        validation_alias=_ours("NODE_TYPE"),
        description="Node type of new clusters, as the workspace lists them; unset with an instance pool.",
    )
    databricks_instance_pool_id: str | None = Field(
        None,
        validation_alias=_ours("INSTANCE_POOL_ID"),
        description="Instance pool for new clusters; they start faster.",
    )
    databricks_policy_id: str | None = Field(
        None, validation_alias=_ours("POLICY_ID"), description="Cluster policy applied to new clusters."
    )
    databricks_workers: int = Field(
        0, ge=0, validation_alias=_ours("WORKERS"), description="Workers of a new cluster; 0 = a single node."
    )
    databricks_spot: Literal["none", "aws", "azure", "gcp"] = Field(
        "none",
        validation_alias=_ours("SPOT"),
        description="Cloud whose spot instances new clusters use, falling back to on-demand; none = on-demand.",
    )
    databricks_run_as: str | None = Field(
        None,
        validation_alias=_ours("RUN_AS"),
        description="User or application id that owns new clusters (SINGLE_USER). Default: who the credentials are.",
    )
    databricks_project: str = Field(
        "crypto-assets", validation_alias=_ours("PROJECT"), description="Tag project of clusters, for cost reports."
    )
    databricks_env: str = Field(
        "dev", validation_alias=_ours("ENV"), description="Tag env of clusters (dev, prod), for cost reports."
    )
    databricks_cluster_logs: str | None = Field(
        None,
        validation_alias=_ours("CLUSTER_LOGS"),
        description="Folder of a volume (/Volumes/..., or dbfs:/... on workspaces that have it) that receives the logs "
        "of new clusters; unset = not kept.",
    )
    databricks_view_group: str | None = Field(
        None, validation_alias=_ours("VIEW_GROUP"), description="Group that may view launched runs."
    )
    databricks_secret_scope: str = Field(
        "crypto-assets",
        validation_alias=_ours("SECRET_SCOPE"),
        description="Secret scope of the workspace. Keys are the environment names in lower case with dashes: "
        "kafka-sasl-password.",
    )
    databricks_staging: str | None = Field(
        None,
        validation_alias=_ours("STAGING"),
        description="Folder of a Unity Catalog volume that steps are staged in, or dbfs:/... on workspaces that have "
        "DBFS; a launched step's files are removed after it. Default: /Volumes/<catalog>/ops/staging",
    )
    databricks_artifacts: str | None = Field(
        None,
        validation_alias=_ours("ARTIFACTS"),
        description="Folder of model files on Databricks. Default: /Volumes/<catalog>/ml/artifacts",
    )
    databricks_run_timeout_s: int = Field(
        3600,
        ge=60,
        validation_alias=_ours("RUN_TIMEOUT_S"),
        description="Seconds a launched run may take before the workspace ends it.",
    )
    databricks_wait_s: int = Field(
        4500,
        ge=60,
        validation_alias=_ours("WAIT_S"),
        description="Seconds the driver waits for a run, its queueing included; more than the run's own limit.",
    )
    databricks_poll_s: float = Field(
        5.0, gt=0, validation_alias=_ours("POLL_S"), description="Poll interval of launched runs in seconds."
    )
    databricks_concurrent_steps: int = Field(
        4, ge=1, validation_alias=_ours("CONCURRENT_STEPS"), description="Maximum steps of a run launched concurrently."
    )
    databricks_environment_version: int = Field(
        4,
        ge=1,
        validation_alias=_ours("ENVIRONMENT_VERSION"),
        description="Version of the serverless environment (Python and Spark Connect); at least 4.",
    )
    databricks_budget_policy_id: str | None = Field(
        None,
        validation_alias=_ours("BUDGET_POLICY_ID"),
        description="Budget policy that serverless steps are billed to.",
    )
    databricks_host: str | None = Field(
        None, validation_alias="DATABRICKS_HOST", description="Workspace URL (Databricks targets)."
    )
    databricks_client_id: str | None = Field(
        None,
        validation_alias="DATABRICKS_CLIENT_ID",
        description="Application id of the service principal that launches (OAuth).",
    )
    databricks_client_secret: SecretStr | None = Field(
        None, validation_alias="DATABRICKS_CLIENT_SECRET", description="OAuth secret of the service principal."
    )
    databricks_token: SecretStr | None = Field(
        None,
        validation_alias="DATABRICKS_TOKEN",
        description="Personal access token instead of OAuth; for trials only.",
    )

    @field_validator("databricks_client_secret", "databricks_token", mode="after")
    @classmethod
    def _empty_databricks_secret_is_unset(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is not None and value.get_secret_value().strip() else None

    @field_validator("databricks_staging", "databricks_cluster_logs", mode="after")
    @classmethod
    def _a_folder_of_the_workspace(cls, value: str | None) -> str | None:
        if value and not WORKSPACE_FOLDER.match(value):
            raise ValueError("neither a folder of a volume, /Volumes/<catalog>/<schema>/<volume>..., nor dbfs:/...")
        return value.rstrip("/") if value else None

    @model_validator(mode="after")
    def _the_run_ends_before_the_wait(self) -> DatabricksSettings:
        if self.databricks_run_timeout_s >= self.databricks_wait_s:
            raise ValueError(
                f"CRYPTO_ASSETS_DATABRICKS_RUN_TIMEOUT_S={self.databricks_run_timeout_s} must be below "
                f"CRYPTO_ASSETS_DATABRICKS_WAIT_S={self.databricks_wait_s}: otherwise the driver gives up first"
            )
        return self

    @property
    def workspace_is_standin(self) -> bool:
        """True if the workspace runs on this machine and can therefore reach loopback Kafka."""
        host = self.databricks_host or ""
        return urlsplit(host if "//" in host else f"//{host}").hostname in LOOPBACK

    def databricks_secrets(self) -> dict[str, SecretStr | None]:
        """Secrets of this part by environment name."""
        return {
            "DATABRICKS_TOKEN": self.databricks_token,
            "DATABRICKS_CLIENT_SECRET": self.databricks_client_secret,
        }
