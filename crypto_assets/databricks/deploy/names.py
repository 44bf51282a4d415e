"""Names that several deployment files share, taken from settings and contracts.

Belongs here: which settings are secrets and where a secret lies in a workspace. Does not belong here: any file.
"""

from __future__ import annotations

from crypto_assets.databricks.deploy.unity import ROLES
from crypto_assets.settings import Settings
from crypto_assets.settings_docs import documented

PROJECT = "crypto-assets"
PIPELINE_ROLES = tuple(r for r in ROLES if ROLES[r].writes)
"""Roles that run steps; the others only look."""


def default(field: str) -> str:
    """Default of a setting as text.

    Raises:
        KeyError: No such setting.
    """
    return str(Settings.model_fields[field].default)


def secrets() -> list[str]:
    """Environment names of every secret setting, in the order of the settings."""
    return [s.names[0] for s in documented(Settings) if s.secret]


def workspace_secrets() -> list[str]:
    """Secrets that a step in the workspace may need: all but those that sign in to the workspace itself."""
    return [name for name in secrets() if not name.startswith("DATABRICKS_")]


def environment_names() -> set[str]:
    """Every environment name that sets something, other spellings included."""
    return {name for setting in documented(Settings) for name in setting.names}
