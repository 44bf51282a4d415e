"""The state of the pipeline: written by the alert sensor, served until it is too old to say anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import dagster as dg
import pytest

from crypto_assets.cli.instance import open_instance
from crypto_assets.files import write_atomic
from crypto_assets.serving.state import OLD_S, StateFile
from crypto_assets.status.report import STATE_FILE, WRITTEN_EVERY_S, write_state
from crypto_assets_tests.serving.lakes import Lake, price


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    # Without a broker, the lag of files is measured.
    lake = Lake(tmp_path / "home", transport="landing")
    lake.merge("gold.latest_prices", [price("bitcoin", "1")])
    return lake


@pytest.fixture
def instance(lake: Lake) -> Iterator[dg.DagsterInstance]:
    with open_instance(lake.home) as instance:
        yield instance


def test_the_report_that_is_written_is_served_while_it_is_new(lake: Lake, instance: dg.DagsterInstance) -> None:
    lake.look()
    assert lake.get("/v1/status")["data"]["state"].startswith("state unknown: nothing reports it")
    write_state(lake.settings, instance, lake.store, partial(datetime.now, UTC))
    lake.look()
    found = lake.get("/v1/status")["data"]
    assert found["state"] == found["report"]["verdict"]
    assert {asset["asset"] for asset in found["report"]["assets"]} >= {"gold/latest_prices", "silver/prices"}
    assert found["tables"] == {"gold.latest_prices": 1}
    assert lake.get("/v1/board")["data"]["state"]["report"]["verdict"] == found["state"]


def test_an_old_report_says_nothing_about_the_present(lake: Lake) -> None:
    written = datetime.now(UTC) - timedelta(seconds=OLD_S + 1)
    write_atomic(lake.home.path / STATE_FILE, json.dumps({"verdict": "ok", "written_at": written.isoformat()}))
    lake.look()
    assert lake.get("/v1/status")["data"]["state"].startswith("state unknown since ")
    assert lake.get("/v1/prices/latest")["provenance"]["freshness"] == "unknown"


@pytest.mark.parametrize(("promised", "freshness"), [(1e9, "kept"), (1.0, "broken")])
def test_freshness_is_the_age_against_the_promise(lake: Lake, promised: float, freshness: str) -> None:
    report = {"verdict": "ok", "promised_s": promised, "written_at": datetime.now(UTC).isoformat()}
    write_atomic(lake.home.path / STATE_FILE, json.dumps(report))
    lake.look()
    assert lake.get("/v1/prices/latest")["provenance"]["freshness"] == freshness


def test_a_file_that_is_no_report_is_no_state(tmp_path: Path) -> None:
    state = StateFile(tmp_path)
    for text in ("", "[1]", '{"verdict": "ok"}', '{"written_at": "yesterday"}'):
        (tmp_path / "status.json").write_text(text, encoding="utf-8")
        state.look()
        assert state.state.report is None, text
    (tmp_path / "status.json").unlink()
    assert state.look()


def test_the_report_is_written_at_most_every_few_seconds(lake: Lake, instance: dg.DagsterInstance) -> None:
    now = datetime.now(UTC)
    write_state(lake.settings, instance, lake.store, lambda: now)
    path = lake.home.path / STATE_FILE
    first = path.read_text(encoding="utf-8")
    write_state(lake.settings, instance, lake.store, lambda: now + timedelta(seconds=1))
    assert path.read_text(encoding="utf-8") == first
    write_state(lake.settings, instance, lake.store, lambda: now + timedelta(seconds=WRITTEN_EVERY_S + 1))
    assert path.read_text(encoding="utf-8") != first
