"""Late records: which partitions they restate, and that nothing else changes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from crypto_assets.assets import bronze
from crypto_assets.contracts.slices import DAY, HOUR, hour_key
from crypto_assets.engine.inputs import StepInputBuilder
from crypto_assets.orchestration import restatement
from crypto_assets.orchestration.restatement_sensor import pending_hours
from crypto_assets.storage.base import Commit

if TYPE_CHECKING:
    from crypto_assets_tests.home_fixtures import SmallHome

MINUTE = timedelta(minutes=1)
SILVER = dg.AssetKey(["silver", "prices"])


def bronze_version(home: SmallHome) -> int:
    version = home.engine.store.version("bronze.raw_prices")
    assert version is not None
    return version


def tick(home: SmallHome, cursor: str | None, target: str = "local") -> Any:
    """The sensor's tick as the daemon of a target has it: run_requests, skip_message, cursor."""
    context = dg.build_sensor_context(
        instance=home.instance,
        cursor=cursor,
        repository_def=home.repository,
        resources={
            "engine": home.engine,
            "step_inputs": StepInputBuilder(home.settings.model_copy(update={"target": target})),
        },
    )
    return home.defs.resolve_sensor_def("restatement").evaluate_tick(context)


def target(request: dg.RunRequest) -> dict[str, list[str]]:
    """What a backfill request asks for, by asset."""
    assert request.asset_graph_subset is not None
    found: dict[str, list[str]] = {}
    for key, partition in request.asset_graph_subset.iterate_asset_partitions():
        assert partition is not None
        found.setdefault(key.to_user_string(), []).append(partition)
    return {key: sorted(partitions) for key, partitions in found.items()}


@dataclass
class Restated:
    """One late record, from its arrival to the end of what it restated."""

    home: SmallHome
    event: datetime
    ingested: dict[str, list[tuple]]
    result: Any
    cursor: int
    after: dict[str, list[tuple]]

    def changed_hours(self, table: str) -> set[str]:
        """Hours of rows that are in one state and not in the other."""
        before, after = map(repr, self.ingested[table]), map(repr, self.after[table])
        differing = set(before) ^ set(after)
        return self.home.hours_of(
            table, [r for r in (*self.ingested[table], *self.after[table]) if repr(r) in differing]
        )


@pytest.fixture(scope="module")
def restated(small_home: SmallHome) -> Restated:
    """A record 30 hours late or more: published, read into Bronze by a run, found by the sensor, restated by runs."""
    home = small_home
    event = home.event_hour + 20 * MINUTE - timedelta(milliseconds=500)  # the newest quote of its 5-minute slot
    cursor = bronze_version(home)
    arrival = home.next_hour() + 10 * MINUTE
    home.send_late(event, arrival, "9999.5")
    home.run("bronze/raw_prices", [hour_key(arrival)])
    ingested = home.everything()
    for day in home.days:
        trained = dg.AssetMaterialization(["ml", "anomaly_model"], partition=day)
        home.instance.report_runless_asset_event(trained)
    result = tick(home, str(cursor))
    wanted = target(result.run_requests[0])
    order = [key for key in (restatement.ORIGIN, *restatement.restated()) if key.to_user_string() in wanted]
    home.run_partitions({key: wanted[key.to_user_string()] for key in order})
    return Restated(home, event, ingested, result, cursor, home.everything())


def test_one_backfill_of_exactly_the_touched_hour_and_what_reads_it(restated: Restated):
    home = restated.home
    (request,) = restated.result.run_requests
    readers = [home.hour(n) for n in (0, 1, 2, 25, 26)]
    assert target(request) == {
        "silver/prices": [home.hour(0)],
        "gold/bars_1m": [home.hour(0)],
        "gold/bars_5m": [home.hour(0)],
        "gold/bars_1h": [home.hour(0)],
        "gold/bars_1d": [home.days[0]],
        "features/price_features": readers,
        "gold/anomalies": readers,
        "gold/prediction_accuracy": [home.days[0]],
        "gold/volatility_accuracy": home.days,
    }
    assert request.tags["restate"] == str(restated.cursor + 1)
    assert restated.result.cursor == str(restated.cursor + 1)


def test_models_that_saw_the_hours_are_warned_about_and_not_retrained(restated: Restated):
    home = restated.home
    warned = {(e.asset_key.to_user_string(), e.partition): e for e in restated.result.asset_events}
    assert set(warned) == {("ml/anomaly_model", day) for day in home.days}
    counts = [e.metadata["restated_hours"].value for e in warned.values()]
    assert all(1 <= n <= 27 for n in counts)
    assert max(counts) == len(target(restated.result.run_requests[0])["features/price_features"])
    assert {(e.passed, e.severity, e.check_name) for e in warned.values()} == {
        (False, dg.AssetCheckSeverity.WARN, "inputs_restated_after_training")
    }
    assert not [key for key in target(restated.result.run_requests[0]) if key.startswith("ml/")]


def test_the_late_price_is_in_the_tables_of_its_hour(restated: Restated):
    home = restated.home
    price = Decimal("9999.5")
    silver = home.engine.store.read_arrow("silver.prices").to_pylist()
    found = [(r["coin_id"], r["last_updated_at"]) for r in silver if r["price_usd"] == price]
    assert found == [("bitcoin", restated.event)]
    bars = home.engine.store.read_arrow("gold.bars_1h").to_pylist()
    assert [(r["coin_id"], hour_key(r["window_start"])) for r in bars if r["high"] == price] == [
        ("bitcoin", home.hour(0))
    ]


def test_tables_changed_only_there(restated: Restated):
    home = restated.home
    assert restated.changed_hours("silver.prices") == {home.hour(0)}
    for table in ("gold.bars_1m", "gold.bars_5m", "gold.bars_1h"):
        assert restated.changed_hours(table) == {home.hour(0)}, table
    readers = {home.hour(n) for n in (0, 1, 2, 25, 26)}
    for table in ("features.price_features", "gold.anomalies"):
        assert home.hour(0) in restated.changed_hours(table)
        assert restated.changed_hours(table) <= readers, table
    changed = {name for name in restated.after if restated.after[name] != restated.ingested[name]}
    assert changed <= {"silver.prices", "features.price_features", "gold.anomalies", "gold.bars_1m", "gold.bars_5m",
                       "gold.bars_1h", "gold.bars_1d", "gold.prediction_accuracy"}  # fmt: skip


def test_restated_anomalies_keep_their_model_version(restated: Restated):
    home = restated.home
    rows = home.engine.store.read_arrow("gold.anomalies", columns=["model_version", "revision", "hour"]).to_pylist()
    assert len({r["model_version"] for r in rows}) == 1
    assert {hour_key(r["hour"]) for r in rows if r["revision"]} <= {home.hour(n) for n in (0, 1, 2, 25, 26)}
    assert any(r["revision"] for r in rows)


def test_what_was_restated_is_not_asked_for_again(restated: Restated):
    again = tick(restated.home, str(restated.cursor))
    assert not again.run_requests
    assert "no late hour" in again.skip_message
    assert again.cursor == str(bronze_version(restated.home))


def test_a_commit_without_its_dagster_event_is_still_found(restated: Restated):
    """A process killed between the Bronze commit and the event: the step's own work, and nothing in Dagster."""
    home = restated.home
    cursor, arrival = bronze_version(home), home.next_hour()
    key = hour_key(arrival)
    home.send_late(restated.event + 5 * MINUTE, arrival, "9998.5")
    inputs = StepInputBuilder(home.settings).build(
        now=datetime.now(UTC), run_id="killed", keys=[key], reads_log="prices"
    )
    bronze.work(home.engine, [key], inputs)
    assert key not in home.instance.get_materialized_partitions(dg.AssetKey(["bronze", "raw_prices"]))
    result = tick(home, str(cursor))
    assert target(result.run_requests[0])["silver/prices"] == [home.hour(0)]


def test_a_record_100_days_late_changes_no_silver_and_is_quarantined(restated: Restated):
    home = restated.home
    cursor, arrival = bronze_version(home), home.next_hour()
    key, event = hour_key(arrival), arrival - 100 * DAY
    # That hour was materialized when it was young: only its age keeps it from being restated.
    home.instance.report_runless_asset_event(dg.AssetMaterialization(SILVER, partition=hour_key(event)))
    before = home.rows("silver.prices")
    home.send_late(event, arrival, "9997.5")
    home.run("refresh", [key])
    assert home.rows("silver.prices") == before
    refused = home.engine.store.read_arrow("silver.quarantine").to_pylist()
    assert [(hour_key(r["hour"]), r["reasons"]) for r in refused] == [(key, ["too_late"])]
    result = tick(home, str(cursor))
    assert not result.run_requests
    assert "too late" in result.skip_message
    assert result.cursor == str(bronze_version(home))


def test_a_late_hour_that_was_never_materialized_is_left_alone(restated: Restated):
    home = restated.home
    cursor, arrival = bronze_version(home), home.next_hour()
    home.send_late(restated.event + 5 * HOUR, arrival, "9996.5")
    home.run("bronze/raw_prices", [hour_key(arrival)])
    result = tick(home, str(cursor))
    assert not result.run_requests
    assert home.hour(5) in result.skip_message
    assert "never materialized" in result.skip_message
    assert result.cursor == str(bronze_version(home))


def test_the_first_tick_of_all_reads_every_commit(restated: Restated):
    """Without a cursor the log of Bronze is read from its beginning; hours that Silver has read are not pending."""
    result = tick(restated.home, None)
    pending = target(result.run_requests[0])["silver/prices"] if result.run_requests else []
    assert pending == [restated.home.hour(0)]  # the record that the killed process brought
    assert result.cursor == str(bronze_version(restated.home))


def test_request_is_one_backfill_on_this_version_of_dagster(small_home: SmallHome):
    """`RunRequest.for_asset_graph_subset` is not public: this says when a new version of Dagster changes it."""
    partitions = {SILVER: [small_home.hour(0), small_home.hour(2)], dg.AssetKey(["gold", "bars_1d"]): small_home.days}
    request = restatement.request(small_home.graph, partitions, {"restate": "7"})
    assert request.requires_backfill_daemon()
    assert target(request) == {"silver/prices": partitions[SILVER], "gold/bars_1d": small_home.days}
    assert (request.tags["restate"], request.partition_key, request.run_key) == ("7", None, None)


NOW = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)


def commit(version: int, *hours: datetime) -> Commit:
    metadata = {"touched_hours": json.dumps([hour_key(h) for h in hours])} if hours else {}
    return Commit(version, NOW, "WRITE", metadata)


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2024, 5, 1, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("commits", "silver", "now", "expected"),
    [
        pytest.param([], {}, at(12, 30), ({}, None), id="nothing"),
        pytest.param([commit(4, at(12))], {}, at(12, 30), ({}, 4), id="the running hour is the refresh's"),
        pytest.param([commit(4)], {}, at(12, 30), ({}, 4), id="a commit without rows"),
        pytest.param([commit(4, at(7))], {}, at(12, 30), ({4: [hour_key(at(7))]}, 4), id="a late hour"),
        pytest.param([commit(4, at(7))], {hour_key(at(7)): 4}, at(12, 30), ({}, 4), id="Silver has read it"),
        pytest.param(
            [commit(4, at(7))], {hour_key(at(7)): 3}, at(12, 30), ({4: [hour_key(at(7))]}, 4), id="read before"
        ),
        pytest.param(
            [commit(3, at(6)), commit(4, at(11)), commit(5, at(7))],
            {},
            at(12, 2),
            ({3: [hour_key(at(6))]}, 3),
            id="an hour that is settling is waited for",
        ),
        pytest.param(
            [commit(3, at(6)), commit(4, at(11)), commit(5, at(7))],
            {},
            at(12, 6),
            ({3: [hour_key(at(6))], 4: [hour_key(at(11))], 5: [hour_key(at(7))]}, 5),
            id="and pending once it should have settled",
        ),
        pytest.param(
            [commit(4, at(11), at(12))], {hour_key(at(11)): 4}, at(12, 2), ({}, 4), id="settled hour that was read"
        ),
    ],
)
def test_pending_hours(commits, silver, now, expected):
    assert pending_hours(commits, silver, now) == expected
