"""The producer sensor on a home's real instance: a real producer over HTTP and Kafka, what a tick tells and asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dagster as dg
import pytest
import requests
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from dagster._core.test_utils import create_run_for_test

from crypto_assets.contracts.slices import HOUR, hour_key
from crypto_assets.orchestration import jobs, producer_sensor
from crypto_assets.orchestration.running_window import running_window
from crypto_assets.orchestration.topics import POLLS, PRICES, check_specs
from crypto_assets.producer.loop import Producer, open_producer
from crypto_assets.sources.virtual import VirtualClient
from crypto_assets_tests.home_fixtures import opened, settings_of

if TYPE_CHECKING:
    from crypto_assets_tests.home_fixtures import SmallHome

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)


class Clock:
    """Moments that only rise, each far enough from the last that a poll is due."""

    def __init__(self, home: SmallHome) -> None:
        self.home = home
        self.hour = home.next_hour() - HOUR

    def next(self, minute: int = 30) -> datetime:
        """So many minutes and ten seconds into an hour of its own."""
        self.hour = max(self.hour + HOUR, self.home.next_hour())
        return self.hour + minute * MINUTE + 10 * SECOND


@pytest.fixture(scope="module")
def producer(small_home: SmallHome) -> Iterator[Producer]:
    with open_producer(small_home.settings) as found:
        yield found


@pytest.fixture(scope="module")
def clock(small_home: SmallHome) -> Clock:
    return Clock(small_home)


@pytest.fixture
def tick(small_home: SmallHome, producer: Producer):
    def evaluate(now: datetime, cursor: str | None = None, every_s: int = 0) -> dg.SensorResult:
        return producer_sensor.evaluate(producer, small_home.instance, cursor, now, "replay", every_s)

    return evaluate


def fail(producer: Producer, kind: str | None) -> None:
    """Put a fault in force at the stand-in that the producer polls, or clear it."""
    assert isinstance(producer.source, VirtualClient)
    host = urlsplit(producer.source.url)
    answer = requests.post(f"{host.scheme}://{host.netloc}/_faults", json={"kind": kind}, timeout=5)
    assert answer.status_code == 200


def said(result: dg.SensorResult) -> str:
    assert result.skip_reason is not None
    return str(result.skip_reason.skip_message)


def only_request(result: dg.SensorResult) -> dg.RunRequest:
    found = list(result.run_requests or ())
    assert len(found) == 1
    return found[0]


def checks(result: dg.SensorResult) -> dict[tuple[dg.AssetKey, str], Any]:
    found = [e for e in result.asset_events if isinstance(e, dg.AssetCheckEvaluation)]
    by_key = {(e.asset_key, e.check_name): e for e in found}
    assert len(by_key) == len(found)
    return by_key


def test_a_poll_asks_to_refresh_the_running_hour(tick, producer, clock):
    now = clock.next()
    result = tick(now)
    request = only_request(result)
    assert request.run_key == producer.state.last_poll_id
    assert request.partition_key == hour_key(now)
    assert request.tags["crypto_assets/poll_id"] == request.run_key
    assert json.loads(result.cursor) == {"wanted": None}
    assert result.skip_reason is None


def test_in_the_first_minutes_of_an_hour_it_asks_for_both_hours_as_one_run(tick, clock):
    now = clock.next(minute=2)
    request = only_request(tick(now))
    assert request.partition_key is None
    assert request.tags[ASSET_PARTITION_RANGE_START_TAG] == hour_key(now - HOUR)
    assert request.tags[ASSET_PARTITION_RANGE_END_TAG] == hour_key(now)


@pytest.mark.parametrize(("minute", "second", "hours"), [(0, 0, 2), (4, 59, 2), (5, 0, 1), (59, 59, 1)])
def test_the_running_window(minute, second, hours):
    now = datetime(2024, 5, 1, 0, minute, second, tzinfo=UTC)
    assert running_window(now) == ["2024-04-30-23:00", "2024-05-01-00:00"][-hours:]


def test_while_a_refresh_runs_nothing_is_asked_and_then_asked_again(tick, small_home, producer, clock):
    run = create_run_for_test(small_home.instance, job_name="refresh", status=dg.DagsterRunStatus.STARTED)
    now = clock.next()
    result = tick(now)
    polled = producer.state.last_poll_id
    assert not result.run_requests
    assert said(result).startswith("3 sent, 0 unchanged")
    assert json.loads(result.cursor) == {"wanted": polled}

    still = tick(now + 10 * SECOND, result.cursor)
    assert not still.run_requests
    assert "not due" in said(still)

    small_home.instance.report_run_canceled(run)
    again = tick(now + 20 * SECOND, still.cursor)
    assert only_request(again).run_key == polled
    assert json.loads(again.cursor) == {"wanted": None}
    assert not again.asset_events  # this tick did not poll
    after = tick(now + 30 * SECOND, again.cursor)
    assert not after.run_requests


def test_refreshes_keep_their_distance_and_none_is_forgotten(tick, producer, clock):
    now = clock.next()
    first = tick(now, every_s=900)
    assert only_request(first)
    soon = tick(now + 2 * MINUTE, first.cursor, every_s=900)
    assert not soon.run_requests
    assert said(soon).startswith("3 sent")
    waiting = producer.state.last_poll_id
    due = tick(now + 15 * MINUTE, soon.cursor, every_s=900)
    assert only_request(due).run_key in {waiting, producer.state.last_poll_id}
    assert json.loads(due.cursor) == {"wanted": None, "requested_at": (now + 15 * MINUTE).isoformat()}


def test_an_hourly_refresh_is_left_to_the_schedule(tick, clock):
    now = clock.next()
    assert said(tick(now, every_s=3600)).startswith("3 sent")
    assert not tick(now + 59 * MINUTE, every_s=3600).run_requests


def test_a_refresh_of_another_job_does_not_hold_it_up(tick, small_home, clock):
    run = create_run_for_test(small_home.instance, job_name="daily", status=dg.DagsterRunStatus.STARTED)
    assert only_request(tick(clock.next())).run_key
    small_home.instance.report_run_canceled(run)


def test_every_check_of_the_topics_is_evaluated(tick, clock):
    found = checks(tick(clock.next()))
    assert set(found) == {(s.asset_key, s.name) for s in check_specs()}
    assert [e.check_name for e in found.values() if not e.passed] == []


def test_a_poll_materializes_the_topics_and_leaves_bronze_in_sync(tick, small_home, clock):
    """Freshness is the age of a materialization; a new data version at each poll would mark every Bronze hour stale."""
    versions = set()
    for _ in range(2):
        result = tick(clock.next())
        made = [e for e in result.asset_events if isinstance(e, dg.AssetMaterialization)]
        assert [m.asset_key for m in made] == [PRICES, POLLS]
        versions |= {m.tags["dagster/data_version"] for m in made}
        for event in result.asset_events:
            small_home.instance.report_runless_asset_event(event)
    assert len(versions) == 1
    (stored,) = small_home.instance.fetch_materializations(PRICES, limit=1).records
    assert stored.asset_materialization is not None
    assert stored.asset_materialization.metadata["messages_sent"].value == 3


def test_a_failed_poll_says_why_and_asks_for_nothing(tick, producer, clock):
    fail(producer, "down")
    try:
        result = tick(clock.next())
    finally:
        fail(producer, None)
    assert not result.run_requests
    assert "503" in said(result)
    found = checks(result)
    assert not found[PRICES, "source_answers"].passed
    assert found[POLLS, "polls_recorded"].passed  # the failed poll is itself in the log
    assert (PRICES, "quotes_move") not in found  # nothing is known about the quotes


def test_unchanged_quotes_ask_for_nothing(tick, producer, clock):
    now = clock.next()
    fail(producer, "frozen_quote")
    try:
        assert only_request(tick(now))
        result = tick(now + 2 * MINUTE)
    finally:
        fail(producer, None)
    assert not result.run_requests
    assert said(result).startswith("0 sent, 3 unchanged")


def test_the_run_it_asks_for_brings_the_quotes_into_the_tables(tick, small_home, producer, clock):
    request = only_request(tick(clock.next()))
    done = small_home.defs.resolve_job_def("refresh").execute_in_process(
        instance=small_home.instance, partition_key=request.partition_key, tags=request.tags, raise_on_error=False
    )
    assert done.success
    rows = small_home.engine.store.read_arrow("gold.latest_prices").to_pylist()
    sent = {r["coin_id"]: r["last_updated_at"].isoformat() for r in rows}
    assert sent == {c: datetime.fromisoformat(t).isoformat() for c, t in producer.state.sent.items()}


def test_the_sensor_of_the_definitions_polls_at_the_present_moment(kafka_broker, tmp_path):
    """The definition as the daemon ticks it, on a home that has never been used."""
    settings = settings_of(tmp_path / "home", kafka_broker)
    with opened(settings, datetime.now(UTC), []) as home, open_producer(settings) as producer:
        sensor = producer_sensor.build(jobs.jobs()[0], lambda: producer, "replay")
        context = dg.build_sensor_context(instance=home.instance, repository_def=home.repository)
        first = sensor.evaluate_tick(context)
        (request,) = list(first.run_requests or ())
        assert request.run_key == producer.state.last_poll_id
        assert request.tags["crypto_assets/source"] == "replay"
        context = dg.build_sensor_context(home.instance, first.cursor, repository_def=home.repository)
        again = sensor.evaluate_tick(context)
        assert not again.run_requests
        assert "not due" in str(again.skip_message)


def test_the_producer_of_a_process_is_opened_once(kafka_broker, tmp_path):
    get = producer_sensor.shared_producer(settings_of(tmp_path / "home", kafka_broker))
    opened_once = get()
    try:
        assert get() is opened_once
    finally:
        opened_once.close()
