"""Records stamped ahead of the clock hide nothing that follows them, and added Kafka partitions are read whole."""

from __future__ import annotations

from datetime import timedelta

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from crypto_assets.assets import bronze
from crypto_assets.assets.log_slices.coverage import coverage, covered_until
from crypto_assets.contracts.slices import HOUR, key_slice
from crypto_assets.engine.base import StepInputs
from crypto_assets.log.kafka import reading
from crypto_assets_tests.assets.log_tools import MINUTE, START, TEN, key, price, publish
from crypto_assets_tests.kafka_fixtures import RunningBroker

pytestmark = pytest.mark.kafka

TABLE = "bronze.raw_prices"


def at(broker: RunningBroker, topic: str, moment, hours: list[str]) -> StepInputs:
    """Inputs of hours at a present time."""
    bounds = reading.bounds(broker.config, topic, [key_slice(h, "hour").start for h in hours], moment)
    return StepInputs(now=moment, run_id="r", source="replay", partitions_start=START, bounds=bounds)


def stored(engine) -> list[tuple[str, int, int]]:
    rows = engine.store.read_arrow(TABLE, columns=["arrival_hour", "partition", "offset"]).to_pylist()
    return sorted((key(r["arrival_hour"]), r["partition"], r["offset"]) for r in rows)


@pytest.mark.parametrize("jump", [timedelta(hours=26), timedelta(days=365)])
@pytest.mark.parametrize("work", [bronze.work, bronze.work_polls])
def test_records_after_one_that_is_stamped_ahead_are_stored_in_their_hours(
    kafka_engine, kafka_broker, topic_factory, jump, work
):
    topic = topic_factory(partitions=1)
    publish(kafka_broker, topic, [(0, TEN, price(TEN)), (0, TEN + MINUTE + jump, b"{}")])
    name = "ops.polls" if work is bronze.work_polls else TABLE
    hours = [key(TEN + n * HOUR) for n in range(3)]
    for minute, expected in ((2, 2), (5, 3), (58, 4)):
        now = TEN + minute * MINUTE
        if minute > 2:
            publish(kafka_broker, topic, [(0, now - MINUTE, price(now - MINUTE))])
        found = work(kafka_engine, hours[:1], at(kafka_broker, topic, now, hours[:1])).tables[name].partitions[hours[0]]
        assert found.rows == expected
        assert "not_stamped_ahead" in {c.name for c in found.checks if not c.passed}
    later = TEN + HOUR + 2 * MINUTE
    publish(kafka_broker, topic, [(0, TEN + 59 * MINUTE, price(TEN)), (0, later, price(later))])
    found = work(kafka_engine, hours[1:2], at(kafka_broker, topic, later, hours[:2])).tables[name].partitions[hours[1]]
    assert found.rows == 1
    assert {c.name for c in found.checks if c.passed} >= {"not_stamped_ahead", "offsets_contiguous", "has_rows"}
    rows = kafka_engine.store.read_arrow(name, columns=["arrival_hour", "offset"]).to_pylist()
    assert sorted(r["offset"] for r in rows if r["arrival_hour"] == TEN) == [0, 1, 2, 3, 4]


def test_a_record_stamped_ahead_does_not_cover_the_time_up_to_it(kafka_engine, kafka_broker, topic_factory):
    topic = topic_factory(partitions=2)
    publish(kafka_broker, topic, [(0, TEN, price(TEN)), (1, TEN + 26 * HOUR, b"{}")])
    bronze.work(kafka_engine, [key(TEN)], at(kafka_broker, topic, TEN + MINUTE, [key(TEN)]))
    assert covered_until(kafka_engine) == TEN
    assert coverage(kafka_engine).offsets == {0: 1, 1: 1}
    commit = kafka_engine.store.commits_after(TABLE, 0, 10)[-1]
    assert commit.metadata["max_kafka_timestamp"] == TEN.isoformat()


def test_the_lag_is_the_age_of_a_record_that_can_be_believed(kafka_broker, topic_factory):
    topic, now = topic_factory(partitions=2), TEN + 30 * MINUTE
    publish(kafka_broker, topic, [(0, TEN + 26 * HOUR, b"{}"), (0, TEN + MINUTE, b"{}"), (1, TEN + 2 * MINUTE, b"{}")])
    start = reading.lag_start(kafka_broker.config, topic, {}, now)
    assert (start.oldest, start.uncovered) == (TEN + MINUTE, {0: 2, 1: 1})
    found = reading.ahead(kafka_broker.config, topic, now)
    assert list(found) == [0]
    assert "partition 0 by 25.5 h" in reading.ahead_text(topic, found, now)


def test_partitions_added_to_a_topic_are_read_from_their_beginning(kafka_engine, kafka_broker, topic_factory):
    topic = topic_factory(partitions=1)
    publish(kafka_broker, topic, [(0, TEN, price(TEN))])
    hours = [key(TEN), key(TEN + HOUR)]
    bronze.work(kafka_engine, hours[:1], at(kafka_broker, topic, TEN + MINUTE, hours[:1]))
    admin = AdminClient(kafka_broker.config)
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(30)
    reading.end_offsets(kafka_broker.config, topic)
    # partition 1 gets records in the hour that is over before anything is read of it; partition 2 in the next
    records = [(1, TEN + 59 * MINUTE), (1, TEN + HOUR), (2, TEN + HOUR + MINUTE), (0, TEN + HOUR + MINUTE)]
    publish(kafka_broker, topic, [(p, t, price(t)) for p, t in records])
    given = at(kafka_broker, topic, TEN + HOUR + 2 * MINUTE, hours[1:])
    found = bronze.work(kafka_engine, hours[1:], given).tables[TABLE].partitions[hours[1]]
    assert stored(kafka_engine) == [
        (hours[0], 0, 0),
        (hours[1], 0, 1),
        (hours[1], 1, 0),
        (hours[1], 1, 1),
        (hours[1], 2, 0),
    ]
    assert next(c for c in found.checks if c.name == "offsets_contiguous").passed
