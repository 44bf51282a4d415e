"""`verify`, `status`, `doctor` and the source checks tell the truth about a landing home."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

from crypto_assets.assets.log_slices import landing
from crypto_assets.cli.doctor import log, machine
from crypto_assets.contracts.messages import POLL_SCHEMA
from crypto_assets.contracts.slices import HOUR, floor_hour
from crypto_assets.contracts.tables import RAW_PRICES
from crypto_assets.engine.sail import SailEngine
from crypto_assets.log.files.folder import list_hour
from crypto_assets.log.files.publisher import LandingPublisher
from crypto_assets.producer import source_health
from crypto_assets.settings import Settings
from crypto_assets.verify.audit import audit
from crypto_assets_tests.assets.log_tools import MINUTE
from crypto_assets_tests.builders import message, published
from crypto_assets_tests.log.files import line, pick_up, put

LAW = "bronze_holds_the_landed_files"


@pytest.fixture
def hour() -> datetime:
    """A closed hour within Bronze's retention."""
    return floor_hour(datetime.now(UTC)) - 5 * HOUR


def judged(engine: SailEngine, folder: Path) -> tuple[str, str]:
    """Outcome of the law of landed files, and what it shows."""
    report = audit(engine.lake, None, now=datetime.now(UTC), folders={"bronze.raw_prices": folder})
    found = next(f for f in report.findings if f.law == LAW)
    return found.outcome, " ".join([*found.examples, found.note])


def test_verify_compares_the_table_with_the_files(engine: SailEngine, tmp_path: Path, hour: datetime) -> None:
    folder = tmp_path / "in"
    for n in range(3):
        put(folder, hour, f"{n}.jsonl", line(hour + n * MINUTE), b'{"raw": %d}\n' % n)
    put(folder, hour, "cut.jsonl", b"half of")
    pick_up(engine, folder, [hour], now=datetime.now(UTC))
    outcome, told = judged(engine, folder)
    assert outcome == "holds"
    assert "cut.jsonl" in told
    put(folder, hour, "after.jsonl", line(hour + 9 * MINUTE))
    assert judged(engine, folder)[0] == "holds", "what came after the newest write is pending"
    stored = DeltaTable(f"{engine.lake}/bronze/raw_prices")
    copy = engine.store.read_arrow("bronze.raw_prices", where='"offset" = 0')
    stored.delete('"offset" = 1')
    outcome, told = judged(engine, folder)
    assert outcome == "broken"
    assert "not stored" in told
    write_deltalake(DeltaTable(f"{engine.lake}/bronze/raw_prices"), copy, mode="append")
    assert "stored more often than landed" in judged(engine, folder)[1]


def test_verify_sees_a_stored_value_that_its_file_does_not_have(
    engine: SailEngine, tmp_path: Path, hour: datetime
) -> None:
    folder = tmp_path / "in"
    put(folder, hour, "a.jsonl", line(hour), line(hour + MINUTE))
    pick_up(engine, folder, [hour], now=datetime.now(UTC))
    DeltaTable(f"{engine.lake}/bronze/raw_prices").update(updates={"raw_json": "'{}'"}, predicate='"offset" = 0')
    told = judged(engine, folder)[1]
    assert "not stored" in told
    assert "not in its file" in told


def test_the_lag_counts_files_not_read_and_records_not_covered(
    engine: SailEngine, tmp_path: Path, hour: datetime
) -> None:
    folder, now = tmp_path / "in", datetime.now(UTC)
    put(folder, hour, "a.jsonl", line(hour), line(hour + MINUTE))
    pick_up(engine, folder, [hour], now=now)
    second = timedelta(seconds=1)
    done = landing.pending(engine.store, RAW_PRICES, folder, hour + MINUTE + second, now)
    assert (done.oldest, done.records, done.waiting) == (None, 0, ())
    behind = landing.pending(engine.store, RAW_PRICES, folder, hour + second, now)
    assert (behind.oldest, behind.records) == (hour + MINUTE + second, 1)
    put(folder, hour - HOUR, "late.jsonl", line(hour - HOUR))
    put(folder, hour, "cut.jsonl", b"half of")
    late = landing.pending(engine.store, RAW_PRICES, folder, hour + MINUTE + second, now)
    assert (late.oldest, late.records, late.waiting) == (hour - HOUR + second, 1, ("cut.jsonl",))


def settings(home: Path) -> Settings:
    return Settings(_env_file=None, source="replay", home_path=home, transport="landing")  # type: ignore[call-arg]


def test_doctor_looks_at_folders_and_at_no_broker(tmp_path: Path, hour: datetime) -> None:
    home = settings(tmp_path / "home")
    now = datetime.now(UTC)
    assert {f.level for f in log.kafka(home, now)} == {"note"}
    assert list(machine.java(home)) == []
    folder = home.landing / home.prices_topic
    put(folder, hour, "cut.jsonl", b"half of")
    put(folder, hour, "odd.csv", b"a,b\n")
    told = {f.level: f.found for f in log.kafka(home, now)}
    assert "cut.jsonl" in told["warn"]
    assert "odd.csv" in told["warn"]
    put(folder, floor_hour(now) + HOUR, "a.jsonl", line(now))
    assert "has not begun" in {f.level: f.found for f in log.kafka(home, now)}["error"]


def test_the_source_checks_judge_the_newest_landed_polls(tmp_path: Path, hour: datetime) -> None:
    home = settings(tmp_path / "home")
    assert source_health.judge_newest(home)["polls_recorded"][0] is False
    with LandingPublisher(
        home.landing, prices_topic=home.prices_topic, polls_topic=home.polls_topic, source="replay", virtual=True
    ) as publisher:
        published(publisher, [message("bitcoin", hour)], poll_id="p-0", cadence_s=60, arrival=hour)
        for n in range(4):
            at = (hour + n * HOUR).isoformat().replace("+00:00", ".000Z")
            poll = dict.fromkeys(POLL_SCHEMA["required"]) | {
                "poll_id": f"p-{n}",
                "started_at": at,
                "finished_at": at,
                "source": "replay",
                "outcome": "ok",
                "coins_asked": 1,
                "coins_returned": 1,
                "coins_unchanged": 1,
                "coins_missing": [],
                "coins_absent": [],
                "problems": [],
                "nulled": [],
                "quote_age_s": n * 3600.0,
                "latency_ms": 1.0,
                "cadence_s": 60.0,
                "delivered": 0,
            }
            publisher.enqueue_poll(poll, arrival=hour + n * HOUR)
            publisher.flush()
    found = source_health.judge_newest(home)
    assert found["polls_recorded"] == (True, "newest poll p-3")
    assert found["quotes_move"][0] is False
    assert f"{3 * 3600} s old" in found["quotes_move"][1]
    path = list_hour(home.landing / home.polls_topic, hour + 3 * HOUR).files[0].path
    assert json.loads(path.read_text(encoding="utf-8"))["key"] == "replay"
