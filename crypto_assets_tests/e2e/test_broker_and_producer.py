"""Broker, producer and coins by hand, without Dagster; commands that start or publish something run as processes."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from crypto_assets.cli.main import app
from crypto_assets_tests.e2e.commands import clean_environment, command, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
HOME = ("--home", "home", "--source", "simulator")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    found = tmp_path_factory.mktemp("by-hand")
    yield found
    run(found, "broker", "stop", *HOME)


@pytest.fixture(autouse=True)
def _in_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def ask(*arguments: str) -> Result:
    """A command that starts nothing, in this process."""
    return CliRunner().invoke(app, [*arguments, *HOME])


@pytest.fixture
def other_home(folder: Path) -> Iterator[tuple[str, ...]]:
    """A home whose first poll is due at once."""
    chosen = ("--home", "other", "--source", "replay")
    assert run(folder, "broker", "start", *chosen).returncode == 0
    yield chosen
    run(folder, "broker", "stop", *chosen)


def test_the_broker_starts_is_seen_and_stops(folder):
    assert ask("broker", "status").exit_code == 2
    started = run(folder, "broker", "start", *HOME)
    assert started.returncode == 0, started.stderr
    assert "topic crypto-prices-replay (3 partitions" in started.stdout
    status = ask("broker", "status", "--json")
    assert status.exit_code == 0
    assert json.loads(status.stdout)["running"] is True
    assert run(folder, "broker", "stop", *HOME).stdout.strip().endswith("stopped")
    assert ask("broker", "status").exit_code == 1


def test_one_poll_is_published_and_a_second_is_not_due(folder):
    """Without a running broker the home's own is started for as long as it is needed."""
    first = run(folder, "produce", "--once", *HOME, "--json")
    assert first.returncode == 0, first.stdout + first.stderr
    told = json.loads(first.stdout)
    assert (told["polls"], told["sent"], told["ok"]) == (1, 10, True)
    assert ask("broker", "status").exit_code == 1
    second = run(folder, "produce", "--once", *HOME)
    assert second.returncode == 0
    assert "not due" in second.stdout


def test_ctrl_c_ends_the_loop_with_a_summary(folder, other_home):
    started = subprocess.Popen(
        command("produce", "--for", "10m", *other_home),
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert started.stdout
    first = started.stdout.readline()
    assert first
    started.send_signal(signal.SIGINT)
    rest, _ = started.communicate(timeout=60)
    assert started.returncode == 0, first + rest
    assert "poll" in first + rest
    assert "Traceback" not in rest


def test_coins_are_listed_added_and_retired(folder):
    listed = json.loads(ask("coins", "list", "--json").stdout)
    assert len(listed) == 10
    assert ask("coins", "retire", "litecoin").exit_code == 0
    after = {c["coin_id"]: c for c in json.loads(ask("coins", "list", "--json").stdout)}
    assert after["litecoin"]["active_to"] is not None
    refused = ask("coins", "retire", "litecoin")
    assert refused.exit_code == 2
    back = ask("coins", "add", "litecoin")
    assert back.exit_code == 0, back.output
    assert "credits" in back.stdout
