"""Commands on a home whose tables are in a workspace: never a good answer about tables that were not looked at."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from crypto_assets.cli import coins, demo, maintain, parity, status, verify
from crypto_assets.cli.doctor import environment, tables
from crypto_assets.cli.instance import open_instance
from crypto_assets.contracts.tables import TABLES
from crypto_assets.home import open_home
from crypto_assets.settings import Settings
from crypto_assets.status import report as report_of
from crypto_assets.status.table_facts import StoredFacts, ToldFacts
from crypto_assets.storage.delta_rs import DeltaRsStore

if TYPE_CHECKING:
    from crypto_assets_tests.home_fixtures import SmallHome

NOW = datetime.now(UTC).replace(microsecond=0)
HOST = "https://dbc-1.cloud.databricks.com"


def settings_of(path: Path, **changed: Any) -> Settings:
    plain = {"source": "simulator", "home_path": path, "target": "databricks", "catalog": "prices_prod"}
    return Settings(_env_file=None, **{**plain, **changed})  # type: ignore[call-arg]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = settings_of(tmp_path / "home")
    open_home(made)
    return made


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with open_instance(open_home(settings)) as made:
        yield made


def no_spark() -> Any:
    raise AssertionError("no Spark session is needed")


def collect(settings: Settings, instance: dg.DagsterInstance) -> report_of.StatusReport:
    return report_of.collect(settings, instance, DeltaRsStore(settings.lake, no_spark), lambda: NOW)


def test_verify_is_refused_without_a_folder_of_tables(settings, tmp_path):
    with pytest.raises(ValueError, match=r"nothing was audited.*catalog prices_prod.*CRYPTO_ASSETS_LAKE"):
        verify.run(settings, now=NOW, as_json=False)
    empty = settings.model_copy(update={"lake_uri": str(tmp_path)})
    with pytest.raises(ValueError, match="has no bronze/raw_prices"):
        verify.run(empty, now=NOW, as_json=False)


def test_maintain_tidies_the_home_and_says_who_tidies_the_tables(settings, capsys):
    assert maintain.run(settings, now=NOW, apply=False, as_json=True) == 0
    rows = {r["part"]: r["result"] for r in json.loads(capsys.readouterr().out)}
    assert "not tidied here: job maintain_tables" in rows["tables of catalog prices_prod"]
    assert "dagster runs" in rows
    assert not set(rows) & set(TABLES)
    assert maintain.run(settings, now=NOW, apply=True, as_json=False) == 0
    assert "-j maintain_tables" in capsys.readouterr().out.replace("\n", "")


def test_maintain_ends_with_1_when_a_part_failed(settings, monkeypatch, capsys):
    def full(*_args: Any, **_kwargs: Any) -> str:
        raise OSError("disk full")

    monkeypatch.setattr("crypto_assets.orchestration.maintenance.remove_stray_files", full)
    assert maintain.run(settings, now=NOW, apply=False, as_json=True) == 1
    assert "OSError: disk full" in capsys.readouterr().out


@pytest.mark.parametrize("engines", [("databricks", "databricks-serverless"), ("local", "databricks")])
def test_parity_compares_no_workspace(settings, engines):
    with pytest.raises(ValueError, match=f"{engines[1]}.*local and spark"):
        parity.run(settings, "2024-05-01-00:00", engines, keep=None, as_json=False)


def test_the_demo_is_refused(monkeypatch):
    monkeypatch.setenv("CRYPTO_ASSETS_TARGET", "databricks-serverless")
    with pytest.raises(ValueError, match=r"in a workspace.*local or spark"):
        demo.demo_settings(Settings(source="replay"), NOW)


def test_a_retired_coin_is_no_row_of_a_lake_that_nobody_reads(settings, capsys):
    coin = open_home(settings).registry().to_records()[0]["coin_id"]
    coins.retire(settings, coin, now=NOW)
    assert "gold/dim_coin is in the workspace" in capsys.readouterr().out.replace("\n", " ")
    assert not Path(settings.lake).exists()


def materialized(instance: dg.DagsterInstance, asset: str, partition: str | None, **metadata: Any) -> None:
    event = dg.AssetMaterialization(asset.split("/"), partition=partition, metadata=metadata)
    instance.report_runless_asset_event(event)


def test_status_shows_what_the_last_runs_said_and_says_so(settings, instance, capsys):
    seen = NOW - timedelta(minutes=30)
    materialized(instance, "gold/bars_1m", "2024-05-01-12:00", **{"dagster/partition_row_count": 600})
    told = {"dagster/partition_row_count": 90, "run_newest_event": seen.isoformat()}
    materialized(instance, "gold/bars_1m", "2024-05-01-13:00", **told)
    materialized(instance, "gold/dim_coin", None, **{"dagster/row_count": 10})
    report = collect(settings, instance)
    found = {a.asset: a for a in report.assets}
    bars, coin, silver = found["gold/bars_1m"], found["gold/dim_coin"], found["silver/prices"]
    assert (bars.rows, bars.rows_of, bars.newest_event, bars.event_age_s) == (90, "2024-05-01-13:00", seen, 1800)
    assert (coin.rows, coin.rows_of, coin.newest_event) == (10, None, None)
    assert (silver.rows, silver.last_run) == (None, None)
    assert report.as_of is not None
    assert "catalog prices_prod" in report.as_of
    assert report.lag_unknown_because == "no run of gold/latest_prices has reported how far it reaches"
    status.render(report)
    printed = capsys.readouterr().out
    assert re.search(r"90 in\s.*2024-05-01-13:00", printed, re.DOTALL)
    assert "last run wrote" in printed.replace("\n", " ")


def test_lag_of_landed_records_is_at_most_the_age_of_what_is_covered(tmp_path, capsys):
    landing = settings_of(tmp_path / "landed", transport="landing")
    with open_instance(open_home(landing)) as instance:
        covered = {"covered_offsets": "{}", "covered_until": (NOW - timedelta(seconds=70)).isoformat()}
        materialized(instance, "gold/latest_prices", None, **covered)
        report = collect(landing, instance)
    assert (report.lag_s, report.lag_records) == (70, None)
    status.render(report)
    assert "70.0 s (at most)" in capsys.readouterr().out


def test_events_and_tables_say_the_same_of_one_home(small_home: SmallHome):
    stored = StoredFacts(small_home.settings.lake)
    told = ToldFacts(small_home.instance, stored)
    small_home.run("gold/latest_prices", [])
    assert told.covered() == stored.covered()
    assert told.covered().offsets
    for name in ("silver.prices", "gold.bars_1m", "features.price_features"):
        newest, whole = told.of(TABLES[name]), stored.of(TABLES[name])
        assert newest.partition == small_home.hours[-1], name
        assert newest.newest_event == whole.newest_event, name
        assert newest.rows is not None
        assert whole.rows is not None
        assert 0 < newest.rows < whole.rows, name
    latest = TABLES["gold.latest_prices"]
    assert told.of(latest) == replace(stored.of(latest), partition=None)


@pytest.mark.parametrize(
    ("changed", "found", "fix"),
    [
        ({"databricks_token": "t"}, "DATABRICKS_HOST is not set", "the address of the workspace"),
        ({"databricks_host": HOST}, "no credentials", "set DATABRICKS_CLIENT_ID"),
        ({"databricks_host": HOST, "databricks_client_id": "c", "databricks_token": "t"}, "belong together", "both"),
        ({"databricks_host": HOST, "databricks_token": "t"}, "KAFKA_BOOTSTRAP_SERVERS is not set", "address of"),
        ({"databricks_host": HOST, "databricks_token": "t", "transport": "landing"}, "CRYPTO_ASSETS_LANDING is not set",
         "/Volumes/prices_prod/bronze/landing"),
    ],
)  # fmt: skip
def test_doctor_finds_what_keeps_steps_from_being_launched(tmp_path, changed, found, fix):
    findings = list(environment.databricks(settings_of(tmp_path, **changed)))
    assert {f.level for f in findings} == {"error"}
    assert all(f.fix for f in findings)
    assert any(found in f.found and fix in f.fix for f in findings), findings


def test_doctor_takes_a_service_principal_for_credentials(tmp_path):
    settings = settings_of(
        tmp_path,
        databricks_host=HOST,
        databricks_client_id="application",
        databricks_client_secret="S3CRET",
        kafka_bootstrap_servers="pkc-1.confluent.cloud:9092",
    )
    (finding,) = environment.databricks(settings)
    assert (finding.level, HOST in finding.found) == ("ok", True)
    assert {f.level for f in tables.tracking(settings)} == {"ok"}
    assert [f.level for f in environment.credentials(settings) if "DATABRICKS" in f.found] == []
    assert list(environment.databricks(settings.model_copy(update={"target": "spark"}))) == []
