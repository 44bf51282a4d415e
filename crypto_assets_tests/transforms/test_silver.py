"""Silver is a function of the set of records: order, copies and delays change nothing but when a quote was known."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crypto_assets.contracts.slices import DAY, HOUR, Slice
from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.sail import frame
from crypto_assets.market.coins import default_registry
from crypto_assets.transforms.bars import bars
from crypto_assets.transforms.parse import parse_bronze, where_computed
from crypto_assets.transforms.silver import examined, first_arrived, history_points, samples, silver
from crypto_assets_tests.builders import COINS, START, Record, at, bronze_rows, history_rows, message, sample
from crypto_assets_tests.transforms.oracle import Width, bars_of, recorded, rows_by, without

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TEN = at("2024-05-01 10:00:00")
SPAN = Slice(TEN, TEN + HOUR)
DAY_OF = Slice(at("2024-05-01 00:00:00"), at("2024-05-02 00:00:00"))
AS_OF = TEN + timedelta(minutes=31)
"""Some windows of the recording are closed then, others are not."""
WIDTHS: tuple[Width, ...] = ("1m", "5m", "1h", "1d")
PLACE = ("available_at", "partition", "offset")
"""What tells when and where a quote arrived, not what it says."""


def silver_of(
    spark: SparkSession,
    records: Sequence[Record] | pa.Table,
    history: pa.Table | None = None,
    span: Slice = SPAN,
    coins: Any = COINS,
) -> pa.Table:
    rows = records if isinstance(records, pa.Table) else bronze_rows(records)
    points = None if history is None else history_points(frame(spark, history), coins)
    return silver(parse_bronze(frame(spark, rows), coins, START), points, span).toArrow()


@pytest.fixture(scope="module")
def recording() -> list[Record]:
    """Forty minutes of the recording, in order of arrival."""
    return recorded(TEN, 40)


@pytest.fixture(scope="module")
def in_order(spark: SparkSession, recording: list[Record]) -> tuple[dict, dict[str, dict]]:
    """Silver and bars of the recording as it came."""
    rows = silver_of(spark, recording, coins=default_registry("replay"))
    return rows_by(rows, "coin_id", "last_updated_at"), {
        w: rows_by(bars(frame(spark, rows), w, AS_OF), "coin_id", "window_start") for w in WIDTHS
    }


def quote_of(record: Record) -> tuple[str, datetime]:
    assert isinstance(record.value, dict)
    return record.value["coin_id"], datetime.fromisoformat(record.value["last_updated_at"])


@pytest.mark.slow
@settings(max_examples=10, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    disorder=st.integers(0, 2**32), share=st.sampled_from([0.0, 0.3, 1.0]), longest_h=st.sampled_from([0, 1, 30, 2000])
)
def test_order_copies_and_delays_change_nothing_but_when_it_was_known(
    spark: SparkSession,
    recording: list[Record],
    in_order: tuple[dict, dict],
    disorder: int,
    share: float,
    longest_h: int,
) -> None:
    """No copy arrives before its original's first arrival; offsets follow arrival within a partition, as in Kafka."""
    from pyspark.sql import functions as F

    chance = random.Random(disorder)

    def delayed(record: Record) -> Record:
        wait = timedelta(seconds=chance.randint(0, longest_h * 3600)) if chance.random() < 0.5 else timedelta(0)
        return replace(record, arrival=record.arrival + wait, partition=chance.randint(0, 2))

    copies = [r for r in recording if chance.random() < share for _ in range(chance.randint(1, 3))]
    arrived = sorted((delayed(r) for r in [*recording, *copies]), key=lambda r: r.arrival)
    stored = bronze_rows(arrived)
    stored = stored.take(pa.array(chance.sample(range(len(arrived)), len(arrived))))

    found = silver_of(spark, stored, coins=default_registry("replay"))
    by_quote = rows_by(found, "coin_id", "last_updated_at")
    parsed = parse_bronze(frame(spark, stored), default_registry("replay"), START)
    loaded = samples(where_computed(parsed, F.col("is_valid"))).select(*TABLES["silver.prices"].column_names).toArrow()
    assert loaded.num_rows >= len(by_quote)
    assert rows_by(first_arrived(loaded), "coin_id", "last_updated_at") == by_quote  # rows_by refuses a second row
    wanted_silver, wanted_bars = in_order
    assert without(by_quote, *PLACE) == without(wanted_silver, *PLACE)
    known: dict[tuple, datetime] = {}
    for record in arrived:
        known.setdefault(quote_of(record), record.arrival)
    assert {key: row["available_at"] for key, row in by_quote.items()} == known
    for width in WIDTHS:
        made = rows_by(bars(frame(spark, found), width, AS_OF), "coin_id", "window_start")
        assert without(made, "available_at") == without(wanted_bars[width], "available_at"), width
        told = {key: bar["available_at"] for key, bar in bars_of(by_quote.values(), width, AS_OF).items()}
        assert {key: row["available_at"] for key, row in made.items()} == told, width


def test_the_recording_is_wholly_there(recording: list[Record], in_order: tuple[dict, dict]) -> None:
    """The comparison above is not one of empty tables: every quote that was polled once is a row."""
    quotes, made = in_order
    assert set(quotes) == {quote_of(r) for r in recording}
    assert len(quotes) > 100
    assert {w: len(rows) > 0 for w, rows in made.items()} == dict.fromkeys(WIDTHS, True)
    closed = {row["is_closed"] for row in made["5m"].values()}
    assert closed == {True, False}


def test_of_several_records_of_a_quote_the_first_that_arrived_counts(spark: SparkSession) -> None:
    event, later = TEN + timedelta(seconds=5), TEN + timedelta(minutes=5)

    def offered(price: str, wait_s: float, **place: Any) -> Record:
        return Record(event + timedelta(seconds=wait_s), message("bitcoin", event, price), **place)

    rows = bronze_rows(
        [
            offered("3", 30, partition=1, offset=0),
            offered("1", 10, partition=2, offset=9),
            offered("0", 5, partition=0, offset=1),  # not valid, so it does not count as the first
            offered("2", 10, partition=2, offset=10),
            Record(later + timedelta(seconds=1), message("bitcoin", later, "8"), partition=1, offset=7, topic_id="b"),
            Record(later + timedelta(seconds=1), message("bitcoin", later, "7"), partition=1, offset=7, topic_id="a"),
        ]
    )
    found = rows_by(silver_of(spark, rows), "last_updated_at")
    assert {k[0]: row["price_usd"] for k, row in found.items()} == {event: Decimal(1), later: Decimal(7)}
    first = found[event,]
    assert (first["partition"], first["offset"], first["available_at"]) == (2, 9, event + timedelta(seconds=10))


def test_only_events_of_the_slice_are_in_it_and_rows_are_whole(spark: SparkSession) -> None:
    edge = [TEN - timedelta(milliseconds=1), TEN, TEN + HOUR - timedelta(milliseconds=1), TEN + HOUR]
    table = silver_of(spark, [sample("bitcoin", event) for event in edge])
    found = rows_by(table, "last_updated_at")
    assert [k[0] for k in sorted(found)] == edge[1:3]
    row = found[TEN,]
    assert table.column_names == list(TABLES["silver.prices"].column_names)
    assert {n: row[n] for n in ("granularity", "cadence_s", "source", "poll_id", "hour", "day", "symbol")} == {
        "granularity": "tick", "cadence_s": 10.0, "source": "replay", "poll_id": "poll-1", "hour": TEN,
        "day": TEN.date(), "symbol": "BTC",
    }  # fmt: skip


def test_examined_keeps_every_record_and_the_evidence_of_refused_ones(spark: SparkSession) -> None:
    bad = Record(TEN, "{oops", headers={"trace": "x"})
    raw = Record(TEN + timedelta(seconds=1), b"\xff\xfe")
    parsed = parse_bronze(frame(spark, bronze_rows([sample("bitcoin", TEN), bad, raw])), COINS, START)
    rows = sorted(examined(parsed).toArrow().to_pylist(), key=lambda r: r["offset"])
    assert [(r["is_valid"], r["reasons"]) for r in rows] == [(True, []), (False, ["not_json"]), (False, ["not_utf8"])]
    assert rows[0]["raw_json"] is None
    assert (rows[1]["raw_json"], json.loads(rows[1]["headers"])["trace"]) == ("{oops", "x")
    assert rows[2]["raw_bytes"] == b"\xff\xfe"
    assert {r["hour"] for r in rows} == {TEN}


def reply(*points: Sequence[Any], caps: Sequence[Any] = (), volumes: Sequence[Any] = ()) -> str:
    """Text of a stored reply; numbers as text stay as they are written."""
    shown = {"prices": points, "market_caps": caps, "total_volumes": volumes}
    return json.dumps({name: [[int(t.timestamp() * 1000), v] for t, v in series] for name, series in shown.items()})


FETCHED = at("2024-06-01 08:00:00")


def test_history_fills_only_slots_without_a_live_sample(spark: SparkSession) -> None:
    minutes = [0, 4, 5, 10, 14, 15]
    points = [(TEN + timedelta(minutes=m, seconds=30), f"{100 + m}.25") for m in minutes]
    history = history_rows(
        [("bitcoin", TEN, "5m", reply(*points)), ("ethereum", TEN, "5m", reply(*points[:1]))], FETCHED
    )
    live = [sample("bitcoin", TEN + timedelta(minutes=7)), sample("bitcoin", TEN + timedelta(minutes=14, seconds=59))]
    # A record that is refused leaves its slot open.
    refused = [sample("bitcoin", TEN + timedelta(minutes=16), price="0")]
    found = rows_by(silver_of(spark, [*live, *refused], history), "coin_id", "last_updated_at")
    kinds = {(c, (t - TEN) / timedelta(minutes=1)): row["granularity"] for (c, t), row in found.items()}
    assert kinds == {
        ("bitcoin", 0.5): "5m", ("bitcoin", 4.5): "5m", ("bitcoin", 7.0): "tick",
        ("bitcoin", 14 + 59 / 60): "tick", ("bitcoin", 15.5): "5m", ("ethereum", 0.5): "5m",
    }  # fmt: skip
    row = found["bitcoin", points[0][0]]
    assert (row["price_usd"], row["available_at"], row["symbol"]) == (Decimal("100.25"), FETCHED, "BTC")
    assert [row[n] for n in ("cadence_s", "poll_id", "topic_id", "partition", "offset", "ingestion_timestamp")] == [
        None
    ] * 6


def test_history_numbers_keep_every_digit(spark: SparkSession) -> None:
    prices = ["61234.123456789012345678", "0.000000000000000001", "1.9e-08", "100000", "12345678901234567890"]
    points = [(TEN + timedelta(minutes=5 * i), p) for i, p in enumerate(prices)]
    raw = reply(*points, caps=[(points[0][0], "12345678901234567890.5")], volumes=[(points[1][0], "7")])
    bare = raw.replace('"61234.123456789012345678"', "61234.123456789012345678")
    assert bare != raw
    found = rows_by(silver_of(spark, [], history_rows([("bitcoin", TEN, "5m", bare)], FETCHED)), "last_updated_at")
    # The last price is more than any money, so it is no point.
    assert [found[k]["price_usd"] for k in sorted(found)] == [Decimal(p) for p in prices[:4]]
    first, second = (found[points[i][0],] for i in (0, 1))
    assert (first["market_cap_usd"], first["volume_24h_usd"]) == (Decimal("12345678901234567890.5"), None)
    assert (second["market_cap_usd"], second["volume_24h_usd"]) == (None, Decimal(7))


def test_points_that_say_nothing_are_left_out(spark: SparkSession) -> None:
    moments = [TEN + timedelta(minutes=5 * i) for i in range(5)]
    points = [(moments[0], None), (moments[1], "0"), (moments[2], "-1"), (moments[3], "2"), (moments[3], "3"),
              (TEN - DAY, "4")]  # fmt: skip
    replies = [
        ("bitcoin", TEN, "5m", reply(*points)),
        ("dogecoin", TEN, "5m", reply((moments[4], "5"))),
        ("ethereum", TEN, "5m", '{"prices": [], "market_caps": [], "total_volumes": []}'),
    ]
    found = history_points(frame(spark, history_rows(replies, FETCHED)), COINS).toArrow().to_pylist()
    assert [(r["coin_id"], r["last_updated_at"], r["price_usd"]) for r in found] == [
        ("bitcoin", moments[3], Decimal(2))
    ]


def test_history_carries_the_symbol_of_its_day(spark: SparkSession) -> None:
    days = [datetime(2024, 9, 3, 12, tzinfo=UTC), datetime(2024, 9, 4, 12, tzinfo=UTC)]
    replies = [("polygon-ecosystem-token", day, "1h", reply((day, "0.4"))) for day in days]
    found = history_points(frame(spark, history_rows(replies, FETCHED)), COINS).toArrow().to_pylist()
    assert {r["last_updated_at"]: r["symbol"] for r in found} == {days[0]: "MATIC", days[1]: "POL"}
