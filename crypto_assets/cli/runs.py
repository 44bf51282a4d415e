"""Runs of jobs in this process, recorded in the home's instance as the webserver's own would be.

Belongs here: making such a run and saying what failed; making only what changed. Does not belong here: which hours and
days are wanted (`demo`, `catch_up`), what counts as changed (`orchestration.unchanged`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

import dagster as dg

from crypto_assets.assets.card import assets_of, steps
from crypto_assets.cli.instance import CODE_LOCATION
from crypto_assets.cli.signals import stop_if_asked
from crypto_assets.dagster_private import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    SINGLETON_REPOSITORY_NAME,
    InMemoryJob,
    LoadableTargetOrigin,
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
    execute_run,
)
from crypto_assets.engine.engines import make_engine
from crypto_assets.home import existing_home
from crypto_assets.ml.anomaly import LEAST_CALIBRATION_DAYS
from crypto_assets.orchestration import unchanged
from crypto_assets.orchestration.event_store import INTERRUPTED, failed_steps
from crypto_assets.orchestration.unchanged import ONCE_IS_ENOUGH, Plan
from crypto_assets.settings import Settings

ANY = "*"
Job = Literal["refresh", "daily"]
JOBS: tuple[Job, ...] = get_args(Job)
ROUNDS = 3
"""The log first, what follows from it, and what that showed to be late."""
WHY = "what changed"
NO_RETRY = {"dagster/max_retries": "0"}
"""A person who ran this sees what failed; a daemon that serves the home later must not run it again by itself."""


def run_job(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    keys: Sequence[str],
    failed: list[str],
    seconds: dict[str, float],
    *,
    assets: Sequence[str] = (),
    why: str = "first run",
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
        assets: Of the job's assets only these (`schema/name`); empty = all.
        why: Tag of the run.

    Raises:
        KeyboardInterrupt: A signal ended a step: Dagster stores it as a failure and would leave the caller to go on.
    """
    tags = {**NO_RETRY, "crypto_assets/why": why}
    chosen = [job] if "/" in job else assets
    selection = [dg.AssetKey(name.split("/")) for name in chosen] or None
    definition = defs.resolve_implicit_global_asset_job_def() if "/" in job else defs.resolve_job_def(job)
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
    lines = [str(step) for step in steps] or [f"ended as {ended.status.value if ended else 'unknown'}"]
    failed += [f"{job}: {line} (run {run.run_id[:8]})" for line in lines]


@dataclass
class Outcome:
    """Result of `Scheduled.run`.

    Args:
        runs: Runs made.
        unchanged: Partitions that were not made, since they would come out as they are.
        partitions: Partitions judged.
        why: Reasons for which the others were made, with the number of partitions that had each.
        failed: A line for every failed step.
        seconds: Seconds by step.
        made: Assets and partitions that were made.
    """

    runs: int = 0
    unchanged: int = 0
    partitions: int = 0
    why: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    made: set[tuple[str, str]] = field(default_factory=set)

    @property
    def text(self) -> str:
        """The same as a sentence."""
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in list(self.why.items())[:5])
        made = f"; the others in {self.runs} runs: {reasons}" if self.runs else ": nothing is made again"
        return f"{self.unchanged:,} of {self.partitions:,} partitions are unchanged{made}"


def present() -> frozenset[str]:
    """Assets without partitions: they show the present."""
    return frozenset(asset for step in steps() if step.grain is None for asset in step.assets)


@dataclass(frozen=True)
class Scheduled:
    """Makes what the jobs of the schedules make, but only where it would come out differently.

    Args:
        defs: Definitions.
        instance: The home's Dagster instance.
        settings: Settings of the home.
        stage: Entered around each run, with what it makes.
    """

    defs: dg.Definitions
    instance: dg.DagsterInstance
    settings: Settings
    stage: Callable[[str], AbstractContextManager[Any]]

    def run(self, hours: Sequence[str], days: Sequence[str], now: datetime) -> Outcome:
        """Make the partitions that changed, and record of the others that they are unchanged.

        Args:
            hours: Hourly keys, contiguous and in order.
            days: Daily keys, likewise.
            now: Present time (UTC).

        Raises:
            KeyboardInterrupt: From `run_job`.
        """
        outcome = Outcome()
        whole = present()
        wanted = {a: [] if a in whole else hours for a in assets_of("refresh", "slot")}
        wanted |= {a: [] if a in whole else days for a in assets_of("daily") if days or a in whole}
        for round_ in range(ROUNDS):
            coins = existing_home(self.settings).registry()
            graph, store = self.defs.resolve_asset_graph(), make_engine(self.settings).store
            plan = unchanged.plan(self.settings, self.instance, graph, store, wanted, coins, now)
            if round_ == 0:
                outcome.unchanged, outcome.why = sum(plan.unchanged.values()), plan.why()
                outcome.partitions = outcome.unchanged + sum(map(len, plan.stale.values()))
                self._record(plan)
            plan.stale = _not_yet_made(plan, outcome)
            if not plan.stale or outcome.failed:
                break
            self._make(plan, outcome)
        return outcome

    def _make(self, plan: Plan, outcome: Outcome) -> None:
        whole = present()
        hourly = [a for a in assets_of("refresh") if a not in whole]
        segments = plan.segments(hourly)
        everything = len(segments) == 1 and set(segments[0][1]) == set(hourly)
        log = plan.segments([asset for step in steps() if step.log for asset in step.assets])
        if log and not everything:
            # Which hours its new records belong to is known once they are stored: the next round makes those.
            for keys, assets in log:
                self._run(plan, "refresh", keys, assets, outcome)
            return
        runs = [(job, keys, assets) for job, part in phases(plan) for keys, assets in plan.segments(part)]
        shown = {job: [a for a in assets_of(job) if a in whole and _is_stale(plan, a)] for job in JOBS}
        last = {job: number for number, (job, *_) in enumerate(runs)}
        for number, (job, keys, assets) in enumerate(runs):
            along = shown.pop(job) if last[job] == number else []
            self._run(plan, job, keys, [*assets, *along], outcome)
        alone = [a for assets in shown.values() for a in assets] + [a for a in assets_of("slot") if _is_stale(plan, a)]
        for asset in alone:
            self._run(plan, asset, [], [], outcome)

    def _run(self, plan: Plan, job: str, keys: Sequence[str], assets: Sequence[str], outcome: Outcome) -> None:
        if outcome.failed:
            return
        unit = "days" if job == "daily" else "hours"
        text = f"{job}: {len(keys)} {unit} of {len(assets)} assets" if keys else job
        outcome.runs += 1
        for asset in assets or [job]:
            outcome.made |= {(asset, key) for key in plan.stale.get(_key(asset), {}) if key in keys or key == ANY}
        with self.stage(text):
            everything = any(job == j and len(assets) == len(assets_of(j)) for j in JOBS)
            chosen = () if everything else assets
            run_job(self.defs, self.instance, job, keys, outcome.failed, outcome.seconds, assets=chosen, why=WHY)

    def _record(self, plan: Plan) -> None:
        """Record in each asset's events how many partitions were skipped as unchanged."""
        for asset, count in plan.unchanged.items():
            if count:
                of = count + len(plan.stale.get(asset, {}))
                text = f"{count} of {of} partitions would come out as they are and were not made again"
                event = dg.AssetObservation(asset, description=text, metadata={"unchanged": count, "judged": of})
                self.instance.report_runless_asset_event(event)


def phases(plan: Plan) -> list[tuple[Job, list[str]]]:
    """Partitioned assets of each job in the order of their runs.

    Weeks are made in four parts, since a model serves from the day after its training: features, models, what follows
    from these, the rest of the days. Fewer days train no model.
    """
    whole = present()
    of = {job: [a for a in assets_of(job) if a not in whole] for job in JOBS}
    trained = [a for step in steps() if step.role == "train" for a in step.assets]
    if len({key for a in trained for key in plan.stale.get(_key(a), {})}) < LEAST_CALIBRATION_DAYS:
        return [(job, of[job]) for job in JOBS]
    scored = set(trained)
    for step in steps():  # in dependency order
        if any(r.asset in scored for r in step.reads):
            scored |= set(step.assets)
    return [
        ("refresh", [a for a in of["refresh"] if a not in scored]),
        ("daily", [a for a in of["daily"] if a in trained]),
        ("refresh", [a for a in of["refresh"] if a in scored]),
        ("daily", [a for a in of["daily"] if a not in trained]),
    ]


def _key(asset: str) -> dg.AssetKey:
    return dg.AssetKey(asset.split("/"))


def _is_stale(plan: Plan, asset: str) -> bool:
    return _key(asset) in plan.stale


def _not_yet_made(plan: Plan, outcome: Outcome) -> dict[dg.AssetKey, dict[str, str]]:
    """Partitions to run, without those whose last attempt failed for a reason that a rerun does not remove."""
    left = {
        asset: {
            key: why
            for key, why in keys.items()
            if not (why in ONCE_IS_ENOUGH and (asset.to_user_string(), key) in outcome.made)
        }
        for asset, keys in plan.stale.items()
    }
    return {asset: keys for asset, keys in left.items() if keys}


def _origin(job: str) -> RemoteJobOrigin:
    """Where the webserver finds a job: the repository of the code location that `up` and `ui` serve."""
    target = LoadableTargetOrigin(
        executable_path=sys.executable, module_name=CODE_LOCATION, working_directory=str(Path.cwd())
    )
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, CODE_LOCATION)
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, SINGLETON_REPOSITORY_NAME), job)
