"""Housekeeping as runs, so that results are kept and failures alert: `maintain` and `maintain_tables`.

Belongs here: the jobs, the schedule of the second, and the row that reports who maintains a workspace's tables. Does
not belong here: what housekeeping does (`maintenance`, `orchestration.tidying`).

Tables in a workspace are maintained by a launched step once a day, since each step costs a cluster start. The job
`maintain` then covers what the driver has.

Annotations are not postponed in this module: Dagster inspects those of `context` and `config` when it decorates.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from crypto_assets.orchestration import tidying
from crypto_assets.settings import Settings

MAX_RUNTIME_S = 1800
TABLES_JOB, TABLES_SCHEDULE = "maintain_tables", "tidy_tables"


class MaintainOptions(dg.Config):
    """Launchpad options.

    Attributes:
        dry_run: Report what would be done and change nothing.
    """

    dry_run: bool = False


def build() -> dg.JobDefinition:
    """Build the job `maintain`."""

    @dg.op(
        name="housekeeping",
        required_resource_keys={"engine", "step_inputs"},
        description="Compact closed hours, vacuum, clean logs, apply retention, prune runs and events, remove strays.",
    )
    def housekeeping_op(context: dg.OpExecutionContext, config: MaintainOptions) -> None:
        from crypto_assets.orchestration.maintenance import housekeeping

        given = context.resources.step_inputs
        rows = housekeeping(
            context.resources.engine.store,
            context.instance,
            given.home(),
            datetime.now(UTC),
            dry_run=config.dry_run,
            progress=context.log.info,
            remote=tidied_by(given.settings, context.instance),
        )
        _end(context, rows, dry_run=config.dry_run)

    @dg.job(
        name="maintain",
        description="Hourly housekeeping of tables, logs, runs and events.",
        tags={"dagster/max_runtime": str(MAX_RUNTIME_S)},
    )
    def maintain() -> None:
        housekeeping_op()

    return maintain


def build_tables_job(max_runtime_s: int) -> dg.JobDefinition:
    """Build the job `maintain_tables`.

    Args:
        max_runtime_s: Seconds after which run monitoring ends it; more than a launched step may take.
    """

    @dg.op(
        name="tables",
        required_resource_keys={"engine", "step_inputs", "step_launcher"},
        description="Compact closed hours of every table, apply retention, vacuum.",
    )
    def tables_op(context: dg.OpExecutionContext, config: MaintainOptions) -> None:
        resources, mode = context.resources, (tidying.DRY_RUN,) if config.dry_run else ()
        inputs = resources.step_inputs.build(now=datetime.now(UTC), run_id=context.run_id, keys=[None])
        # As with assets: a launched step has no launcher where its body runs; Pipes runs only the work remotely.
        remote = resources.step_launcher
        if remote is None:
            result = tidying.work(resources.engine, [None], inputs, mode=mode)
        else:
            result = remote.run(context, tidying.work, [None], inputs, {"mode": mode}, {})
        _end(context, [table.metadata for table in result.tables.values()], dry_run=config.dry_run)

    @dg.job(
        name=TABLES_JOB,
        description="Daily housekeeping of the tables in the workspace, by a launched step.",
        tags={"dagster/max_runtime": str(max_runtime_s)},
    )
    def maintain_tables() -> None:
        tables_op()

    return maintain_tables


def tables_schedule(job: dg.JobDefinition, *, running: bool) -> dg.ScheduleDefinition:
    """Daily schedule of `maintain_tables`.

    Args:
        job: That job.
        running: Whether it runs before a person has switched it.
    """
    return dg.ScheduleDefinition(
        name=TABLES_SCHEDULE,
        job=job,
        cron_schedule="40 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        description="At 03:40 the tables in the workspace are compacted, vacuumed and rid of expired rows.",
    )


def tidied_by(settings: Settings, instance: dg.DagsterInstance) -> tidying.Part | None:
    """Part that reports who maintains the tables that the driver lacks, and when; None = it has all.

    Args:
        settings: Their target decides where tables are.
        instance: Knows the runs of `maintain_tables`.
    """
    if not settings.on_databricks:
        return None

    def result() -> str:
        ended_well = dg.RunsFilter(job_name=TABLES_JOB, statuses=[dg.DagsterRunStatus.SUCCESS])
        last = next(iter(instance.get_run_records(ended_well, limit=1)), None)
        when = (
            f"last done {datetime.fromtimestamp(last.end_time or 0, UTC):%Y-%m-%d %H:%M}Z" if last else "not yet done"
        )
        return (
            f"not tidied here: job {TABLES_JOB} does that in the workspace (schedule {TABLES_SCHEDULE}); {when} "
            "according to its kept runs"
        )

    return f"tables of catalog {settings.catalog}", result


def _end(context: dg.OpExecutionContext, rows: Sequence[Mapping[str, Any]], *, dry_run: bool) -> None:
    """Report rows as the op's metadata.

    Raises:
        dg.Failure: A part failed, or there was none; its metadata has all rows.
    """
    from crypto_assets.orchestration.maintenance import markdown

    metadata = {"housekeeping": dg.MetadataValue.md(markdown(rows)), "dry_run": dry_run}
    failed = [f"{row['part']}: {row['result']}" for row in rows if row["failed"]]
    if failed:
        why = f"housekeeping failed for {len(failed)} of {len(rows)} parts: {'; '.join(failed)}"
        raise dg.Failure(why, metadata=metadata, allow_retries=False)
    if not rows:
        raise dg.Failure(
            "there is no table to tidy: nothing was materialized yet", metadata=metadata, allow_retries=False
        )
    context.add_output_metadata(metadata)
