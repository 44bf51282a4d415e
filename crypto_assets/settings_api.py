"""Settings of the REST API, as a base class of `Settings`.

Belongs here: where the API listens and whom it answers. Does not belong here: what follows from them
(`serving.access`), or any reading of the environment (`settings`).
"""

from __future__ import annotations

from pydantic import Field

from crypto_assets.settings_databricks import NamedSettings, Secret


class ApiSettings(NamedSettings):
    """Where the REST API listens, and whom it answers."""

    api_host: str = Field(
        "127.0.0.1",
        description="Address the API listens on; any but a loopback address needs CRYPTO_ASSETS_API_TOKEN.",
    )
    api_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port of the API. Default: 3001; beside Dagster the port after its own.",
    )
    api_token: Secret = Field(
        None,
        description="Token of at least 24 characters that clients of the API send as Authorization: Bearer.",
    )
    api_allowed_hosts: str = Field(
        "",
        description="Further names, separated by commas, by which clients reach the API, such as a reverse proxy's.",
    )
    api_requests_per_minute: int = Field(
        600,
        ge=1,
        description="Requests a minute that the API answers to one client address, where it asks for a token.",
    )

    @property
    def allowed_hosts(self) -> list[str]:
        """The further names."""
        return [name.strip() for name in self.api_allowed_hosts.split(",") if name.strip()]
