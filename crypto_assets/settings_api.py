"""Settings of the REST API, as a base class of `Settings`.

Belongs here: where the API listens and whom it answers. Does not belong here: what follows from them
(`serving.access`), or any reading of the environment (`settings`).
"""

from __future__ import annotations

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings


def _ours(name: str) -> AliasChoices:
    return AliasChoices(f"CRYPTO_ASSETS_API_{name}")


class ApiSettings(BaseSettings):
    """Where the REST API listens, and whom it answers."""

    api_host: str = Field(
        "127.0.0.1",
        validation_alias=_ours("HOST"),
        description="Address the API listens on; any but a loopback address needs CRYPTO_ASSETS_API_TOKEN.",
    )
    api_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        validation_alias=_ours("PORT"),
        description="Port of the API. Default: 3001; beside Dagster the port after its own.",
    )
    api_token: SecretStr | None = Field(
        None,
        validation_alias=_ours("TOKEN"),
        description="Token of at least 24 characters that clients of the API send as Authorization: Bearer.",
    )
    api_allowed_hosts: str = Field(
        "",
        validation_alias=_ours("ALLOWED_HOSTS"),
        description="Further names, separated by commas, by which clients reach the API, such as a reverse proxy's.",
    )
    api_requests_per_minute: int = Field(
        600,
        ge=1,
        validation_alias=_ours("REQUESTS_PER_MINUTE"),
        description="Requests a minute that the API answers to one client address, where it asks for a token.",
    )

    @field_validator("api_token", mode="after")
    @classmethod
    def _empty_token_is_unset(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is not None and value.get_secret_value().strip() else None

    @property
    def allowed_hosts(self) -> list[str]:
        """The further names."""
        return [name.strip() for name in self.api_allowed_hosts.split(",") if name.strip()]
