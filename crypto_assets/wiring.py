"""Builds `dg.Definitions` from settings. Importing this module reads no settings; `definitions` does."""

from __future__ import annotations

from typing import Any

import dagster as dg

from crypto_assets.alerts import asset as alerts_asset
from crypto_assets.alerts import sensor as alert_sensor
from crypto_assets.assets.card import steps
from crypto_assets.checks.freshness import windows
from crypto_assets.databricks.launcher.launcher_config import STEP_PROCESSES
from crypto_assets.databricks.launcher.resource import launcher_resource
from crypto_assets.databricks.pipes.client import pipes_resource
from crypto_assets.home import first_day
from crypto_assets.orchestration import (
    api_asset,
    jobs,
    maintenance_job,
    producer_sensor,
    restatement_sensor,
    schedules,
    topics,
)
from crypto_assets.orchestration.partitions import Partitions
from crypto_assets.orchestration.resources import engine_resource, inputs_resource
from crypto_assets.orchestration.shell import build_step
from crypto_assets.settings import HOURLY_REFRESH_S, Settings


def build_definitions(settings: Settings, overrides: dict[str, Any] | None = None) -> dg.Definitions:
    """Assemble all Dagster definitions.

    Args:
        settings: Configuration; nothing is opened here.
        overrides: Resources by name that replace the default ones (tests, launched steps).
    """
    # All definitions, launched steps included, share one first day: the home's, or the one a new home would get.
    first = first_day(settings)
    settings = settings.model_copy(update={"partitions_start": first})
    partitions = Partitions.since(first)
    # No freshness policies without automation: a finished demo would turn red within minutes.
    promised = {
        moved_by: dg.FreshnessPolicy.time_window(warn_window=warn, fail_window=fail)
        for moved_by, (warn, fail) in windows(settings).items()
        if settings.automation
    }
    assets = [
        build_step(
            step,
            partitions_def=partitions.of(step.grain),
            freshness=promised.get(step.moved_by or ""),
            table_uri=settings.table_uri,
        )
        for step in steps()
    ]
    landing = str(settings.landing) if settings.transport == "landing" else None
    asset_jobs = jobs.jobs(settings.databricks_wait_s if settings.on_databricks else 0)
    maintain = maintenance_job.build()
    # If steps are launched remotely, so is table maintenance.
    tables = [maintenance_job.build_tables_job(settings.databricks_wait_s)] if settings.on_databricks else []
    status = dg.DefaultSensorStatus.RUNNING if settings.automation else dg.DefaultSensorStatus.STOPPED
    producer = producer_sensor.shared_producer(settings)
    off = "sensors and schedules are stopped: nothing polls or runs by itself; crypto-assets up starts them"
    return dg.Definitions(
        metadata={
            "data_mode": settings.source_facts.banner,
            "automation": "sensors and schedules run" if settings.automation else off,
        },
        assets=[
            topics.observed(landing, promised.get("refresh")),
            alerts_asset.spec(promised=settings.automation),
            *assets,
            api_asset.spec(),
        ],
        asset_checks=[*topics.checks(), alerts_asset.table_checks(), api_asset.ready_check()],
        jobs=[*asset_jobs, maintain, *tables],
        schedules=[
            *schedules.schedules(
                asset_jobs, maintain, running=settings.automation, hourly=settings.refresh_every_s >= HOURLY_REFRESH_S
            ),
            *(maintenance_job.tables_schedule(job, running=settings.automation) for job in tables),
        ],
        sensors=[
            producer_sensor.build(
                asset_jobs[0], producer, settings.source, refresh_every_s=settings.refresh_every_s, status=status
            ),
            restatement_sensor.build(status),
            alert_sensor.build(status),
            dg.AutomationConditionSensorDefinition(
                "conditions", target=dg.AssetSelection.all(), default_status=status, minimum_interval_seconds=30
            ),
        ],
        executor=_executor(settings),
        resources={
            "engine": engine_resource(settings),
            "step_inputs": inputs_resource(settings),
            "step_launcher": _launcher(settings),
            **(overrides or {}),
        },
    )


def _launcher(settings: Settings) -> dg.ResourceDefinition | dg.ConfigurableResource:
    """Resource that runs steps remotely: Dagster's step launcher, Pipes, or a no-op."""
    if settings.target == "databricks-serverless" and not settings.is_remote:
        return pipes_resource(settings)
    return launcher_resource(settings, {step.name: step.log for step in steps()})


def _executor(settings: Settings) -> dg.ExecutorDefinition:
    """Waits for remote steps in a bounded number of subprocesses; runs local steps in this process."""
    if settings.is_remote or not settings.on_databricks:
        return dg.in_process_executor
    return dg.multiprocess_executor.configured(
        {"max_concurrent": settings.databricks_concurrent_steps, **STEP_PROCESSES}
    )
