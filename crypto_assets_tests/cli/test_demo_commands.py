"""The commands that the demo prints at its end lead to the home that it made, whatever engine and transport it had."""

from __future__ import annotations

import pytest

from crypto_assets.cli.demo import demo_home, next_commands
from crypto_assets.settings import Settings


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"CRYPTO_ASSETS_TARGET": "spark"},
        {"CRYPTO_ASSETS_TRANSPORT": "landing"},
        {"CRYPTO_ASSETS_TARGET": "spark", "CRYPTO_ASSETS_TRANSPORT": "landing"},
    ],
)
def test_they_open_the_home_of_the_same_engine_and_transport(chosen: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as before:
        for name, value in chosen.items():
            before.setenv(name, value)
        made = demo_home(Settings(source="simulator"))
        commands = [row["command"] for row in next_commands(Settings(source="simulator"))]
    opens = next(command for command in commands if "make ui" in command)
    *variables, _make, _ui, source = opens.split()
    for name, value in (word.split("=") for word in variables):
        monkeypatch.setenv(name, value)
    assert demo_home(Settings(source=source.removeprefix("SOURCE="))) == made  # type: ignore[arg-type]
    assert any(command.endswith(f"verify --home {made}") for command in commands)
