"""Which offsets a damaged hour lacks, and that afterwards its ranges follow each other as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from crypto_assets.assets import bronze
from crypto_assets.assets.log_slices import rereading
from crypto_assets.assets.log_slices.hours import CONTIGUOUS
from crypto_assets.assets.log_slices.rereading import Stored, plan
from crypto_assets.assets.log_slices.rows import PriceRows
from crypto_assets.contracts.slices import HOUR
from crypto_assets.contracts.tables import RAW_PRICES
from crypto_assets.engine.sail import SailEngine
from crypto_assets.log.kafka import hours
from crypto_assets.storage.base import LogBounds, OffsetRange, PartitionBounds
from crypto_assets.storage.damage import diagnose
from crypto_assets_tests.assets.log_tools import MINUTE, START, TEN, inputs, key, price, publish
from crypto_assets_tests.assets.test_bronze import delete_before
from crypto_assets_tests.kafka_fixtures import RunningBroker

NINE, ELEVEN, NOON = TEN - HOUR, TEN + HOUR, TEN + 2 * HOUR
TABLE = "bronze.raw_prices"


def held(hour, start: int, end: int, topic_id: str = "now", partition: int = 0) -> Stored:
    return Stored(hour, topic_id, OffsetRange(partition, start, end))


def bounds(start: int, end: int, log_start: int = 0) -> LogBounds:
    return LogBounds("t", "now", (PartitionBounds(0, start, end, False, log_start),))


def spans(pieces: Sequence[OffsetRange]) -> list[tuple[int, int]]:
    return [(p.start, p.end) for p in pieces]


def planned(stored: list[Stored], given: dict) -> list[tuple[str, list, list]]:
    return [(p.key, spans(p.reads), [(t, g.start, g.end) for t, g in p.gaps]) for p in plan(stored, list(given), given)]


def test_a_lost_hour_reaches_from_its_neighbour_to_its_neighbour_whatever_the_times_say():
    stored = [held(NINE, 0, 12), held(ELEVEN, 20, 30)]
    assert planned(stored, {key(TEN): bounds(10, 18)}) == [(key(TEN), [(12, 20)], [])]


def test_hours_that_are_lost_together_are_parted_where_the_log_parts_them():
    stored = [held(NINE, 0, 10), held(NOON, 30, 40)]
    given = {key(TEN): bounds(10, 18), key(ELEVEN): bounds(18, 29)}
    assert planned(stored, given) == [(key(TEN), [(10, 18)], []), (key(ELEVEN), [(18, 30)], [])]


def test_what_lies_in_whole_files_is_not_read_again():
    stored = [held(NINE, 0, 10), held(TEN, 12, 14), held(TEN, 16, 17), held(ELEVEN, 20, 30)]
    assert planned(stored, {key(TEN): bounds(10, 20)}) == [(key(TEN), [(10, 12), (14, 16), (17, 20)], [])]


def test_what_the_log_no_longer_has_is_a_gap():
    stored = [held(NINE, 0, 10), held(TEN, 12, 14), held(ELEVEN, 20, 30)]
    found = planned(stored, {key(TEN): bounds(13, 20, log_start=16)})
    assert found == [(key(TEN), [(16, 20)], [("now", 10, 12), ("now", 14, 16)])]


def test_where_nothing_is_stored_before_only_the_log_says_where_the_hour_began():
    stored = [held(ELEVEN, 20, 30)]
    assert planned(list(stored), {key(TEN): bounds(5, 20)}) == [(key(TEN), [(5, 20)], [])]
    assert planned(list(stored), {key(TEN): bounds(0, 20, log_start=15)}) == [(key(TEN), [(15, 20)], [])]


def test_the_newest_hour_reaches_to_the_end_that_the_log_gives():
    assert planned([held(NINE, 0, 10)], {key(TEN): bounds(10, 15)}) == [(key(TEN), [(10, 15)], [])]


def test_records_of_the_topic_of_today_never_stand_in_for_those_of_another():
    """Offsets begin at 0 again in a topic that was created again: equal numbers, other records."""
    stored = [held(NINE, 0, 10, "then"), held(ELEVEN, 15, 20, "then"), held(NOON, 0, 7)]
    found = planned(stored, {key(TEN): bounds(0, 0)})
    assert found == [(key(TEN), [], [("then", 10, 15)])]


@pytest.mark.kafka
@pytest.mark.parametrize("trimmed", [False, True])
def test_a_damaged_hour_is_whole_again(
    kafka_broker: RunningBroker, topic_factory: Callable[..., str], tmp_path: Path, trimmed: bool
):
    topic = topic_factory(partitions=2)
    engine = SailEngine(str(tmp_path / "lake"), lambda: kafka_broker.config)
    store = engine.store
    moments = [TEN + i * 10 * MINUTE for i in range(15)]
    publish(kafka_broker, topic, [(i % 2, at, price(at)) for i, at in enumerate(moments)])
    keys = [key(TEN), key(ELEVEN), key(NOON)]
    bronze.work(engine, keys, inputs(kafka_broker, topic, keys))
    names = [n for n in RAW_PRICES.column_names if n not in ("seq", "batch_id", "bronze_ingested_at")]
    before = store.read_arrow(TABLE, columns=names).sort_by([("partition", "ascending"), ("offset", "ascending")])
    path = Path(store.path(TABLE))  # type: ignore[attr-defined]
    (file,) = (f for f in path.rglob("*.parquet") if "11%3A00" in str(f))
    file.unlink()
    if trimmed:
        delete_before(kafka_broker, topic, {0: 4, 1: 4})
    found = diagnose(path)
    assert found is not None
    given = hours.bounds(kafka_broker.config, topic, [ELEVEN])
    (todo,) = rereading.plan(rereading.stored_ranges(found), [key(ELEVEN)], given)
    app = f"bronze/{given[key(ELEVEN)].topic_id}/{key(ELEVEN)}"

    def read_log(name: str, ranges: Sequence[OffsetRange]) -> Iterator[pa.Table]:
        return engine.read_log(name, ranges)

    rows, seq = rereading.hour_rows(
        RAW_PRICES,
        found,
        todo,
        given[key(ELEVEN)],
        maker=PriceRows(START),
        read_log=read_log,
        first_seq=store.recorded(TABLE, app) + 1,  # type: ignore[attr-defined]
        now=NOON + timedelta(hours=3),
    )
    from crypto_assets.checks import rules
    from crypto_assets.contracts.slices import key_slice

    store.restore(  # type: ignore[attr-defined]
        TABLE, key_slice(key(ELEVEN), "hour"), rows, (app, seq), audit=rules.audit(RAW_PRICES, [key(ELEVEN)]),
        commit_metadata={},
    )  # fmt: skip
    after = store.read_arrow(TABLE, columns=names).sort_by([("partition", "ascending"), ("offset", "ascending")])
    lost = after.filter(pa.compute.equal(after.column("kind"), "gap")).to_pylist()  # type: ignore[attr-defined]
    if trimmed:
        assert [(r["partition"], r["range_start"], r["range_end"]) for r in lost] == [(0, 3, 4), (1, 3, 4)]
        assert after.num_rows == before.num_rows
    else:
        assert lost == []
        assert after.equals(before)
    given_now = inputs(kafka_broker, topic, keys)
    again = bronze.work(engine, keys, given_now).tables[TABLE]
    assert sum(p.metadata["rows_appended"] for p in again.partitions.values()) == 0
    contiguous = [c for p in again.partitions.values() for c in p.checks if c.name == CONTIGUOUS]
    assert [c.description for c in contiguous if not c.passed] == []
    stored = store.read_arrow(TABLE, columns=["arrival_hour", "partition", "range_start", "seq"])
    last: dict = {}
    for r in sorted(stored.to_pylist(), key=lambda r: (r["arrival_hour"], r["partition"], r["range_start"], r["seq"])):
        at = (r["arrival_hour"], r["partition"])
        assert r["seq"] >= last.get(at, 0), "batches are numbered in the order of their offsets"
        last[at] = r["seq"]
    recorded = store.recorded(TABLE, app)  # type: ignore[attr-defined]
    assert recorded == max(r["seq"] for r in stored.to_pylist() if r["arrival_hour"] == ELEVEN)
