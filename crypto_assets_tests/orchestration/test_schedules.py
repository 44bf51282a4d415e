"""Schedules: keys come from the scheduled time, whatever the moment of the tick."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import dagster as dg
import pytest
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from crypto_assets.definitions import build_definitions
from crypto_assets.settings import Settings


def settings(**changed) -> Settings:
    return Settings(_env_file=None, source="replay", partitions_start=date(2024, 1, 1), **changed)  # type: ignore[call-arg]


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return build_definitions(settings())


def request(defs: dg.Definitions, name: str, scheduled: datetime) -> dg.RunRequest:
    """What the schedule asks for at a scheduled time, resolved against the real partitions."""
    context = dg.build_schedule_context(scheduled_execution_time=scheduled, repository_def=defs.get_repository_def())
    found = list(defs.resolve_schedule_def(name).evaluate_tick(context).run_requests or ())
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("scheduled", "key"),
    [
        (datetime(2024, 5, 1, 10, 5, tzinfo=UTC), "2024-05-01-09:00"),
        (datetime(2024, 5, 1, 0, 5, tzinfo=UTC), "2024-04-30-23:00"),
        (datetime(2024, 5, 1, 2, 5, tzinfo=timezone(timedelta(hours=2))), "2024-04-30-23:00"),
    ],
)
def test_close_hour_asks_for_the_hour_before(defs, scheduled, key):
    found = request(defs, "close_hour", scheduled)
    assert found.partition_key == key
    assert found.run_key == f"close-{key}"


@pytest.mark.parametrize(
    ("scheduled", "key"),
    [
        (datetime(2024, 5, 1, 0, 15, tzinfo=UTC), "2024-04-30"),
        (datetime(2024, 1, 2, 0, 15, tzinfo=UTC), "2024-01-01"),
        (datetime(2024, 5, 1, 2, 15, tzinfo=timezone(timedelta(hours=2))), "2024-04-30"),
    ],
)
def test_close_day_asks_for_yesterday(defs, scheduled, key):
    found = request(defs, "close_day", scheduled)
    assert found.partition_key == key
    assert found.run_key == f"close-{key}"


def test_housekeeping_has_one_run_an_hour(defs):
    first = request(defs, "housekeeping", datetime(2024, 5, 1, 10, 35, tzinfo=UTC))
    assert first.partition_key is None
    assert first.run_key == request(defs, "housekeeping", datetime(2024, 5, 1, 10, 35, tzinfo=UTC)).run_key
    assert first.run_key != request(defs, "housekeeping", datetime(2024, 5, 1, 11, 35, tzinfo=UTC)).run_key


def test_each_moves_its_job_at_its_minute_in_utc(defs):
    found = {}
    for schedule in defs.get_repository_def().schedule_defs:
        found[schedule.name] = (schedule.job_name, schedule.cron_schedule, schedule.execution_timezone)
    assert found == {
        "close_hour": ("refresh", "5 * * * *", "UTC"),
        "close_day": ("daily", "15 0 * * *", "UTC"),
        "housekeeping": ("maintain", "35 * * * *", "UTC"),
    }


@pytest.mark.parametrize("automation", [False, True])
def test_everything_is_off_until_up_switches_it_on(automation):
    repository = build_definitions(settings(automation=automation)).get_repository_def()
    schedules = {s.default_status == dg.DefaultScheduleStatus.RUNNING for s in repository.schedule_defs}
    sensors = {s.default_status == dg.DefaultSensorStatus.RUNNING for s in repository.sensor_defs}
    assert schedules == sensors == {automation}


def test_where_refreshes_are_hourly_closing_an_hour_takes_the_running_one_too(defs):
    hourly = build_definitions(settings(refresh_interval_s=3600))
    found = request(hourly, "close_hour", datetime(2024, 5, 1, 0, 5, tzinfo=UTC))
    assert found.run_key == "close-2024-04-30-23:00"
    assert found.partition_key is None
    ends = (found.tags[ASSET_PARTITION_RANGE_START_TAG], found.tags[ASSET_PARTITION_RANGE_END_TAG])
    assert ends == ("2024-04-30-23:00", "2024-05-01-00:00")


def test_run_monitoring_leaves_launched_steps_their_own_limit(defs):
    def limit(of: dg.Definitions, job: str) -> int:
        return int(of.resolve_job_def(job).tags["dagster/max_runtime"])

    launched = build_definitions(settings(target="databricks", databricks_wait_s=4500))
    assert (limit(defs, "refresh"), limit(launched, "refresh")) == (240, 9000)
    assert limit(launched, "daily") == limit(launched, "rebuild_hours") == 9000
