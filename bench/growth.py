"""Bytes that a day leaves behind: Dagster's event log and the lake, before and after housekeeping.

A refresh a minute is 1,440 a day. What K refreshes of one hour add is measured, and extrapolated to a day in two ways:
what every refresh adds (events, files of replaced slices) times 1,440 / K, and what an hour leaves when its runs are
pruned (the run that holds its latest events) times 24. The first lasts as long as runs are kept, the second grows
without limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.homes import Pipeline, folder_bytes, polled_home, prepared
from bench.report import Measure, Part, formatted
from crypto_assets.contracts.tables import TABLES
from crypto_assets.orchestration.maintenance import REFRESH_RUNS_KEPT

if TYPE_CHECKING:
    import dagster as dg

NAME = "growth"
REFRESHES_A_DAY = 1440
GOAL_MB_A_DAY = 200.0
EVENT_LOG_TARGET_MB = 100.0
PROGRESS_EVERY = 50


@dataclass(frozen=True)
class Sizes:
    """Bytes on disk: event log, the rest of Dagster's storage, the lake, and of the lake what is live."""

    events: int
    other: int
    lake: int
    live: int


def run(*, hours: int, refreshes: int) -> Part:
    """Measure what refreshes add, prune as of a day later, measure again.

    Args:
        hours: Hours polled and materialized before.
        refreshes: Refreshes with one poll each.
    """
    with polled_home(hours) as pipeline:
        prepared(pipeline)
        _prune(pipeline)
        before = _sizes(pipeline)
        began = time.perf_counter()
        touched = _refresh(pipeline, refreshes)
        seconds = time.perf_counter() - began
        after = _sizes(pipeline)
        shown = _shown(pipeline.instance, pipeline.defs)
        _prune(pipeline)
        kept = _shown(pipeline.instance, pipeline.defs)
        pruned = _sizes(pipeline)
    return _part(before, after, pruned, refreshes, touched, seconds, _changed(shown, kept))


def _refresh(pipeline: Pipeline, count: int) -> int:
    """Poll and refresh; the number of hours that were refreshed."""
    from crypto_assets.cli import output

    hours: set[str] = set()
    for i in range(count):
        keys = pipeline.poll()
        pipeline.run("refresh", keys)
        hours.update(keys)
        if (i + 1) % PROGRESS_EVERY == 0:
            output.say(f"{i + 1:,} of {count:,} refreshes", style="dim")
    return len(hours)


def _prune(pipeline: Pipeline) -> None:
    """The hourly housekeeping, as it would run when today's refresh runs are a day old."""
    from crypto_assets.engine.engines import make_engine
    from crypto_assets.orchestration.maintenance import REFRESH_RUNS_KEPT, housekeeping

    store = make_engine(pipeline.settings).store
    now = datetime.now(UTC) + REFRESH_RUNS_KEPT + timedelta(hours=1)
    rows = housekeeping(store, pipeline.instance, pipeline.home, now, dry_run=False)
    failed = [f"{row['part']}: {row['result']}" for row in rows if row["failed"]]
    if failed:
        raise AssertionError("; ".join(failed))


def _sizes(pipeline: Pipeline) -> Sizes:
    import pyarrow as pa
    from deltalake import DeltaTable

    from crypto_assets.orchestration.event_store import event_log_bytes

    # Closing the files writes their journals back, as the end of a run's own process does; they open again when used.
    pipeline.instance.event_log_storage.dispose()
    events = event_log_bytes(pipeline.instance) or 0
    lake = Path(pipeline.settings.lake)
    live = 0
    for name in TABLES:
        folder = lake / name.replace(".", "/")
        if folder.exists():
            actions = pa.table(DeltaTable(folder).get_add_actions(flatten=True))
            live += sum(actions.column("size_bytes").to_pylist())
    return Sizes(events, folder_bytes(pipeline.home.dagster) - events, folder_bytes(lake), live)


def _shown(instance: dg.DagsterInstance, defs: dg.Definitions) -> dict[str, Any]:
    """What the UI shows of partitions and checks: materialized partitions, and the latest state of every check."""
    from crypto_assets.orchestration.event_store import check_states

    graph = defs.resolve_asset_graph()
    keys = sorted(graph.materializable_asset_keys)
    latest: dict[str, Callable[[], Any]] = {
        "materialized partitions": lambda: {
            k.to_user_string(): sorted(instance.get_materialized_partitions(k)) for k in keys
        },
        "latest materializations": lambda: {
            k.to_user_string(): event.run_id if (event := instance.get_latest_materialization_event(k)) else None
            for k in keys
        },
        "latest check states": lambda: check_states(instance),
    }
    return {name: look() for name, look in latest.items()}


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name, found in before.items() if after[name] != found]


def _part(
    before: Sizes, after: Sizes, pruned: Sizes, refreshes: int, hours: int, seconds: float, changed: list[str]
) -> Part:
    """Megabytes a day from the sizes before and after `refreshes`, and after pruning."""
    per_day = REFRESHES_A_DAY / refreshes / 1e6
    # What pruning leaves belongs to the hours that were refreshed; every other hour leaves as much again.
    events_kept = (pruned.events - before.events) * 24 / hours / 1e6
    share = REFRESH_RUNS_KEPT / timedelta(days=1)  # runs and dead files are kept equally long
    standing = ((after.events - before.events) + (after.lake - before.lake)) * per_day * share
    live = (pruned.live - before.live) * per_day
    title = (
        f"Growth: {refreshes:,} refreshes with one poll each ({formatted(seconds / refreshes)} s a refresh and poll)"
    )
    part = Part(
        title,
        [
            Measure("event log, before pruning", (after.events - before.events) * per_day, "MB/day"),
            Measure("lake, before vacuum", (after.lake - before.lake) * per_day, "MB/day"),
            Measure("event log, after pruning", events_kept, "MB/day", note="what 24 hours leave for good"),
            Measure("lake, live rows", live, "MB/day", note="after compaction; dead files go after 6 hours"),
            Measure("event log and lake together, after pruning", events_kept + live, "MB/day", GOAL_MB_A_DAY),
            Measure("standing beside what grows", standing, "MB", note="refresh runs and dead files of 6 h"),
            Measure(
                f"event log after {refreshes:,} refreshes and pruning",
                pruned.events / 1e6,
                "MB",
                EVENT_LOG_TARGET_MB if refreshes >= 500 else None,
                note=f"{formatted(after.events / 1e6)} MB before pruning",
            ),
            Measure("materialized partitions or check states changed by pruning", len(changed), "kinds", 1),
        ],
    )
    part.tables["Megabytes on disk"] = [
        {"of": name, "before": b / 1e6, f"after {refreshes:,} refreshes": a / 1e6, "after pruning": p / 1e6}
        for name, b, a, p in (
            ("event log", before.events, after.events, pruned.events),
            ("other Dagster storage", before.other, after.other, pruned.other),
            ("lake on disk", before.lake, after.lake, pruned.lake),
            ("lake, live files", before.live, after.live, pruned.live),
        )
    ]
    part.costs = {
        "a day of refreshes": {
            "event log, bytes": (after.events - before.events) / refreshes,
            "lake, bytes": (after.lake - before.lake) / refreshes,
            "left after pruning, bytes": events_kept + live,
        }
    }
    part.notes = [
        f"a day is {REFRESHES_A_DAY:,} refreshes",
        "pruning is the product's housekeeping, asked as if a day had passed",
        "changed by pruning: " + (", ".join(changed) or "nothing"),
    ]
    return part
