"""Features: their definitions against an oracle, and that no row knows anything later than itself."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from crypto_assets.checks import rules
from crypto_assets.contracts.arrow import conform, spark_schema
from crypto_assets.contracts.slices import HOUR, Slice
from crypto_assets.contracts.tables import BARS_5M, PRICE_FEATURES
from crypto_assets.market.coins import CoinRegistry
from crypto_assets.transforms.features import features
from crypto_assets_tests.ml.synthetic import SLOT, START, bar, bar_rows, bars_of, names, panel_of, registry_of, walk
from crypto_assets_tests.transforms.features_oracle import Oracle

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

BEGIN = START + 26 * HOUR
"""Start of the slices tested here: 26 hours of bars lie before it."""

SETTLED = timedelta(seconds=60)
LATER = START + timedelta(days=30)
Row = Mapping[str, Any]


def computed(
    spark: SparkSession,
    bars: Sequence[dict[str, Any]],
    slice_: Slice,
    coins: CoinRegistry,
    as_of: datetime = LATER,
) -> pa.Table:
    frame = spark.createDataFrame(bar_rows(bars), spark_schema(BARS_5M))
    return conform(PRICE_FEATURES, features(frame, slice_, coins, as_of).toArrow())


def by_slot(table: pa.Table) -> dict[tuple[str, datetime], Row]:
    rows = {(r["coin_id"], r["window_end"]): r for r in table.to_pylist()}
    assert len(rows) == table.num_rows, "a coin has two rows in a slot"
    return rows


def differences(left: Mapping[Any, Row], right: Mapping[Any, Row]) -> list[Any]:
    """Every cell in which two tables differ, exactly."""
    assert left.keys() == right.keys()
    return [(key, n, left[key][n], right[key][n]) for key in left for n in left[key] if left[key][n] != right[key][n]]


def market(seed: int, coins: int, hours: int) -> list[dict[str, Any]]:
    """Bars of a walk, with prices of very different size, a freeze, a gap and a quote that grew stale."""
    prices = walk(seed, coins, hours * 12)
    prices *= np.array([600.0, 1.0, 1e-6, 0.05, 20.0])[:coins, None]
    prices[0, 290:330] = prices[0, 290]
    bars = bars_of(prices)
    at = {(b["coin_id"], b["window_start"]): b for b in bars}
    coin = names(coins)
    for k in range(3):
        del at[coin[1], BEGIN + (20 + k) * SLOT]
    stale = at[coin[2], BEGIN + 8 * SLOT]
    stale["last_event_at"] = stale["window_end"] - timedelta(seconds=150)
    return list(at.values())


def test_features_of_data_cut_at_t_equal_those_of_all_data_up_to_t(spark: SparkSession) -> None:
    bars, coins = market(7, 5, 30), registry_of(names(5))
    slice_ = Slice(BEGIN, BEGIN + 4 * HOUR)
    whole = by_slot(computed(spark, bars, slice_, coins))
    assert len(whole) == 5 * 48
    for cut in (BEGIN + SLOT, BEGIN + 22 * SLOT, BEGIN + 37 * SLOT):
        known = [b for b in bars if b["window_end"] <= cut]
        early = by_slot(computed(spark, known, slice_, coins, as_of=cut + SETTLED))
        assert differences({k: r for k, r in whole.items() if k[1] <= cut}, early) == []


def test_what_comes_after_a_row_does_not_change_it(spark: SparkSession) -> None:
    """The same the other way round: absurd prices after t leave every row up to t as it was."""
    bars, coins = market(8, 4, 28), registry_of(names(4))
    slice_, cut = Slice(BEGIN, BEGIN + 2 * HOUR), BEGIN + 11 * SLOT
    absurd = {n: Decimal(10**6) for n in ("open", "high", "low", "close")}
    changed = [{**b, **absurd} if b["window_end"] > cut else b for b in bars]
    before, after = by_slot(computed(spark, bars, slice_, coins)), by_slot(computed(spark, changed, slice_, coins))
    upto = [{k: r for k, r in rows.items() if k[1] <= cut} for rows in (before, after)]
    assert differences(*upto) == []
    assert {r["price"] for k, r in after.items() if k[1] > cut} == {None, 1e6}


def test_a_row_does_not_depend_on_where_its_slice_begins(spark: SparkSession) -> None:
    """A range run and hourly runs give equal rows to the last bit, also after a freeze behind large moves."""
    bars, coins = market(9, 5, 30), registry_of(names(5))
    whole = by_slot(computed(spark, bars, Slice(BEGIN, BEGIN + 4 * HOUR), coins))
    hourly: dict[Any, Row] = {}
    for k in range(4):
        hourly |= by_slot(computed(spark, bars, Slice(BEGIN + k * HOUR, BEGIN + (k + 1) * HOUR), coins))
    assert differences(whole, hourly) == []


def test_every_definition_agrees_with_the_oracle(spark: SparkSession) -> None:
    bars = market(3, 5, 29)
    coin = names(5)
    at = {(b["coin_id"], b["window_start"]): b for b in bars}
    # Cadence of 5 minutes: a missing slot is carried over once. A coarse and an open bar do not count.
    for b in bars:
        if b["coin_id"] == coin[3]:
            b.update(expected_count=1, sample_count=1, volume_24h_usd=Decimal(5000 + b["window_start"].minute))
    del at[coin[3], BEGIN + 6 * SLOT]
    del at[coin[3], BEGIN + 12 * SLOT], at[coin[3], BEGIN + 13 * SLOT]
    at[coin[0], BEGIN + 30 * SLOT]["granularity"] = "1h"
    at[coin[1], BEGIN + 31 * SLOT]["is_closed"] = False
    at[coin[3], BEGIN + 25 * SLOT]["volume_24h_usd"] = Decimal(0)
    at[coin[3], BEGIN + 29 * SLOT]["volume_24h_usd"] = None
    spans = {coin[4]: (START + 14 * HOUR + 6 * SLOT, BEGIN + HOUR + 3 * SLOT), coin[2]: (START, None)}
    records = registry_of(coin, spans)
    rows = by_slot(computed(spark, list(at.values()), Slice(BEGIN, BEGIN + 3 * HOUR), records))
    oracle = Oracle(list(at.values()), records)
    expected = {
        (c, BEGIN + k * SLOT): oracle.row(c, BEGIN + k * SLOT)
        for c in coin
        for k in range(1, 37)
        if oracle.active(c, BEGIN + k * SLOT)
    }
    assert rows.keys() == expected.keys()
    wrong = [
        (key, name, rows[key][name], value)
        for key, row in expected.items()
        for name, value in row.items()
        if not _same(rows[key][name], value)
    ]
    assert wrong == []
    # The cases above have really occurred, so that agreement says something about each of them.
    assert rows[coin[3], BEGIN + 7 * SLOT]["staleness_s"] == 305
    assert rows[coin[3], BEGIN + 7 * SLOT]["r5"] == 0
    assert rows[coin[3], BEGIN + 14 * SLOT]["price"] is None
    assert rows[coin[2], BEGIN + 9 * SLOT]["price"] is None
    assert rows[coin[0], BEGIN + 12 * SLOT]["rsi14"] == 50
    assert rows[coin[0], BEGIN + 12 * SLOT]["bollinger_b"] == 0.5
    assert rows[coin[0], BEGIN + 12 * SLOT]["unchanged_slots"] == 34
    assert rows[coin[3], BEGIN + 14 * SLOT]["unchanged_slots"] == 0
    assert sum(row["s_market"] is not None for row in rows.values()) > 100
    assert {row["s"] is None for (c, _), row in rows.items() if c == coin[4]} == {True, False}
    assert rows[coin[3], BEGIN + 26 * SLOT]["volume_change"] is None
    assert rows[coin[0], BEGIN + SLOT]["macd_signal"] is not None


def _same(found: float | None, expected: float | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return math.isclose(found, expected, rel_tol=1e-9, abs_tol=2e-12)


def test_the_numpy_features_of_other_tests_agree_with_the_engine(spark: SparkSession) -> None:
    prices = np.vectorize(lambda p: float(f"{p:.8g}"))(walk(11, 4, 28 * 12))
    rows = by_slot(computed(spark, bars_of(prices), Slice(BEGIN, BEGIN + 2 * HOUR), registry_of(names(4))))
    data = panel_of(prices)
    for (coin, end), row in rows.items():
        place = data.coins.index(coin), int(end.timestamp()) // 300 - data.first_slot
        assert {n: row[n] for n in data.values} == pytest.approx(
            {n: v[place] for n, v in data.values.items()}, abs=1e-9
        )


def test_the_scale_needs_144_returns_before_the_slot_and_has_a_floor(spark: SparkSession) -> None:
    first = BEGIN - 145 * SLOT
    bars = [bar("coin-00", first + k * SLOT, 100.0) for k in range(157)]
    rows = by_slot(computed(spark, bars, Slice(BEGIN, BEGIN + HOUR), registry_of(["coin-00"])))
    # At the first slot of the slice, 145 bars with 144 returns lie before; one bar less is not enough.
    assert rows["coin-00", BEGIN + SLOT]["s"] == 1e-5
    assert rows["coin-00", BEGIN + SLOT]["rz"] == 0
    rows = by_slot(computed(spark, bars[1:], Slice(BEGIN, BEGIN + HOUR), registry_of(["coin-00"])))
    assert rows["coin-00", BEGIN + SLOT]["s"] is None
    assert rows["coin-00", BEGIN + 2 * SLOT]["s"] == 1e-5


def test_the_slots_own_return_is_not_in_its_scale(spark: SparkSession) -> None:
    prices = walk(5, 1, 27 * 12)
    jumped = prices.copy()
    jumped[0, 26 * 12] *= 1.5
    coins = registry_of(names(1))
    calm, jump = (
        by_slot(computed(spark, bars_of(p), Slice(BEGIN, BEGIN + HOUR), coins))["coin-00", BEGIN + SLOT]
        for p in (prices, jumped)
    )
    assert (calm["s"], calm["r5_median"]) == (jump["s"], jump["r5_median"])
    assert jump["rz"] > 100 > abs(calm["rz"])


def test_nulls_name_every_reason(spark: SparkSession) -> None:
    prices = walk(6, 4, 27 * 12)
    bars = {(b["coin_id"], b["window_start"]): b for b in bars_of(prices)}
    a, b, c, former = names(4)
    young = BEGIN + 2 * SLOT
    for k in range(26 * 12 + 2):
        del bars[b, START + k * SLOT]
    for k in range(4, 6):
        del bars[c, BEGIN + k * SLOT]
    bars[a, BEGIN + 9 * SLOT]["volume_24h_usd"] = None
    records = registry_of((a, b, c, former), {b: (young, None), former: (START, BEGIN)})
    rows = by_slot(computed(spark, list(bars.values()), Slice(BEGIN, BEGIN + HOUR), records))
    reasons = {key: row["null_reason"] for key, row in rows.items()}
    assert (b, young) not in rows
    assert reasons[a, BEGIN + SLOT] == "few_coins"
    assert reasons[b, young + SLOT] == "no_lag,no_volume,short_history"
    assert reasons[b, young + 2 * SLOT] == "no_lag,short_history"
    assert reasons[a, young + 2 * SLOT] == "few_coins", "three coins have a return, two of them a scale"
    assert rows[a, young + 2 * SLOT]["r5_market"] is not None
    assert reasons[c, BEGIN + 5 * SLOT] == "no_volume,stale_price"
    assert reasons[a, BEGIN + 5 * SLOT] == "few_coins"
    assert reasons[c, BEGIN + 7 * SLOT] == "no_lag,no_volume,short_history"
    assert reasons[a, BEGIN + 10 * SLOT] == "few_coins,no_volume"
    explained = ("price", "r5", "r15", "r1h", "r24h", "s", "rv15m", "rv1h", "rv4h", "rv24h", "rsi14", "macd",
                 "macd_signal", "bollinger_b", "r5_market", "s_market", "rz_common", "common_activity",
                 "volume_change")  # fmt: skip
    assert [k for k, r in rows.items() if (r["null_reason"] is None) != all(r[n] is not None for n in explained)] == []


def test_too_few_coins_lately_are_the_reason_of_an_unknown_market_scale(spark: SparkSession) -> None:
    """144 market-relative returns of the 288 slots before must be known."""
    bars, (a, *_, third) = bars_of(walk(6, 3, 29 * 12)), names(3)
    first = BEGIN - 143 * SLOT  # the first return ends at 142 slots before
    for since, reason in ((first, "few_coins"), (first - 2 * SLOT, None)):
        given = [b for b in bars if b["coin_id"] != third or b["window_start"] >= since]
        rows = by_slot(computed(spark, given, Slice(BEGIN, BEGIN + HOUR), registry_of(names(3))))
        row = rows[a, BEGIN + SLOT]
        assert (row["null_reason"], row["s_market"] is None) == (reason, reason is not None)


def test_open_slots_have_no_row(spark: SparkSession) -> None:
    bars = bars_of(walk(1, 3, 27 * 12))
    slice_, end = Slice(BEGIN, BEGIN + HOUR), BEGIN + 4 * SLOT
    settled = computed(spark, bars, slice_, registry_of(names(3)), as_of=end + SETTLED)
    assert max(settled.column("window_end").to_pylist()) == end
    open_ = computed(spark, bars, slice_, registry_of(names(3)), as_of=end + SETTLED - timedelta(milliseconds=1))
    assert max(open_.column("window_end").to_pylist()) == end - SLOT
    assert computed(spark, bars, slice_, registry_of(names(3)), as_of=BEGIN - 3 * 24 * HOUR).num_rows == 0


def test_a_coin_without_any_bar_has_rows_with_a_reason(spark: SparkSession) -> None:
    records = registry_of((*names(3), "silent"))
    table = computed(spark, bars_of(walk(1, 3, 27 * 12)), Slice(BEGIN, BEGIN + HOUR), records)
    silent = [r for r in table.to_pylist() if r["coin_id"] == "silent"]
    assert len(silent) == 12
    assert {r["null_reason"] for r in silent} == {"no_volume,stale_price"}
    assert {(r["sample_count"], r["is_complete"]) for r in silent} == {(0, False)}
    rules.audit(PRICE_FEATURES, ["2024-01-02-02:00"])(table)


def test_the_basket_names_the_coins_that_had_a_return(spark: SparkSession) -> None:
    bars = [
        b for b in bars_of(walk(2, 4, 27 * 12)) if (b["coin_id"], b["window_start"]) != ("coin-03", BEGIN + 3 * SLOT)
    ]
    rows = by_slot(computed(spark, bars, Slice(BEGIN, BEGIN + HOUR), registry_of(names(4))))
    for slots, coins in ((1, 4), (4, 3)):
        expected = hashlib.sha256(",".join(sorted(names(coins))).encode()).hexdigest()[:16]
        assert rows["coin-00", BEGIN + slots * SLOT]["basket_hash"] == expected


def test_a_row_is_available_only_when_the_coins_it_is_compared_with_are(spark: SparkSession) -> None:
    """A late bar of one coin changes the market-relative return of all, and for a day the scale of these returns."""
    bars = bars_of(walk(2, 4, 52 * 12))
    late = BEGIN + 30 * HOUR
    for b in bars:
        if (b["coin_id"], b["window_start"]) == ("coin-03", BEGIN + 3 * SLOT):
            b["available_at"] = late
    rows = by_slot(computed(spark, bars, Slice(BEGIN, BEGIN + HOUR), registry_of(names(4))))
    assert rows["coin-00", BEGIN + 3 * SLOT]["available_at"] < BEGIN + 3 * SLOT
    assert rows["coin-00", BEGIN + 4 * SLOT]["available_at"] == late
    assert rows["coin-00", BEGIN + 5 * SLOT]["available_at"] == late
    assert rows["coin-00", BEGIN + 8 * SLOT]["available_at"] == late
    assert rows["coin-03", BEGIN + 8 * SLOT]["available_at"] == late
    # The late bar's last return is that of the third slot after it, if a price is carried over.
    next_day = BEGIN + 24 * HOUR
    rows = by_slot(computed(spark, bars, Slice(next_day, next_day + HOUR), registry_of(names(4))))
    assert rows["coin-00", next_day + 6 * SLOT]["available_at"] == late
    assert rows["coin-00", next_day + 7 * SLOT]["available_at"] < next_day + 7 * SLOT
