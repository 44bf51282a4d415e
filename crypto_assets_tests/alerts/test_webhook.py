"""Delivery over real HTTP."""

from __future__ import annotations

import json
import logging
import socket
from datetime import UTC, datetime

from pydantic import SecretStr

from crypto_assets.alerts import webhook

ROW = {
    "alert_id": "abc",
    "cause": "silver/prices unique_key",
    "state": "firing",
    "severity": "error",
    "asset": "silver/prices",
    "check_name": "unique_key",
    "partition_key": "2024-05-01-12:00",
    "summary": "2 rows share a key",
    "at": datetime(2024, 5, 1, 12, tzinfo=UTC),
    "delivered_at": None,
    "attempts": 0,
}


def send(receiver, **kwargs):
    body = webhook.payload(ROW, "replay")
    return webhook.deliver(SecretStr(receiver.url), body, idempotency_key="abc", wait_initial_s=0.01, **kwargs)


def test_it_tries_again_until_the_receiver_accepts(receiver):
    receiver.answers = [503, 429]
    done = send(receiver)
    assert (done.accepted, done.attempts) == (True, 3)
    assert [h["idempotency-key"] for h, _ in receiver.seen] == ["abc"] * 3
    assert len({body for _, body in receiver.seen}) == 1
    body = json.loads(receiver.accepted[0][1])
    assert body["text"] == "[replay] FIRING error: silver/prices unique_key [2024-05-01-12:00]: 2 rows share a key"
    assert body["source"] == "replay"
    assert body["at"] == "2024-05-01T12:00:00+00:00"
    assert "attempts" not in body


def test_it_gives_up_after_its_attempts_and_says_why(receiver):
    receiver.answers = [500, 500, 500, 500]
    done = send(receiver)
    assert (done.accepted, done.attempts, done.detail) == (False, 3, "the webhook answered 500")


def test_a_refusal_or_redirect_is_not_repeated(receiver):
    for status in (400, 404, 302):
        receiver.answers = [status]
        done = send(receiver)
        assert (done.accepted, done.attempts, done.detail) == (False, 1, f"the webhook answered {status}")
    assert len(receiver.seen) == 3


def test_no_receiver_is_a_failed_delivery_not_an_exception():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = SecretStr(f"http://127.0.0.1:{taken.getsockname()[1]}/hooks/S3CRET-token")
        done = webhook.deliver(url, {}, idempotency_key="x", attempts=2, wait_initial_s=0.01)
    assert (done.accepted, done.attempts) == (False, 2)
    assert done.detail == "no answer from the webhook (ConnectionError)"
    for bad in ("not a url S3CRET-token", "http://[S3CRET-token"):
        done = webhook.deliver(SecretStr(bad), {}, idempotency_key="x", attempts=1)
        assert not done.accepted
        assert "S3CRET" not in done.detail


def test_the_address_is_in_no_log_line(receiver, caplog):
    receiver.answers = [503]
    with caplog.at_level(logging.DEBUG):
        assert send(receiver).accepted
        logging.getLogger("urllib3.connectionpool").debug("other threads and later calls log as before")
    assert "S3CRET" not in caplog.text
    assert "log as before" in caplog.text
