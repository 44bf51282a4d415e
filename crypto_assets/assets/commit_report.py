"""Bronze's newest commits as run metadata, for readers of Dagster's events without access to the tables.

Belongs here: which commits a run reports, and their format, both ways. Does not belong here: what follows from them
(`orchestration.commit_history`).

A run reports more than its own commits: those of a killed run, which left no event, are reported by the next one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import HOUR
from crypto_assets.engine.base import Engine, Result, StepInputs
from crypto_assets.storage.base import Commit

_LOG = logging.getLogger(__name__)
METADATA = "recent_commits"
"""Metadata key on the last partition of a run."""
WANTED = "tell_commits"
"""Input parameter that requests it; unnecessary where the tables can be read."""
BEFORE = (200, 5000)
"""Commits before a run's own that it reports too, because they may lack an event; the second applies where a stream
commits so often that the first do not reach back `SPAN`."""
SPAN = 3 * HOUR


def with_commits(engine: Engine, table: Table, result: Result, inputs: StepInputs) -> Result:
    """Add the table's newest commits to the metadata of the result's last partition.

    Args:
        engine: Engine that wrote.
        table: Table that was written.
        result: Result of the step.
        inputs: `params[WANTED]` asks for the commits; otherwise the result is unchanged.
    """
    done = result.tables.get(table.full_name)
    if not inputs.params.get(WANTED) or done is None or not done.partitions:
        return result
    newest = done.metadata.get("delta_version_after")
    if not isinstance(newest, int):
        return result
    first = done.metadata.get("delta_version_before")
    own = first if isinstance(first, int) else -1
    last = max(done.partitions, key=str)
    try:
        rows = to_rows(_newest(engine, table, min(own, newest), newest, inputs.now))
    except Exception as error:  # noqa: BLE001 - the write stands, and the next run reports these commits too
        _LOG.warning("%s: version %d is committed; commits cannot be reported: %s", table.full_name, newest, error)
        return result
    done.partitions[last].metadata[METADATA] = rows
    return result


def _newest(engine: Engine, table: Table, own: int, newest: int, now: datetime) -> list[Commit]:
    """Commits up to a version, starting `BEFORE` those that follow another one."""
    commits: list[Commit] = []
    for before in BEFORE:
        after = max(-1, own - before)
        commits = engine.store.commits_after(table.full_name, after, newest - after)
        if after == -1 or not commits or commits[0].at <= now - SPAN:
            break
    return commits


def to_rows(commits: Iterable[Commit]) -> list[list[Any]]:
    """Commits in order as [first version, last version, [touched hours]]; neighbours with equal hours are merged.

    An entry for commits that the log no longer holds spans all of them.
    """
    rows: list[list[Any]] = []
    for commit in commits:
        first = int(commit.metadata.get("missing_from", commit.version))
        hours = sorted(set(json.loads(commit.metadata.get("touched_hours", "[]"))))
        if rows and rows[-1][1] == first - 1 and rows[-1][2] == hours:
            rows[-1][1] = commit.version
        else:
            rows.append([first, commit.version, hours])
    return rows


def from_rows(rows: Sequence[Sequence[Any]], at: datetime) -> list[Commit]:
    """Commits of `to_rows`, one per version, in order.

    Args:
        rows: Rows that a run reported.
        at: Time of the report (UTC), used as the time of each commit.
    """
    found: list[Commit] = []
    for first, last, hours in rows:
        metadata = {"touched_hours": json.dumps(list(hours))}
        found += [Commit(version, at, "REPORTED", metadata) for version in range(int(first), int(last) + 1)]
    return found
