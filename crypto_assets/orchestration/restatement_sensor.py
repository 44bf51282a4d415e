"""The sensor that restates old hours when late records arrive.

It follows the commits of `bronze/raw_prices`: each carries the event hours it touched, so a crash between a commit and
its Dagster event loses nothing, and the cursor (a Delta version) survives missed ticks. Does not belong here: the
source of those commits (`commit_history`), and what an hour restates (`restatement`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg

from crypto_assets.assets import training
from crypto_assets.contracts.slices import hour_key, key_spans
from crypto_assets.orchestration import commit_history, restatement
from crypto_assets.orchestration.commit_history import CommitHistory
from crypto_assets.orchestration.producer_sensor import refresh_in_progress
from crypto_assets.orchestration.running_window import running_window
from crypto_assets.storage.base import Commit

WHEN_UNKNOWN = "if late records were among them, restate their days with crypto-assets backfill DAY --from log"


def pending_hours(
    commits: Sequence[Commit], silver_read: dict[str, int], now: datetime
) -> tuple[dict[int, list[str]], int | None]:
    """Event hours that late records touched and Silver has not read yet, by Bronze version.

    The running window is left to the refresh. A commit that touched it is retained, not skipped, until its hour has
    ended: if the refresh did not reread the hour within its settling time, the hour is pending.

    Args:
        commits: Bronze commits in order.
        silver_read: Bronze version that each Silver hour was last built from.
        now: Present time (UTC).

    Returns:
        Pending hours by the version that touched them, and the last version that was settled (None = none).
    """
    running = set(running_window(now))
    current = hour_key(now)
    pending: dict[int, list[str]] = {}
    settled: int | None = None
    for commit in commits:
        touched = set(json.loads(commit.metadata.get("touched_hours", "[]")))
        unread = {h for h in touched if silver_read.get(h, -1) < commit.version}
        if unread & (running - {current}):
            break
        late = sorted(unread - {current})
        if late:
            pending[commit.version] = late
        settled = commit.version
    return pending, settled


def pending_commits(
    history: CommitHistory, after: int, now: datetime
) -> tuple[Sequence[Commit], dict[int, list[str]], int | None]:
    """Read the Bronze commits after a version and their `pending_hours`.

    Args:
        history: Source of commits.
        after: Bronze version that was settled last, -1 = none.
        now: Present time (UTC).
    """
    commits = history.bronze_after(after)
    touched = sorted({h for c in commits for h in json.loads(c.metadata.get("touched_hours", "[]"))})
    # Ordinary commits touch only the running hour, so Silver's versions are read for the other hours alone.
    older = [h for h in touched if h != hour_key(now)]
    return commits, *pending_hours(commits, history.silver_read(older) if older else {}, now)


def stale_models(seen: Mapping[dg.AssetKey, Mapping[str, int]], bronze_version: str) -> list[dg.AssetCheckEvaluation]:
    """Warnings on model days whose training hours are restated; old models stay as they are.

    Args:
        seen: Hours restated by day and model.
        bronze_version: Bronze version whose late records restate.
    """
    return [
        dg.AssetCheckEvaluation(
            asset_key=model,
            check_name=training.RESTATED,
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            partition=day,
            description=f"{hours} hours of its training window are being restated; the model stays as it was trained",
            metadata={"restated_hours": hours, "bronze_version": bronze_version},
        )
        for model, days in seen.items()
        for day, hours in days.items()
    ]


def build(status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Build the sensor definition."""

    @dg.sensor(
        name="restatement",
        asset_selection=dg.AssetSelection.assets(restatement.ORIGIN, *restatement.restated()),
        minimum_interval_seconds=30,
        default_status=status,
        required_resource_keys={"engine", "step_inputs"},
        description="Late records restate exactly their hours and the materialized partitions that read them.",
    )
    def restatement_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = datetime.now(UTC)
        settings = context.resources.step_inputs.settings
        cursor = int(context.cursor) if context.cursor else -1
        if settings.on_databricks and refresh_in_progress(context.instance):
            # Launched steps take minutes: Silver of the same run may be about to read what Bronze has committed.
            return dg.SensorResult(
                skip_reason="a refresh is in progress: its Silver comes first", cursor=context.cursor
            )
        # From events where steps write in a workspace, whose tables this process does not have.
        if settings.on_databricks:
            history: CommitHistory = commit_history.EventHistory(context.instance)
        else:
            history = commit_history.TableHistory(context.resources.engine.store)
        commits, pending, settled = pending_commits(history, cursor, now)
        if lost := commit_history.unknown(commits):
            context.log.warning("no run reports which hours the Bronze commits %s touched: %s", lost, WHEN_UNKNOWN)
        position = str(cursor if settled is None else settled)
        late = {h for hs in pending.values() for h in hs}
        expired = restatement.expired(late, now)
        hours = sorted(late - set(expired))
        if expired and not hours:
            message = f"records of {', '.join(key_spans(expired))} came too late to restate: see silver/quarantine"
            return dg.SensorResult(skip_reason=message, cursor=position)
        if not hours:
            return dg.SensorResult(skip_reason=f"{len(commits)} Bronze commits read, no late hour", cursor=position)
        assert context.repository_def is not None
        graph = context.repository_def.asset_graph
        found = restatement.affected(context.instance, graph, hours, now)
        if not found:
            message = f"late hours {', '.join(hours)} were never materialized: nothing to restate"
            return dg.SensorResult(skip_reason=message, cursor=position)
        tags = {"restate": str(max(pending)), "crypto_assets/why": "late records"}
        context.log.info("restating %s", {k.to_user_string(): v for k, v in found.items()})
        seen = restatement.models_that_saw(context.instance, graph, found, now)
        return dg.SensorResult(
            run_requests=[restatement.request(graph, found, tags)],
            asset_events=stale_models(seen, tags["restate"]),
            cursor=position,
        )

    return restatement_sensor
