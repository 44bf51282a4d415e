from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from crypto_assets.files import LockHeld, file_lock
from crypto_assets.log.errors import LogError
from crypto_assets.log.kafka.publisher import Publisher
from crypto_assets.market.coins import Coin, CoinRegistry
from crypto_assets.market.credits import Budget, CreditState, Governor
from crypto_assets.market.quotes import Poll, Tick
from crypto_assets.producer.loop import Producer, governor_of, open_producer
from crypto_assets.producer.ticks import ProducerState
from crypto_assets.settings import Settings
from crypto_assets_tests.log.messages import T0, everything, ms

MINUTE = timedelta(minutes=1)
COINS = ("bitcoin", "ethereum", "litecoin")


def quote(coin_id: str, at: datetime) -> Tick:
    none = dict.fromkeys(("market_cap_usd", "volume_24h_usd", "change_1h_pct", "change_24h_pct", "change_7d_pct"))
    return Tick(coin_id, coin_id[:3].upper(), coin_id, Decimal("1.5"), last_updated_at=at, **none)


class Exchange:
    """The outside world: a new quote of every coin each minute, except for what a test changes."""

    name = "replay"

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.frozen_at: datetime | None = None
        self.gone: set[str] = set()
        self.unusable: set[str] = set()
        self.failure: Poll | None = None

    def poll(self, coin_ids: Sequence[str], now: datetime) -> Poll:
        self.asked.append(tuple(coin_ids))
        done = now + timedelta(milliseconds=20)
        if self.failure:
            return Poll(now, done, self.failure.outcome, detail="made up", retry_after_s=self.failure.retry_after_s)
        at = self.frozen_at or now.replace(second=0, microsecond=0)
        return Poll(
            now,
            done,
            "ok",
            ticks=tuple(quote(c, at) for c in coin_ids if c not in self.gone | self.unusable),
            problems=tuple(f"{c}: null price" for c in coin_ids if c in self.unusable),
            missing=tuple(c for c in coin_ids if c in self.gone),
            http_status=200,
            credits_used=1,
            headers={"shift_days": "3"},
        )


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
def registry() -> CoinRegistry:
    return CoinRegistry(Coin(c, c[:3], c) for c in COINS)


@pytest.fixture
def make(kafka_broker, topic_factory, exchange, registry, tmp_path):
    """A producer of one home, as often as a test likes to start it."""
    prices, polls = topic_factory(), topic_factory()
    opened: list[Producer] = []

    def start(publisher: type[Publisher] = Publisher, budget: Budget = Budget(600, None)) -> Producer:  # noqa: B008
        producer = Producer(
            exchange,
            publisher(
                kafka_broker.config, prices_topic=prices, polls_topic=polls, source="replay", virtual=True, timeout_s=5
            ),
            lambda: registry,
            Governor(budget),
            tmp_path / "state" / "producer.json",
            loop_s=0.01,
        )
        opened.append(producer)
        return producer

    yield start
    for producer in opened:
        producer.close()


def prices_of(kafka_broker, producer: Producer) -> list:
    return everything(kafka_broker.config, producer.publisher.prices_topic)


def polls_of(kafka_broker, producer: Producer) -> list:
    rows = everything(kafka_broker.config, producer.publisher.polls_topic)
    return [row[2] for row in sorted(rows, key=lambda row: row[2]["poll_id"])]


def test_a_tick_publishes_what_changed_and_one_record_of_the_poll(kafka_broker, make):
    producer = make()
    tick = producer.tick(T0)
    assert (tick.polled, tick.outcome, tick.sent, tick.delivered, tick.unchanged) == (True, "ok", 3, 3, 0)
    assert tick.ok
    assert tick.recorded
    rows = prices_of(kafka_broker, producer)
    assert sorted(row[2]["coin_id"] for row in rows) == sorted(COINS)
    for row in rows:
        assert row[2]["ingestion_timestamp"] == "2024-01-31T10:00:00.020Z"
        assert row[3]["poll_id"] == tick.poll_id == "replay-20240131T100000.000Z"
        assert (row[3]["cadence_s"], row[3]["shift_days"]) == ("60", "3")
        assert row[4] == ms(T0) + 20
    (record,) = polls_of(kafka_broker, producer)
    assert (record["delivered"], record["coins_asked"], record["cadence_s"]) == (3, 3, 60.0)
    assert producer.last_poll_at == T0
    assert all(passed for passed, _ in tick.checks().values())
    assert set(tick.checks()) == {"source_answers", "quotes_move", "no_coin_missing", "delivered", "polls_recorded"}


def test_an_unchanged_quote_is_success_without_event(kafka_broker, make, exchange):
    producer = make()
    exchange.frozen_at = T0
    producer.tick(T0)
    tick = producer.tick(T0 + MINUTE)
    assert (tick.ok, tick.sent, tick.delivered, tick.unchanged) == (True, 0, 0, 3)
    assert len(prices_of(kafka_broker, producer)) == 3
    assert [p["coins_unchanged"] for p in polls_of(kafka_broker, producer)] == [0, 3]
    # the cursor outlives the process
    again = make().tick(T0 + 2 * MINUTE)
    assert (again.sent, again.unchanged) == (0, 3)
    frozen = make().tick(T0 + 10 * MINUTE)
    assert frozen.checks()["quotes_move"] == (False, "newest quote is 600 s old, bound 360 s")


def test_a_tick_that_is_not_due_asks_nobody(make, exchange):
    producer = make()
    producer.tick(T0)
    tick = producer.tick(T0 + timedelta(seconds=10))
    assert (tick.polled, tick.ok, tick.checks()) == (False, True, {})
    assert tick.poll_id == "replay-20240131T100000.000Z"
    assert "cadence 60 s" in tick.text
    assert len(exchange.asked) == 1


def test_a_failed_poll_is_recorded_and_its_wait_survives_a_restart(kafka_broker, make, exchange):
    producer = make()
    exchange.failure = Poll(T0, T0, "rate_limited", retry_after_s=300)
    tick = producer.tick(T0)
    assert (tick.ok, tick.outcome, tick.delivered, tick.recorded) == (False, "rate_limited", 0, True)
    assert tick.checks()["source_answers"][0] is False
    assert "quotes_move" not in tick.checks()
    (record,) = polls_of(kafka_broker, producer)
    assert (record["outcome"], record["detail"]) == ("rate_limited", "made up")
    exchange.failure = None
    assert not make().tick(T0 + 4 * MINUTE).polled
    assert "10:05:00Z" in make().tick(T0 + 4 * MINUTE).text
    assert make().tick(T0 + 5 * MINUTE).ok


def test_a_coin_is_absent_after_three_polls_and_back_at_once(make, exchange):
    producer = make()
    exchange.gone = {"litecoin"}
    found = [producer.tick(T0 + i * MINUTE) for i in range(3)]
    assert [tick.missing for tick in found] == [("litecoin",)] * 3
    assert [tick.checks()["no_coin_missing"][0] for tick in found] == [True, True, False]
    exchange.gone = set()
    assert producer.tick(T0 + 3 * MINUTE).checks()["no_coin_missing"][0]


def test_spent_credits_stop_the_polling(make, exchange):
    producer = make(budget=Budget(per_minute=600, per_month=4))
    first = datetime(2024, 1, 2, tzinfo=UTC)
    assert producer.tick(first).credits_left == 3
    # What is left would not cover a poll that has to try again.
    assert producer.tick(first + timedelta(days=29)).credits_left == 2
    tick = producer.tick(first + timedelta(days=29, hours=20))
    assert not tick.polled
    assert "no credits left this month" in tick.text
    assert len(exchange.asked) == 2


def test_catching_up_is_the_same_as_ticking_and_virtual_time_goes_on(kafka_broker, make, monkeypatch):
    monkeypatch.setattr("crypto_assets.producer.loop.CATCH_UP_BATCH", 7)
    producer = make()
    done: list[int] = []
    summary = producer.catch_up([T0 + i * MINUTE for i in range(20)], done.append)
    assert (summary.polls, summary.sent, summary.failed, sum(done)) == (20, 60, 0, 20)
    assert summary.ok
    assert len(prices_of(kafka_broker, producer)) == 60
    assert [p["delivered"] for p in polls_of(kafka_broker, producer)] == [3] * 20
    assert producer.last_poll_at == T0 + 19 * MINUTE
    assert producer.tick(T0 + 20 * MINUTE).delivered == 3


def test_a_run_stops_after_its_time_or_when_told(make):
    times = iter(T0 + i * timedelta(seconds=45) for i in range(100))
    summary = make().run(for_s=100, clock=lambda: next(times), stop_event=threading.Event())
    assert summary.polls >= 1
    assert summary.ok
    record = summary.to_record()
    assert record["sent"] == 3 * summary.polls
    assert "sent" in summary.text
    stop = threading.Event()
    stop.set()
    assert make().run(stop_event=stop).polls == 0
    said: list[str] = []
    once = make().run(once=True, report=said.append, clock=lambda: T0 + timedelta(hours=1))
    assert (once.polls, len(said)) == (1, 1)


def test_two_producers_of_one_home_do_not_both_poll(make, exchange, tmp_path):
    producer = make()
    with file_lock(tmp_path / "state" / "producer.lock", timeout_s=0):
        tick = producer.tick(T0)
        assert not tick.polled
        assert "another producer" in tick.text
        with pytest.raises(LockHeld):
            producer.catch_up([T0])
    assert exchange.asked == []
    assert producer.tick(T0).ok


class Broken(Publisher):
    """A publisher whose broker has gone."""

    def _client(self):
        client = super()._client()
        client.purge()
        return client

    def flush(self) -> int:
        if self._producer is not None:
            self._producer.purge()
        return super().flush()


def test_an_undelivered_quote_is_sent_again_but_its_credit_is_spent(kafka_broker, make):
    failed = make(publisher=Broken).tick(T0)
    assert (failed.ok, failed.delivered, failed.recorded) == (False, 0, False)
    assert "were not published" in str(failed.error)
    checks = failed.checks()
    assert (checks["delivered"][0], checks["polls_recorded"][0], checks["source_answers"][0]) == (False, False, True)
    state = make().state
    assert state.sent == {}
    assert state.credits.used_this_month == 1
    producer = make()
    assert producer.tick(T0 + MINUTE).delivered == 3


SCRIPT = """
import os, signal, sys
from crypto_assets.producer.loop import Producer
from crypto_assets.log.kafka.publisher import Publisher
from crypto_assets.market.coins import Coin, CoinRegistry
from crypto_assets.market.credits import Budget, Governor
from crypto_assets_tests.log.messages import T0
from crypto_assets_tests.producer.test_producer import COINS, MINUTE, Exchange
from pathlib import Path

servers, prices, polls, state, where = sys.argv[1:]

class Killed(Publisher):
    flushes = 0
    def flush(self):
        Killed.flushes += 1
        if where == "before flush" and Killed.flushes == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        confirmed = super().flush()
        if where == "before the cursor" and Killed.flushes == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return confirmed

topics = {"prices_topic": prices, "polls_topic": polls}
publisher = Killed({"bootstrap.servers": servers}, **topics, source="replay", virtual=True)
coins = CoinRegistry(Coin(c, c[:3], c) for c in COINS)
producer = Producer(Exchange(), publisher, lambda: coins, Governor(Budget(600, None)), Path(state))
for i in range(6):
    producer.tick(T0 + i * MINUTE)
"""


@pytest.mark.parametrize("where", ["before flush", "before the cursor"])
def test_a_producer_killed_at_the_worst_moment_loses_nothing(kafka_broker, make, tmp_path, where):
    survivor = make()
    arguments = [
        kafka_broker.bootstrap_servers,
        survivor.publisher.prices_topic,
        survivor.publisher.polls_topic,
        str(tmp_path / "state" / "producer.json"),
        where,
    ]
    died = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert died.returncode == -9, died.stderr
    # two ticks were saved: the third was lost in the middle
    assert survivor.last_poll_at == T0 + MINUTE
    survivor.catch_up([T0 + i * MINUTE for i in range(2, 6)])
    rows = prices_of(kafka_broker, survivor)
    keys = {(row[2]["coin_id"], row[2]["last_updated_at"]) for row in rows}
    assert len(keys) == 3 * 6
    # what was confirmed before the cursor was saved is there twice, which Silver removes
    assert len(rows) == 21 if where == "before the cursor" else 18 <= len(rows) <= 21
    for partition in range(3):
        stamps = [row[4] for row in rows if row[0] == partition]
        assert stamps == sorted(stamps)


def test_the_state_survives_json_and_a_damaged_file_is_named(make, tmp_path):
    state = ProducerState(
        sent={"bitcoin": "2024-01-31T10:00:00.000Z"},
        credits=CreditState(month="2024-01", used_this_month=3, recent_calls=(1.5,)),
        absent={"ethereum": 2},
        last_poll_id="p",
        last_poll_at=datetime(2024, 1, 31, tzinfo=UTC),
    )
    assert ProducerState.from_json(state.to_json()) == state
    path = tmp_path / "state" / "producer.json"
    path.parent.mkdir()
    for damaged in ("{", "[]", json.dumps({"sent": 1})):
        path.write_text(damaged)
        with pytest.raises(LogError, match=r"producer\.json is damaged .* Delete it"):
            make().tick(T0)


def test_the_budget_is_the_plans_unless_set():
    def live(**changes) -> Settings:
        return Settings(source="coingecko", **changes)

    assert governor_of(live()).budget == Budget(5, None)
    assert governor_of(live(coingecko_api_key="k")).budget == Budget(30, 10_000)
    changed = live(coingecko_plan="paid", coingecko_monthly_credits=7, coingecko_calls_per_minute=2)
    assert governor_of(changed).budget == Budget(2, 7)
    fast = governor_of(Settings(source="replay", replay_speed=3))
    assert fast.cadence_s(CreditState(), T0) == 20


def test_a_replay_home_polls_its_stand_in_over_http_on_the_day_it_was_begun_with(kafka_broker, tmp_path):
    suffix = uuid.uuid4().hex[:8]
    settings = Settings(
        source="replay",
        home_path=tmp_path,
        kafka_bootstrap_servers=kafka_broker.bootstrap_servers,
        kafka_topic=f"prices-{suffix}",
        kafka_polls_topic=f"polls-{suffix}",
    )
    begin = datetime(2024, 1, 31, 13, 30, 59, 500_000, tzinfo=UTC)
    with open_producer(settings, anchor=begin.date()) as producer:
        summary = producer.catch_up([begin + i * MINUTE for i in range(10)])
    assert (summary.polls, summary.failed) == (10, 0)
    # on another day the home still plays what it was begun with
    with open_producer(settings) as producer:
        assert producer.tick(begin + 10 * MINUTE).ok
    rows = everything(kafka_broker.config, settings.prices_topic)
    assert {row[3]["source"] for row in rows} == {"replay"}
    assert {row[3]["shift_days"] for row in rows} == {"2127"}
    assert {row[2]["coin_id"] for row in rows} == {"bitcoin", "ethereum", "litecoin"}
    assert summary.sent > 20
    assert len(polls_of(kafka_broker, producer)) == 11


# --- one judge of polls: what the sensor reports and what Execute in the UI repeats ---------------------------------


def executed(kafka_broker, producer: Producer, tmp_path) -> dict[str, tuple[bool, str]]:
    """The evaluations that a person's Execute of the topics' checks gives, by the product's own definitions."""
    import dagster as dg

    from crypto_assets.orchestration import topics

    publisher = producer.publisher
    settings = Settings(
        _env_file=None,
        source="replay",
        home_path=tmp_path,
        kafka_bootstrap_servers=kafka_broker.bootstrap_servers,
        kafka_topic=publisher.prices_topic,
        kafka_polls_topic=publisher.polls_topic,
    )
    inputs = type("Inputs", (), {"settings": settings})()
    (checks,) = topics.checks()
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [checks, topics.observed()], instance=instance, resources={"step_inputs": inputs}, raise_on_error=True,
            selection=dg.AssetSelection.checks(checks),
        )  # fmt: skip
        return {e.check_name: (e.passed, str(e.description)) for e in result.get_asset_check_evaluations()}


@pytest.mark.slow
def test_execute_repeats_the_verdict_of_the_sensor(kafka_broker, make, exchange, tmp_path):
    producer, known = make(), {}
    story: dict[str, tuple[set[str], Any, set[str]]] = {
        "good": (set(), None, set()),
        "an unusable quote": ({"bitcoin"}, None, {"no_coin_missing"}),
        "still unusable": ({"bitcoin"}, None, {"no_coin_missing"}),
        "no answer": (set(), "upstream_down", {"source_answers", "no_coin_missing"}),
        "an answer again": (set(), None, set()),
    }
    for minute, (case, (unusable, failure, red)) in enumerate(story.items()):
        exchange.unusable = unusable
        exchange.failure = Poll(T0, T0, failure) if failure else None
        known |= producer.tick(T0 + minute * MINUTE).checks()  # what Dagster shows: the newest evaluation of each
        for _ in range(2):
            assert executed(kafka_broker, producer, tmp_path) == known, case
        assert {name for name, (passed, _) in known.items() if not passed} == red, case


def test_execute_counts_absent_coins_across_polls_without_an_answer(kafka_broker, make, exchange, tmp_path):
    producer, known = make(), {}
    exchange.gone = {"litecoin"}
    for minute, failure in enumerate((None, None, "upstream_down", "upstream_down", None)):
        exchange.failure = Poll(T0, T0, failure) if failure else None
        known |= producer.tick(T0 + minute * 10 * MINUTE).checks()
    assert not known["no_coin_missing"][0]
    assert executed(kafka_broker, producer, tmp_path) == known


def test_execute_knows_of_a_poll_that_could_not_be_recorded(kafka_broker, make, tmp_path):
    class Refused(Publisher):
        def flush(self) -> int:
            raise LogError("the broker is away")

    known = make().tick(T0).checks()
    producer = make(Refused)
    known |= producer.tick(T0 + MINUTE).checks()
    assert {name for name, (passed, _) in known.items() if not passed} == {"delivered", "polls_recorded"}
    assert executed(kafka_broker, producer, tmp_path) == known
    again = make()
    known |= again.tick(T0 + 2 * MINUTE).checks()
    assert all(passed for passed, _ in known.values())
    assert executed(kafka_broker, again, tmp_path) == known
