"""Commands on a home that does not exist: refused with the command that makes one, and nothing is created."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from crypto_assets.cli.main import app


@pytest.mark.parametrize(
    "command", [["status"], ["verify"], ["alerts"], ["maintain"], ["backfill", "2024-05-01", "--dry-run"]], ids=" ".join
)
def test_a_command_without_a_home_is_refused(command, tmp_path):
    home = tmp_path / "nothing"
    done = CliRunner().invoke(app, [*command, "--home", str(home)])
    assert done.exit_code == 2
    assert "there is no home at" in done.output
    assert "crypto-assets demo" in done.output
    assert not home.exists()
