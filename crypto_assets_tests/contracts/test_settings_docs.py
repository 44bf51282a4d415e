"""`.env.example` and `docs/settings.md` follow the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field
from pydantic_settings import BaseSettings

from crypto_assets import settings_docs
from crypto_assets.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def test_every_setting_is_documented_under_the_name_that_sets_it():
    documented = settings_docs.documented(Settings)
    assert len(documented) == len(Settings.model_fields)
    text = settings_docs.render_env_example(Settings)
    for setting in documented:
        assert f"# {setting.names[0]}=" in text
        assert f"`{setting.names[0]}`" in settings_docs.render_page(Settings)
    first_vendor = next(i for i, s in enumerate(documented) if not s.names[0].startswith("CRYPTO_ASSETS_"))
    assert all(not s.names[0].startswith("CRYPTO_ASSETS_") for s in documented[first_vendor:])


def test_the_example_changes_nothing_when_copied(tmp_path):
    (tmp_path / ".env").write_text(settings_docs.render_env_example(Settings))
    assert Settings(_env_file=tmp_path / ".env") == Settings()  # type: ignore[call-arg]


def test_uncommented_defaults_are_accepted_and_equal(tmp_path):
    lines = [line[2:] for line in settings_docs.render_env_example(Settings).splitlines() if line.startswith("# ")]
    given = [line for line in lines if line.split("=")[0].isupper() and not line.endswith("=")]
    assert len(given) > 10
    (tmp_path / ".env").write_text("\n".join(given))
    assert Settings(_env_file=tmp_path / ".env") == Settings()  # type: ignore[call-arg]


def test_secrets_have_no_default_and_are_marked():
    secrets = {s.names[0] for s in settings_docs.documented(Settings) if s.secret}
    ours = {"COINGECKO_API_KEY", "KAFKA_SASL_PASSWORD", "ALERT_WEBHOOK_URL"}
    ours |= {"CRYPTO_ASSETS_API_TOKEN", "CRYPTO_ASSETS_ALERT_CHANNELS"}
    assert secrets == ours | {"DATABRICKS_TOKEN", "DATABRICKS_CLIENT_SECRET"}
    assert all(f"# {name}=\n" in settings_docs.render_env_example(Settings) for name in secrets)


def test_an_undocumented_field_is_refused():
    class Careless(BaseSettings):
        named: str = Field("x", validation_alias="NAMED", description="Said.")
        silent: str = Field("x", validation_alias="SILENT")

    with pytest.raises(ValueError, match="silent"):
        settings_docs.documented(Careless)
