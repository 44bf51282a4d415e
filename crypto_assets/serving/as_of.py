"""From a time to the version of a table that was current then, by the times that the commits carry.

delta-rs goes by the times of files, which a copied home loses, and answers with version 0 for times before the table.

Belongs here: choosing the version. Does not belong here: parsing the time (`routes`), reading rows (`held`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from crypto_assets.serving.answers import Problem
from crypto_assets.serving.follow import FollowedTable
from crypto_assets.serving.held import NEVER, Snapshot, micros
from crypto_assets.storage import delta_files
from crypto_assets.storage.base import Commit

Kind = Literal["current", "snapshot", "available"]
OLDER_VERSIONS = 32
"""Older versions whose file lists stay in memory."""


@dataclass(frozen=True)
class Chosen:
    """The snapshot to answer from.

    Args:
        snapshot: The snapshot.
        kind: `current`; `snapshot`, the version of that time; or `available`, the present values of rows that were
            there at that time, when the version's files are gone.
        known_by: Rows that were first there after this time (µs) are left out.
    """

    snapshot: Snapshot
    kind: Kind
    known_by: int = NEVER


class Versions:
    """Older versions of a lake's tables, the last few kept open."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, Snapshot] = OrderedDict()
        self._times: dict[str, tuple[str, list[Commit]]] = {}
        self._lock = threading.Lock()

    def choose(self, table: FollowedTable, as_of: datetime | None) -> Chosen:
        """The version of a table that was current at a time.

        Args:
            table: The table.
            as_of: The time (UTC); None = now.

        Raises:
            Problem: 404 when there is no table yet, or was none at that time; 410 when the version's files are gone
                and the present rows do not say when they came.
        """
        current = table.snapshot
        if current is None:
            raise Problem(404, f"{table.kept.name} has no commit yet: crypto-assets up or demo fills it")
        if as_of is None:
            return Chosen(current, "current")
        if as_of >= current.committed_at:
            return Chosen(current, "snapshot")
        commits = self._commits(table, current)
        version, newest = None, None
        for commit in commits:
            # A clock that was set back does not make a later commit an earlier one.
            newest = commit.at if newest is None else max(newest, commit.at)
            if newest > as_of:
                break
            version = commit.version
        if version is None and commits and commits[0].version == 0:
            raise Problem(
                404, f"{table.kept.name} began at {commits[0].at.isoformat()}; there is nothing of {as_of.isoformat()}"
            )
        if version is not None and (found := self._at(table, current, version)) is not None:
            return Chosen(found, "snapshot")
        if table.kept.known_at is None:
            raise Problem(
                410,
                f"the files of {table.kept.name} at {as_of.isoformat()} are cleaned up: versions are kept for "
                "6 hours, and its rows are rewritten in place; ask for a later time",
            )
        return Chosen(current, "available", micros(as_of))

    def _commits(self, table: FollowedTable, current: Snapshot) -> list[Commit]:
        """Commits of a table, oldest first, as far back as its log reached when it was first asked for."""
        with self._lock:
            table_id, known = self._times.get(table.kept.name, ("", []))
            if table_id != current.table_id:
                known = []
            after = known[-1].version if known else -1
            if after < current.version:
                known = [*known, *delta_files.read_commits(str(table.path), after, 1_000_000)]
                self._times[table.kept.name] = current.table_id, known
            return known

    def _at(self, table: FollowedTable, current: Snapshot, version: int) -> Snapshot | None:
        key = f"{current.table_id}-{version}"
        if (found := self._open.get(key)) is not None and all(f.path.exists() for f in found.paths):
            return found
        found = table.at_version(version)
        if found is not None:
            self._open[key] = found
            while len(self._open) > OLDER_VERSIONS:
                self._open.popitem(last=False)
        return found
