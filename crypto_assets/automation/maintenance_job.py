"""The job `maintain`: housekeeping as a run, so that its result is kept and a failure alerts.

Does not belong here: what housekeeping does (`maintenance`).

Annotations are not postponed in this module: Dagster looks at those of `context` and `config` when it decorates.
"""

from datetime import UTC, datetime

import dagster as dg

from crypto_assets.automation.maintenance import housekeeping, markdown

MAX_RUNTIME_S = 1800


class MaintainOptions(dg.Config):
    """What a person may set in the launchpad.

    Attributes:
        dry_run: Say what would be done and change nothing.
    """

    dry_run: bool = False


def build() -> dg.JobDefinition:
    """The job definition."""

    @dg.op(
        name="housekeeping",
        required_resource_keys={"engine", "step_inputs"},
        description="Compact closed hours, vacuum, clean logs, apply retention, prune runs and events, remove strays.",
    )
    def housekeeping_op(context: dg.OpExecutionContext, config: MaintainOptions) -> None:
        rows = housekeeping(
            context.resources.engine.store,
            context.instance,
            context.resources.step_inputs.home(),
            datetime.now(UTC),
            dry_run=config.dry_run,
            progress=context.log.info,
        )
        context.add_output_metadata({"housekeeping": dg.MetadataValue.md(markdown(rows)), "dry_run": config.dry_run})
        failed = [f"{row['part']}: {row['result']}" for row in rows if row["failed"]]
        if failed:
            raise dg.Failure(
                f"housekeeping failed for {len(failed)} of {len(rows)} parts: {'; '.join(failed)}",
                metadata={"housekeeping": dg.MetadataValue.md(markdown(rows))},
                allow_retries=False,
            )

    @dg.job(
        name="maintain",
        description="Hourly housekeeping of tables, logs, runs and events.",
        tags={"dagster/max_runtime": str(MAX_RUNTIME_S)},
    )
    def maintain() -> None:
        housekeeping_op()

    return maintain
