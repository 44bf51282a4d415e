"""The documented table of exit codes: every command is in it, and those that need nothing end as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from crypto_assets.cli.main import app
from crypto_assets.home import open_home
from crypto_assets.settings import Settings
from crypto_assets.status.verdict import EXIT_CODES

COMMANDS = Path(__file__).parents[2] / "docs" / "commands.md"


def table() -> dict[str, tuple[str, str, str]]:
    text = COMMANDS.read_text(encoding="utf-8").partition("<!-- exit-codes:begin -->")[2]
    text = text.partition("<!-- exit-codes:end -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()[2:]]
    return {name: (row[1], row[2], row[3]) for row in rows for name in re.findall(r"`([^`]+)`", row[0])}


def commands() -> set[str]:
    named = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    for group in app.registered_groups:
        assert group.typer_instance is not None
        inner = group.typer_instance.registered_commands
        alone = group.typer_instance.registered_callback
        if alone is not None and alone.invoke_without_command:
            named.add(group.name)
        named |= {f"{group.name} {c.name or c.callback.__name__.partition('_')[2]}" for c in inner if c.callback}
    return named


def test_every_command_is_in_the_table():
    assert set(table()) == commands()
    assert all(meanings[0] and meanings[1] for meanings in table().values())


def test_3_of_status_is_its_own():
    assert {name for name, (_, _, cannot) in table().items() if cannot} == {"status"}
    assert sorted(set(EXIT_CODES.values())) == [0, 1, 3]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    open_home(Settings(source="simulator", home_path=tmp_path / "home"))  # type: ignore[call-arg]
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (["status"], 1),  # nothing serves it
        (["alerts"], 0),
        (["prices"], 1),  # it has no quote yet
        (["query", "SELECT 1"], 0),
        (["query"], 2),
        (["maintain"], 0),
        (["broker", "status"], 1),
        (["broker", "stop"], 0),
        (["coins", "list"], 0),
        (["backfill", "1999-01-01", "--dry-run"], 2),
        (["status", "--no-such-option"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_command_ends_as_the_table_says(home, call, code, monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    done = CliRunner().invoke(app, [*call, "--home", str(home)])
    assert done.exit_code == code, done.output


def test_status_of_a_demo_that_ended_is_0(home):
    (home / "demo.json").write_text('{"day": "2026-01-01", "finished": true}')
    done = CliRunner().invoke(app, ["status", "--home", str(home)])
    assert (done.exit_code, "no promise" in done.output) == (0, True)
