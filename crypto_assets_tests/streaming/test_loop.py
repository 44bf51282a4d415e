"""The micro-batch on real Kafka and a real engine: the tables equal those of batch runs over the same log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from crypto_assets.assets import bronze
from crypto_assets.contracts.slices import DAY, HOUR, hour_key
from crypto_assets.engine.base import Engine, StepFailed
from crypto_assets.engine.inputs import StepInputBuilder
from crypto_assets.settings import Settings
from crypto_assets.streaming.loop import Loop
from crypto_assets.streaming.reports import Reports
from crypto_assets_tests.streaming import tools
from crypto_assets_tests.streaming.tools import MINUTE, SECOND, batch, keys_of, publish, quote, rows, today_at, walk

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]


def loop(settings: Settings, engine: Engine) -> Loop:
    return Loop(settings, engine, Reports(None))


def assert_as_batch(settings: Settings, engine: Engine, other: Engine) -> None:
    batch(settings, other, keys_of(engine))
    tools.assert_equal(engine, other)


@pytest.mark.slow
def test_micro_batches_equal_one_batch(settings: Settings, kafka_engine: Engine, other: Engine):
    ten = today_at(10)
    records = walk(ten + 50 * MINUTE, ten + 70 * MINUTE, 20 * SECOND)
    bad = ("bitcoin", ten + 55 * MINUTE, b"{not json")
    stream = loop(settings, kafka_engine)
    for start in range(0, len(records), 45):
        publish(settings, records[start : start + 45])
        if start == 45:
            publish(settings, [bad, records[start]])  # refused, and a copy of what is stored
        stream.drain()
    stream.finish()
    assert stream.summary.records == len(records) + 2
    assert stream.summary.quarantined == 1
    assert stream.summary.hours_settled == [hour_key(ten)]
    assert stream.summary.hours_rebuilt == 0
    assert len(rows(kafka_engine, "silver.prices")) == len(records)
    assert_as_batch(settings, kafka_engine, other)


@pytest.mark.slow
def test_another_process_goes_on_from_the_tables(settings: Settings, kafka_engine: Engine, other: Engine):
    ten = today_at(10)
    records = walk(ten, ten + 12 * MINUTE, 20 * SECOND)
    for start in range(0, len(records), 30):
        publish(settings, records[start : start + 30])
        stream = loop(settings, kafka_engine)
        stream.drain()  # and no finish: as if killed
    stream.finish()
    assert stream.summary.hours_rebuilt == 0, "what the commits tell need not be built anew"
    assert_as_batch(settings, kafka_engine, other)


class Killed(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["merge", "replace_slice"])
def test_a_kill_after_bronze_or_after_silver_leaves_nothing_undone(
    settings: Settings, kafka_engine: Engine, other: Engine, verb: str, monkeypatch: pytest.MonkeyPatch
):
    ten = today_at(10)
    records = walk(ten, ten + 9 * MINUTE, 20 * SECOND)
    publish(settings, records[:45])
    loop(settings, kafka_engine).drain()
    publish(settings, records[45:])
    broken = loop(settings, kafka_engine)

    def die(*_args: object, **_more: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(kafka_engine.store, verb, die)
        with pytest.raises(Killed):
            broken.step()
    last = loop(settings, kafka_engine)
    last.drain()
    last.finish()
    assert last.summary.records == 0, "Bronze had them already"
    assert_as_batch(settings, kafka_engine, other)


@pytest.mark.slow
def test_stream_and_batch_hand_over_in_both_directions(settings: Settings, kafka_engine: Engine, other: Engine):
    ten = today_at(10)
    records = walk(ten, ten + 16 * MINUTE, 20 * SECOND)
    key = hour_key(ten)
    stream = loop(settings, kafka_engine)
    for start in range(0, len(records), 36):
        publish(settings, records[start : start + 36])
        if start // 36 % 2:
            batch(settings, kafka_engine, [key])
        else:
            stream.drain()  # the same process goes on after somebody else has written
    stream.drain()
    stream.finish()
    found = rows(kafka_engine, "bronze.raw_prices")
    assert len(found) == len(records)
    assert_as_batch(settings, kafka_engine, other)


@pytest.mark.slow
@pytest.mark.parametrize("anew", [False, True], ids=["the same process", "another process"])
def test_one_commit_of_several_hours_by_a_batch_is_followed(
    settings: Settings, kafka_engine: Engine, other: Engine, anew: bool
):
    from crypto_assets.storage.ranges import batches_of
    from crypto_assets.streaming import resume

    ten = today_at(10)
    records, keys = walk(ten + 50 * MINUTE, ten + 70 * MINUTE, 20 * SECOND), [hour_key(ten), hour_key(ten + HOUR)]
    publish(settings, records[:45])
    stream = loop(settings, kafka_engine)
    stream.drain()
    publish(settings, records[45:])
    inputs = StepInputBuilder(settings).build(now=datetime.now(UTC), run_id="batch", keys=keys, reads_log="prices")
    bronze.work(kafka_engine, keys, inputs)
    store = kafka_engine.store
    newest = store.commits_after("bronze.raw_prices", store.version("bronze.raw_prices") - 1, 1)
    assert [len(batches_of(c.metadata)) for c in newest] == [2]
    assert sum(resume.reached(kafka_engine).offsets.values()) == len(records)
    if anew:
        stream = loop(settings, kafka_engine)
    stream.drain()
    stream.finish()
    assert stream.summary.records == (0 if anew else 45), "Bronze had the others already"
    assert stream.summary.hours_rebuilt == 0
    assert_as_batch(settings, kafka_engine, other)


@pytest.mark.slow
def test_a_late_record_is_left_to_the_restatement(settings: Settings, kafka_engine: Engine, other: Engine):
    from crypto_assets.orchestration.commit_history import TableHistory
    from crypto_assets.orchestration.restatement_sensor import pending_commits

    ten = today_at(8)
    publish(settings, walk(ten, ten + 3 * MINUTE, 20 * SECOND))
    stream = loop(settings, kafka_engine)
    stream.drain()
    publish(settings, walk(ten + 3 * HOUR, ten + 3 * HOUR + 3 * MINUTE, 20 * SECOND))
    stream.drain()
    before = rows(kafka_engine, "silver.prices")
    late = quote("bitcoin", ten + 2 * MINUTE + SECOND, "55.5")
    publish(settings, [("bitcoin", ten + 3 * HOUR + 4 * MINUTE, late)])
    stream.drain()
    stream.finish()
    assert rows(kafka_engine, "silver.prices") == before
    assert stream.summary.late_hours == [hour_key(ten)]
    _, found, _ = pending_commits(TableHistory(kafka_engine.store), -1, ten + 6 * HOUR)
    assert {h for hours in found.values() for h in hours} == {hour_key(ten)}
    batch(settings, kafka_engine, [hour_key(ten)])
    assert_as_batch(settings, kafka_engine, other)


@pytest.mark.slow
def test_a_record_that_arrived_earlier_through_another_partition_wins(
    settings: Settings, kafka_engine: Engine, other: Engine
):
    ten = today_at(10)
    event = ten + 5 * MINUTE
    publish(settings, [("bitcoin", event + 9 * SECOND, quote("bitcoin", event, "2"))], partition=0)
    stream = loop(settings, kafka_engine)
    stream.drain()
    publish(settings, [("bitcoin", event + 4 * SECOND, quote("bitcoin", event, "1"))], partition=1)
    stream.drain()
    stream.finish()
    assert stream.summary.hours_rebuilt == 1
    prices = kafka_engine.store.read_arrow("silver.prices", columns=["price_usd"]).column(0).to_pylist()
    assert [str(p.normalize()) for p in prices] == ["1"]
    assert_as_batch(settings, kafka_engine, other)


@pytest.mark.slow
def test_a_micro_batch_is_bounded_and_filled_from_the_partitions_that_lack_most(
    settings: Settings, kafka_engine: Engine, other: Engine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("crypto_assets.streaming.arrivals.MOST_OFFSETS", 10)
    records = [r for r in walk(today_at(10), today_at(10) + 4 * MINUTE, 20 * SECOND) if r[0] == "bitcoin"]
    publish(settings, records, partition=0)
    publish(settings, records[:2], partition=1)
    stream, reached = loop(settings, kafka_engine), []
    while stream.step():
        reached.append(stream.summary.records)
    assert reached == [10, 14]
    stream.finish()
    assert_as_batch(settings, kafka_engine, other)


@pytest.mark.slow
def test_a_day_that_ends_gets_its_bars(settings: Settings, kafka_engine: Engine):
    midnight = today_at(24)
    publish(settings, walk(midnight - 3 * MINUTE, midnight + 4 * MINUTE, 20 * SECOND))
    stream = loop(settings, kafka_engine)
    stream.drain()
    stream.step()
    days = kafka_engine.store.read_arrow("gold.bars_1d", columns=["day", "is_closed"]).to_pylist()
    assert {(r["day"], r["is_closed"]) for r in days} == {((midnight - DAY).date(), True)}


@pytest.mark.slow
def test_a_log_that_lost_records_is_refused(settings: Settings, kafka_engine: Engine, topic_factory: Callable):
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    ten = today_at(10)
    publish(settings, walk(ten, ten + 2 * MINUTE, 20 * SECOND))
    loop(settings, kafka_engine).drain()
    publish(settings, walk(ten + 2 * MINUTE, ten + 4 * MINUTE, 20 * SECOND))
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    ends = admin.delete_records([TopicPartition(settings.prices_topic, p, -1) for p in range(3)])
    for done in ends.values():
        done.result(30)
    with pytest.raises(StepFailed, match=r"deleted by its retention before they were stored.*accept_gap"):
        loop(settings, kafka_engine).drain()


@pytest.mark.slow
def test_nothing_is_done_while_nothing_arrives(settings: Settings, kafka_engine: Engine):
    stream = loop(settings, kafka_engine)
    assert stream.step() is False
    publish(settings, walk(today_at(10), today_at(10) + 2 * MINUTE, 20 * SECOND))
    stream.drain()
    store = kafka_engine.store
    before = {t: store.version(t) for t in tools.COMPARED}
    assert stream.step() is False
    stream.finish()
    assert {t: store.version(t) for t in tools.COMPARED} == before


def test_the_clock_of_the_log_is_that_of_its_records(settings: Settings, kafka_engine: Engine):
    ten: datetime = today_at(10)
    publish(settings, walk(ten, ten + 4 * MINUTE, 20 * SECOND))
    stream = loop(settings, kafka_engine)
    stream.drain()
    newest = ten + 3 * MINUTE + 40 * SECOND + 2 * SECOND
    assert stream.summary.covered_until == newest.isoformat()
    closed = kafka_engine.store.read_arrow("gold.bars_1m", columns=["window_end"], where="is_closed").column(0)
    assert max(closed.to_pylist()) == ten + 2 * MINUTE


def test_a_start_reads_what_gold_lacks_and_no_whole_hours(
    settings: Settings, kafka_engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    from crypto_assets.streaming import resume

    ten = today_at(10)
    records = walk(ten, ten + 9 * MINUTE, 20 * SECOND)
    publish(settings, records[:45])
    first = loop(settings, kafka_engine)
    first.drain()
    first.finish()
    covered = resume.reached(kafka_engine)
    assert sum(covered.offsets.values()) == 45
    bars = ("gold.bars_1m", "gold.bars_5m", "gold.bars_1h")
    coins = list(tools.COINS)
    nothing = resume.unreflected(kafka_engine, bars, covered, coins)
    assert nothing is not None
    assert nothing.num_rows == 0
    publish(settings, records[45:])

    def die(*_args: object, **_more: object) -> None:
        raise Killed

    broken = loop(settings, kafka_engine)
    with monkeypatch.context() as patched:
        patched.setattr(kafka_engine.store, "replace_slice", die)
        with pytest.raises(Killed):
            broken.step()
    lacking = resume.unreflected(kafka_engine, bars, resume.reached(kafka_engine), coins)
    assert lacking is not None
    assert lacking.num_rows == len(records) - 45
    assert resume.unreflected(kafka_engine, bars, covered, [*coins, "a-new-coin"]) is None, "it may have older quotes"
