"""Schedules for closing an hour, closing a day, and housekeeping; stopped until `crypto-assets up`.

Keys come from the scheduled time. `build_schedule_from_partitioned_job` would target the hour after the running one,
because the running hour is itself a partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, timedelta
from functools import partial

import dagster as dg

from crypto_assets.contracts.slices import day_key, hour_key
from crypto_assets.orchestration.running_window import hours_request


def schedules(
    jobs: Sequence[dg.UnresolvedAssetJobDefinition],
    maintain: dg.JobDefinition,
    *,
    running: bool = False,
    hourly: bool = False,
) -> list[dg.ScheduleDefinition]:
    """Build all schedules.

    Args:
        jobs: Asset jobs.
        maintain: The housekeeping job.
        running: Whether they run before a person has switched them.
        hourly: Whether closing an hour is the only refresh; it then covers the running hour too.
    """
    status = dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED
    by_name = {job.name: job for job in jobs}
    schedule = partial(dg.schedule, execution_timezone="UTC", default_status=status)

    @schedule(
        job=by_name["refresh"],
        cron_schedule="5 * * * *",
        name="close_hour",
        description="At :05 the hour before is refreshed once more, now that its last minute has arrived.",
    )
    def close_hour(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        scheduled = context.scheduled_execution_time.astimezone(UTC)
        closed, current = hour_key(scheduled - timedelta(hours=1)), hour_key(scheduled)
        tags = {"crypto_assets/why": "close_hour"}
        return hours_request(f"close-{closed}", [closed, current] if hourly else [closed], tags)

    @schedule(
        job=by_name["daily"],
        cron_schedule="15 0 * * *",
        name="close_day",
        description="At 00:15 yesterday's day bars, models and accuracy are made.",
    )
    def close_day(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        key = day_key(context.scheduled_execution_time.astimezone(UTC) - timedelta(days=1))
        return dg.RunRequest(run_key=f"close-{key}", partition_key=key, tags={"crypto_assets/why": "close_day"})

    @schedule(
        job=maintain,
        cron_schedule="35 * * * *",
        name="housekeeping",
        description="Hourly: compact closed hours, vacuum, clean logs, apply retention, prune old refresh runs.",
    )
    def housekeeping(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return dg.RunRequest(run_key=f"maintain-{context.scheduled_execution_time:%Y%m%d%H%M}")

    return [close_hour, close_day, housekeeping]
