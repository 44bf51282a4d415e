"""Bronze goes on only where the log still holds what was stored of it, under the id that was asked about."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import stamina
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from crypto_assets.assets import bronze
from crypto_assets.assets.log_slices.continuity import Continuity
from crypto_assets.contracts.slices import HOUR, key_slice
from crypto_assets.contracts.tables import POLLS
from crypto_assets.engine.base import Engine, StepFailed, StepInputs
from crypto_assets.log.kafka import reading
from crypto_assets.log.kafka.topic import await_topic
from crypto_assets.storage.base import OffsetRange
from crypto_assets_tests.assets.log_tools import MINUTE, TEN, inputs, key, price, publish
from crypto_assets_tests.kafka_fixtures import RunningBroker

pytestmark = pytest.mark.kafka

TABLE = "bronze.raw_prices"
H10, H11, H15 = key(TEN), key(TEN + HOUR), key(TEN + 5 * HOUR)


class BeforeTheCut:
    """The engine while the log still held what it lost later: the records of another topic under the topic's id."""

    def __init__(self, engine: Engine, lost: str) -> None:
        self._engine, self._lost = engine, lost
        self.store = engine.store

    @property
    def spark(self) -> Any:
        return self._engine.spark

    def read_log(self, topic: str, ranges: Sequence[OffsetRange]) -> Iterator[Any]:
        return self._engine.read_log(self._lost, ranges)

    def read_log_again(
        self,
        topic: str,
        incarnation: str,
        ranges: Sequence[OffsetRange],
    ) -> tuple[Any, tuple[OffsetRange, ...]]:
        return None, ()


def at(broker: RunningBroker, topic: str, hour: str, like: str | None = None) -> StepInputs:
    """Inputs of one hour; `like`: under the id of that topic, which the log had at the time."""
    given = inputs(broker, topic, [hour])
    if like is None:
        return given
    of = reading.bounds(broker.config, like, [key_slice(hour, "hour").start])[hour]
    return replace(given, bounds={hour: replace(given.bounds[hour], topic=of.topic, topic_id=of.topic_id)})


def stored(engine: Engine) -> list[tuple[int, int]]:
    return sorted((r["partition"], r["offset"]) for r in engine.store.read_arrow(TABLE).to_pylist())


@pytest.fixture
def cut(kafka_engine: Engine, kafka_broker: RunningBroker, topic_factory: Callable[..., str]) -> str:
    """A topic of which 3 records are stored that it no longer holds: it has two others in their place."""
    topic, lost = topic_factory(), topic_factory()
    publish(kafka_broker, lost, [(1, TEN + i * MINUTE, price(TEN, price_usd=f"100{i}")) for i in range(3)])
    bronze.work(BeforeTheCut(kafka_engine, lost), [H10], at(kafka_broker, lost, H10, like=topic))
    publish(kafka_broker, topic, [(1, TEN + i * MINUTE, price(TEN, price_usd=f"200{i}")) for i in range(2)])
    return topic


@pytest.mark.parametrize("hour", [H10, H11, H15])
def test_records_after_others_than_are_stored_are_refused_until_a_person_acts(kafka_engine, kafka_broker, cut, hour):
    with pytest.raises(StepFailed, match="log went backwards"):
        bronze.work(kafka_engine, [H10], inputs(kafka_broker, cut, [H10]))
    first = key_slice(hour, "hour").start + 30 * MINUTE
    for more in range(2):  # the error stays, however much the log grows
        publish(kafka_broker, cut, [(1, first + (2 + 9 * more + i) * MINUTE, price(TEN)) for i in range(9)])
        told = r"log was cut and has grown again.*incarnation .*partition 1 offset 2: stored 2024-01-05T10:02"
        with pytest.raises(StepFailed, match=told + r".*adopt-log"):
            bronze.work(kafka_engine, [hour], inputs(kafka_broker, cut, [hour]))
    assert stored(kafka_engine) == [(1, 0), (1, 1), (1, 2)]


def test_a_stream_that_remembers_what_it_stored_refuses_too(kafka_engine, kafka_broker, cut):
    publish(kafka_broker, cut, [(1, TEN + (2 + i) * MINUTE, price(TEN)) for i in range(9)])
    given, continuity = inputs(kafka_broker, cut, [H10]), Continuity(always=True)
    for _ in range(2):
        with pytest.raises(StepFailed, match="log was cut and has grown again"):
            bronze.append(kafka_engine, H10, given, leftovers=True, continuity=continuity)


def test_a_stream_compares_before_every_commit(kafka_engine, kafka_broker, topic_factory):
    topic, lost = topic_factory(), topic_factory()
    publish(kafka_broker, lost, [(0, TEN + i * MINUTE, price(TEN)) for i in range(40)])
    continuity = Continuity(always=True)
    before = BeforeTheCut(kafka_engine, lost)
    for _ in range(2):
        given = at(kafka_broker, lost, H10, like=topic)
        bronze.append(before, H10, given, leftovers=True, continuity=continuity)
    publish(kafka_broker, topic, [(0, TEN + i * MINUTE, price(TEN, price_usd="7")) for i in range(41)])
    with pytest.raises(StepFailed, match=r"partition 0 offset 39: stored"):
        bronze.append(kafka_engine, H10, inputs(kafka_broker, topic, [H10]), leftovers=False, continuity=continuity)


def test_one_record_that_differs_before_an_equal_last_one_is_seen(kafka_engine, kafka_broker, topic_factory):
    topic, lost = topic_factory(), topic_factory()
    publish(kafka_broker, lost, [(0, TEN + i * MINUTE, price(TEN)) for i in range(5)])
    bronze.work(BeforeTheCut(kafka_engine, lost), [H10], at(kafka_broker, lost, H10, like=topic))
    records = [(0, TEN + i * MINUTE, price(TEN, price_usd="7") if i == 3 else price(TEN)) for i in range(6)]
    publish(kafka_broker, topic, records)
    with pytest.raises(StepFailed, match=r"partition 0 offset 3: stored"):
        bronze.work(kafka_engine, [H10], inputs(kafka_broker, topic, [H10]))


def test_polls_are_compared_as_prices_are(kafka_engine, kafka_broker, topic_factory):
    topic, lost = topic_factory(), topic_factory()
    publish(kafka_broker, lost, [(0, TEN, b"[]"), (0, TEN + MINUTE, None), (0, TEN + MINUTE, b"\xff")])
    bronze.work_polls(BeforeTheCut(kafka_engine, lost), [H10], at(kafka_broker, lost, H10, like=topic))
    publish(kafka_broker, topic, [(0, TEN, b"[]"), (0, TEN + MINUTE, None), (0, TEN + MINUTE, b"\xfe")])
    publish(kafka_broker, topic, [(0, TEN + 2 * MINUTE, b"{}")])
    with pytest.raises(StepFailed, match=rf"{POLLS.full_name}: the log was cut.*partition 0 offset 2"):
        bronze.work_polls(kafka_engine, [H10], inputs(kafka_broker, topic, [H10]))


def test_stored_records_that_retention_has_removed_cannot_be_compared(kafka_engine, kafka_broker, cut):
    from confluent_kafka import TopicPartition

    publish(kafka_broker, cut, [(1, TEN + (2 + i) * MINUTE, price(TEN)) for i in range(9)])
    admin = AdminClient(kafka_broker.config)
    admin.delete_records([TopicPartition(cut, 1, 3)])[TopicPartition(cut, 1, 3)].result(30)
    bronze.work(kafka_engine, [H10], inputs(kafka_broker, cut, [H10]))
    assert len(stored(kafka_engine)) == 3 + 8


def recreate(broker: RunningBroker, topic: str, partitions: int = 3) -> None:
    admin = AdminClient(broker.config)
    for future in admin.delete_topics([topic]).values():
        future.result(30)
    config = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
    for attempt in stamina.retry_context(on=KafkaException, timeout=30):  # until the old one is gone
        with attempt:
            admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(30)
    await_topic(admin, broker.config, topic)
    reading.end_offsets(broker.config, topic)


@pytest.mark.parametrize("known", [False, True])
def test_a_topic_re_created_between_bounds_and_reading_is_not_stored_under_the_old_id(
    kafka_engine, kafka_broker, topic_factory, known
):
    topic = topic_factory(name=f"re-{uuid.uuid4().hex[:8]}")
    publish(kafka_broker, topic, [(0, TEN + i * MINUTE, price(TEN)) for i in range(3)])
    if known:
        bronze.work(kafka_engine, [H10], inputs(kafka_broker, topic, [H10]))
        publish(kafka_broker, topic, [(0, TEN + timedelta(minutes=5, seconds=i), price(TEN)) for i in range(3)])
    before, given = stored(kafka_engine), inputs(kafka_broker, topic, [H10])
    recreate(kafka_broker, topic)
    publish(kafka_broker, topic, [(0, TEN + i * MINUTE, price(TEN, price_usd="20")) for i in range(20)])
    with pytest.raises(StepFailed, match=rf"topic {topic} was re-created while it was read"):
        bronze.work(kafka_engine, [H10], given)
    assert stored(kafka_engine) == before
    again = bronze.work(kafka_engine, [H10], inputs(kafka_broker, topic, [H10])).tables[TABLE].partitions[H10]
    assert again.metadata["rows_appended"] == 20


def test_an_hour_that_was_not_made_yet_between_stored_ones_is_no_difference(kafka_engine, kafka_broker, topic_factory):
    topic = topic_factory()
    publish(kafka_broker, topic, [(1, TEN + i * HOUR, price(TEN + i * HOUR)) for i in range(4)])
    hours = [key(TEN + i * HOUR) for i in range(4)]
    for hour in (hours[0], hours[2], hours[3]):
        bronze.work(kafka_engine, [hour], inputs(kafka_broker, topic, [hour]))
    assert stored(kafka_engine) == [(1, 0), (1, 2), (1, 3)]
