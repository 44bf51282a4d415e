"""Landed files reach Bronze once, whatever happens to them on the way."""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crypto_assets.assets import bronze
from crypto_assets.contracts.slices import HOUR, hour_key
from crypto_assets.engine.base import StepFailed
from crypto_assets.engine.sail import SailEngine
from crypto_assets.log.files.folder import hour_folder
from crypto_assets.log.files.lines import encode
from crypto_assets_tests.assets.log_tools import MINUTE, TEN, price
from crypto_assets_tests.log.files import HEADERS, inputs, line, pick_up, put, red, stored, values

KEY = hour_key(TEN)


def text(event: datetime, coin: str = "bitcoin") -> str:
    return price(event, coin).decode()


def test_a_files_lines_become_records_with_everything_that_they_carry(engine: SailEngine, tmp_path: Path) -> None:
    odd = '{"coin_id": "bitcoin",  "name":"Bit\\u0063oin ₿", "extra":{"a":[1]}}'.encode()
    lines = [
        encode(TEN + MINUTE, "bitcoin", '{"a":"1","z":["2",null]}', odd),
        encode(TEN + MINUTE, None, "{}", None),
        encode(TEN + MINUTE, "k", "{}", b"\xff\x00"),
    ]
    put(tmp_path / "in", TEN, "a.jsonl", *lines)
    report = pick_up(engine, tmp_path / "in", [TEN])[KEY]
    rows = stored(engine, "message_key", "headers", "raw_json", "raw_bytes", "kafka_timestamp", "arrival_hour")
    got = rows.to_pylist()
    assert [r["message_key"] for r in got] == ["bitcoin", None, "k"]
    assert [r["headers"] for r in got] == ['{"a":"1","z":["2",null]}', "{}", "{}"]
    assert [r["raw_json"] for r in got] == [odd.decode(), None, None]
    assert [r["raw_bytes"] for r in got] == [None, None, b"\xff\x00"]
    assert {r["kafka_timestamp"] for r in got} == {TEN + MINUTE}
    assert {r["arrival_hour"] for r in got} == {TEN}
    assert [r["offset"] for r in got] == [0, 1, 2]
    assert report.rows == 3
    assert red(report) == {}


def test_a_raw_message_line_is_kept_as_it_came_and_has_no_headers(engine: SailEngine, tmp_path: Path) -> None:
    raw = json.dumps({"coin_id": "bitcoin", "crypto_assets_landing": "not ours", "added": 1})
    path = put(tmp_path / "in", TEN, "foreign.jsonl", raw.encode() + b"\r\n", b"\n", price(TEN) + b"\n")
    written = (TEN + 7 * MINUTE).timestamp()
    os.utime(path, (written, written))
    pick_up(engine, tmp_path / "in", [TEN])
    got = stored(engine, "raw_json", "headers", "message_key", "kafka_timestamp").to_pylist()
    assert [r["raw_json"] for r in got] == [raw, price(TEN).decode()]
    assert {(r["headers"], r["message_key"], r["kafka_timestamp"]) for r in got} == {(None, None, TEN + 7 * MINUTE)}
    assert [r["offset"] for r in got] == [0, 2], "an empty line leaves a hole, as a transaction marker does in Kafka"


SOUND = {"crypto_assets_landing": 1, "timestamp": "2024-01-05T10:00:00Z", "key": None, "headers": {}, "value": "x"}


@pytest.mark.parametrize(
    "change",
    [
        {"crypto_assets_landing": 2},
        {"timestamp": "2024-01-05T11:00:00Z"},
        {"timestamp": "2024-01-05T10:00:00"},
        {"headers": []},
        {"value": {}},
        {"added": 1},
    ],
)
def test_an_envelope_that_is_not_understood_is_kept_whole(engine: SailEngine, tmp_path: Path, change: dict) -> None:
    """Another version, a time beyond its hour, no zone, headers or value of another kind, a field of somebody's."""
    broken = json.dumps(SOUND | change)
    put(tmp_path / "in", TEN, "a.jsonl", broken.encode() + b"\n", json.dumps(SOUND).encode() + b"\n")
    pick_up(engine, tmp_path / "in", [TEN])
    assert values(engine) == sorted(["x", broken])


def test_a_file_delivered_twice_or_renamed_or_moved_is_the_same_file(engine: SailEngine, tmp_path: Path) -> None:
    folder, lines = tmp_path / "in", [line(TEN + MINUTE), line(TEN + MINUTE, "ethereum")]
    first = put(folder, TEN, "a.jsonl", *lines)
    put(folder, TEN, "copy.jsonl", *lines)
    assert pick_up(engine, folder, [TEN])[KEY].rows == 2
    first.rename(first.with_name("renamed.jsonl"))
    put(folder, TEN + HOUR, "again.jsonl", *lines)
    again = pick_up(engine, folder, [TEN, TEN + HOUR])
    assert again[KEY].rows == 2
    assert again[KEY].metadata["copies_ignored"] == 2
    assert again[hour_key(TEN + HOUR)].rows == 0
    assert Counter(values(engine)) == Counter([text(TEN + MINUTE), text(TEN + MINUTE, "ethereum")])


def test_half_of_a_file_waits_and_is_reported(engine: SailEngine, tmp_path: Path) -> None:
    folder, whole = tmp_path / "in", line(TEN + MINUTE)
    cut = put(folder, TEN, "cut.jsonl", whole, line(TEN + 2 * MINUTE)[:-20])
    put(folder, TEN, "b.jsonl.part", line(TEN + 3 * MINUTE))
    put(folder, TEN, "good.jsonl", line(TEN + 4 * MINUTE))
    running = pick_up(engine, folder, [TEN], now=TEN + 30 * MINUTE)[KEY]
    assert values(engine) == [text(TEN + 4 * MINUTE)]
    assert running.metadata["files_waiting"] == ["cut.jsonl", "b.jsonl.part"]
    assert red(running) == {}, "within its hour a file may still be being written"
    closed = pick_up(engine, folder, [TEN])[KEY]
    assert "cut.jsonl" in red(closed)["offsets_contiguous"]
    cut.write_bytes(whole + line(TEN + 2 * MINUTE))
    done = pick_up(engine, folder, [TEN])[KEY]
    assert red(done) == {}
    assert values(engine) == sorted(text(TEN + n * MINUTE) for n in (1, 2, 4))


def test_a_file_that_grows_in_place_is_read_on_from_where_it_was(engine: SailEngine, tmp_path: Path) -> None:
    folder, lines = tmp_path / "in", [line(TEN + n * MINUTE) for n in range(6)]
    for known in (1, 3, 6):
        put(folder, TEN, "growing.jsonl", *lines[:known])
        assert red(pick_up(engine, folder, [TEN])[KEY]) == {}
    put(folder, TEN, "all.jsonl", *lines, line(TEN + 6 * MINUTE))
    put(folder, TEN, "all-and-more.jsonl", *lines, line(TEN + 6 * MINUTE), line(TEN + 7 * MINUTE))
    pick_up(engine, folder, [TEN])
    assert values(engine) == sorted(text(TEN + n * MINUTE) for n in range(8))
    assert stored(engine).column("offset").to_pylist() == list(range(8))


def test_a_late_file_in_an_old_folder_is_found_by_a_later_hours_refresh(engine: SailEngine, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    put(folder, TEN, "a.jsonl", line(TEN + MINUTE))
    pick_up(engine, folder, [TEN])
    before = engine.store.version("bronze.raw_prices")
    assert before is not None
    put(folder, TEN, "late.jsonl", line(TEN - 90 * MINUTE, "ethereum"))
    put(folder, TEN + 2 * HOUR, "b.jsonl", line(TEN + 2 * HOUR + MINUTE))
    pick_up(engine, folder, [TEN + 2 * HOUR])
    late, own = engine.store.commits_after("bronze.raw_prices", before, 10)
    assert json.loads(late.metadata["touched_hours"]) == [hour_key(TEN - 2 * HOUR)]
    assert late.metadata["app_id"] == f"bronze/landing:2024-01-05-10/{KEY}"
    assert json.loads(own.metadata["touched_hours"]) == [hour_key(TEN + 2 * HOUR)]
    rows = stored(engine, "arrival_hour", "message_key").to_pylist()
    assert [(r["arrival_hour"], r["message_key"]) for r in rows] == [
        *((TEN, "bitcoin"), (TEN, "ethereum")),
        (TEN + 2 * HOUR, "bitcoin"),
    ]
    pick_up(engine, folder, [TEN + 2 * HOUR])
    assert engine.store.version("bronze.raw_prices") == before + 2


def test_an_old_hour_whose_files_did_not_change_is_not_examined(engine: SailEngine, tmp_path: Path) -> None:
    """What makes a refresh cheap: only an hour that was asked for is examined whatever its files' times are."""
    folder, tomorrow = tmp_path / "in", datetime.now(TEN.tzinfo) + timedelta(days=1)
    put(folder, TEN, "a.jsonl", line(TEN + MINUTE))
    pick_up(engine, folder, [TEN], now=tomorrow)
    put(folder, TEN, "before-the-commit.jsonl", line(TEN + 2 * MINUTE))
    pick_up(engine, folder, [TEN + HOUR], now=tomorrow)
    assert values(engine) == [text(TEN + MINUTE)]
    pick_up(engine, folder, [TEN], now=tomorrow)
    assert values(engine) == sorted([text(TEN + MINUTE), text(TEN + 2 * MINUTE)])


def test_a_folder_that_is_not_there_fails_the_step(engine: SailEngine, tmp_path: Path) -> None:
    asked = inputs(tmp_path / "in")
    (tmp_path / "in").rmdir()
    with pytest.raises(StepFailed, match="CRYPTO_ASSETS_LANDING"):
        bronze.work(engine, [KEY], asked)


def test_a_poll_lands_in_ops_polls(engine: SailEngine, tmp_path: Path) -> None:
    value = json.dumps({"poll_id": "replay-1", "outcome": "ok", "delivered": 3}).encode()
    put(tmp_path / "in", TEN, "a.jsonl", encode(TEN + MINUTE, "replay", HEADERS, value))
    result = bronze.work_polls(engine, [KEY], inputs(tmp_path / "in"))
    row = engine.store.read_arrow("ops.polls").to_pylist()[0]
    assert (row["poll_id"], row["outcome"], row["delivered"]) == ("replay-1", "ok", 3)
    assert row["topic"].startswith("landing:2024-01-05/10/")
    assert result.tables["ops.polls"].partitions[KEY].rows == 1


@pytest.mark.slow
def test_two_runs_at_once_store_every_file_once(tmp_path: Path) -> None:
    folder, lake, count = tmp_path / "in", str(tmp_path / "lake"), 12
    for n in range(count):
        put(folder, TEN, f"{n}.jsonl", line(TEN + n * MINUTE))

    def run(_number: int) -> None:
        pick_up(SailEngine(lake), folder, [TEN, TEN + HOUR])

    with ThreadPoolExecutor(4) as pool:
        for n in range(count, 2 * count):
            racing = [pool.submit(run, i) for i in range(3)]
            put(folder, TEN, f"{n}.jsonl", line(TEN + n * MINUTE))
            for future in racing:
                future.result()
    engine = SailEngine(lake)
    assert red(pick_up(engine, folder, [TEN])[KEY]) == {}
    assert values(engine) == sorted(text(TEN + n * MINUTE) for n in range(2 * count))


HOURS = [TEN + n * HOUR for n in range(3)]


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), count=st.integers(1, 30), looks=st.integers(1, 4))
def test_however_records_are_delivered_each_is_stored_once(seed: int, count: int, looks: int) -> None:
    """Any split into files, in any order, with copies, renames, moves, part files and looks of any hours between."""
    chance = random.Random(seed)
    records = [(chance.choice(HOURS), n) for n in range(count)]
    with tempfile.TemporaryDirectory() as place:
        folder, engine = Path(place) / "in", SailEngine(str(Path(place) / "lake"))
        groups: dict[tuple[datetime, int], list[bytes]] = {}
        for hour, n in records:
            groups.setdefault((hour, chance.randrange(4)), []).append(line(hour + n * MINUTE))
        deliveries = [(hour, lines) for (hour, _), lines in groups.items()]
        deliveries += chance.choices(deliveries, k=chance.randrange(4))
        chance.shuffle(deliveries)
        for number, (hour, lines) in enumerate(deliveries):
            if chance.random() < 0.3:
                # Half of it is there when somebody looks.
                name = chance.choice(["half.jsonl", "half.jsonl.part"])
                half = put(folder, hour, name, *lines[:-1], lines[-1][:10])
                pick_up(engine, folder, [hour])
                half.unlink()
            _deliver(folder, hour, lines, number, chance)
            if chance.random() < looks / len(deliveries):
                pick_up(engine, folder, chance.sample(HOURS, chance.randint(1, 3)))
        reports = pick_up(engine, folder, HOURS)
        assert Counter(values(engine)) == Counter(text(hour + n * MINUTE) for hour, n in records)
        assert {k: red(r) for k, r in reports.items() if r.rows} == {k: {} for k, r in reports.items() if r.rows}
        version = engine.store.version("bronze.raw_prices")
        pick_up(engine, folder, HOURS)
        assert engine.store.version("bronze.raw_prices") == version


def _deliver(folder: Path, hour: datetime, lines: list[bytes], number: int, chance: random.Random) -> None:
    """One delivery, whole in the end: at once, by a part file, or begun in place; some are then renamed or moved."""
    name = f"{chance.randrange(10**6)}-{number}.jsonl"
    how = chance.randrange(3)
    if how == 0:
        put(folder, hour, f"{name}.part", *lines[:-1], lines[-1][:10])
        (hour_folder(folder, hour) / f"{name}.part").unlink()
    elif how == 1:
        put(folder, hour, name, *lines[:-1], lines[-1][:10])
    path = put(folder, hour, name, *lines)
    if chance.random() < 0.3:
        path.rename(path.with_name(f"renamed-{number}.jsonl"))
    elif chance.random() < 0.2:
        copy = chance.choice(HOURS)
        if copy > hour:
            put(folder, copy, f"moved-{number}.jsonl", *lines)
