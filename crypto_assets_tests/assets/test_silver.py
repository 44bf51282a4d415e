"""Bronze to Silver, its quarantine and bars over real tables: late data, the balance of records, refusals."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from crypto_assets.assets import bars, judging, silver
from crypto_assets.contracts.messages import QUARANTINE_REASONS
from crypto_assets.contracts.slices import DAY, HOUR, Slice, hour_key, hour_keys
from crypto_assets.contracts.tables import RAW_PRICES
from crypto_assets.engine.base import CheckOutcome, Engine, Result
from crypto_assets.engine.sail import SailEngine
from crypto_assets.market.coins import CoinRegistry, default_registry
from crypto_assets.storage.base import SliceRefused
from crypto_assets_tests.builders import Record, at, history_rows, message, sample, step_inputs, write_bronze
from crypto_assets_tests.transforms.oracle import recorded, rows_by, without

TEN = at("2024-05-01 10:00:00")
NOW = TEN + 2 * DAY
MINUTE = timedelta(minutes=1)
PRICES, QUARANTINE = "silver.prices", "silver.quarantine"
BARS = ("gold.bars_1m", "gold.bars_5m", "gold.bars_1h", "gold.bars_1d")


def rows(engine: Engine, table: str) -> list[dict[str, Any]]:
    return engine.store.read_arrow(table).to_pylist()


def checks(result: Result, table: str, key: str) -> dict[str, CheckOutcome]:
    return {c.name: c for c in result.tables[table].partitions[key].checks}


# --- late and disordered ------------------------------------------------------------------------------------------


def refresh(engine: Engine, hours: Sequence[str], **inputs: Any) -> None:
    """What the jobs run for hours of one day."""
    given = step_inputs(NOW, coins=default_registry("replay"), **inputs)
    silver.work(engine, hours, given)
    bars.work(engine, hours, given)
    bars.work_day(engine, sorted({h[:10] for h in hours}), given)


def state(engine: Engine) -> dict[str, dict]:
    """Silver and bars without what tells when and where a quote arrived."""
    found = {PRICES: rows_by(engine.store.read_arrow(PRICES), "coin_id", "last_updated_at")}
    found |= {name: rows_by(engine.store.read_arrow(name), "coin_id", "window_start") for name in BARS}
    return {name: without(r, "available_at", "partition", "offset") for name, r in found.items()}


@pytest.mark.slow
def test_late_copies_and_restated_hours_end_as_the_sorted_run(tmp_path: Path) -> None:
    """Records come late and twice, in two loads; the hours they touch are run again; the end is that of order."""
    chance = random.Random(11)
    recording = recorded(TEN - 20 * MINUTE, 80)
    keeps_up = Record(TEN + 9 * HOUR, "the end", 60)  # both lakes reach equally far, so the same windows are closed
    hours = hour_keys(Slice(TEN - HOUR, TEN + HOUR))

    sorted_run = SailEngine(str(tmp_path / "sorted"))
    write_bronze(sorted_run.store, [*recording, keeps_up])
    refresh(sorted_run, hours)

    late = [replace(r, arrival=r.arrival + chance.random() * 5 * HOUR) for r in chance.sample(recording, 60)]
    moved = {(r.text) for r in late}
    copies = [replace(r, arrival=r.arrival + chance.random() * 8 * HOUR) for r in chance.sample(recording, 80)]
    arrived = sorted(
        (
            replace(r, partition=chance.randint(0, 2))
            for r in [*late, *copies, *(r for r in recording if r.text not in moved)]
        ),
        key=lambda r: r.arrival,
    )
    cut = TEN + 2 * HOUR
    disordered = SailEngine(str(tmp_path / "disordered"))
    ends = write_bronze(disordered.store, [r for r in arrived if r.arrival < cut])
    refresh(disordered, hours)
    halfway = state(disordered)
    ends = write_bronze(disordered.store, [*(r for r in arrived if r.arrival >= cut), keeps_up], first_offset=ends)
    refresh(disordered, list(reversed(hours)))

    assert halfway[PRICES] != state(sorted_run)[PRICES]
    for name, wanted in state(sorted_run).items():
        assert len(wanted) > 0
        assert state(disordered)[name] == wanted, name

    version = disordered.store.version(PRICES)
    refresh(disordered, hours)
    assert disordered.store.version(PRICES) == version, "a repeated run commits nothing"


def test_as_of_reads_the_lake_as_it_was_known(engine: SailEngine) -> None:
    early, late = sample("bitcoin", TEN + MINUTE, "1"), sample("bitcoin", TEN + 2 * MINUTE, "2", delay=3 * HOUR)
    write_bronze(engine.store, [early, late])
    given = step_inputs(NOW, as_of=TEN + 5 * MINUTE + timedelta(seconds=59))  # a second before the window is closed
    silver.work(engine, [hour_key(TEN)], given)
    bars.work(engine, [hour_key(TEN)], given, ["gold.bars_5m"])
    assert [r["price_usd"] for r in rows(engine, PRICES)] == [Decimal(1)]
    assert [(r["sample_count"], r["is_closed"]) for r in rows(engine, "gold.bars_5m")] == [(1, False)]
    silver.work(engine, [hour_key(TEN)], step_inputs(NOW))
    bars.work(engine, [hour_key(TEN)], step_inputs(NOW), ["gold.bars_5m"])
    assert [(r["sample_count"], r["is_closed"]) for r in rows(engine, "gold.bars_5m")] == [(2, True)]


def test_events_a_little_ahead_of_their_arrival_are_found_in_the_hour_before(engine: SailEngine) -> None:
    """The record arrived at 10:59:30 and speaks of 11:00:10: Bronze has it in ten, Silver in eleven."""
    event = TEN + HOUR + timedelta(seconds=10)
    write_bronze(engine.store, [sample("bitcoin", event, delay=timedelta(seconds=-40))])
    assert [r["arrival_hour"] for r in rows(engine, "bronze.raw_prices")] == [TEN]
    silver.work(engine, [hour_key(TEN + HOUR)], step_inputs(NOW))
    assert [(r["hour"], r["last_updated_at"]) for r in rows(engine, PRICES)] == [(TEN + HOUR, event)]


def test_decimals_are_exact_in_the_table(engine: SailEngine) -> None:
    prices = ["0.000000000000000001", "1.9e-08", "123456789012345.123456789012345678", "61234.1"]
    caps = ["12345678901234567890", "99999999999999999999.999999999999999999", "1E-18", "0"]
    events = [TEN + i * MINUTE for i in range(4)]
    write_bronze(
        engine.store,
        [
            Record(e + MINUTE, message("bitcoin", e, p, market_cap_usd=c))
            for e, p, c in zip(events, prices, caps, strict=True)
        ],
    )
    silver.work(engine, [hour_key(TEN)], step_inputs(NOW))
    found = sorted(rows(engine, PRICES), key=lambda r: r["last_updated_at"])
    assert [(r["price_usd"], r["market_cap_usd"]) for r in found] == [
        (Decimal(p), Decimal(c)) for p, c in zip(prices, caps, strict=True)
    ]


def test_a_number_that_silver_cannot_hold_is_null_and_counted_and_does_not_cost_the_price(engine: SailEngine) -> None:
    event = TEN + MINUTE
    whole = Record(event + MINUTE, message("bitcoin", event, "7", market_cap_usd="1" + "0" * 31, change_7d_pct=1e25))
    write_bronze(engine.store, [whole, sample("ethereum", event)])
    silver.work(engine, [hour_key(TEN)], step_inputs(NOW))
    stored = {r["coin_id"]: r for r in rows(engine, PRICES)}
    assert (stored["bitcoin"]["price_usd"], stored["bitcoin"]["market_cap_usd"]) == (Decimal(7), None)
    result = silver.work_quarantine(engine, [hour_key(TEN)], step_inputs(NOW)).tables[QUARANTINE]
    partition = result.partitions[hour_key(TEN)]
    counted = {"change_7d_pct": 1, "market_cap_usd": 1}
    assert (partition.rows, partition.metadata["out_of_range"]) == (0, counted)
    outcome = next(c for c in partition.checks if c.name == silver.IN_RANGE)
    assert (outcome.passed, outcome.severity, outcome.metadata) == (False, "warn", counted)


# --- quarantine ---------------------------------------------------------------------------------------------------


def mixed() -> tuple[list[Record], dict[str, int]]:
    """An arrival hour with three valid records (two of one quote) and each reason at least once."""
    arrival = TEN + 5 * MINUTE

    def bad(**changed: Any) -> Record:
        headers = changed.pop("headers", {})
        return Record(arrival, message(**{"event": TEN, **changed}), headers=headers)

    records = [
        sample("bitcoin", TEN),
        sample("bitcoin", TEN, delay=2 * MINUTE),
        sample("ethereum", TEN),
        Record(arrival, b"\xff\xfe"),
        Record(arrival, "{oops"),
        bad(headers={"schema_version": "2"}),
        bad(symbol=...),
        bad(price="cheap"),
        bad(price="0"),
        bad(last_updated_at="noon"),
        bad(event=arrival + 2 * MINUTE),
        bad(coin_id="dogecoin"),
        bad(event=at("2023-12-31 23:00:00")),
        bad(coin_id="dogecoin", price="-1", headers={"schema_version": "2"}),
    ]
    doubled = {"unknown_coin", "non_positive_price", "unknown_schema_version"}
    return records, {reason: 2 if reason in doubled else 1 for reason in QUARANTINE_REASONS}


def test_every_record_is_valid_or_quarantined_with_all_its_reasons(engine: SailEngine) -> None:
    records, wanted = mixed()
    write_bronze(engine.store, records)
    key = hour_key(TEN)
    result = silver.work_quarantine(engine, [key, hour_key(TEN + HOUR)], step_inputs(NOW))
    stored = rows(engine, QUARANTINE)
    assert len(stored) == 11
    worst = [r["reasons"] for r in stored if len(r["reasons"]) > 1]
    assert worst == [["non_positive_price", "unknown_coin", "unknown_schema_version"]]
    found = checks(result, QUARANTINE, key)
    assert found["bronze_accounted_for"].passed
    assert found["bronze_accounted_for"].metadata == {"bronze": 14, "valid": 3, "quarantined": 11, "duplicates": 1}
    assert (found["quarantine_reasons"].passed, found["quarantine_reasons"].severity) == (False, "warn")
    assert found["quarantine_reasons"].metadata == wanted
    assert (found["has_rows"].passed, found["has_rows"].description) == (
        True,
        "14 records were examined, 11 quarantined",
    )
    told = result.tables[QUARANTINE].partitions[key].metadata
    assert (told["valid"], told["duplicates"], told["dedup_rate"]) == (3, 1, pytest.approx(1 / 3))

    nothing = checks(result, QUARANTINE, hour_key(TEN + HOUR))
    assert (nothing["has_rows"].passed, nothing["bronze_accounted_for"].passed) == (False, True)

    silver.work(engine, [key], step_inputs(NOW))
    assert {(r["coin_id"], r["offset"]) for r in rows(engine, PRICES)} == {("bitcoin", 0), ("ethereum", 1)}
    raw = {(r["partition"], r["offset"]): r for r in rows(engine, "bronze.raw_prices")}
    for row in stored:
        source = raw[row["partition"], row["offset"]]
        assert all(row[n] == source[n] for n in ("raw_json", "raw_bytes", "headers", "kafka_timestamp", "topic_id"))


def test_a_quarantine_without_rows_is_good_news(engine: SailEngine) -> None:
    write_bronze(engine.store, [sample("bitcoin", TEN)])
    found = checks(silver.work_quarantine(engine, [hour_key(TEN)], step_inputs(NOW)), QUARANTINE, hour_key(TEN))
    assert {name: c.passed for name, c in found.items() if not c.passed} == {}
    assert found["has_rows"].description == "1 records were examined, 0 quarantined"


@pytest.mark.parametrize(("parser", "lost_offset"), [("parse_plain", 0), ("parse_plain", 3), ("parse_bronze", 3)])
def test_a_lost_record_turns_the_balance_red(
    engine: SailEngine, monkeypatch: pytest.MonkeyPatch, parser: str, lost_offset: int
) -> None:
    """A parser that loses a valid or a refused record: the count of stored rows does not go through it."""
    parse = getattr(judging, parser)

    def forgetful(*args: Any) -> Any:
        return parse(*args).where(f"offset <> {lost_offset}")

    monkeypatch.setattr(judging, parser, forgetful)
    records = [sample("bitcoin", TEN + i * MINUTE) for i in range(3)]
    write_bronze(engine.store, [*records, Record(TEN + 5 * MINUTE, "{oops")])
    result = silver.work_quarantine(engine, [hour_key(TEN)], step_inputs(NOW))
    red = checks(result, QUARANTINE, hour_key(TEN))["bronze_accounted_for"]
    assert (red.passed, red.severity) == (False, "error")
    assert "4 records, but" in red.description
    assert "+1 unaccounted for" in red.description


# --- refusals and checks ------------------------------------------------------------------------------------------


def test_hours_whose_records_may_be_gone_are_refused(engine: SailEngine) -> None:
    assert RAW_PRICES.retention_days is not None
    write_bronze(engine.store, [sample("bitcoin", TEN)])
    too_late = TEN + timedelta(days=RAW_PRICES.retention_days)
    for work in (silver.work, silver.work_quarantine):
        with pytest.raises(SliceRefused):
            work(engine, [hour_key(TEN)], step_inputs(too_late))
    assert rows(engine, PRICES) == []


def test_a_closed_hour_does_not_vanish_without_rebuild(engine: SailEngine) -> None:
    """The coin is taken from the registry: its rows would go, which is refused unless it is said to be meant."""
    write_bronze(engine.store, [sample("bitcoin", TEN)])
    silver.work(engine, [hour_key(TEN)], step_inputs(NOW))
    others = CoinRegistry(c for c in step_inputs(NOW).coins if c.coin_id != "bitcoin")
    with pytest.raises(SliceRefused):
        silver.work(engine, [hour_key(TEN)], step_inputs(NOW, coins=others))
    assert len(rows(engine, PRICES)) == 1
    silver.work(engine, [hour_key(TEN)], step_inputs(NOW, coins=others, rebuild=True))
    assert rows(engine, PRICES) == []


def test_an_absent_coin_and_an_empty_hour_are_named(engine: SailEngine) -> None:
    write_bronze(engine.store, [sample("bitcoin", TEN), sample("ethereum", TEN)])
    coins = step_inputs(NOW).coins.retire("ethereum", active_to=TEN + HOUR / 2)
    result = silver.work(engine, [hour_key(TEN), hour_key(TEN + HOUR)], step_inputs(NOW, coins=coins))
    first, second = (checks(result, PRICES, hour_key(TEN + i * HOUR)) for i in (0, 1))
    # A coin that was retired within the hour is not asked for.
    assert first["all_coins_present"].metadata == {"absent": ["polygon-ecosystem-token"]}
    assert (first["all_coins_present"].passed, first["has_rows"].passed) == (False, True)
    assert second["all_coins_present"].metadata == {"absent": ["bitcoin", "polygon-ecosystem-token"]}
    assert not second["has_rows"].passed
    assert "silver/quarantine" in second["has_rows"].description


def test_history_fills_what_was_not_polled_over_midnight(engine: SailEngine) -> None:
    """Two days of replies, hours on both sides of midnight in one run; the live slot keeps its sample."""
    midnight = at("2024-05-02 00:00:00")
    points = [midnight - 10 * MINUTE, midnight - 4 * MINUTE, midnight + MINUTE]

    def reply(*moments: datetime) -> str:
        pairs = ", ".join(f"[{int(m.timestamp() * 1000)}, 100.5]" for m in moments)
        return '{"prices": [' + pairs + '], "market_caps": [], "total_volumes": []}'

    stored = history_rows(
        [("bitcoin", TEN, "5m", reply(*points[:2])), ("bitcoin", midnight, "5m", reply(points[2]))], fetched_at=NOW
    )
    engine.store.merge("bronze.market_history", stored, mode="upsert")
    write_bronze(engine.store, [sample("bitcoin", midnight - 2 * MINUTE, "7")])
    keys = [hour_key(midnight - HOUR), hour_key(midnight)]
    silver.work(engine, keys, step_inputs(NOW))
    found = {r["last_updated_at"]: (r["granularity"], r["price_usd"]) for r in rows(engine, PRICES)}
    assert found == {
        points[0]: ("5m", Decimal("100.5")),
        midnight - 2 * MINUTE: ("tick", Decimal(7)),
        points[2]: ("5m", Decimal("100.5")),
    }
    # What was fetched later than as_of was not known then.
    silver.work(engine, keys, step_inputs(NOW, as_of=NOW - HOUR, rebuild=True))
    assert [r["granularity"] for r in rows(engine, PRICES)] == ["tick"]
