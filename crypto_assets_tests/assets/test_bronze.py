"""Bronze: hours of a real log, appended exactly once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from crypto_assets.assets import bronze
from crypto_assets.assets.log_slices import report as log_report
from crypto_assets.assets.log_slices import rows as log_rows
from crypto_assets.contracts.slices import HOUR, Slice
from crypto_assets.engine.base import StepFailed
from crypto_assets.engine.sail import SailEngine
from crypto_assets.storage.base import StorageError
from crypto_assets_tests.assets.log_tools import MINUTE, START, TEN, inputs, key, price, publish, stamp
from crypto_assets_tests.kafka_fixtures import RunningBroker

pytestmark = pytest.mark.kafka

TABLE = "bronze.raw_prices"
H10, H11, H12 = key(TEN), key(TEN + HOUR), key(TEN + 2 * HOUR)


def done(engine: SailEngine, keys: list[str], given):
    return bronze.work(engine, keys, given).tables[TABLE]


def check(partition, name: str):
    return next(c for c in partition.checks if c.name == name)


def stored(engine: SailEngine) -> list[tuple[str, int, int]]:
    rows = engine.store.read_arrow(TABLE, columns=["arrival_hour", "partition", "offset"]).to_pylist()
    return sorted((key(r["arrival_hour"]), r["partition"], r["offset"]) for r in rows)


def delete_before(broker: RunningBroker, topic: str, offsets: dict[int, int]) -> None:
    from confluent_kafka import TopicPartition

    admin = AdminClient(broker.config)
    asked = admin.delete_records([TopicPartition(topic, p, o) for p, o in offsets.items()])
    for future in asked.values():
        future.result(30)


@pytest.fixture
def filled(kafka_broker: RunningBroker, topic_factory: Callable[..., str]) -> str:
    """Three partitions; 10:00 has 3 + 2 + 0 records, 11:00 has 2 + 0 + 1."""
    topic = topic_factory()
    publish(
        kafka_broker,
        topic,
        [
            (0, TEN, price(TEN)),
            (0, TEN + MINUTE, price(TEN)),
            (0, TEN + 59 * MINUTE, price(TEN + 59 * MINUTE)),
            (1, TEN + MINUTE, price(TEN - HOUR)),
            (1, TEN + 2 * MINUTE, price(TEN)),
            (0, TEN + HOUR, price(TEN + HOUR)),
            (0, TEN + HOUR + MINUTE, price(TEN + HOUR)),
            (2, TEN + HOUR + MINUTE, price(TEN + HOUR)),
        ],
    )
    return topic


def test_an_hour_holds_every_record_of_it_as_it_came(kafka_engine, kafka_broker, filled):
    result = done(kafka_engine, [H10], inputs(kafka_broker, filled, [H10]))
    rows = (
        kafka_engine.store.read_arrow(TABLE).sort_by([("partition", "ascending"), ("offset", "ascending")]).to_pylist()
    )
    assert [(r["partition"], r["offset"]) for r in rows] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    first = rows[0]
    assert first["raw_json"] == price(TEN).decode()
    assert json.loads(first["headers"]) == {"schema_version": "1"}
    assert (first["message_key"], first["kind"], first["raw_bytes"]) == ("k", "record", None)
    assert (first["kafka_timestamp"], first["arrival_hour"], first["event_hour"]) == (TEN, TEN, TEN)
    assert (first["range_start"], first["range_end"], first["seq"]) == (0, 3, 1)
    partition = result.partitions[H10]
    assert partition.rows == 5
    assert partition.metadata["rows_appended"] == 5
    assert partition.metadata["touched_hours"] == [key(TEN - HOUR), H10]
    assert all(c.passed for c in partition.checks), partition.checks
    assert {"has_rows", "offsets_contiguous", "unique_key", "not_null"} <= {c.name for c in partition.checks}


def test_touched_hours_and_newest_time_are_in_the_commit_of_the_rows(kafka_engine, kafka_broker, filled):
    done(kafka_engine, [H10], inputs(kafka_broker, filled, [H10]))
    commit = kafka_engine.store.commits_after(TABLE, 0, 10)[-1]
    assert json.loads(commit.metadata["touched_hours"]) == [key(TEN - HOUR), H10]
    assert commit.metadata["max_kafka_timestamp"] == (TEN + 59 * MINUTE).isoformat()
    assert commit.metadata["run_id"] == "test-run"


def test_a_second_run_appends_nothing_and_has_the_same_data_version(kafka_engine, kafka_broker, filled):
    first = done(kafka_engine, [H10], inputs(kafka_broker, filled, [H10])).partitions[H10]
    again = done(kafka_engine, [H10], inputs(kafka_broker, filled, [H10])).partitions[H10]
    assert again.metadata["rows_appended"] == 0
    assert again.rows == 5
    assert again.data_version == first.data_version
    assert kafka_engine.store.version(TABLE) == 1


def test_hours_in_any_order_and_in_ranges_give_the_same_rows(kafka_broker, filled, tmp_path):
    def make(name: str) -> SailEngine:
        return SailEngine(str(tmp_path / name), lambda: kafka_broker.config)

    given = inputs(kafka_broker, filled, [H10, H11, H12])
    together, forwards, backwards = make("a"), make("b"), make("c")
    done(together, [H10, H11, H12], given)
    for hour in (H10, H11, H12):
        done(forwards, [hour], given)
    for hour in (H12, H11, H10):
        done(backwards, [hour], given)
    assert stored(together) == stored(forwards) == stored(backwards)
    assert len(stored(together)) == 8


def test_hours_that_follow_each_other_are_one_commit_that_names_them_all(kafka_engine, kafka_broker, filled):
    result = done(kafka_engine, [H10, H11], inputs(kafka_broker, filled, [H10, H11]))
    assert result.metadata["run_commits"] == 1
    (commit,) = kafka_engine.store.commits_after(TABLE, 0, 10)
    assert (commit.metadata["slice_start"], commit.metadata["slice_end"]) == (
        TEN.isoformat(), (TEN + 2 * HOUR).isoformat()
    )  # fmt: skip
    assert json.loads(commit.metadata["touched_hours"]) == [key(TEN - HOUR), H10, H11]
    assert commit.metadata["max_kafka_timestamp"] == (TEN + HOUR + MINUTE).isoformat()
    assert json.loads(commit.metadata["covers"]) == [[0, 0, 3], [1, 0, 2], [0, 3, 5], [2, 0, 1]]
    shown = {k: (p.rows, p.metadata["rows_appended"]) for k, p in result.partitions.items()}
    assert shown == {H10: (5, 5), H11: (3, 3)}
    assert all(c.passed for p in result.partitions.values() for c in p.checks)


def test_hours_before_one_that_fails_are_stored(kafka_engine, kafka_broker, filled):
    given = inputs(kafka_broker, filled, [H10, H11, H12])
    late = given.bounds[H12]
    gone = replace(late, partitions=tuple(replace(b, end=b.end + 9, log_start=b.end + 5) for b in late.partitions))
    with pytest.raises(StepFailed, match="were deleted by its retention before they were stored"):
        done(kafka_engine, [H10, H11, H12], replace(given, bounds={**given.bounds, H12: gone}))
    assert len(stored(kafka_engine)) == 8


@pytest.mark.parametrize("rows", [1, 6])
def test_hours_are_read_back_together_only_while_they_are_small(kafka_broker, filled, tmp_path, monkeypatch, rows):
    engine = SailEngine(str(tmp_path / "lake"), lambda: kafka_broker.config)
    given = inputs(kafka_broker, filled, [H10, H11, H12])
    together = done(engine, [H10, H11, H12], given).partitions
    monkeypatch.setattr("crypto_assets.assets.log_slices.hours.ROWS_TOGETHER", rows)
    apart = done(engine, [H10, H11, H12], given).partitions
    assert [(p.rows, p.data_version, [(c.name, c.passed) for c in p.checks]) for p in apart.values()] == [
        (p.rows, p.data_version, [(c.name, c.passed) for c in p.checks]) for p in together.values()
    ]


def test_a_damaged_hour_leaves_the_reports_of_the_others(kafka_broker, filled, tmp_path, monkeypatch):
    engine = SailEngine(str(tmp_path / "lake"), lambda: kafka_broker.config)
    read_back = log_report.read_back

    def damaged(engine, table, slice_, topic_id):
        if slice_.start <= TEN + HOUR < slice_.end:
            raise StorageError("bronze.raw_prices is damaged: a file is missing")
        return read_back(engine, table, slice_, topic_id)

    monkeypatch.setattr(log_report, "read_back", damaged)
    found = done(engine, [H10, H11], inputs(kafka_broker, filled, [H10, H11])).partitions
    assert ("not_reported" in found[H10].metadata, "not_reported" in found[H11].metadata) == (False, True)


def test_an_empty_hour_is_materialized_and_red(kafka_engine, kafka_broker, filled):
    partition = done(kafka_engine, [H12], inputs(kafka_broker, filled, [H12])).partitions[H12]
    assert partition.rows == 0
    outcome = check(partition, "has_rows")
    assert not outcome.passed
    assert filled in outcome.description


def test_the_running_hour_grows_commit_by_commit(kafka_engine, kafka_broker, topic_factory):
    topic = topic_factory()
    for minute in range(4):
        publish(kafka_broker, topic, [(minute % 3, TEN + minute * MINUTE, price(TEN))])
        partition = done(kafka_engine, [H10], inputs(kafka_broker, topic, [H10])).partitions[H10]
        assert partition.rows == minute + 1
        assert partition.metadata["rows_appended"] == 1
        assert check(partition, "offsets_contiguous").passed
    seqs = kafka_engine.store.read_arrow(TABLE, columns=["seq"]).column(0).to_pylist()
    assert sorted(seqs) == [1, 2, 3, 4]


def test_late_leftovers_go_to_the_hour_before_first(kafka_engine, kafka_broker, topic_factory):
    topic = topic_factory()
    publish(kafka_broker, topic, [(0, TEN, price(TEN))])
    done(kafka_engine, [H10], inputs(kafka_broker, topic, [H10]))
    publish(kafka_broker, topic, [(0, TEN + 59 * MINUTE, price(TEN)), (0, TEN + HOUR, price(TEN + HOUR))])
    partition = done(kafka_engine, [H11], inputs(kafka_broker, topic, [H11])).partitions[H11]
    assert stored(kafka_engine) == [(H10, 0, 0), (H10, 0, 1), (H11, 0, 2)]
    assert partition.rows == 1
    assert check(partition, "offsets_contiguous").passed


def test_a_leftover_in_another_kafka_partition_needs_the_bounds_of_the_hour_before(
    kafka_engine, kafka_broker, topic_factory
):
    topic = topic_factory()
    publish(kafka_broker, topic, [(0, TEN, price(TEN))])
    done(kafka_engine, [H10], inputs(kafka_broker, topic, [H10]))
    publish(kafka_broker, topic, [(1, TEN + 59 * MINUTE, price(TEN)), (1, TEN + HOUR, price(TEN + HOUR))])
    done(kafka_engine, [H11], inputs(kafka_broker, topic, [H10, H11]))
    assert stored(kafka_engine) == [(H10, 0, 0), (H10, 1, 0), (H11, 1, 1)]


def test_an_hour_never_asked_for_between_is_found_by_the_check(kafka_engine, kafka_broker, topic_factory):
    topic = topic_factory()
    publish(kafka_broker, topic, [(0, TEN, price(TEN))])
    done(kafka_engine, [H10], inputs(kafka_broker, topic, [H10]))
    publish(kafka_broker, topic, [(0, TEN + HOUR, price(TEN)), (0, TEN + 2 * HOUR, price(TEN))])
    partition = done(kafka_engine, [H12], inputs(kafka_broker, topic, [H12])).partitions[H12]
    outcome = check(partition, "offsets_contiguous")
    assert not outcome.passed
    assert f"materialize {H11}" in outcome.description
    done(kafka_engine, [H11], inputs(kafka_broker, topic, [H11]))
    partition = done(kafka_engine, [H12], inputs(kafka_broker, topic, [H12])).partitions[H12]
    assert check(partition, "offsets_contiguous").passed
    assert stored(kafka_engine) == [(H10, 0, 0), (H11, 0, 1), (H12, 0, 2)]


def test_trimmed_records_that_are_stored_are_not_missed(kafka_engine, kafka_broker, filled):
    given = inputs(kafka_broker, filled, [H10, H11])
    done(kafka_engine, [H10, H11], given)
    before = stored(kafka_engine)
    delete_before(kafka_broker, filled, {0: 4, 1: 2})
    for keys in ([H10], [H11], [H10, H11]):
        result = done(kafka_engine, keys, inputs(kafka_broker, filled, keys))
        assert all(check(p, "offsets_contiguous").passed for p in result.partitions.values())
    assert stored(kafka_engine) == before


def test_trimmed_records_fail_the_step_and_can_be_accepted_as_a_gap(kafka_engine, kafka_broker, filled):
    given = inputs(kafka_broker, filled, [H10])
    done(kafka_engine, [H10], given)
    publish(kafka_broker, filled, [(0, TEN + HOUR + 2 * MINUTE, price(TEN + HOUR))])
    delete_before(kafka_broker, filled, {0: 5})
    later = inputs(kafka_broker, filled, [H11])
    with pytest.raises(StepFailed, match=r"partition 0: \[3, 5\).*accept_gap"):
        done(kafka_engine, [H11], later)
    partition = done(kafka_engine, [H11], replace(later, accept_gap=True)).partitions[H11]
    gap = kafka_engine.store.read_arrow(TABLE, where="kind = 'gap'").to_pylist()
    assert [(g["partition"], g["offset"], g["range_start"], g["range_end"]) for g in gap] == [(0, 3, 3, 5)]
    assert check(partition, "offsets_contiguous").passed
    assert not check(partition, "no_gap").passed
    assert (H11, 0, 5) in stored(kafka_engine)
    again = done(kafka_engine, [H11], later).partitions[H11]
    assert again.metadata["rows_appended"] == 0


def test_a_first_hour_whose_beginning_is_trimmed_is_unknown(kafka_engine, kafka_broker, filled):
    delete_before(kafka_broker, filled, {0: 4})
    given = inputs(kafka_broker, filled, [H10])
    with pytest.raises(StepFailed, match=r"unknown, at most \[0, 3\)|unknown, at most \[0, 4\)"):
        done(kafka_engine, [H10], given)


def test_bounds_older_than_what_was_stored_change_nothing(kafka_engine, kafka_broker, filled):
    old = inputs(kafka_broker, filled, [H11])
    publish(kafka_broker, filled, [(0, TEN + HOUR + 5 * MINUTE, price(TEN + HOUR))])
    done(kafka_engine, [H11], inputs(kafka_broker, filled, [H11]))
    partition = done(kafka_engine, [H11], old).partitions[H11]
    assert partition.metadata["rows_appended"] == 0
    assert partition.rows == 4


def test_a_topic_created_anew_is_another_incarnation(kafka_engine, kafka_broker, topic_factory):
    topic = topic_factory()
    publish(kafka_broker, topic, [(0, TEN, price(TEN))] * 5)
    done(kafka_engine, [H10], inputs(kafka_broker, topic, [H10]))
    admin = AdminClient(kafka_broker.config)
    admin.delete_topics([topic])[topic].result(30)
    while topic in admin.list_topics(timeout=10).topics:
        pass
    config = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
    admin.create_topics([NewTopic(topic, 3, 1, config=config)])[topic].result(30)
    publish(kafka_broker, topic, [(0, TEN + MINUTE, price(TEN))] * 3)
    partition = done(kafka_engine, [H10], inputs(kafka_broker, topic, [H10])).partitions[H10]
    assert partition.rows == 8
    assert partition.metadata["rows_appended"] == 3


def test_odd_records_are_kept_and_have_no_event_hour(kafka_engine, kafka_broker, topic_factory):
    topic = topic_factory()
    values = [
        b"\xff\xfe not text",
        b"not json",
        None,
        price(TEN + MINUTE + timedelta(seconds=61)),
        price(START - timedelta(milliseconds=1)),
        b'{"last_updated_at": "2024-01-05T12:30:00+03:00"}',
        b'{"last_updated\\u005fat": "2024-01-05T09:59:59.999Z"}',
        b'{"last_updated_at": "2024-02-30T09:59:59.999Z"}',
    ]
    publish(kafka_broker, topic, [(0, TEN + MINUTE, v) for v in values])
    done(kafka_engine, [H10], inputs(kafka_broker, topic, [H10]))
    rows = kafka_engine.store.read_arrow(TABLE).sort_by("offset").to_pylist()
    assert rows[0]["raw_bytes"] == values[0]
    assert rows[0]["raw_json"] is None
    assert rows[2]["raw_json"] is None
    assert rows[2]["raw_bytes"] is None
    hours = [r["event_hour"] for r in rows]
    assert hours == [None] * 5 + [TEN - HOUR, TEN - HOUR, None]


def test_an_hour_larger_than_the_spill_limit_is_one_commit(kafka_engine, kafka_broker, topic_factory, monkeypatch):
    monkeypatch.setattr(log_rows, "SPILL_ABOVE_BYTES", 10_000)
    topic = topic_factory()
    publish(kafka_broker, topic, [(i % 3, TEN, price(TEN)) for i in range(3000)])
    partition = done(kafka_engine, [H10], inputs(kafka_broker, topic, [H10])).partitions[H10]
    assert partition.rows == 3000
    assert kafka_engine.store.version(TABLE) == 1


def test_hours_without_bounds_are_named(kafka_engine, kafka_broker, filled):
    with pytest.raises(StepFailed, match=f"{H11}, {H12}"):
        bronze.work(kafka_engine, [H10, H11, H12], inputs(kafka_broker, filled, [H10]))


def test_an_unreachable_broker_fails_the_step(engine, kafka_broker, filled, impatient):
    given = inputs(kafka_broker, filled, [H10])
    dead = SailEngine(engine.lake, lambda: {"bootstrap.servers": "127.0.0.1:9", "log_level": 0})
    with pytest.raises(StepFailed, match=r"127\.0\.0\.1:9"):
        bronze.work(dead, [H10], given)


def test_polls_become_columns(kafka_engine, kafka_broker, topic_factory):
    topic = topic_factory()
    poll = {
        "poll_id": "p1",
        "started_at": stamp(TEN),
        "finished_at": stamp(TEN + timedelta(milliseconds=250)),
        "source": "replay",
        "outcome": "ok",
        "http_status": 200,
        "detail": None,
        "coins_asked": 3,
        "coins_returned": 2,
        "coins_unchanged": 0,
        "coins_missing": ["solana"],
        "age_s": None,
        "latency_ms": 250,
        "cadence_s": 10.0,
        "credits_used": 1,
        "credits_left": None,
        "delivered": 2,
    }
    publish(kafka_broker, topic, [(0, TEN, json.dumps(poll).encode()), (1, TEN, b"{")])
    given = inputs(kafka_broker, topic, [H10])
    partition = bronze.work_polls(kafka_engine, [H10], given).tables["ops.polls"].partitions[H10]
    rows = kafka_engine.store.read_arrow("ops.polls", Slice(TEN, TEN + HOUR)).sort_by("partition").to_pylist()
    assert rows[0]["started_at"] == TEN
    assert (rows[0]["http_status"], rows[0]["latency_ms"], rows[0]["coins_missing"]) == (200, 250.0, ["solana"])
    assert rows[1]["poll_id"] is None
    assert not check(partition, "readable").passed
    assert check(partition, "offsets_contiguous").passed


def test_a_commit_that_cannot_be_read_back_stands_and_is_reported_as_one(
    kafka_broker: RunningBroker, filled: str, tmp_path, monkeypatch, caplog
):
    engine = SailEngine(str(tmp_path / "lake"), lambda: kafka_broker.config)

    def lost(*_args: object) -> None:
        raise StorageError("bronze.raw_prices is damaged: a file is missing")

    monkeypatch.setattr(log_report, "read_back", lost)
    found = done(engine, [H10], inputs(kafka_broker, filled, [H10])).partitions[H10]
    assert found.metadata["rows_appended"] == len(stored(engine)) > 0
    assert found.metadata["not_reported"] == "bronze.raw_prices is damaged: a file is missing"
    assert found.checks == [], "red: a check that is not evaluated is"
    assert "is committed; it cannot be reported" in caplog.text
    with pytest.raises(StorageError):  # nothing is committed now
        done(engine, [H10], inputs(kafka_broker, filled, [H10]))
