"""Answers as of an earlier time: the version that was current by the times of the commits."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from crypto_assets.storage import delta_files
from crypto_assets_tests.serving.lakes import NOON, SLOT, Lake, bar, price


def _committed(lake: Lake, table: str) -> list[datetime]:
    """Times of all commits."""
    return [commit.at for commit in delta_files.read_commits(lake.store.path(table), -1, 100)]


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _next_millisecond(lake: Lake, table: str) -> None:
    """Wait until a commit has another time than the newest one."""
    newest = _committed(lake, table)[-1]
    while datetime.now(UTC) - newest < timedelta(milliseconds=2):
        time.sleep(0.001)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Three commits of newest prices and of bars, with different closes."""
    lake = Lake(tmp_path / "home")
    for number in (1, 2, 3):
        lake.merge("gold.latest_prices", [price("bitcoin", str(number))])
        lake.replace("gold.bars_5m", [bar("bitcoin", NOON + i * SLOT, str(number)) for i in range(number)])
        _next_millisecond(lake, "gold.latest_prices")
    lake.look()
    return lake


def _prices(lake: Lake, moment: datetime) -> tuple[list[Decimal], dict[str, Any]]:
    answer = lake.get("/v1/prices/latest", params={"as_of": _text(moment)})
    return [row["price_usd"] for row in answer["data"]], answer["provenance"]


def test_the_version_of_the_time_is_answered(lake: Lake) -> None:
    times = _committed(lake, "gold.latest_prices")[1:]  # version 0 creates the table
    for number, moment in enumerate(times, 1):
        found, provenance = _prices(lake, moment)
        assert found == [Decimal(number)]
        assert (provenance["as_of_kind"], provenance["table_version"]) == ("snapshot", number)
        assert _prices(lake, moment + timedelta(microseconds=999))[0] == [Decimal(number)]
    bars = lake.get("/v1/bars/bitcoin", params={"as_of": _text(times[1])})
    stored = lake.store.read_arrow("gold.bars_5m", version=bars["provenance"]["table_version"])
    assert len(bars["data"]) == stored.num_rows == 1


def test_a_copied_home_answers_the_same(lake: Lake, tmp_path: Path) -> None:
    times = _committed(lake, "gold.latest_prices")
    shutil.copytree(lake.home.path, tmp_path / "copy", copy_function=shutil.copyfile)  # files are of now
    copy = Lake(tmp_path / "copy")
    copy.look()
    assert _prices(copy, times[2])[0] == [Decimal(2)]


def test_before_the_first_commit_there_is_nothing(lake: Lake) -> None:
    before = _committed(lake, "gold.latest_prices")[0] - timedelta(seconds=1)
    for path in ("/v1/prices/latest", "/v1/bars/bitcoin"):
        problem = lake.get(path, 404, params={"as_of": _text(before)})
        assert "began at" in problem["detail"]


def test_of_a_cleaned_version_the_rows_that_were_there_are_answered(lake: Lake) -> None:
    moment = _committed(lake, "gold.bars_5m")[2]  # close 2, two bars
    known = [NOON + SLOT, moment + timedelta(hours=1)]  # of two bars the second came later
    bars = [bar("bitcoin", NOON + i * SLOT, "3", available_at=at) for i, at in enumerate(known)]
    lake.replace("gold.bars_5m", bars)
    _clean(lake, "gold.bars_5m")
    lake.look()
    answer = lake.get("/v1/bars/bitcoin", params={"as_of": _text(moment)})
    assert answer["provenance"]["as_of_kind"] == "available"
    assert [row["close"] for row in answer["data"]] == [3]
    assert answer["data"][0]["window_start"] == _text(NOON)


def test_a_cleaned_version_of_rows_that_are_rewritten_is_gone(lake: Lake) -> None:
    moment = _committed(lake, "gold.latest_prices")[2]
    _clean(lake, "gold.latest_prices")
    problem = lake.get("/v1/prices/latest", 410, params={"as_of": _text(moment)})
    assert "cleaned up" in problem["detail"]


def test_a_time_without_zone_is_refused(lake: Lake) -> None:
    refused = lake.get("/v1/prices/latest?as_of=2026-11-29T12:00:00", 422)
    assert refused["errors"] == [{"where": "query.as_of", "problem": "Input should have timezone info"}]


def _clean(lake: Lake, table: str) -> None:
    """Remove the files that the newest version does not list, as maintenance does after six hours."""
    handle = delta_files.open_table(lake.store.path(table))
    assert handle is not None
    handle.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
