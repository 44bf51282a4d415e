"""The newest quotes never go backwards, and claim exactly the offsets that the lake has read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from crypto_assets.assets import latest, silver
from crypto_assets.assets.log_slices.coverage import Coverage, coverage, covered_until
from crypto_assets.contracts.slices import DAY, HOUR, Slice, floor_hour, hour_key
from crypto_assets.contracts.tables import RAW_PRICES
from crypto_assets.engine.base import Engine, Result
from crypto_assets.engine.sail import SailEngine
from crypto_assets.market.coins import CoinRegistry
from crypto_assets.storage.base import AppendBatch, OffsetRange
from crypto_assets_tests.builders import (
    TOPIC_ID,
    Record,
    at,
    bronze_rows,
    history_rows,
    sample,
    silver_rows,
    step_inputs,
    write_bronze,
)

TEN = at("2024-05-01 10:00:00")
MINUTE = timedelta(minutes=1)
NAME = "gold.latest_prices"


def load(engine: Engine, records: Sequence[Record], ends: dict[int, int] | None = None) -> dict[int, int]:
    """Bronze and Silver of records of one incarnation."""
    ends = write_bronze(engine.store, records, first_offset=ends)
    to_silver(engine, records)
    return ends


def to_silver(engine: Engine, records: Sequence[Record]) -> None:
    hours = sorted({hour_key(r.arrival) for r in records} | {hour_key(r.arrival - MINUTE) for r in records})
    silver.work(engine, hours, step_inputs(TEN + 5 * DAY))


def reborn(engine: Engine, records: Sequence[Record], topic_id: str, written_at: datetime) -> None:
    """Bronze and Silver of records of a re-created topic, whose offsets begin anew; all arrived in one hour."""
    hour = floor_hour(records[0].arrival)
    rows = bronze_rows([Record(**{**vars(r), "topic_id": topic_id}) for r in records], with_store_columns=False)
    covers = []
    for partition in sorted({r.partition for r in records}):
        count = sum(r.partition == partition for r in records)
        covers.append(OffsetRange(partition, 0, count))
    bounds = {c.partition: c for c in covers}
    of_row = rows.column("partition").to_pylist()
    for name, values in {
        "range_start": [bounds[p].start for p in of_row],
        "range_end": [bounds[p].end for p in of_row],
        "bronze_ingested_at": [written_at] * rows.num_rows,
    }.items():
        field = rows.schema.field(name)
        rows = rows.set_column(rows.schema.get_field_index(name), field, pa.array(values, field.type))
    batch = AppendBatch(rows, tuple(covers))
    app_id = f"bronze/{topic_id}/{hour_key(hour)}"
    assert engine.store.append_once(RAW_PRICES.full_name, Slice(hour, hour + HOUR), app_id, lambda _: batch).committed
    to_silver(engine, records)


def refreshed(engine: Engine, now: datetime, **inputs: Any) -> dict[str, dict[str, Any]]:
    run(engine, now, **inputs)
    return {r["coin_id"]: r for r in engine.store.read_arrow(NAME).to_pylist()}


def run(engine: Engine, now: datetime, **inputs: Any) -> Result:
    return latest.work(engine, [None], step_inputs(now, **inputs))


def offsets(rows: dict[str, dict[str, Any]]) -> dict[int, int]:
    """What all rows claim; they must agree."""
    (text,) = {r["covered_offsets"] for r in rows.values()}
    return {int(p): end for p, end in json.loads(text).items()}


def test_the_newest_quote_of_every_active_coin_with_what_it_covers(engine: SailEngine) -> None:
    load(
        engine,
        [
            sample("bitcoin", TEN + 2 * MINUTE, "2", partition=1),
            sample("bitcoin", TEN + MINUTE, "1", delay=5 * MINUTE, partition=1),  # late, and not newer
            sample("ethereum", TEN + 3 * MINUTE, "3", partition=2),
            sample("ethereum", TEN + 4 * MINUTE, "0", partition=2),  # refused, but read
        ],
    )
    coins = step_inputs(TEN).coins
    found = refreshed(engine, TEN + HOUR)
    assert {c: r["price_usd"] for c, r in found.items()} == {"bitcoin": Decimal(2), "ethereum": Decimal(3)}
    assert offsets(found) == {1: 2, 2: 2}
    assert found["bitcoin"]["covered_until"] == TEN + 6 * MINUTE
    assert found["bitcoin"]["age_s"] == 240.0

    retired = coins.retire("ethereum", active_to=TEN + HOUR)
    assert set(refreshed(engine, TEN + HOUR - MINUTE, coins=retired)) == {"bitcoin", "ethereum"}
    assert set(refreshed(engine, TEN + HOUR, coins=retired)) == {"bitcoin"}

    began = CoinRegistry(replace(c, active_from=TEN + HOUR) if c.coin_id == "bitcoin" else c for c in coins)
    assert set(refreshed(engine, TEN + HOUR - MINUTE, coins=began)) == {"ethereum"}
    assert set(refreshed(engine, TEN + HOUR, coins=began)) == {"bitcoin", "ethereum"}


def test_a_coin_that_has_been_silent_for_days_is_still_shown(engine: SailEngine) -> None:
    load(engine, [sample("bitcoin", TEN - 30 * DAY, "1"), sample("ethereum", TEN - 5 * HOUR, "2")])
    load(engine, [sample("polygon-ecosystem-token", TEN, "3")], {0: 2})
    found = refreshed(engine, TEN + HOUR)
    assert {c: r["price_usd"] for c, r in found.items()} == {
        "bitcoin": Decimal(1), "ethereum": Decimal(2), "polygon-ecosystem-token": Decimal(3),
    }  # fmt: skip
    assert found["bitcoin"]["age_s"] == 30 * 86_400 + 1


def test_the_table_never_goes_backwards(engine: SailEngine) -> None:
    """A refresh that finds an older Silver keeps the newer quote it showed; a newer one replaces it."""
    ends = load(engine, [sample("bitcoin", TEN + MINUTE, "1"), sample("bitcoin", TEN + 2 * MINUTE, "2")])
    shown = refreshed(engine, TEN + HOUR)["bitcoin"]
    older = silver_rows([{"coin_id": "bitcoin", "last_updated_at": TEN + MINUTE, "price_usd": "1"}])
    engine.store.replace_slice("silver.prices", Slice(TEN, TEN + HOUR), lambda: older, now=TEN)
    assert refreshed(engine, TEN + 2 * HOUR)["bitcoin"] == shown
    load(engine, [sample("bitcoin", TEN + 3 * MINUTE, "3")], ends)
    assert refreshed(engine, TEN + 3 * HOUR)["bitcoin"]["price_usd"] == Decimal(3)


def test_a_refresh_without_news_changes_no_data_version(engine: SailEngine) -> None:
    ends = load(engine, [sample("bitcoin", TEN + MINUTE)])
    first = run(engine, TEN + HOUR).tables[NAME].partitions[None]
    load(engine, [Record(TEN + 9 * MINUTE, "{oops")], ends)
    second = run(engine, TEN + 2 * HOUR).tables[NAME].partitions[None]
    assert first.data_version == second.data_version
    (row,) = engine.store.read_arrow(NAME).to_pylist()
    assert (row["covered_until"], json.loads(row["covered_offsets"])) == (TEN + 9 * MINUTE, {"0": 2})


def test_offsets_of_silent_partitions_are_remembered(engine: SailEngine) -> None:
    ends = load(engine, [sample("bitcoin", TEN, partition=0), sample("ethereum", TEN, partition=1)])
    assert offsets(refreshed(engine, TEN + HOUR)) == {0: 1, 1: 1}
    for hours in (5, 60):
        ends = load(engine, [sample("bitcoin", TEN + hours * HOUR, partition=0)], ends)
        rows = refreshed(engine, TEN + (hours + 1) * HOUR)
        assert offsets(rows) == {0: ends[0], 1: 1}
    # The first refresh of a lake has nothing to remember.
    assert coverage(engine).offsets == {0: 3}


@pytest.mark.parametrize(("records", "after"), [(1, timedelta(minutes=30)), (4, 6 * HOUR)])
def test_nothing_is_carried_into_a_new_incarnation(engine: SailEngine, records: int, after: timedelta) -> None:
    """The topic is re-created and one partition stays silent, whether the other is behind or ahead of its old end."""
    load(engine, [sample("bitcoin", TEN + MINUTE, partition=0), sample("bitcoin", TEN + 2 * MINUTE, partition=0),
                  *[sample("ethereum", TEN + i * MINUTE, partition=1) for i in range(9)]])  # fmt: skip
    assert offsets(refreshed(engine, TEN + HOUR)) == {0: 2, 1: 9}
    later = TEN + after
    reborn(engine, [sample("bitcoin", later + i * MINUTE, str(50 + i)) for i in range(records)], "incarnation-2", later)
    rows = refreshed(engine, later + HOUR)
    assert offsets(rows) == {0: records}
    assert rows["bitcoin"]["price_usd"] == Decimal(49 + records)
    # From then on it is this incarnation's own offsets that are remembered.
    assert offsets(refreshed(engine, later + 2 * HOUR)) == {0: records}


def test_coverage_names_the_incarnation_of_the_newest_record(engine: SailEngine) -> None:
    assert coverage(engine) == Coverage(None, None, {})
    write_bronze(engine.store, [sample("bitcoin", TEN + 50 * MINUTE, partition=p) for p in (0, 1)])
    assert coverage(engine) == Coverage(TEN + 50 * MINUTE + timedelta(seconds=1), TOPIC_ID, {0: 1, 1: 1})
    # The other incarnation's id sorts before and after that of the first.
    for topic_id, minute in (("zzz", 55), ("aaa", 57)):
        reborn(engine, [sample("bitcoin", TEN + minute * MINUTE)], topic_id, TEN + minute * MINUTE)
        assert coverage(engine) == Coverage(TEN + minute * MINUTE + timedelta(seconds=1), topic_id, {0: 1})


def test_a_lake_of_history_alone_is_covered_until_its_newest_reply(engine: SailEngine) -> None:
    fetched = TEN + DAY
    reply = json.dumps({"prices": [[int(TEN.timestamp() * 1000), 5]], "market_caps": [], "total_volumes": []})
    engine.store.merge("bronze.market_history", history_rows([("bitcoin", TEN, "5m", reply)], fetched), mode="upsert")
    silver.work(engine, [hour_key(TEN)], step_inputs(TEN + 2 * DAY))
    assert (covered_until(engine), covered_until(engine, TEN)) == (fetched, TEN)
    rows = refreshed(engine, TEN + 2 * DAY)
    assert (rows["bitcoin"]["price_usd"], offsets(rows)) == (Decimal(5), {})


def test_gaps_are_covered_too(engine: SailEngine) -> None:
    """Records that were lost to retention and accepted as lost: their offsets are behind the lake."""
    write_bronze(engine.store, [sample("bitcoin", TEN + MINUTE)])
    gap = Record(TEN + 2 * MINUTE, None, kind="gap", offset=1)
    write_bronze(engine.store, [gap], first_offset={0: 1})
    assert coverage(engine).offsets == {0: 2}


def test_an_empty_lake_shows_nothing_and_says_so(engine: SailEngine) -> None:
    partition = run(engine, TEN).tables[NAME].partitions[None]
    assert (partition.rows, [c.passed for c in partition.checks if c.name == "has_rows"]) == (0, [False])
