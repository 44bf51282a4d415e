"""`alerts backtest|enable|disable|rules|test-channel` on a home with real tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from crypto_assets.cli.doctor import market
from crypto_assets.cli.main import app
from crypto_assets.home import open_home
from crypto_assets.settings import Settings
from crypto_assets_tests.alerts.conftest import receiver  # noqa: F401 - a fixture
from crypto_assets_tests.alerts.market_home import COINS, DAY, SLOT, MarketHome, row
from crypto_assets_tests.cli.commands import invoke, one_line

FILE = """rules:
- name: {name}
  description: it moved
  table: features.price_features
  when: abs(r5) >= {limit}
  budget: 2
"""


def two_hours() -> list[dict[str, Any]]:
    """Three moves of bitcoin, one of ethereum, and half an hour without a price of litecoin."""
    rows = [row(coin, number) for coin in COINS for number in range(1, 25)]
    for held in rows:
        number = (held["window_end"] - DAY) // SLOT
        if (held["coin_id"], number) in (("bitcoin", 3), ("bitcoin", 9), ("bitcoin", 15), ("ethereum", 5)):
            held["r5"] = 0.03
        if held["coin_id"] == "litecoin" and 10 <= number < 16:
            held |= {"r5": None, "price": None}
    return rows


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MarketHome:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    made = MarketHome(tmp_path / "home", None)
    open_home(made.settings)
    made.write(two_hours())
    made.rules_file(FILE.format(name="jump", limit=0.02))
    return made


def ran(home: MarketHome, name: str, *more: str) -> str:
    done = CliRunner().invoke(app, ["alerts", name, *more, "--home", str(home.path)])
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(home: MarketHome, name: str, *more: str) -> str:
    done = CliRunner().invoke(app, ["alerts", name, *more, "--home", str(home.path)])
    assert done.exit_code == 2, done.output
    return one_line(done)


def states(home: MarketHome) -> dict[str, str]:
    return {r["rule"]: r["state"] for r in json.loads(ran(home, "rules", "--json"))}


def test_a_back_test_prints_alerts_per_coin_and_day_and_keeps_its_result(home):
    text = ran(home, "backtest", "jump")
    assert [line.split() for line in text.splitlines() if line.startswith("jump  ")] == [
        ["jump", coin, *map(str, figures)]
        for coin, figures in (
            ("bitcoin", (3, 1, 3, "3.00", "2.00")),
            ("ethereum", (1, 1, 1, "1.00", "2.00")),
            ("litecoin", (0, 1, 0, "0.00", "2.00")),
        )
    ]
    assert "jump: over its budget: bitcoin 3.00 a day, and 2 is allowed" in text
    (record,) = json.loads(ran(home, "backtest", "jump", "--json"))
    assert (record["worst_coin"], record["worst_per_day"], len(record["alerts"])) == ("bitcoin", 3.0, 4)
    assert record["coins"][0] == {"coin_id": "bitcoin", "days": {"2026-11-28": 3}}
    assert home.market.state().tested["jump"].fires == 4


def test_all_rules_are_tested_where_none_is_named(home):
    text = ran(home, "backtest")
    assert "spread: gold.bars_5m has no rows to test it on" in text
    assert "stale: within its budget, 1.00 of 1 a day; crypto-assets alerts enable stale" in text


def test_a_rule_is_enabled_only_after_its_test_and_within_its_budget(home):
    assert "jump was never back-tested: crypto-assets alerts backtest jump" in refused(home, "enable", "jump", "move")
    ran(home, "backtest")
    over = refused(home, "enable", "jump", "spread")
    assert "jump would fire 3.00 times a day for bitcoin, and its budget is 2: raise its threshold" in over
    assert "spread was never back-tested" in over
    assert set(states(home).values()) == {"off"}
    home.rules_file(FILE.format(name="jump", limit=0.04))
    assert "jump has changed since its back-test: crypto-assets alerts backtest jump" in refused(home, "enable", "jump")
    ran(home, "backtest", "jump")
    assert ran(home, "enable", "jump") == "enabled: jump; sent to: no channel, only ops.alerts\n"
    assert states(home)["jump"] == "on"
    home.rules_file(FILE.format(name="jump", limit=0.05))
    assert states(home)["jump"] == "off: changed since it was enabled"


def test_an_enabled_rule_fires_for_later_slots_and_ends_when_it_is_disabled(home):
    home.rules_file(FILE.format(name="jump", limit=0.04))
    ran(home, "backtest", "jump")
    ran(home, "enable", "jump")
    home.write([row(coin, 25, r5=0.05) for coin in COINS])
    home.market.tick(DAY + 26 * SLOT)
    assert {f[:2] for f in home.fired()} == {("jump", coin) for coin in COINS}
    assert ran(home, "disable", "jump") == "disabled: jump\n"
    resolved = [r for r in home.rows() if r["state"] == "resolved"]
    assert {r["coin_id"] for r in resolved} == set(COINS)
    assert all("the rule is not in force any more" in r["summary"] for r in resolved)
    assert ran(home, "disable", "jump") == "none of them was enabled\n"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ("  enabled: false\n", "has enabled: false in its file; remove that line"),
        ("  channels: [webhook, phone]\n", "add phone to CRYPTO_ASSETS_ALERT_CHANNELS"),
    ],
)
def test_a_rule_that_could_not_work_is_not_enabled(home, changed, why):
    home.rules_file(FILE.format(name="jump", limit=0.04) + changed)
    ran(home, "backtest", "jump")
    assert why in refused(home, "enable", "jump")


def test_names_and_files_that_are_wrong_are_named(home):
    assert "there are no rules mive (do you mean move?), x; list them: crypto-assets alerts rules" in refused(
        home, "enable", "mive", "x"
    )
    home.rules_file("rules:\n- name: a\n  on: gold.bars_5m\n")
    error = refused(home, "rules")
    assert f"{home.path}/alerts.yaml:3: rule a: unknown key on: write table" in error
    assert "alerts.yaml:2: rule a: when: is missing" in error


def test_doctor_names_rules_that_are_enabled_and_cannot_fire(home, monkeypatch):
    def findings() -> list[tuple[str, str]]:
        return [(f.level, f.found) for f in market.rules(Settings(source="replay", home_path=home.path))]

    assert findings() == [("ok", "6 rules, 0 enabled")]
    home.rules_file(FILE.format(name="jump", limit=0.04))
    ran(home, "backtest", "jump", "move")
    ran(home, "enable", "jump")
    assert findings() == [("warn", "rule jump is sent to channels that are not configured: webhook")]
    monkeypatch.setenv("ALERT_WEBHOOK_URL", "http://127.0.0.1:1/x")
    assert findings() == [("ok", "6 rules, 1 enabled")]
    home.rules_file(FILE.format(name="jump", limit=0.05))
    assert findings() == [("warn", "rule jump is off: it has changed since it was enabled")]
    home.rules_file(FILE.format(name="jumps", limit=0.05))
    assert findings() == [("warn", "rule jump is enabled, and in no rules file")]
    home.rules_file("rules: 3")
    ((level, text),) = findings()
    assert (level, text) == (
        "error",
        f"{home.path}/alerts.yaml:1: rules is no list: begin each rule with `- name: ...`",
    )


def test_an_option_before_the_command_is_not_ignored(home):
    done = CliRunner().invoke(app, ["alerts", "--home", str(home.path), "rules"])
    assert done.exit_code == 2
    assert "write the options after rules" in done.output


def test_a_rules_file_that_is_not_there_is_named(home, monkeypatch, tmp_path):
    monkeypatch.setenv("CRYPTO_ASSETS_ALERT_RULES", str(tmp_path / "mine.yaml"))
    assert f"there is no rules file at {tmp_path}/mine.yaml: write it, or unset" in refused(home, "rules")
    (tmp_path / "mine.yaml").write_text(FILE.format(name="mine", limit=1), encoding="utf-8")
    assert "mine" in states(home)
    assert "jump" not in states(home)


def test_a_channel_is_tested_by_a_message(home, receiver, monkeypatch):  # noqa: F811
    assert "channel webhook is not configured: set ALERT_WEBHOOK_URL" in refused(home, "test-channel", "webhook")
    monkeypatch.setenv("ALERT_WEBHOOK_URL", receiver.url)
    assert ran(home, "test-channel", "webhook") == "webhook accepted the message\n"
    assert "nothing has happened" in json.loads(receiver.accepted[0][1])["text"]
    receiver.answers = [403]
    done = invoke("alerts test-channel", "--home", str(home.path))
    assert done.exit_code == 1
    assert one_line(done) == "error: webhook did not accept the message: the webhook answered 403"
