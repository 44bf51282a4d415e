"""The small gold tables: coins over time, days, newest quotes, the board of 24 hours, the pipeline's own metrics."""

from __future__ import annotations

import statistics
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from crypto_assets.checks.rules import evaluate
from crypto_assets.contracts.arrow import arrow_schema, conform
from crypto_assets.contracts.slices import HOUR, floor_hour
from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.sail import frame
from crypto_assets.market.coins import BEGINNING, Alias, Coin, CoinRegistry
from crypto_assets.transforms.dim_coin import dim_coin, dim_date
from crypto_assets.transforms.latest import latest_prices
from crypto_assets.transforms.leaderboard import leaderboard_24h
from crypto_assets.transforms.metrics import UNITS, pipeline_metrics
from crypto_assets_tests.builders import COINS, Record, at, bronze_rows, rfc3339, sample, silver_rows

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TEN = at("2024-05-01 10:00:00")
DAY = timedelta(days=1)
SLOT = timedelta(minutes=5)
FIRST = timedelta(seconds=30)
"""From a bar's start to its first sample, and from its last one to its end."""


def table_of(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows with the contract's types; absent columns are null."""
    names = TABLES[name].column_names
    return pa.Table.from_pylist([{n: r.get(n) for n in names} for r in rows], schema=arrow_schema(TABLES[name]))


# --- dim_coin and dim_date ----------------------------------------------------------------------------------------


def versions(*coins: Coin) -> list[tuple[Any, ...]]:
    rows = dim_coin(CoinRegistry(coins))
    table = table_of("gold.dim_coin", rows)
    assert [o.name for o in evaluate(TABLES["gold.dim_coin"], table, [None])[None] if not o.passed] == []
    assert len({r["coin_key"] for r in rows}) == len(rows)
    return [(r["symbol"], r["valid_from"], r["valid_to"], r["is_current"], r["is_active"]) for r in rows]


CHANGE = at("2024-09-04 00:00:00")
MATIC = (Alias("matic-network", date(2024, 9, 4), "MATIC"),)


def test_matic_became_pol_on_its_date() -> None:
    found = versions(COINS.coins[2])
    assert found == [("MATIC", BEGINNING, CHANGE, False, True), ("POL", CHANGE, None, True, True)]
    rows = dim_coin(COINS)
    assert [r["aliases"] for r in rows if r["coin_id"] == "polygon-ecosystem-token"] == [["matic-network"]] * 2
    assert [r["coin_key"] for r in rows if r["coin_id"] == "bitcoin"] == ["bitcoin@2009-01-03T00:00:00Z"]


def test_a_retired_coin_has_a_version_of_its_own_that_is_not_active() -> None:
    end = at("2025-03-01 00:00:00")
    found = versions(Coin("p", "pol", "P", MATIC, active_to=end))
    assert found == [
        ("MATIC", BEGINNING, CHANGE, False, True),
        ("POL", CHANGE, end, False, True),
        ("POL", end, None, True, False),
    ]


@pytest.mark.parametrize("end", [CHANGE, CHANGE - timedelta(days=30)])
def test_a_coin_retired_before_its_change_of_name_never_has_it_while_active(end: datetime) -> None:
    found = versions(Coin("p", "POL", "P", MATIC, active_to=end))
    assert [(f[1], f[2], f[4]) for f in found] == [(BEGINNING, end, True), (end, None, False)]
    assert found[0][0] == "MATIC"


def test_a_coin_that_began_after_the_change_has_one_version() -> None:
    assert versions(Coin("p", "POL", "P", MATIC, active_from=CHANGE)) == [("POL", CHANGE, None, True, True)]


def test_two_aliases_that_end_on_one_day_make_one_change() -> None:
    both = (*MATIC, Alias("matic-old", date(2024, 9, 4), "MATIC"))
    found = versions(Coin("p", "POL", "P", both))
    assert [(f[0], f[1], f[2]) for f in found] == [("MATIC", BEGINNING, CHANGE), ("POL", CHANGE, None)]


def test_an_alias_without_a_symbol_of_its_own_keeps_the_coins() -> None:
    found = versions(Coin("p", "POL", "P", (Alias("old", date(2024, 9, 4)),)))
    assert [f[0] for f in found] == ["POL", "POL"]


def test_the_calendar_is_iso_8601() -> None:
    rows = {r["day"]: r for r in dim_date(date(2020, 12, 27), date(2024, 3, 1))}
    assert len(rows) == (date(2024, 3, 1) - date(2020, 12, 27)).days + 1
    newyear = rows[date(2021, 1, 1)]  # a Friday in week 53 of the year before
    assert (newyear["date_key"], newyear["iso_week"], newyear["iso_weekday"], newyear["is_weekend"]) == (
        20210101,
        53,
        5,
        False,
    )
    assert (newyear["year"], newyear["quarter"], newyear["month"], newyear["day_of_month"]) == (2021, 1, 1, 1)
    leap = rows[date(2024, 2, 29)]
    assert (leap["date_key"], leap["quarter"], leap["day_of_month"]) == (20240229, 1, 29)
    assert [rows[date(2021, m, 15)]["quarter"] for m in range(1, 13)] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert [rows[date(2021, 1, d)]["is_weekend"] for d in range(1, 8)] == [
        False,
        True,
        True,
        False,
        False,
        False,
        False,
    ]


# --- latest prices ------------------------------------------------------------------------------------------------


def test_the_newest_quote_by_event_time_is_the_latest(spark: SparkSession) -> None:
    until = TEN + timedelta(minutes=5)
    rows = silver_rows(
        [
            {"coin_id": "bitcoin", "last_updated_at": TEN, "price_usd": "2", "available_at": until},
            {
                "coin_id": "bitcoin",
                "last_updated_at": TEN + timedelta(seconds=90),
                "price_usd": "3",
                "market_cap_usd": None,
            },
            {"coin_id": "bitcoin", "last_updated_at": TEN - HOUR, "price_usd": "9", "market_cap_usd": Decimal(7)},
            {
                "coin_id": "ethereum",
                "last_updated_at": until + timedelta(seconds=30),
                "price_usd": "0.000000000000000001",
            },
        ]
    )
    found = latest_prices(frame(spark, rows), until, '{"0": 7}', until + HOUR).toArrow()
    by_coin = {r["coin_id"]: r for r in conform(TABLES["gold.latest_prices"], found).to_pylist()}
    bitcoin, ethereum = by_coin["bitcoin"], by_coin["ethereum"]
    assert (bitcoin["price_usd"], bitcoin["market_cap_usd"], bitcoin["age_s"]) == (Decimal(3), None, 210.0)
    assert (bitcoin["covered_until"], bitcoin["covered_offsets"], bitcoin["refreshed_at"]) == (
        until,
        '{"0": 7}',
        until + HOUR,
    )
    # A quote may be a little ahead of the broker's clock.
    assert (ethereum["price_usd"], ethereum["age_s"]) == (Decimal("1e-18"), -30.0)


# --- leaderboard --------------------------------------------------------------------------------------------------


def bar(
    coin: str, end: datetime, close: str, high: str | None = None, low: str | None = None, opens: str | None = None
) -> dict[str, Any]:
    start = end - SLOT
    return {
        "coin_id": coin, "symbol": coin[:3].upper(), "window_start": start, "window_end": end,
        "open": Decimal(opens or close), "high": Decimal(high or close), "low": Decimal(low or close),
        "close": Decimal(close), "price_avg": float(close), "volume_24h_usd": Decimal(5), "sample_count": 1,
        "granularity": "tick",
        "first_event_at": start + FIRST, "last_event_at": end - FIRST, "available_at": end,
        "is_closed": True, "is_complete": True, "day": start.date(), "hour": floor_hour(start),
    }  # fmt: skip


def board(spark: SparkSession, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    found = leaderboard_24h(frame(spark, table_of("gold.bars_5m", list(rows)))).toArrow()
    return sorted(conform(TABLES["gold.leaderboard_24h"], found).to_pylist(), key=lambda r: r["rank"])


def test_the_board_ranks_by_the_change_of_24_hours_and_unknown_ones_last(spark: SparkSession) -> None:
    ago = TEN - DAY
    found = board(
        spark,
        bar("loser", TEN, "90"), bar("loser", ago, "100"),
        bar("winner", TEN, "150"), bar("winner", ago, "100"),
        bar("twin-b", TEN, "2.2"), bar("twin-b", ago, "2"),
        bar("twin-a", TEN, "1.1"), bar("twin-a", ago, "1"),
        bar("young", TEN, "7"),
        bar("gone", ago - SLOT, "7"),
    )  # fmt: skip
    told = [(r["rank"], r["coin_id"], r["change_24h"]) for r in found]
    assert told == [
        (1, "winner", 0.5),
        (2, "twin-a", pytest.approx(0.1)),
        (3, "twin-b", pytest.approx(0.1)),
        (4, "loser", pytest.approx(-0.1)),
        (5, "gone", None),
        (6, "young", None),
    ]
    assert found[0]["price_24h_ago_usd"] == Decimal(100)
    assert found[-1]["price_24h_ago_usd"] is None


def test_the_price_24_hours_ago_may_be_ten_minutes_older_or_else_newer(spark: SparkSession) -> None:
    ago = TEN - DAY
    found = board(
        spark,
        bar("exact", TEN, "2"), bar("exact", ago + SLOT, "7"), bar("exact", ago, "1"), bar("exact", ago - SLOT, "8"),
        bar("older", TEN, "2"), bar("older", ago + SLOT, "7"), bar("older", ago - 2 * SLOT, "1"),
        bar("newer", TEN, "2"), bar("newer", ago - 3 * SLOT, "9"), bar("newer", ago + SLOT, "7", opens="1"),
        bar("newest", TEN, "2"), bar("newest", ago + 3 * SLOT, "7", opens="1"), bar("newest", ago + 4 * SLOT, "6"),
        bar("too-old", TEN, "2"), bar("too-old", ago - 3 * SLOT, "1"),
        bar("too-new", TEN, "2"), bar("too-new", ago + 4 * SLOT, "1"),
    )  # fmt: skip
    assert {r["coin_id"]: (r["change_24h"], r["price_24h_ago_at"]) for r in found} == {
        "exact": (1.0, ago - FIRST),
        "older": (1.0, ago - 2 * SLOT - FIRST),
        "newer": (1.0, ago + FIRST),
        "newest": (1.0, ago + 2 * SLOT + FIRST),
        "too-old": (None, None),
        "too-new": (None, None),
    }


def test_highs_and_lows_are_those_of_the_24_hours(spark: SparkSession) -> None:
    ago = TEN - DAY
    (found,) = board(
        spark,
        bar("bitcoin", TEN, "5", high="6", low="5"),
        bar("bitcoin", TEN - 12 * HOUR, "5", high="9", low="4"),
        bar("bitcoin", ago + SLOT, "5", high="5", low="3"),
        bar("bitcoin", ago, "5", high="99", low="1"),
    )
    assert (found["high_24h"], found["low_24h"]) == (Decimal(9), Decimal(3))
    assert (found["price_usd"], found["volume_24h_usd"], found["window_end"]) == (Decimal(5), Decimal(5), TEN)


# --- metrics ------------------------------------------------------------------------------------------------------


def sent_at(i: int) -> datetime:
    """When record i of the fixture was really sent, some seconds before it was written."""
    return TEN + timedelta(seconds=50 - i * i)


def sent(i: int) -> dict[str, str]:
    return {"sent_at": "soon" if i == 3 else rfc3339(sent_at(i))}


@pytest.fixture(scope="module")
def pipeline() -> dict[str, pa.Table]:
    """Hour 10: six records, one refused, one a copy; hour 11: one record; hour 12: nothing.

    Record n was written n + 1 s after its arrival.
    """
    event = TEN + timedelta(minutes=1)
    records = [
        *[sample("bitcoin", event + timedelta(seconds=i), offset=i, headers=sent(i)) for i in range(4)],
        sample("bitcoin", event, delay=timedelta(seconds=30), offset=4),
        Record(event, "{oops", offset=5),
        Record(event, None, kind="gap", offset=6),
        sample("bitcoin", event, delay=HOUR, offset=7),
    ]
    bronze = bronze_rows(records)
    arrived = bronze.column("kafka_timestamp").to_pylist()
    late = [a + timedelta(seconds=i + 1) for i, a in enumerate(arrived)]
    index = bronze.schema.get_field_index("bronze_ingested_at")
    bronze = bronze.set_column(index, bronze.schema.field(index), pa.array(late, pa.timestamp("us", "UTC")))
    place = {"topic_id": "incarnation-1", "partition": 0}
    bitcoin = {**place, "coin_id": "bitcoin", "price_usd": "1"}
    kept = [{**bitcoin, "last_updated_at": event + timedelta(seconds=i), "offset": i} for i in range(4)]
    when = {"day": TEN.date(), "hour": TEN}
    refused = {**place, **when, "topic": "t", "offset": 5, "reasons": ["not_json"], "detail": "d", "arrival_hour": TEN}
    poll = {**place, "topic": "p", "kind": "record", "arrival_hour": TEN, "range_start": 0, "range_end": 4, "seq": 1,
            "batch_id": "b", "bronze_ingested_at": TEN}  # fmt: skip
    outcomes = ["ok", "rate_limited", "ok", "ok"]
    polls = [{**poll, "offset": i, "outcome": o} for i, o in enumerate(outcomes)]
    polls.append({**poll, "offset": 9, "kind": "gap", "outcome": None})
    model = {"threshold": 1.0, "is_anomaly": False, "model_name": "m", "model_version": "1", "revision": 0}
    scored = {**model, **when, "coin_id": "c", "symbol": "C", "window_start": TEN, "scored_at": TEN}
    took = [20.0, 30.0, 100.0, 40.0, None]
    anomalies = [
        {**scored, "window_end": TEN + i * SLOT, "latency_s": 1.0, "inference_ms": ms} for i, ms in enumerate(took)
    ]
    return {
        "bronze": bronze,
        "silver": silver_rows(kept),
        "quarantine": table_of("silver.quarantine", [refused]),
        "polls": table_of("ops.polls", polls),
        "anomalies": table_of("gold.anomalies", anomalies),
    }


def measured(spark: SparkSession, tables: dict[str, pa.Table], virtual_time: bool) -> dict[tuple[int, str], tuple]:
    hours = [TEN, TEN + HOUR, TEN + 2 * HOUR]
    frames = {name: frame(spark, rows) for name, rows in tables.items()}
    table = conform(
        TABLES["ops.pipeline_metrics"], pipeline_metrics(hours, **frames, virtual_time=virtual_time).toArrow()
    )
    assert {(r["metric"], r["unit"]) for r in table.to_pylist()} == set(UNITS.items())
    assert table.num_rows == 3 * len(UNITS)
    return {(r["hour"].hour, r["metric"]): (r["value"], r["measured_over"]) for r in table.to_pylist()}


def test_metrics_equal_counts_by_hand(spark: SparkSession, pipeline: dict[str, pa.Table]) -> None:
    found = measured(spark, pipeline, virtual_time=False)
    latencies = [1000, 2000, 3000, 4000, 5000, 6000]
    p99 = statistics.quantiles(latencies, n=100, method="inclusive")[98]
    assert {metric: found[10, metric] for metric in UNITS} == {
        "messages_produced": (6.0, 6),
        "processing_latency_ms_p50": (3500.0, 6),
        "processing_latency_ms_p99": (pytest.approx(p99), 6),
        "dedup_rate": (pytest.approx(0.2), 5),
        "quarantine_rate": (pytest.approx(1 / 6), 6),
        "model_inference_latency_ms": (35.0, 4),
        "polls_ok_rate": (0.75, 4),
    }
    # The copy of an earlier hour's quote is a duplicate of its own hour.
    assert (found[11, "messages_produced"], found[11, "dedup_rate"]) == ((1.0, 1), (1.0, 1))
    assert found[11, "polls_ok_rate"] == (None, 0)
    assert {found[12, metric] for metric in UNITS} == {(None, 0)}


def test_in_virtual_time_latency_counts_from_the_time_of_sending(
    spark: SparkSession, pipeline: dict[str, pa.Table]
) -> None:
    """Records 0 to 2 have the time at which they were sent, record 3 no readable one, and the others none."""
    found = measured(spark, pipeline, virtual_time=True)
    written = TEN + timedelta(minutes=1)
    latencies = [((written + timedelta(seconds=2 * i + 2)) - sent_at(i)) / timedelta(milliseconds=1) for i in range(3)]
    assert found[10, "processing_latency_ms_p50"] == (pytest.approx(statistics.median(latencies)), 3)
    assert found[10, "processing_latency_ms_p99"][1] == 3
    assert found[11, "processing_latency_ms_p99"] == (None, 0)
    assert found[10, "model_inference_latency_ms"] == (35.0, 4)
    assert found[10, "messages_produced"] == (6.0, 6)


def test_an_hour_of_nothing_but_refused_records_has_no_dedup_rate(
    spark: SparkSession, pipeline: dict[str, pa.Table]
) -> None:
    bronze = pipeline["bronze"]
    only = bronze.slice(bronze.column("offset").to_pylist().index(5), 1)
    found = measured(spark, pipeline | {"bronze": only}, virtual_time=False)
    assert (found[10, "dedup_rate"], found[10, "quarantine_rate"]) == ((None, 0), (1.0, 1))
