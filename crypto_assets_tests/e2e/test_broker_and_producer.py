"""Broker, producer and coins by hand, as processes: no Dagster is involved."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from crypto_assets_tests.e2e.commands import clean_environment, command, run

pytestmark = pytest.mark.timeout(300)
HOME = ("--home", "home", "--source", "simulator")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    found = tmp_path_factory.mktemp("by-hand")
    yield found
    run(found, "broker", "stop", *HOME)


@pytest.fixture
def other_home(folder: Path) -> Iterator[tuple[str, ...]]:
    """A home whose first poll is due at once."""
    chosen = ("--home", "other", "--source", "replay")
    assert run(folder, "broker", "start", *chosen).returncode == 0
    yield chosen
    run(folder, "broker", "stop", *chosen)


def test_the_broker_starts_is_seen_and_stops(folder):
    assert run(folder, "broker", "status", *HOME).returncode == 2
    started = run(folder, "broker", "start", *HOME)
    assert started.returncode == 0, started.stderr
    assert "topic crypto-prices-replay (3 partitions" in started.stdout
    status = run(folder, "broker", "status", *HOME, "--json")
    assert status.returncode == 0
    assert json.loads(status.stdout)["running"] is True
    assert run(folder, "broker", "stop", *HOME).stdout.strip().endswith("stopped")
    assert run(folder, "broker", "status", *HOME).returncode == 1


def test_one_poll_is_published_and_a_second_is_not_due(folder):
    """Without a running broker the home's own is started for as long as it is needed."""
    first = run(folder, "produce", "--once", *HOME, "--json")
    assert first.returncode == 0, first.stdout + first.stderr
    told = json.loads(first.stdout)
    assert (told["polls"], told["sent"], told["ok"]) == (1, 10, True)
    assert run(folder, "broker", "status", *HOME).returncode == 1
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
    listed = json.loads(run(folder, "coins", "list", *HOME, "--json").stdout)
    assert len(listed) == 10
    assert run(folder, "coins", "retire", "litecoin", *HOME).returncode == 0
    after = {c["coin_id"]: c for c in json.loads(run(folder, "coins", "list", *HOME, "--json").stdout)}
    assert after["litecoin"]["active_to"] is not None
    refused = run(folder, "coins", "retire", "litecoin", *HOME)
    assert refused.returncode == 2
    back = run(folder, "coins", "add", "litecoin", *HOME)
    assert back.returncode == 0, back.stderr
    assert "credits" in back.stdout
