"""Seconds of the refresh that follows a poll: ten coins, every hourly asset, through Dagster."""

from __future__ import annotations

from bench.homes import polled_home, prepared
from bench.report import Measure, Part, formatted, middle, spread
from bench.spent import Spent, spent
from crypto_assets.assets.card import assets_of

NAME = "refresh"


def run(*, hours: int, repeats: int) -> Part:
    """One poll, one refresh, several times.

    Args:
        hours: Hours polled and materialized before; features look back over 26.
        repeats: Refreshes that are timed, after one that is not.
    """
    with polled_home(hours) as pipeline:
        prepared(pipeline)
        tries: list[Spent] = []
        for _ in range(repeats + 1):
            keys = pipeline.poll()
            with spent() as taken:
                pipeline.run("refresh", keys)
            tries.append(taken)
        newest = pipeline.instance.get_runs(limit=1)[0]
        evaluations = _events(pipeline.instance, newest.run_id)
    first, *counted = tries
    wall, processor = [t.wall for t in counted], [t.processor for t in counted]
    return Part(
        f"Refresh: ten coins, one new poll, {len(assets_of('refresh'))} assets, job `refresh` in process",
        [
            Measure("refresh after one poll", middle(wall), "s", note=spread(wall)),
            Measure("its processor time", middle(processor), "s", note=spread(processor)),
            Measure("its events", evaluations["all"], "events", note=f"{evaluations['checks']:,} check evaluations"),
        ],
        notes=[
            f"{hours} hours lie behind it",
            f"the first of an hour, not counted: {formatted(first.wall)} s, processor {formatted(first.processor)} s",
        ],
        costs={
            "refresh": {"wall": middle(wall), "processor": middle(processor), "events": evaluations["all"]},
            "first refresh of an hour": {"wall": first.wall, "processor": first.processor},
        },
    )


def _events(instance: object, run_id: str) -> dict[str, int]:
    """Events that a run stored."""
    import dagster as dg

    logs = instance.all_logs(run_id)  # type: ignore[attr-defined]
    checks = [e for e in logs if e.dagster_event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION]
    return {"all": len(logs), "checks": len(checks)}
