"""Settings of Databricks targets, as a base class of `Settings`.

Belongs here: where a launched step runs (workspace, credentials, cluster, staging, secrets) and how long it may take.
Does not belong here: what is asked of the workspace with them (`databricks.launcher.launcher_config`,
`databricks.launcher.preflight`), or any reading of the environment (`settings`).
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasGenerator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK = ("localhost", "127.0.0.1", "::1")
WORKSPACE_FOLDER = re.compile(r"(/Volumes/[^/]+/[^/]+/[^/]+|dbfs:/[^/])[^ ]*$")


VENDORS = re.compile(r"(coingecko|kafka|mlflow)_|alert_webhook_url$|databricks_(host|client_id|client_secret|token)$")
"""Fields whose environment names are their vendors'."""

Secret = Annotated[
    SecretStr | None, AfterValidator(lambda value: value if value and value.get_secret_value().strip() else None)
]
"""A secret; a blank one is unset."""


def environment_name(field: str) -> str:
    """Environment name of a field, unless the field names another: upper case, with our prefix where it is ours."""
    return field.upper() if VENDORS.match(field) else f"CRYPTO_ASSETS_{field.upper()}"


class NamedSettings(BaseSettings):
    """Settings that are named as `environment_name` says."""

    model_config = SettingsConfigDict(alias_generator=AliasGenerator(validation_alias=environment_name))


class DatabricksSettings(NamedSettings):
    """How steps are launched on Databricks. Times are seconds."""

    databricks_cluster_id: str | None = Field(
        None, description="Existing all-purpose cluster for launched steps. Default: a new job cluster per step."
    )
    databricks_spark_version: str = Field(
        "19.0.x-scala2.13", description="Runtime of new clusters; Spark 4.2 is the tested one."
    )
    databricks_node_type: str | None = Field(
        None, description="Node type of new clusters, as the workspace lists them; unset with an instance pool."
    )
    databricks_instance_pool_id: str | None = Field(
        None, description="Instance pool for new clusters; they start faster."
    )
    databricks_policy_id: str | None = Field(None, description="Cluster policy applied to new clusters.")
    databricks_workers: int = Field(0, ge=0, description="Workers of a new cluster; 0 = a single node.")
    databricks_spot: Literal["none", "aws", "azure", "gcp"] = Field(
        "none", description="Cloud whose spot instances new clusters use, falling back to on-demand; none = on-demand."
    )
    databricks_run_as: str | None = Field(
        None,
        description="User or application id that owns new clusters (SINGLE_USER). Default: who the credentials are.",
    )
    databricks_project: str = Field("crypto-assets", description="Tag project of clusters, for cost reports.")
    databricks_env: str = Field("dev", description="Tag env of clusters (dev, prod), for cost reports.")
    databricks_cluster_logs: str | None = Field(
        None,
        description="Folder of a volume (/Volumes/..., or dbfs:/... on workspaces that have it) that receives the logs "
        "of new clusters; unset = not kept.",
    )
    databricks_view_group: str | None = Field(None, description="Group that may view launched runs.")
    databricks_secret_scope: str = Field(
        "crypto-assets",
        description="Secret scope of the workspace. Keys are the environment names in lower case with dashes: "
        "kafka-sasl-password.",
    )
    databricks_staging: str | None = Field(
        None,
        description="Folder of a Unity Catalog volume that steps are staged in, or dbfs:/... on workspaces that have "
        "DBFS; a launched step's files are removed after it. Default: /Volumes/<catalog>/ops/staging",
    )
    databricks_artifacts: str | None = Field(
        None, description="Folder of model files on Databricks. Default: /Volumes/<catalog>/ml/artifacts"
    )
    databricks_run_timeout_s: int = Field(
        3600, ge=60, description="Seconds a launched run may take before the workspace ends it."
    )
    databricks_wait_s: int = Field(
        4500,
        ge=60,
        description="Seconds the driver waits for a run, its queueing included; more than the run's own limit.",
    )
    databricks_poll_s: float = Field(5.0, gt=0, description="Poll interval of launched runs in seconds.")
    databricks_concurrent_steps: int = Field(4, ge=1, description="Maximum steps of a run launched concurrently.")
    databricks_environment_version: int = Field(
        4, ge=1, description="Version of the serverless environment (Python and Spark Connect); at least 4."
    )
    databricks_budget_policy_id: str | None = Field(
        None, description="Budget policy that serverless steps are billed to."
    )
    databricks_host: str | None = Field(None, description="Workspace URL (Databricks targets).")
    databricks_client_id: str | None = Field(
        None, description="Application id of the service principal that launches (OAuth)."
    )
    databricks_client_secret: Secret = Field(None, description="OAuth secret of the service principal.")
    databricks_token: Secret = Field(None, description="Personal access token instead of OAuth; for trials only.")

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
