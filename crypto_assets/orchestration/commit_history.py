"""Commits of Bronze and the versions that Silver has read, from the tables or from Dagster's events.

Belongs here: reading both. Does not belong here: which hours are late (`restatement_sensor`), and what a run reports
(`assets.commit_report`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from crypto_assets.assets import commit_report
from crypto_assets.contracts.slices import key_slice
from crypto_assets.contracts.tables import RAW_PRICES, SILVER_PRICES
from crypto_assets.storage.base import Commit
from crypto_assets.storage.store import DeltaStore

BRONZE, SILVER = dg.AssetKey(list(RAW_PRICES.asset_key)), dg.AssetKey(list(SILVER_PRICES.asset_key))
COMMITS_AT_ONCE = 200
UNKNOWN = "UNKNOWN"
"""Operation of the placeholder for commits that no event reports."""
_PAGE = 100


class TableHistory:
    """History from the tables' Delta logs: a commit is visible at once, whatever became of its run.

    Both kinds give Bronze's commits after a version in order, with `touched_hours` as JSON in their metadata, and the
    Bronze version that each of some Silver hours was last built from; hours never built are absent.
    """

    def __init__(self, store: DeltaStore) -> None:
        self._store = store

    def bronze_after(self, version: int) -> list[Commit]:
        """At most `COMMITS_AT_ONCE` commits."""
        return self._store.commits_after(RAW_PRICES.full_name, version, COMMITS_AT_ONCE)

    def silver_read(self, hours: Sequence[str]) -> dict[str, int]:
        """From the slices that Silver's commits replaced."""
        wanted = set(hours)
        read: dict[str, int] = {}
        for commit in self._store.commits_after(SILVER_PRICES.full_name, -1, limit=100_000):
            if "bronze_version" not in commit.metadata or "slice_start" not in commit.metadata:
                continue
            start = datetime.fromisoformat(commit.metadata["slice_start"])
            end = datetime.fromisoformat(commit.metadata["slice_end"])
            for hour in wanted:
                at = key_slice(hour, "hour").start
                if start <= at < end:
                    read[hour] = max(read.get(hour, -1), int(commit.metadata["bronze_version"]))
        return read


class EventHistory:
    """History from the materializations of Bronze and Silver.

    A commit whose run was killed becomes known when a later run of Bronze reports it.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance

    def bronze_after(self, version: int) -> list[Commit]:
        """All reported commits; one entry with operation `UNKNOWN` stands for each gap.

        The entry has the last version of its gap, and metadata `missing_from` and `missing_to`.
        """
        known: dict[int, Commit] = {}
        for metadata, at in self._newest_first():
            entry = metadata.get(commit_report.METADATA)
            if entry is None:
                continue
            for commit in commit_report.from_rows(entry.value, at):
                known.setdefault(commit.version, commit)
            if known and min(known) <= version + 1:
                break
        return _with_gaps([known[v] for v in sorted(known) if v > version], version)

    def silver_read(self, hours: Sequence[str]) -> dict[str, int]:
        """From the newest materialization of each hour."""
        newest = self._instance.get_latest_storage_id_by_partition(
            SILVER, dg.DagsterEventType.ASSET_MATERIALIZATION, set(hours)
        )
        if not newest:
            return {}
        wanted = dg.AssetRecordsFilter(asset_key=SILVER, storage_ids=list(newest.values()))
        read: dict[str, int] = {}
        for record in self._instance.fetch_materializations(wanted, limit=len(newest)).records:
            made = record.asset_materialization
            entry = made.metadata.get("bronze_version") if made else None
            if entry is not None and record.partition_key is not None:
                read[record.partition_key] = int(str(entry.value))
        return read

    def _newest_first(self) -> Iterator[tuple[Mapping[str, Any], datetime]]:
        cursor: str | None = None
        while True:
            page = self._instance.fetch_materializations(BRONZE, limit=_PAGE, cursor=cursor)
            for record in page.records:
                if record.asset_materialization is not None:
                    yield record.asset_materialization.metadata, datetime.fromtimestamp(record.timestamp, UTC)
            if not page.has_more:
                return
            cursor = page.cursor


CommitHistory = TableHistory | EventHistory


def _with_gaps(commits: Sequence[Commit], version: int) -> list[Commit]:
    """Commits after a version, with a placeholder for each gap of versions."""
    found: list[Commit] = []
    before = version
    for commit in commits:
        if commit.version > before + 1:
            missing = {"missing_from": str(before + 1), "missing_to": str(commit.version - 1)}
            found.append(Commit(commit.version - 1, commit.at, UNKNOWN, missing))
        found.append(commit)
        before = commit.version
    return found


def unknown(commits: Sequence[Commit]) -> str:
    """Versions that no event reports, as text; empty when all are known."""
    rows = [c.metadata for c in commits if c.operation == UNKNOWN]
    return ", ".join(f"{r['missing_from']}..{r['missing_to']}" for r in rows)
