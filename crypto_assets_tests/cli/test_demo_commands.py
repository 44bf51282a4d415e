"""The commands that the demo prints at its end lead to the home that it made, whatever engine and transport it had."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from crypto_assets.cli.demo import POLL_EVERY_BEFORE, demo_home, demo_settings, next_commands, poll_moments
from crypto_assets.errors import UsageError
from crypto_assets.settings import Settings
from crypto_assets_tests.cli.commands import invoke, one_line

NOW = datetime(2026, 5, 10, 12, tzinfo=UTC)


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


def test_the_demo_takes_the_home_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CRYPTO_ASSETS_HOME", str(tmp_path / "here"))
    settings = demo_settings(Settings(source="simulator"), NOW)
    assert settings.home == tmp_path / "here"
    assert any(f"status --home {tmp_path / 'here'}" in row["command"] for row in next_commands(settings))


def test_the_demo_removes_nothing_that_it_did_not_make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    for kept in (tmp_path / "photos", tmp_path / ".crypto_assets" / "coingecko"):
        kept.mkdir(parents=True)
        (kept / "1.jpg").write_text("x")
        assert f"{kept} holds what the demo did not make" in one_line(invoke("demo", "--home", str(kept)))
        assert [p.name for p in kept.iterdir()] == ["1.jpg"]


def test_the_demo_refuses_live_prices_whoever_asks_for_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYPTO_ASSETS_SOURCE", "coingecko")
    done = invoke("demo")
    assert "crypto-assets demo --source replay" in one_line(done)
    assert done.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_nothing_outside_its_home_is_shared_with_the_demo_and_all_of_it_is_named(monkeypatch, tmp_path):
    outside = {
        "CRYPTO_ASSETS_LAKE": str(tmp_path / "live-lake"),
        "CRYPTO_ASSETS_LANDING": str(tmp_path / "live-landing"),
        "CRYPTO_ASSETS_PARTITIONS_START": "2025-01-01",
        "KAFKA_BOOTSTRAP_SERVERS": "kafka.example:9092",
        "KAFKA_TOPIC": "crypto-prices-raw",
        "KAFKA_POLLS_TOPIC": "crypto-polls",
        "MLFLOW_TRACKING_URI": "http://mlflow.example",
        "MLFLOW_REGISTRY_URI": "http://mlflow.example",
        "ALERT_WEBHOOK_URL": "http://hook.example",
    }
    for name, value in outside.items():
        monkeypatch.setenv(name, value)
    base = Settings(source="simulator")
    assert sorted(base.outside()) == sorted(outside)
    settings = demo_settings(base, NOW)
    assert settings.partitions_start == NOW.date() - timedelta(days=2)
    shown = str(settings.model_dump())
    assert not [v for v in outside.values() if v in shown]
    assert settings.lake == str(settings.home / "lake")


def test_a_longer_demo_begins_earlier_and_polls_its_first_days_every_five_minutes():
    settings = demo_settings(Settings(source="simulator"), NOW, 45)
    assert settings.partitions_start == (NOW - timedelta(days=45)).date()
    start = NOW.replace(hour=0)
    every = poll_moments(start, start + timedelta(days=1), POLL_EVERY_BEFORE)
    assert len(every) == 288
    assert all(moment.minute % 5 == 4 for moment in every)  # just before a slot ends
    assert len(poll_moments(start, start + timedelta(days=1))) == 1440


@pytest.mark.parametrize(
    ("source", "days", "said"),
    [
        ("replay", 45, "the recording has 2 days; longer demos: --source simulator --days 45"),
        ("simulator", 1, "choose 2 to 90"),
        ("simulator", 91, "choose 2 to 90"),
    ],
)
def test_days_that_cannot_be_played_are_refused(source: str, days: int, said: str):
    with pytest.raises(UsageError, match=said):
        demo_settings(Settings(source=source), NOW, days)  # type: ignore[arg-type]
