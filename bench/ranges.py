"""Many hours at once: as one range run, and as a backfill the way the UI submits it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bench.homes import Pipeline, polled_home
from bench.report import Measure, Part
from bench.spent import Spent, command_spent, spent
from crypto_assets.cli import output
from crypto_assets.contracts.slices import hour_keys

if TYPE_CHECKING:
    import dagster as dg


NAME = "ranges"
MOST_WAVES = 20
_LAUNCHER = {"module": "dagster._core.launcher.sync_in_memory_run_launcher", "class": "SyncInMemoryRunLauncher"}


def run(*, hours: int) -> Part:
    """Materialize the same hours twice, each time into an empty lake.

    Args:
        hours: Hours, each with a poll a minute.
    """
    with polled_home(hours) as pipeline:
        keys = hour_keys(pipeline.span)
        output.say(f"range run of {hours} hours ...", style="dim")
        range_runs, ranged = _range_run(pipeline, keys)
        output.say(f"backfill of {hours} hours ...", style="dim")
        backfill_runs, filled, waves = _backfill(pipeline, keys)
    return Part(
        f"Ranges: {hours} hours of the hourly graph ({len(_assets())} assets, ten coins, a poll a minute)",
        [
            Measure("range run, runs", range_runs, "runs", note="dagster asset materialize --partition-range"),
            Measure("range run, time", ranged.wall, "s", note="a subprocess, its start included"),
            Measure("range run, processor time", ranged.processor, "s"),
            Measure("UI backfill, runs", backfill_runs, "runs", note=f"{waves} iterations of the backfill daemon"),
            Measure("UI backfill, time", filled.wall, "s", note="daemons' iterations in process, runs in process"),
            Measure("UI backfill, processor time", filled.processor, "s"),
        ],
        notes=[
            "assets: those that `crypto-assets backfill --from log` rebuilds; the forecast ledger is never rewritten",
            "a daemon looks every 30 s and starts a process a run; neither wait is part of the backfill's time here",
        ],
        costs={
            "hours in one range run": {**vars(ranged), "runs": range_runs},
            "hours as a UI backfill": {**vars(filled), "runs": backfill_runs},
        },
    )


def _assets() -> tuple[str, ...]:
    from crypto_assets.orchestration.backfill import from_log

    return from_log()


def _range_run(pipeline: Pipeline, keys: Sequence[str]) -> tuple[int, Spent]:
    """Runs and cost of `dagster asset materialize --partition-range`."""
    from crypto_assets.cli.instance import child_environment

    settings = pipeline.settings
    environment = {
        **child_environment(settings, pipeline.home, automation=False),
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers or "",
        "CRYPTO_ASSETS_LAKE": str(settings.home / "lake-range"),
    }
    command = [
        *(sys.executable, "-m", "dagster", "asset", "materialize", "-m", "crypto_assets.definitions"),
        *("--select", ",".join(f"key:{a}" for a in _assets())),
        *("--partition-range", f"{keys[0]}...{keys[-1]}"),
    ]
    before = pipeline.instance.get_runs_count()
    taken = command_spent(command, environment=environment)
    return pipeline.instance.get_runs_count() - before, taken


def _backfill(pipeline: Pipeline, keys: Sequence[str]) -> tuple[int, Spent, int]:
    """Runs, cost and daemon iterations of a backfill of all assets and hours, submitted as the UI does."""
    import dagster as dg
    from dagster._core.execution.backfill import PartitionBackfill
    from dagster._core.instance.ref import InstanceRef

    import crypto_assets.definitions as module

    settings = pipeline.settings.model_copy(update={"lake_uri": str(pipeline.settings.home / "lake-backfill")})
    module.defs = module.build_definitions(settings)  # what the workspace below loads
    os.environ["DAGSTER_HOME"] = str(pipeline.home.dagster)
    reference = InstanceRef.from_dir(str(pipeline.home.dagster), overrides={"run_launcher": _LAUNCHER})
    with dg.DagsterInstance.from_ref(reference) as instance:
        backfill_id = "bench"
        instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                asset_graph=module.defs.resolve_asset_graph(),
                backfill_id=backfill_id,
                tags={},
                backfill_timestamp=datetime.now(UTC).timestamp(),
                asset_selection=[dg.AssetKey(a.split("/")) for a in _assets()],
                partition_names=list(keys),
                dynamic_partitions_store=instance,
                all_partitions=False,
                title=None,
                description=None,
                # The runs' events are in the instance; on the terminal they would bury the tables.
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        )
        with spent() as taken:
            waves = _until_done(instance, backfill_id)
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
        not_done = [r.status.value for r in runs if r.status != dg.DagsterRunStatus.SUCCESS]
        if not_done:
            raise AssertionError(f"{len(not_done)} of {len(runs)} runs of the backfill did not succeed: {not_done[:5]}")
    return len(runs), taken, waves


def _until_done(instance: dg.DagsterInstance, backfill_id: str) -> int:
    """Let the backfill daemon and the queue daemon take turns; the number of turns."""
    from dagster._core.execution.backfill import BulkActionStatus
    from dagster._core.remote_origin import InProcessCodeLocationOrigin
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
    from dagster._daemon.backfill import execute_backfill_iteration
    from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

    target = InProcessWorkspaceLoadTarget(
        InProcessCodeLocationOrigin(
            LoadableTargetOrigin(module_name="crypto_assets.definitions", attribute="defs"),
            location_name="crypto_assets",
        )
    )
    log = logging.getLogger("bench.backfill")
    log.setLevel(logging.ERROR)
    with WorkspaceProcessContext(instance, target) as process:
        for wave in range(1, MOST_WAVES + 1):
            problems = [e for e in execute_backfill_iteration(process, log) if e]
            found = instance.get_backfill(backfill_id)
            if problems or found is None:
                raise AssertionError(f"the backfill daemon failed: {problems}")
            if found.status != BulkActionStatus.REQUESTED:
                if found.status != BulkActionStatus.COMPLETED_SUCCESS:
                    raise AssertionError(f"the backfill ended as {found.status.value}")
                return wave
            problems = [e for e in QueuedRunCoordinatorDaemon(interval_seconds=1).run_iteration(process) if e]
            if problems:
                raise AssertionError(f"the queue daemon failed: {problems}")
    raise AssertionError(f"the backfill did not end in {MOST_WAVES} iterations")
