"""Market alerts of a home: real Delta tables, a real webhook, processes that are killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crypto_assets.alerts import backtest
from crypto_assets.alerts.market import LATE, Enabled, MarketAlerts
from crypto_assets.alerts.rules import RulesError
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import HOUR
from crypto_assets.contracts.tables import ALERTS
from crypto_assets.home import open_home
from crypto_assets_tests.alerts.market_home import (
    COINS,
    DAY,
    MOVE,
    SLOT,
    STALE,
    MarketHome,
    eventful_day,
    row,
    rule,
    table,
)

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
RULES = (rule(MOVE, cooldown="1h"), rule(STALE))
TICK = """
import sys
from datetime import datetime
from pathlib import Path
from crypto_assets_tests.alerts.market_home import MOVE, STALE, MarketHome, rule
home = MarketHome(Path({path!r}), {url!r})
home.market.rules = lambda: [rule(MOVE, cooldown="1h"), rule(STALE)]
home.market.tick(datetime.fromisoformat({now!r}))
"""


def bodies(receiver: Any) -> list[dict[str, Any]]:
    """Every alert that the webhook accepted, those in one message apart."""
    messages = [json.loads(body) for _, body in receiver.accepted]
    return [alert for message in messages for alert in message.get("alerts", [message])]


@pytest.fixture
def home(tmp_path: Path, receiver: Any) -> MarketHome:
    return MarketHome(tmp_path / "home", receiver.url)


@pytest.mark.slow
def test_a_live_day_fires_what_its_back_test_fires_across_a_kill_and_an_outage(home, receiver):
    day = eventful_day()
    expected = {a.alert_id: a for one in RULES for a in backtest.of_rows(one, table(day)).alerts}
    assert Counter(a.rule for a in expected.values()) == {"move": 10, "stale": 3}
    assert not [a for a in expected.values() if DAY + 120 * SLOT < a.at <= DAY + 206 * SLOT]  # nothing across the hole
    home.use(*RULES)
    now = NOW
    for hour in range(24):
        if rows := [r for r in day if r["hour"] == DAY + hour * HOUR]:
            home.write(rows)
        now += timedelta(minutes=5)
        if hour == 3:
            killed_while_sending(home, receiver, now)
        elif hour == 7:  # killed after the alerts were stored, before the state was
            before = home.market.path.read_text(encoding="utf-8")
            home.market.evaluate(now)
            home.market.path.write_text(before, encoding="utf-8")
        receiver.answers = [503] * 3 if hour in (5, 6) else []
        home.market.tick(now)
    home.market.tick(now + timedelta(minutes=20))
    got = [b for b in bodies(receiver) if b["state"] == "firing"]
    assert {b["alert_id"] for b in got} == set(expected)
    assert Counter((b["rule"], b["coin_id"], b["at"]) for b in home.rows() if b["state"] == "firing") == Counter(
        (a.rule, a.coin_id, a.at) for a in expected.values()
    )
    keys = {h["idempotency-key"]: json.loads(body)["alert_id"] for h, body in receiver.accepted}
    assert set(keys) == {alert_id for key, alert_id in keys.items() if key == alert_id}
    # The end of a state is sent too, that of an event is not.
    assert {b["rule"] for b in bodies(receiver) if b["state"] == "resolved"} == {"stale"}
    assert all(b["text"].startswith("[replay] ") for b in got)
    sent = [r for r in home.rows() if r["state"] == "firing" or r["rule"] == "stale"]
    assert all(r["delivered_at"] and r["attempts"] for r in sent)


def killed_while_sending(home: MarketHome, receiver: Any, now: datetime) -> None:
    """Kill another process that evaluated and has sent its first message, before it could note the answer."""
    code = TICK.format(path=str(home.path), url=receiver.url, now=now.isoformat())
    holding = receiver.hold()
    child = subprocess.Popen([sys.executable, "-c", code])
    assert holding.arrived.wait(60)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    holding.release.set()
    assert home.market.state().waiting, "it had evaluated"


def test_two_who_evaluate_at_once_fire_and_send_once(home, receiver):
    home.use(rule(MOVE))
    others = [MarketAlerts(home.settings, home.store) for _ in range(4)]
    for other in others:
        other.rules = home.market.rules  # type: ignore[method-assign]
    for number in (1, 2, 3):
        home.write([row(c, number, r5=0.03 if number != 2 else 0.0) for c in COINS])
        threads = [threading.Thread(target=other.tick, args=(NOW,)) for other in others]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    home.market.tick(NOW)
    assert len(home.fired()) == 6
    assert Counter(b["alert_id"] for b in bodies(receiver)) == {r["alert_id"]: 1 for r in home.rows() if r["value"]}


def test_a_follower_sends_what_a_commit_brings(home, receiver):
    home.write([row("bitcoin", 1)])
    home.use(rule(MOVE))
    home.market.tick(NOW)
    stop = threading.Event()
    thread = threading.Thread(target=home.market.follow, args=(stop, lambda: NOW))
    thread.start()
    arrived = receiver.hold()
    home.write([row("bitcoin", 2, r5=0.04)])
    came = arrived.arrived.wait(60)
    arrived.release.set()
    stop.set()
    thread.join()
    assert came
    assert [b["summary"] for b in bodies(receiver)] == ["it moved (r5 = 0.04)"]


def test_quiet_hours_end_with_one_digest(home, receiver):
    home.use(rule(MOVE, quiet_hours="22:00-07:00"), rule(STALE))
    night = NOW.replace(hour=23)
    for number in (1, 2, 3):
        home.write([row(c, number, r5=0.03 if number != 2 else 0.0) for c in COINS[:2]])
        home.market.tick(night)
    assert receiver.seen == []
    assert len(home.fired()) == 4
    receiver.answers = [503] * 3
    morning = night + timedelta(hours=8)
    home.market.tick(morning)
    home.market.tick(morning + timedelta(minutes=1))
    ((headers, body),) = receiver.accepted
    digest = json.loads(body)
    assert {a["alert_id"] for a in digest["alerts"]} == {r["alert_id"] for r in home.rows() if r["state"] == "firing"}
    assert digest["text"].startswith("[replay] 4 alerts, 2026-11-28 00:05 to 00:15 UTC\nFIRING warn: move ")
    assert {h["idempotency-key"] for h, _ in receiver.seen} == {headers["idempotency-key"]}
    assert not home.market.state().waiting


def test_without_a_digest_each_alert_of_the_quiet_hours_is_sent_by_itself(home, receiver):
    home.use(rule(MOVE, quiet_hours="22:00-07:00", digest=False))
    home.write([row(c, 1, r5=0.03) for c in COINS])
    home.market.tick(NOW.replace(hour=23))
    assert receiver.seen == []
    home.market.tick(NOW.replace(hour=7) + timedelta(days=1))
    assert len(receiver.accepted) == len(bodies(receiver)) == 3


def test_alerts_of_a_group_and_slot_are_one_message(home, receiver):
    home.use(rule(MOVE, group="price"), rule(MOVE, name="jump", group="price", when="abs(r5) > 0.025"))
    home.write([row(c, 1, r5=0.03) for c in COINS])
    home.market.tick(NOW)
    ((_, body),) = receiver.accepted
    assert len(json.loads(body)["alerts"]) == 6


def test_slots_that_are_old_are_stored_and_not_sent(tmp_path, receiver):
    home = MarketHome(tmp_path / "home", receiver.url, source="coingecko")
    home.use(rule(MOVE))
    home.write([row("bitcoin", 1, r5=0.03), row("bitcoin", 2), row("bitcoin", 3, r5=0.03)])
    home.market.tick(DAY + SLOT + LATE + timedelta(seconds=1))
    assert len(home.fired()) == 2
    (sent,) = bodies(receiver)
    assert (sent["at"], sent["text"][:6]) == ((DAY + 3 * SLOT).isoformat(), "FIRING")


def test_alerts_of_an_earlier_version_stay_readable(home):
    import pyarrow as pa
    from deltalake import write_deltalake

    whole = arrow_schema(ALERTS)
    earlier = pa.schema([f for f in whole if f.name not in ("rule", "coin_id", "value")])
    old = {
        "alert_id": "old", "cause": "gold/bars_5m has_rows", "state": "firing", "severity": "error",
        "summary": "no rows", "at": DAY, "attempts": 0,
    }  # fmt: skip
    write_deltalake(home.store.path("ops.alerts"), pa.Table.from_pylist([old], schema=earlier))
    home.use(rule(MOVE))
    home.write([row("bitcoin", 1, r5=0.03)])
    home.market.tick(NOW)
    assert [(r["cause"], r["rule"], r["coin_id"], r["value"]) for r in home.rows()] == [
        ("gold/bars_5m has_rows", None, None, None),
        ("move bitcoin", "move", "bitcoin", 0.03),
    ]


def test_serve_follows_the_rules_of_its_home(home, receiver):
    home.rules_file("rules:\n- {name: jump, description: up, table: features.price_features, when: r5 > 0.01}\n")
    open_home(home.settings)
    home.write([row("bitcoin", 1)])
    (jump,) = [r for r in home.market.rules() if r.name == "jump"]
    with home.market.changing() as state:
        state.enabled["jump"] = Enabled(jump.content_hash, None)
    sent = receiver.hold()
    command = [
        sys.executable,
        "-m",
        "crypto_assets.cli.main",
        "serve",
        "--home",
        str(home.path),
        "--port",
        str(free_port()),
    ]
    with subprocess.Popen(command, env={**os.environ, "ALERT_WEBHOOK_URL": receiver.url}) as serving:
        try:
            home.write([row("bitcoin", 2, r5=0.03)])
            assert sent.arrived.wait(120)
            sent.release.set()
        finally:
            serving.terminate()
        assert serving.wait(60) == 0
    assert [b["cause"] for b in bodies(receiver)] == ["jump bitcoin"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_restated_slot_changes_nothing(home, receiver):
    home.use(rule(MOVE))
    home.write([row("bitcoin", 1), row("bitcoin", 2)])
    home.market.tick(NOW)
    home.write([row("bitcoin", 1, r5=0.5), row("bitcoin", 2, r5=0.5)])
    home.market.tick(NOW)
    assert not home.store.exists("ops.alerts")
    assert receiver.seen == []


def test_a_rule_begins_with_the_slots_after_it_was_enabled(home):
    home.write([row("bitcoin", n, r5=0.03 if n in (1, 3, 5) else 0.0) for n in range(1, 5)])
    home.use(rule(MOVE), since=DAY + 4 * SLOT)
    home.market.tick(NOW)
    home.write([row("bitcoin", 5, r5=0.03)])
    home.market.tick(NOW)
    assert home.fired() == [("move", "bitcoin", DAY + 5 * SLOT)]


def test_one_channel_that_fails_does_not_keep_others_waiting(home, receiver):
    from crypto_assets.alerts.webhook import Delivery

    class Broken:
        def send(self, rows: Any, *, key: str, source: str) -> Delivery:
            return Delivery(False, 1, "down")

    home.market.channels["phone"] = Broken()
    home.use(rule(MOVE, channels=["phone", "webhook"]))
    home.write([row("bitcoin", 1, r5=0.03)])
    assert home.market.tick(NOW).waiting == 1
    (stored,) = home.rows()
    assert len(bodies(receiver)) == 1
    assert (stored["delivered_at"], stored["attempts"]) == (None, 2)
    gone = home.market.tick(NOW + timedelta(hours=25))
    assert (gone.given_up, gone.waiting, len(bodies(receiver))) == (1, 0, 1)


def test_what_one_process_has_no_address_for_is_sent_by_another(tmp_path, receiver):
    without, configured = (MarketHome(tmp_path / "home", url) for url in (None, receiver.url))
    without.use(rule(MOVE))
    configured.market.rules = without.market.rules  # type: ignore[method-assign]
    without.write([row("bitcoin", 1, r5=0.03)])
    assert without.market.tick(NOW).waiting == 1
    assert configured.market.tick(NOW + timedelta(seconds=10)).delivered == 1
    without.write([row("bitcoin", 2), row("bitcoin", 3, r5=0.03)])
    assert without.market.tick(NOW).waiting == 1
    assert without.market.tick(NOW + LATE + timedelta(seconds=1)).waiting == 0
    assert len(bodies(receiver)) == 1


def test_a_damaged_state_is_named_with_what_to_do(home):
    home.use(rule(MOVE))
    home.market.path.write_text("{}", encoding="utf-8")
    with pytest.raises(RulesError, match=r"is damaged .*; delete it, then back-test and enable the rules again"):
        home.market.tick(NOW)


def test_a_home_without_rules_costs_nothing_and_leaves_no_trace(home):
    assert home.market.tick(NOW).waiting == 0
    assert not home.market.has_news()
    assert not home.path.exists()


def test_evaluating_needs_neither_dagster_nor_spark(home):
    home.use(*RULES)
    home.write([row("bitcoin", 1, r5=0.03)])
    code = TICK.format(path=str(home.path), url=None, now=NOW.isoformat())
    code += "heavy = {'dagster', 'pyspark', 'mlflow'} & set(sys.modules)\nassert not heavy, heavy\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(home.fired()) == 1
