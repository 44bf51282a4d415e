"""A reader that reaches the end of the log: what is told about a partition's end never overtakes its last records."""

import pytest

from crypto_assets.log.kafka.reading import read_ranges
from crypto_assets.storage.base import OffsetRange
from crypto_assets_tests.kafka_fixtures import RunningBroker

RECORDS = {0: 53, 1: 3011, 2: 517}
FILLER = "x" * 4096
"""Makes the largest partition take several fetches, so that the others end while its records still come."""


@pytest.fixture(scope="module")
def uneven_topic(kafka_broker: RunningBroker) -> str:
    """A topic whose partitions end at different times for any reader of all of them."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    from crypto_assets.log.kafka.reading import end_offsets
    from crypto_assets.log.kafka.topic import await_topic

    topic = "uneven-ends"
    admin = AdminClient(kafka_broker.config)
    admin.create_topics([NewTopic(topic, len(RECORDS), 1)])[topic].result(30)
    await_topic(admin, kafka_broker.config, topic)
    end_offsets(kafka_broker.config, topic)
    producer = Producer({**kafka_broker.config, "acks": "all"})
    for partition, count in RECORDS.items():
        for i in range(count):
            producer.produce(topic, value=f"{partition}/{i} {FILLER}".encode(), partition=partition)
    assert producer.flush(60) == 0
    return topic


@pytest.mark.parametrize("chunk_rows", [64, 999, 200_000])
def test_ranges_up_to_the_end_of_the_log_are_read_whole(kafka_broker, uneven_topic, chunk_rows):
    ranges = [OffsetRange(p, 0, count) for p, count in RECORDS.items()]
    found = [
        (p, o, v.decode().split()[0])
        for chunk in read_ranges(kafka_broker.config, uneven_topic, ranges, chunk_rows=chunk_rows)
        for p, o, v in zip(*(chunk.column(n).to_pylist() for n in ("partition", "offset", "value")), strict=True)
    ]
    assert sorted(found) == [(p, i, f"{p}/{i}") for p, count in RECORDS.items() for i in range(count)]
