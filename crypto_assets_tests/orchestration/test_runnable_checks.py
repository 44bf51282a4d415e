"""Checks that a person runs from the UI, on a home that was filled: of the topics and of the alerts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.observe import observe

from crypto_assets.alerts import asset as alerts_asset
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.tables import ALERTS
from crypto_assets.orchestration import topics

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Inputs:
    """`step_inputs` as far as these checks use it."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings


def results(checks: dg.AssetChecksDefinition, home: Any) -> dict[str, dg.AssetCheckEvaluation]:
    """What running the checks evaluates."""
    job = dg.Definitions(
        assets=[topics.observed(), alerts_asset.spec(promised=False)],
        asset_checks=[checks],
        jobs=[dg.define_asset_job("look", selection=dg.AssetSelection.checks(checks))],
        resources={"step_inputs": Inputs(home.settings), "engine": home.engine},
    ).resolve_job_def("look")
    with dg.DagsterInstance.ephemeral() as instance:
        done = job.execute_in_process(instance=instance)
        return {e.check_name: e for e in done.get_asset_check_evaluations()}


def test_the_topics_of_a_filled_home(small_home):
    (checks,) = topics.checks()
    found = results(checks, small_home)
    assert set(found) == {s.name for s in topics.check_specs()}
    assert {n: e.passed for n, e in found.items()} == dict.fromkeys(found, True), found


def test_observing_the_topics_shows_what_the_log_holds(small_home):
    with dg.DagsterInstance.ephemeral() as instance:
        inputs = Inputs(small_home.settings)
        done = observe([topics.observed()], instance=instance, resources={"step_inputs": inputs})
        assert done.success
        (prices,) = instance.fetch_observations(topics.PRICES, limit=1).records
        (polls,) = instance.fetch_observations(topics.POLLS, limit=1).records
    stored = small_home.engine.store.read_arrow("bronze.raw_prices").num_rows
    assert prices.asset_observation.metadata["records"].value >= stored  # other modules write to the topic too
    assert polls.asset_observation.metadata["newest_record_at"].value.startswith("20")


@pytest.fixture
def alerts(small_home) -> Iterator[Any]:
    import pyarrow as pa

    row = {
        "alert_id": "1",
        "cause": "gold/bars_5m has_rows",
        "state": "firing",
        "severity": "error",
        "asset": "gold/bars_5m",
        "check_name": "has_rows",
        "partition_key": None,
        "summary": "no rows",
        "at": NOW,
        "delivered_at": None,
        "attempts": 0,
    }
    rows = pa.Table.from_pylist([row], schema=arrow_schema(ALERTS))
    small_home.engine.store.merge("ops.alerts", rows, mode="replace_all")
    yield small_home
    small_home.engine.store.merge("ops.alerts", rows.slice(0, 0), mode="replace_all")


def test_the_alerts_table_is_checked_by_its_contract(alerts):
    found = results(alerts_asset.table_checks(), alerts)
    assert {"contract", alerts_asset.ACCEPTED} == set(found)
    assert found["contract"].description == "4 rules hold for 1 rows"
    assert all(e.passed for e in found.values())


@pytest.mark.parametrize(
    ("age", "delivered", "configured", "passed"),
    [
        (timedelta(hours=1), False, True, False),
        (timedelta(hours=1), True, True, True),
        (timedelta(hours=1), False, False, True),
        (timedelta(minutes=5), False, True, True),
        (timedelta(days=2), False, True, True),
    ],
)
def test_an_alert_that_the_webhook_never_accepted_is_red(age, delivered, configured, passed):
    alert = {"at": NOW - age, "delivered_at": NOW if delivered else None}
    outcome = alerts_asset.judge([alert], NOW, configured=configured)
    assert outcome.passed is passed
    assert outcome.description
