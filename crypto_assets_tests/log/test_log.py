from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pyarrow as pa
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from crypto_assets.contracts.slices import floor_hour
from crypto_assets.log.errors import LogTrimmed, LogUnavailable, LogWentBackwards
from crypto_assets.log.kafka.reading import (
    bounds,
    end_offsets,
    headers_json,
    lag_start,
    newest_timestamp_ms,
    read_ranges,
)
from crypto_assets.log.kafka.topic import topic_id
from crypto_assets.storage.base import OffsetRange
from crypto_assets_tests.log.messages import T0, ms, send, texts

HOUR = timedelta(hours=1)
KEY = "2024-01-31-10:00"


def by_partition(found, key: str = KEY) -> dict[int, tuple[int, int, bool]]:
    return {p.partition: (p.start, p.end, p.provisional) for p in found[key].partitions}


def test_an_hour_is_what_lies_between_its_first_record_and_that_of_the_next(kafka_broker, topic_factory):
    topic = topic_factory()
    send(
        kafka_broker.config,
        topic,
        [
            (0, T0 - timedelta(milliseconds=1), "before"),
            (0, T0, "exactly at the start"),
            (0, T0 + HOUR - timedelta(milliseconds=1), "last"),
            (0, T0 + HOUR, "exactly at the end"),
            (1, T0 + timedelta(minutes=5), "no record follows"),
        ],
    )
    found = bounds(kafka_broker.config, topic, [T0])
    assert by_partition(found) == {0: (1, 3, False), 1: (0, 1, True), 2: (0, 0, True)}
    assert found[KEY].topic_id == topic_id(kafka_broker.config, topic)
    ranges = [OffsetRange(p.partition, p.start, p.end) for p in found[KEY].partitions]
    assert [row[2] for row in texts(kafka_broker.config, topic, ranges)] == [
        "exactly at the start",
        "last",
        "no record follows",
    ]


def test_hours_of_an_empty_topic_are_empty_and_provisional(kafka_broker, topic_factory):
    topic = topic_factory()
    found = bounds(kafka_broker.config, topic, [T0, T0 + HOUR])
    assert set(found) == {KEY, "2024-01-31-11:00"}
    assert by_partition(found) == {0: (0, 0, True), 1: (0, 0, True), 2: (0, 0, True)}
    assert list(read_ranges(kafka_broker.config, topic, [OffsetRange(0, 0, 0)])) == []


def test_many_hours_are_one_chain_without_holes(kafka_broker, topic_factory):
    topic = topic_factory()
    send(kafka_broker.config, topic, [(i % 3, T0 + i * timedelta(minutes=7), f"r{i}") for i in range(300)])
    hours = [T0 + i * HOUR for i in range(-2, 40)]
    found = bounds(kafka_broker.config, topic, hours)
    for partition in range(3):
        pieces = [next(p for p in found[key].partitions if p.partition == partition) for key in found]
        assert pieces[0].start == 0
        assert pieces[-1].end == 100
        assert all(a.end == b.start for a, b in pairwise(pieces))


@pytest.mark.parametrize("bad", [datetime(2024, 1, 31, 10), T0 + timedelta(minutes=1)])  # noqa: DTZ001
def test_a_time_that_is_no_hour_is_refused(kafka_broker, bad):
    with pytest.raises(ValueError, match="not the start of an hour"):
        bounds(kafka_broker.config, "any", [bad])


def test_beside_a_live_producer_consecutive_looks_neither_lose_nor_double(kafka_broker, topic_factory):
    """Each look appends [stored end, bound): the chain of a refreshing reader, while records cross an hour."""
    topic = topic_factory()
    config = kafka_broker.config
    total, finished = 20_000, threading.Event()

    def produce() -> None:
        producer = Producer({**config, "linger.ms": 1})
        for i in range(total):
            # virtual time runs: the hour boundary is crossed in the middle of the run
            producer.produce(topic, value=str(i).encode(), partition=i % 3, timestamp=ms(T0) + i * 360)
            producer.poll(0)
            if i % 500 == 0:
                producer.flush()
        producer.flush()
        finished.set()

    stored: dict[tuple[str, int], int] = {}
    seen: list[str] = []
    writer = threading.Thread(target=produce)
    writer.start()
    looks = 0
    while True:
        last = finished.is_set()
        hours = [T0, T0 + HOUR]
        for key, look in bounds(config, topic, hours).items():
            before = "2024-01-31-10:00" if key == "2024-01-31-11:00" else ""
            ranges = []
            for p in look.partitions:
                # stored ranges win over b(t), and a range without offsets leaves no row behind, as in Bronze
                start = stored.get((key, p.partition), stored.get((before, p.partition), p.start))
                if p.end > start:
                    ranges.append(OffsetRange(p.partition, start, p.end))
                    stored[key, p.partition] = p.end
            seen += [row[2] for row in texts(config, topic, ranges)]
        looks += 1
        if last:
            break
    writer.join()
    assert looks > 1
    assert sorted(map(int, seen)) == list(range(total))
    # closed for good: every boundary is a real offset now
    assert all(not p.provisional for p in bounds(config, topic, [T0])[KEY].partitions)


def test_the_columns_are_as_promised(kafka_broker, topic_factory):
    topic = topic_factory(partitions=1)
    producer = Producer(kafka_broker.config)
    headers = [("b", b"1"), ("a", "ü".encode()), ("c", b"\xff\x00"), ("d", None), ("e", b"x"), ("e", b'"')]
    producer.produce(topic, value=b"\xff\xfe", key=b"bitcoin", headers=headers, timestamp=ms(T0) + 1)
    producer.produce(topic, value=None, key=None, timestamp=ms(T0) + 2)
    producer.produce(topic, value=b"{}", key=b"\xff", headers=[("b", b"1")], timestamp=ms(T0) + 3)
    producer.flush()
    (table,) = read_ranges(kafka_broker.config, topic, [OffsetRange(0, 0, 3)])
    assert table.schema == pa.schema(
        [
            ("partition", pa.int32()),
            ("offset", pa.int64()),
            ("kafka_timestamp", pa.timestamp("us", "UTC")),
            ("message_key", pa.string()),
            ("value", pa.binary()),
            ("headers", pa.string()),
        ]
    )
    first, second, third = table.to_pylist()
    assert (first["offset"], first["message_key"], first["value"]) == (0, "bitcoin", b"\xff\xfe")
    assert first["kafka_timestamp"] == T0 + timedelta(milliseconds=1)
    assert json.loads(first["headers"]) == {"a": "ü", "b": "1", "c": "base64:/wA=", "d": None, "e": ["x", '"']}
    assert (second["message_key"], second["value"], second["headers"]) == (None, None, "{}")
    assert (third["message_key"], third["headers"]) == ("base64:/w==", '{"b":"1"}')


def test_headers_are_json_with_sorted_keys_whatever_they_hold():
    pairs = [("z", b'quote " and \\ and \n'), ("a", b"\x00"), ("m", "\u2028".encode())]
    text = headers_json(pairs)
    assert json.loads(text) == {"z": 'quote " and \\ and \n', "a": "\x00", "m": "\u2028"}
    assert list(json.loads(text)) == ["a", "m", "z"]


def test_chunks_bound_memory_and_lose_nothing(kafka_broker, topic_factory):
    topic = topic_factory()
    send(kafka_broker.config, topic, [(i % 3, T0, f"r{i}") for i in range(30_000)])
    ranges = [OffsetRange(0, 17, 9_000), OffsetRange(1, 0, 10_000), OffsetRange(2, 5_000, 5_001)]
    chunks = list(read_ranges(kafka_broker.config, topic, ranges, chunk_rows=3_000))
    assert len(chunks) > 2
    rows = sorted(
        pair for c in chunks for pair in zip(c["partition"].to_pylist(), c["offset"].to_pylist(), strict=True)
    )
    assert rows == [(r.partition, offset) for r in ranges for offset in range(r.start, r.end)]


def test_transactions_leave_holes_that_do_not_stop_a_range(kafka_broker, topic_factory):
    # the broker's time, since the markers of transactions carry it on any topic
    topic = topic_factory(partitions=1, config={"message.timestamp.type": "LogAppendTime"})
    producer = Producer({**kafka_broker.config, "transactional.id": f"tx-{topic}"})
    producer.init_transactions(30)

    def transaction(names: list[str], *, commit: bool) -> None:
        producer.begin_transaction()
        for name in names:
            producer.produce(topic, value=name.encode(), partition=0, timestamp=ms(T0))
        producer.flush()
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)

    transaction(["a", "b"], commit=True)  # 0, 1, marker 2
    transaction(["x", "y", "z"], commit=False)  # 3, 4, 5, marker 6
    transaction(["c"], commit=True)  # 7, marker 8
    transaction(["w"], commit=False)  # 9, marker 10
    config = kafka_broker.config
    assert end_offsets(config, topic) == {0: (0, 11)}
    assert texts(config, topic, [OffsetRange(0, 0, 11)]) == [(0, 0, "a"), (0, 1, "b"), (0, 7, "c")]
    # a range that ends inside a hole, one that holds nothing else, and the rest: together everything once
    assert texts(config, topic, [OffsetRange(0, 0, 4)]) == [(0, 0, "a"), (0, 1, "b")]
    assert texts(config, topic, [OffsetRange(0, 4, 7)]) == []
    assert texts(config, topic, [OffsetRange(0, 7, 11)]) == [(0, 7, "c")]
    (table,) = read_ranges(config, topic, [OffsetRange(0, 0, 11)])
    times = table["kafka_timestamp"].to_pylist()
    first = floor_hour(times[0])
    hours = list(bounds(config, topic, [first, first + HOUR]).values())  # two, should the hour end just now
    assert hours[0].partitions[0].start == 0
    assert (hours[1].partitions[0].end, hours[1].partitions[0].provisional) == (11, True)
    assert lag_start(config, topic, {0: 8}).oldest is None
    assert lag_start(config, topic, {0: 2}).oldest == times[2]

    producer.begin_transaction()
    producer.produce(topic, value=b"pending", partition=0, timestamp=ms(T0))
    producer.flush()
    # what is not committed yet is beyond the end, also for the bounds
    assert end_offsets(config, topic) == {0: (0, 11)}
    with pytest.raises(LogWentBackwards, match="open transaction"):
        texts(config, topic, [OffsetRange(0, 9, 12)])
    producer.commit_transaction(30)
    assert texts(config, topic, [OffsetRange(0, 9, 13)]) == [(0, 11, "pending")]


def trim(config: dict, topic: str, partition: int, offset: int) -> None:
    admin = AdminClient(config)  # its answers come only while it lives
    for future in admin.delete_records([TopicPartition(topic, partition, offset)]).values():
        future.result(30)


def test_a_trimmed_range_is_an_error_that_names_what_is_missing(kafka_broker, topic_factory):
    topic = topic_factory()
    config = kafka_broker.config
    send(config, topic, [(p, T0 + i * timedelta(minutes=1), f"{p}-{i}") for p in (0, 1) for i in range(10)])
    trim(config, topic, 0, 4)
    with pytest.raises(LogTrimmed, match=r"retained: partition 0: \[1, 4\)\. They"):
        list(read_ranges(config, topic, [OffsetRange(0, 1, 8), OffsetRange(1, 1, 8)]))
    assert [row[1] for row in texts(config, topic, [OffsetRange(0, 4, 8)])] == [4, 5, 6, 7]
    (first, *_) = bounds(config, topic, [T0])[KEY].partitions
    assert (first.start, first.log_start) == (4, 4)
    # what is gone cannot be waited for
    assert lag_start(config, topic, {0: 2, 1: 10}).oldest == T0 + timedelta(minutes=4)


def test_a_recreated_topic_is_another_incarnation_and_ends_before_what_was_stored(kafka_broker, topic_factory):
    topic = topic_factory()
    config = kafka_broker.config
    send(config, topic, [(0, T0, f"r{i}") for i in range(5)])
    before = bounds(config, topic, [T0])[KEY].topic_id
    admin = AdminClient(config)
    for future in admin.delete_topics([topic]).values():
        future.result(30)
    while topic in admin.list_topics(timeout=10).topics:
        pass  # the broker hears of it a moment after the controller
    with pytest.raises(LogUnavailable, match=f"topic {topic} does not exist"):
        bounds(config, topic, [T0])
    topic_factory(name=topic)
    send(config, topic, [(0, T0, "new")])
    assert bounds(config, topic, [T0])[KEY].topic_id != before
    with pytest.raises(LogWentBackwards, match="partition 0: the log ends at 1, the range at 5"):
        list(read_ranges(config, topic, [OffsetRange(0, 0, 5)]))
    with pytest.raises(LogWentBackwards, match="covered to 5"):
        lag_start(config, topic, {0: 5})
    with pytest.raises(LogWentBackwards, match=r"no partitions \[7\]"):
        list(read_ranges(config, topic, [OffsetRange(7, 0, 5)]))


def test_an_error_inside_an_answer_is_raised(kafka_broker, topic_factory):
    from crypto_assets.log.kafka.offsets import Offsets
    from crypto_assets.log.kafka.topic import admin_client

    topic = topic_factory(partitions=1)
    config = kafka_broker.config
    with pytest.raises(LogUnavailable, match="partition 7"):
        Offsets(admin_client(config), config, topic, [0, 7]).latest()


def test_lag_is_the_age_of_the_oldest_record_that_is_not_covered(kafka_broker, topic_factory):
    topic = topic_factory()
    config = kafka_broker.config
    assert lag_start(config, topic, {}).oldest is None
    send(config, topic, [(p, T0 + timedelta(minutes=10 * i - p), "r") for p in (0, 1) for i in range(3)])
    lag = lag_start(config, topic, {0: 1, 1: 2})
    assert lag.oldest == T0 + timedelta(minutes=10)
    assert lag.uncovered == {0: 2, 1: 1, 2: 0}
    assert lag_start(config, topic, {0: 3, 1: 3, 2: 0}).oldest is None
    assert newest_timestamp_ms(config, topic) == ms(T0 + timedelta(minutes=20))


def test_a_range_can_only_be_read_once_per_partition(kafka_broker):
    with pytest.raises(ValueError, match="two ranges"):
        list(read_ranges(kafka_broker.config, "t", [OffsetRange(0, 0, 1), OffsetRange(0, 1, 2)]))
    with pytest.raises(ValueError, match="no range"):
        list(read_ranges(kafka_broker.config, "t", [OffsetRange(0, 2, 1)]))


def test_a_live_topic_carries_the_brokers_time(kafka_broker, topic_factory):
    topic = topic_factory(config={"message.timestamp.type": "LogAppendTime"})
    before = datetime.now(UTC)
    send(kafka_broker.config, topic, [(0, T0, "claims to be old")])
    (table,) = read_ranges(kafka_broker.config, topic, [OffsetRange(0, 0, 1)])
    assert table["kafka_timestamp"][0].as_py() >= before - timedelta(seconds=1)
