"""Channels: the webhook with several alerts, Apprise over real HTTP, and what is refused."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr, ValidationError

from crypto_assets.alerts.channels import NOT_INSTALLED, AppriseChannel, channels
from crypto_assets.alerts.webhook import Webhook
from crypto_assets.settings import Settings

ROW = {
    "alert_id": "abc", "cause": "move bitcoin", "state": "firing", "severity": "warn", "asset": "gold/bars_5m",
    "check_name": None, "partition_key": None, "summary": "it moved (r5 = 0.04)",
    "at": datetime(2026, 11, 28, 12, 5, tzinfo=UTC), "delivered_at": None, "attempts": 0,
    "rule": "move", "coin_id": "bitcoin", "value": 0.04,
}  # fmt: skip
LINE = "FIRING warn: move bitcoin at 12:05 UTC: it moved (r5 = 0.04)"


def test_a_live_alert_has_no_mark_and_several_are_one_object(receiver):
    webhook = Webhook(SecretStr(receiver.url))
    assert webhook.send([ROW], key="abc", source="coingecko").accepted
    assert webhook.send([ROW, ROW], key="both", source="simulator").accepted
    one, both = (json.loads(body) for _, body in receiver.accepted)
    assert (one["text"], one["value"], one["source"]) == (LINE, 0.04, "coingecko")
    assert both["text"].splitlines() == ["[simulator] 2 alerts, 2026-11-28 12:05 to 12:05 UTC", LINE, LINE]
    assert [a["alert_id"] for a in both["alerts"]] == ["abc", "abc"]
    assert [h["idempotency-key"] for h, _ in receiver.accepted] == ["abc", "both"]


@pytest.mark.filterwarnings("ignore:.imghdr. is deprecated:DeprecationWarning")  # Apprise on Python 3.11 and 3.12
def test_apprise_sends_and_keeps_its_address_to_itself(receiver, caplog):
    pytest.importorskip("apprise")
    channel = AppriseChannel(SecretStr(receiver.url.replace("http://", "json://")))
    caplog.set_level(logging.DEBUG)
    done = channel.send([ROW], key="abcdef0123456789", source="replay")
    assert (done.accepted, done.attempts) == (True, 1)
    body = json.loads(receiver.accepted[0][1])
    assert body["title"] == "[replay] FIRING warn"
    assert body["message"] == "move bitcoin at 12:05 UTC: it moved (r5 = 0.04)\n[abcdef01]"
    receiver.answers = [500]
    refused = channel.send([ROW, ROW], key="k", source="replay")
    assert (refused.accepted, refused.detail) == (False, "the service did not accept it")
    assert "S3CRET" not in caplog.text
    assert AppriseChannel(SecretStr("nosuch://x")).send([ROW], key="k", source="replay").attempts == 0


def test_without_apprise_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    done = AppriseChannel(SecretStr("json://x")).send([ROW], key="k", source="replay")
    assert (done.accepted, done.detail) == (False, NOT_INSTALLED)


def test_channels_are_named_in_one_setting_and_are_secrets(monkeypatch):
    monkeypatch.setenv("CRYPTO_ASSETS_ALERT_CHANNELS", "phone=tgram://sesame/1  mail=mailto://me:open@x.example")
    monkeypatch.setenv("ALERT_WEBHOOK_URL", "http://127.0.0.1/x")
    held = Settings()
    assert set(channels(held)) == {"phone", "mail", "webhook"}
    assert "sesame" not in f"{held} {held!r}"
    assert held.secrets()["CRYPTO_ASSETS_ALERT_CHANNELS phone"] == "tgram://sesame/1"
    assert held.apart().channel_urls == {}


@pytest.mark.parametrize(
    "given", ["tgram://a", "Phone=tgram://a", "a=tgram://a a=tgram://b", "webhook=json://x", "a=b"]
)
def test_a_channel_without_a_name_of_its_own_is_refused(given, monkeypatch):
    monkeypatch.setenv("CRYPTO_ASSETS_ALERT_CHANNELS", given)
    with pytest.raises(ValidationError, match="write name=URL separated by blanks") as raised:
        Settings()
    assert "tgram" not in str(raised.value)
