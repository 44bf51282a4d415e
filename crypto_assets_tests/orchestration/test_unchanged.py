"""What need not be made again, on a filled home with real Kafka, Delta and Dagster: what each kind of change makes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from crypto_assets.assets.card import assets_of
from crypto_assets.cli.runs import Outcome, Scheduled, present
from crypto_assets.contracts.slices import HOUR, Slice, hour_key, hour_keys
from crypto_assets.contracts.tables import BARS_1H
from crypto_assets.definitions import build_definitions
from crypto_assets.market.coins import CoinRegistry
from crypto_assets.orchestration import shell, topics, unchanged
from crypto_assets_tests.home_fixtures import SmallHome

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

REFRESH_ASSETS, PRESENT = assets_of("refresh"), present()
HOURLY = tuple(a for a in REFRESH_ASSETS if a not in PRESENT)
BARS = ("gold/bars_1h", "gold/bars_1m", "gold/bars_5m")


@contextmanager
def _quiet(_text: str) -> Iterator[None]:
    yield


def run(home: SmallHome, hours: Sequence[str], days: Sequence[str] = ()) -> Outcome:
    done = Scheduled(home.defs, home.instance, home.settings, _quiet).run(hours, days, datetime.now(UTC))
    assert done.failed == []
    return done


def plan(home: SmallHome, hours: Sequence[str], defs: dg.Definitions | None = None, coins=None) -> unchanged.Plan:
    return unchanged.plan(
        home.settings,
        home.instance,
        defs.resolve_asset_graph() if defs else home.graph,
        home.engine.store,
        {a: [] if a in PRESENT else hours for a in REFRESH_ASSETS},
        home.home.registry() if coins is None else coins,
        datetime.now(UTC),
    )


def stale(found: unchanged.Plan) -> dict[str, list[str]]:
    return {k.to_user_string(): sorted(v) for k, v in found.stale.items()}


def newest_id(home: SmallHome) -> int:
    return max(r.storage_id for r in home.instance.get_run_records(limit=1))


def made_since(home: SmallHome, run_id: int) -> dict[str, set[str]]:
    """Partitions by asset that later runs made."""
    found: dict[str, set[str]] = {}
    for record in home.instance.get_run_records(limit=50):
        if record.storage_id <= run_id:
            continue
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        for entry in home.instance.get_records_for_run(record.dagster_run.run_id, of_type=kind).records:
            event = entry.event_log_entry.get_dagster_event()
            assert event.asset_key is not None
            found.setdefault(event.asset_key.to_user_string(), set()).add(event.partition or unchanged.ANY)
    return found


@pytest.fixture
def hours(small_home: SmallHome) -> list[str]:
    """The newest contiguous hours, all of them made."""
    return small_home.hours[-5:]


def test_what_was_made_is_not_made_again_and_that_is_recorded(small_home, hours):
    assert plan(small_home, hours).stale == {}
    run(small_home, hours)  # the assets without partitions, which the home has not made yet
    before, rows = newest_id(small_home), small_home.everything()
    again = run(small_home, hours)
    assert (again.runs, again.unchanged, newest_id(small_home)) == (0, again.partitions, before)
    assert "nothing is made again" in again.text
    assert small_home.everything() == rows
    seen = small_home.instance.fetch_observations(dg.AssetKey(["silver", "prices"]), limit=1).records[0]
    assert seen.event_log_entry.get_dagster_event().asset_observation_data.asset_observation.description == (
        "5 of 5 partitions would come out as they are and were not made again"
    )


def test_a_late_record_makes_its_hour_and_what_reads_it_and_nothing_else(small_home, hours):
    arrival = small_home.next_hour()
    hours = hour_keys(Slice(small_home.event_hour + 25 * HOUR, arrival + HOUR))
    late = small_home.hour(26)
    small_home.send_late(arrival, arrival + timedelta(minutes=5), "7000.5")
    run(small_home, hours)
    assert plan(small_home, hours).stale == {}
    before = newest_id(small_home)
    small_home.send_late(
        small_home.event_hour + 26 * HOUR + timedelta(minutes=7), arrival + timedelta(minutes=10), "1.5"
    )
    done = run(small_home, hours)
    made = made_since(small_home, before)
    assert done.runs >= 2
    assert made["bronze/raw_prices"] == made["silver/quarantine"] == {hour_key(arrival)}
    assert made["silver/prices"] == {late}
    assert all(made[bars] == {late, hour_key(arrival)} for bars in BARS)  # the second: it is open, and time went on
    assert made["features/price_features"] <= {h for h in hours if h >= late}
    assert late in made["features/price_features"]
    assert "ops/polls" not in made
    assert plan(small_home, hours).stale == {}
    rows = small_home.everything()
    small_home.run("refresh", hours)  # everything again: it comes out as it is
    assert small_home.everything() == rows


def test_after_an_outage_only_the_hours_that_lack_something_are_made(small_home, hours):
    running = small_home.next_hour()
    hours = hour_keys(Slice(small_home.event_hour + 25 * HOUR, running + HOUR))
    for minutes in (1, 6):
        at = running + timedelta(minutes=minutes)
        small_home.send_late(at, at, "7000.5")
    run(small_home, hours)
    before = newest_id(small_home)
    for minutes in range(11, 41, 5):
        at = running + timedelta(minutes=minutes)
        small_home.send_late(at, at, f"70{minutes}.5")
        for topic in (topics.PRICES, topics.POLLS):  # as the sensor of a home that runs
            small_home.instance.report_runless_asset_event(dg.AssetMaterialization(topic))
    done = run(small_home, hours)
    made = {asset: keys for asset, keys in made_since(small_home, before).items() if asset not in PRESENT}
    assert {"bronze/raw_prices", "silver/prices", *BARS, "features/price_features"} <= set(made)
    assert set().union(*made.values()) == {hour_key(running)}
    assert done.unchanged >= (len(hours) - 1) * len(HOURLY)
    assert plan(small_home, hours).stale == {}


def test_a_changed_code_version_makes_its_table(small_home, hours, monkeypatch):
    before = small_home.graph.get(dg.AssetKey(["gold", "bars_1h"])).code_version
    of = shell.code_version
    monkeypatch.setattr(shell, "code_version", lambda step, made: "99" if made is BARS_1H else of(step, made))
    found = plan(small_home, hours, build_definitions(small_home.settings))
    assert stale(found) == {"gold/bars_1h": hours}
    assert set(found.why()) == {f"its code version changed from {before} to 99"}


def test_another_basket_makes_everything(small_home, hours):
    found = plan(small_home, hours, coins=CoinRegistry(small_home.home.registry().coins[:2]))
    assert stale(found) == {a: [unchanged.ANY] if a in PRESENT else hours for a in REFRESH_ASSETS}


def test_rows_that_somebody_deleted_are_made_again(small_home, hours):
    from deltalake import DeltaTable

    rows = small_home.everything()
    folder = Path(small_home.settings.lake) / "silver" / "prices"
    DeltaTable(str(folder)).delete(f"hour = '{small_home.event_hour + 27 * HOUR:%Y-%m-%dT%H:%M:%SZ}'")
    found = plan(small_home, hours)
    assert stale(found)["silver/prices"] == hours  # the commit does not say which rows it took
    assert any(why.startswith("its rows were changed by version") for why in found.why())
    run(small_home, hours)
    assert small_home.everything() == rows
    assert plan(small_home, hours).stale == {}


def test_a_table_that_is_another_one_is_made_again(small_home, hours):
    run(small_home, small_home.hours[:3])  # other modules sent late records of these hours to the same topic
    rows = small_home.rows("gold.bars_1h")
    shutil.rmtree(Path(small_home.settings.lake) / "gold" / "bars_1h")
    found = plan(small_home, hours)
    assert stale(found)["gold/bars_1h"] == hours
    assert found.stale[dg.AssetKey(["gold", "bars_1h"])][hours[0]] == "gold.bars_1h is not the table that was written"
    run(small_home, small_home.hours[:3])
    run(small_home, hours)
    assert set(rows) >= set(small_home.rows("gold.bars_1h"))
    assert plan(small_home, hours).stale == {}


def test_what_a_lost_run_was_to_make_is_made(small_home, hours):
    job = small_home.defs.resolve_job_def("refresh").get_subset(asset_selection={dg.AssetKey(["gold", "bars_1m"])})
    lost = small_home.instance.create_run_for_job(
        job,
        tags={"dagster/partition": hours[1]},
        asset_selection=frozenset({dg.AssetKey(["gold", "bars_1m"])}),
    )
    small_home.instance.report_run_failed(lost, "its process was killed")
    found = plan(small_home, hours)
    assert stale(found) == {"gold/bars_1m": [hours[1]]}
    assert list(found.why()) == ["a run that was to make it did not"]


def test_without_a_log_nothing_that_is_read_from_it_counts_as_unchanged(small_home, hours):
    small_home.settings = small_home.settings.model_copy(update={"kafka_topic": "no-such-topic"})
    found = plan(small_home, hours)
    assert stale(found)["bronze/raw_prices"] == hours
    assert "the contents of the log are unknown" in found.stale[dg.AssetKey(["bronze", "raw_prices"])][hours[0]]
