"""How the source and the producer are, judged from polls: purely, and from a real topic."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crypto_assets.market.polls import Found, read_poll
from crypto_assets.producer import source_health
from crypto_assets.producer.source_health import judge_newest
from crypto_assets.settings import Settings
from crypto_assets_tests.assets.log_tools import price, publish
from crypto_assets_tests.builders import at, rfc3339
from crypto_assets_tests.home_fixtures import settings_of
from crypto_assets_tests.kafka_fixtures import RunningBroker

NOON = at("2024-05-01 12:00:00")
MINUTE = timedelta(minutes=1)
ALL = {"polls_recorded", "source_answers", "delivered", "no_coin_missing", "quotes_move"}


def poll(minute: int = 0, **changed: Any) -> dict[str, Any]:
    """A good poll of version 1, of three coins, one of them unchanged, at a minute after noon."""
    at_ = rfc3339(NOON + minute * MINUTE)
    plain = {
        "poll_id": f"poll-{minute}", "started_at": at_, "finished_at": at_, "source": "coingecko", "outcome": "ok",
        "http_status": 200, "detail": None, "coins_asked": 3, "coins_returned": 3, "coins_unchanged": 1,
        "coins_missing": [], "age_s": None, "latency_ms": 80.0, "cadence_s": 60, "credits_used": 1,
        "credits_left": None, "delivered": 2,
    }  # fmt: skip
    return {**plain, **changed}


def failed(minute: int = 0, outcome: str = "upstream_down", **changed: Any) -> dict[str, Any]:
    return poll(minute, outcome=outcome, coins_returned=0, coins_unchanged=0, delivered=0, detail="HTTP 503", **changed)


def judged(polls: list[dict[str, Any]], changed_at: datetime | None) -> Found:
    return source_health.judge_polls([read_poll(json.dumps(p)) for p in polls], changed_at)


def red(found: dict[str, tuple[bool, str]]) -> set[str]:
    return {name for name, (passed, _) in found.items() if not passed}


def test_good_polls_are_green_throughout() -> None:
    found = judged([poll(0), poll(1), poll(2)], NOON + 2 * MINUTE)
    assert (set(found), red(found)) == (ALL, set())
    assert found["polls_recorded"][1] == "newest poll poll-2"


@pytest.mark.parametrize("outcome", ["rate_limited", "unauthorized", "bad_payload", "upstream_down", "unknown_coin"])
def test_a_failure_is_named_and_says_nothing_about_the_quotes(outcome: str) -> None:
    found = judged([failed(1, outcome)], NOON)
    assert red(found) == {"source_answers"}
    assert set(found) == ALL - {"no_coin_missing", "quotes_move"}
    assert judged([poll(0), failed(1, outcome)], NOON) == judged([poll(0)], NOON) | found
    assert found["source_answers"][1] == f"{outcome}: HTTP 503"


def test_only_the_newest_poll_tells_whether_the_source_answers() -> None:
    assert red(judged([failed(0), failed(1), poll(2)], NOON + 2 * MINUTE)) == set()


def test_changed_quotes_that_kafka_did_not_confirm_are_red() -> None:
    found = judged([poll(delivered=1)], NOON)
    assert red(found) == {"delivered"}
    assert found["delivered"][1] == "1 of 2 changed quotes confirmed"
    assert red(judged([poll(coins_unchanged=3, delivered=0)], NOON)) == set()


def test_quotes_that_stopped_moving_are_red_after_four_cadences_and_two_minutes() -> None:
    bound = timedelta(seconds=4 * 60 + 120)
    assert red(judged([poll(10)], NOON + 10 * MINUTE - bound)) == set()
    late = judged([poll(10)], NOON + 10 * MINUTE - bound - timedelta(seconds=1))
    assert red(late) == {"quotes_move"}
    assert late["quotes_move"][1] == "newest quote is 361 s old, bound 360 s"
    assert red(judged([poll(10, cadence_s=61)], NOON + 10 * MINUTE - bound - timedelta(seconds=1))) == set()
    assert red(judged([poll(10)], None)) == {"quotes_move"}


def test_a_coin_is_missing_when_three_answers_in_a_row_lack_it() -> None:
    lacking = [poll(i, coins_missing=["bitcoin", "dogecoin"][: 1 + (i == 1)]) for i in range(3)]
    found = judged(lacking, NOON + 2 * MINUTE)
    assert red(found) == {"no_coin_missing"}
    assert found["no_coin_missing"][1] == "bitcoin: not in 3 polls"
    assert red(judged([*lacking[:2], poll(2)], NOON + 2 * MINUTE)) == set()
    assert red(judged(lacking[:2], NOON + 2 * MINUTE)) == set(), "two polls are too few to tell"
    # A failed poll names no coins, and so says nothing about them.
    assert red(judged([lacking[0], failed(1), lacking[2]], NOON + 2 * MINUTE)) == set()


# --- from the topic -----------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path, kafka_broker: RunningBroker, topic_factory: Callable[..., str]) -> Settings:
    """Settings of a home whose topics are there and empty."""
    found = settings_of(tmp_path, kafka_broker)
    topic_factory(partitions=3, name=found.prices_topic)
    topic_factory(partitions=1, name=found.polls_topic)
    return found


def send_polls(broker: RunningBroker, settings: Settings, *polls: dict[str, Any] | bytes | None) -> None:
    values = [json.dumps(p).encode() if isinstance(p, dict) else p for p in polls]
    publish(broker, settings.polls_topic, [(0, NOON, v) for v in values])


@pytest.mark.kafka
def test_an_empty_topic_is_named(settings: Settings) -> None:
    found = judge_newest(settings)
    assert found == {"polls_recorded": (False, f"no readable poll among the newest of topic {settings.polls_topic}")}


@pytest.mark.kafka
def test_the_newest_polls_of_the_topic_are_judged(settings: Settings, kafka_broker: RunningBroker) -> None:
    publish(kafka_broker, settings.prices_topic, [(1, NOON + 4 * MINUTE, price(NOON)), (2, NOON, price(NOON))])
    old = [poll(i, coins_missing=["bitcoin"]) for i in range(3)]
    send_polls(kafka_broker, settings, *old)
    assert red(judge_newest(settings)) == {"no_coin_missing"}
    send_polls(kafka_broker, settings, poll(4), failed(5))
    found = judge_newest(settings)
    assert red(found) == {"source_answers"}
    assert found["polls_recorded"][1] == "newest poll poll-5"
    send_polls(kafka_broker, settings, poll(11))
    found = judge_newest(settings)
    assert red(found) == {"quotes_move"}
    assert found["quotes_move"][1] == "newest quote is 420 s old, bound 360 s"


@pytest.mark.kafka
def test_what_cannot_be_read_as_a_poll_is_left_out(settings: Settings, kafka_broker: RunningBroker) -> None:
    publish(kafka_broker, settings.prices_topic, [(0, NOON, price(NOON))])
    send_polls(kafka_broker, settings, poll(0), b"{oops", b"\xff\xfe")
    assert judge_newest(settings)["polls_recorded"] == (True, "newest poll poll-0")
    send_polls(kafka_broker, settings, poll(1), b"[1]", {"poll_id": "half a poll"})
    assert judge_newest(settings)["polls_recorded"] == (True, "newest poll poll-1")
    send_polls(kafka_broker, settings, None, b"7", b"null", poll(2, coins_asked=[3]), poll(2, finished_at="noon"))
    assert judge_newest(settings)["polls_recorded"] == (True, "newest poll poll-1")


@pytest.mark.kafka
def test_a_price_topic_without_a_quote_is_red_for_quotes_alone(settings: Settings, kafka_broker: RunningBroker) -> None:
    send_polls(kafka_broker, settings, poll(0))
    assert red(judge_newest(settings)) == {"quotes_move"}
    assert judge_newest(settings)["quotes_move"][1] == "no usable quote"


@pytest.mark.kafka
def test_a_topic_that_is_not_there_is_a_red_check_and_no_error(tmp_path: Path, kafka_broker: RunningBroker) -> None:
    found = judge_newest(settings_of(tmp_path, kafka_broker))
    assert [(name, passed) for name, (passed, _) in found.items()] == [("polls_recorded", False)]
    assert found["polls_recorded"][1]
