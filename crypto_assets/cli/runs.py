"""Runs of jobs in this process, recorded in the home's instance as the webserver's own would be.

Belongs here: making such a run and saying what failed. Does not belong here: which jobs run, over which partitions.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg
    from dagster._core.remote_origin import RemoteJobOrigin

CODE_LOCATION = "crypto_assets.definitions"
"""Module that `dagster dev -m` loads, and so the name of the code location in the UI."""
NO_RETRY = {"dagster/max_retries": "0"}
"""A person who ran this sees what failed; a daemon that serves the home later must not run it again by itself."""


def run_job(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    keys: Sequence[str],
    failed: list[str],
    seconds: dict[str, float],
) -> None:
    """Run one job in this process over a range of partitions, recorded in the instance like any other run.

    The run has the code location's origin: without one the UI shows it neither under its job nor on the timeline.

    Args:
        defs: Definitions.
        instance: Where the run is recorded.
        job: Job name, or the key of an unpartitioned asset that no job holds, as `schema/name`.
        keys: Partition keys in order, contiguous; empty without partitions.
        failed: Receives a line for every failed step, or one for a run that failed outside of a step.
        seconds: Receives seconds by step.

    Raises:
        KeyboardInterrupt: A signal ended a step: Dagster stores it as a failure and would leave the caller to go on.
    """
    import dagster as dg
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.execution.api import execute_run
    from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

    from crypto_assets.automation.event_store import INTERRUPTED, failed_steps
    from crypto_assets.cli.signals import stop_if_asked

    tags = {**NO_RETRY, "crypto_assets/why": "first run"}
    selection = [dg.AssetKey(job.split("/"))] if "/" in job else None
    definition = defs.resolve_implicit_global_asset_job_def() if selection else defs.resolve_job_def(job)
    if len(keys) > 1:
        tags |= {ASSET_PARTITION_RANGE_START_TAG: keys[0], ASSET_PARTITION_RANGE_END_TAG: keys[-1]}
    elif keys:
        tags |= definition.get_tags_for_partition_key(keys[0], selected_asset_keys=selection)
    # In this process whatever executor the definitions have; a chosen asset alone.
    definition = definition.as_ephemeral_job(resource_defs={}, input_values={}, asset_selection=selection)
    run = instance.create_run_for_job(
        definition,
        # The run's events are in the instance; on the terminal they would bury the report.
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        tags={**definition.run_tags, **tags},
        asset_selection=frozenset(selection) if selection else None,
        remote_job_origin=_origin(definition.name),
    )
    result = execute_run(InMemoryJob(definition), run, instance, raise_on_error=False)
    stop_if_asked()
    for event in result.all_events:
        if event.is_step_success and event.step_key:
            seconds[event.step_key] = seconds.get(event.step_key, 0) + event.step_success_data.duration_ms / 1000
    if result.success:
        return
    ended = instance.get_run_by_id(run.run_id)
    steps = failed_steps(instance, run.run_id)
    if any(step.why == INTERRUPTED for step in steps):
        raise KeyboardInterrupt
    why = [str(step) for step in steps] or [f"ended as {ended.status.value if ended else 'unknown'}"]
    failed += [f"{job}: {line} (run {run.run_id[:8]})" for line in why]


def _origin(job: str) -> RemoteJobOrigin:
    """Where the webserver finds a job: the repository of the code location that `up` and `ui` serve."""
    from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
    from dagster._core.remote_origin import (
        ManagedGrpcPythonEnvCodeLocationOrigin,
        RemoteJobOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    target = LoadableTargetOrigin(
        executable_path=sys.executable, module_name=CODE_LOCATION, working_directory=str(Path.cwd())
    )
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, CODE_LOCATION)
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, SINGLETON_REPOSITORY_NAME), job)
