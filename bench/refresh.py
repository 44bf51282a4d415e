"""Seconds of the refresh that follows a poll: ten coins, every hourly asset, through Dagster."""

from __future__ import annotations

import time

from bench.homes import polled_home, prepared
from bench.report import Measure, Part, formatted, middle, spread
from crypto_assets.assets.card import assets_of

NAME = "refresh"
TARGET_S = 3.0


def run(*, hours: int, repeats: int) -> Part:
    """One poll, one refresh, several times.

    Args:
        hours: Hours polled and materialized before; features look back over 26.
        repeats: Refreshes that are timed, after one that is not.
    """
    with polled_home(hours) as pipeline:
        prepared(pipeline)
        first, seconds = 0.0, []
        for i in range(repeats + 1):
            keys = pipeline.poll()
            began = time.perf_counter()
            pipeline.run("refresh", keys)
            taken = time.perf_counter() - began
            if i:
                seconds.append(taken)
            else:
                first = taken
        newest = pipeline.instance.get_runs(limit=1)[0]
        evaluations = _events(pipeline.instance, newest.run_id)
    return Part(
        f"Refresh: ten coins, one new poll, {len(assets_of('refresh'))} assets, job `refresh` in process",
        [Measure("refresh after one poll", middle(seconds), "s", TARGET_S, note=spread(seconds))],
        notes=[
            f"{hours} hours lie behind it; the first refresh of the running hour, not counted: {formatted(first)} s",
            f"one refresh stores {evaluations['all']:,} events, {evaluations['checks']:,} of them check evaluations",
        ],
    )


def _events(instance: object, run_id: str) -> dict[str, int]:
    """Events that a run stored."""
    import dagster as dg

    logs = instance.all_logs(run_id)  # type: ignore[attr-defined]
    checks = [e for e in logs if e.dagster_event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION]
    return {"all": len(logs), "checks": len(checks)}
