"""What a home takes on its disk."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from crypto_assets.serving.disk import EVERY_S, Disk

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def write(path: Path, size: int, age: timedelta) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    moment = (NOW - age).timestamp()
    os.utime(path, (moment, moment))


def test_it_counts_the_home_and_a_lake_elsewhere_and_what_is_new(tmp_path: Path) -> None:
    write(tmp_path / "home" / "kafka" / "log", 1_000, timedelta(days=3))
    write(tmp_path / "home" / "state.json", 10, timedelta(hours=1))
    write(tmp_path / "lake" / "gold" / "part", 200, timedelta(hours=23))
    write(tmp_path / "other", 5_000, timedelta(0))
    found = Disk(tmp_path / "home", tmp_path / "lake").use(NOW)
    assert (found.home_bytes, found.written_24h_bytes) == (1_210, 210)
    assert found.free_bytes > 0
    within = Disk(tmp_path, tmp_path / "lake").use(NOW)
    assert within.home_bytes == 6_210


def test_it_measures_again_after_a_while_alone(tmp_path: Path) -> None:
    disk = Disk(tmp_path, tmp_path / "lake")
    assert disk.use(NOW).home_bytes == 0
    write(tmp_path / "file", 7, timedelta(0))
    assert disk.use(NOW + timedelta(seconds=EVERY_S - 1)).home_bytes == 0
    assert disk.use(NOW + timedelta(seconds=EVERY_S)).home_bytes == 7
