"""Finds partitions that a rerun would reproduce, so that a restart or second demo skips them.

A partition depends on slices of other tables, the log, the coins and its code. Each is compared with what its newest
materialization recorded, and whatever cannot be compared counts as changed: a partition is skipped only if all its
inputs, and its own rows, are known to be unchanged. Later upstream writes come from Delta's commits, or from Dagster's
events where housekeeping has cleaned the commits.

Belongs here: that judgement. Does not belong here: running what is left (`cli.runs`). Dagster's own staleness does not
cover the log, rows written outside of runs, or a replaced lake.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import dagster as dg

from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import DAY, HOUR, Slice, floor_hour, hour_key, key_slice
from crypto_assets.contracts.tables import POLLS, PRICE_FEATURES, RAW_PRICES, SILVER_PRICES, TABLES
from crypto_assets.dagster_private import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    CODE_VERSION_TAG,
    PARTITION_NAME_TAG,
    AssetGraphView,
    BaseAssetGraph,
)
from crypto_assets.engine.base import given
from crypto_assets.log.errors import LogError
from crypto_assets.log.kafka import reading
from crypto_assets.market.coins import CoinRegistry
from crypto_assets.orchestration.restatement import child_keys, graph_view
from crypto_assets.settings import Settings
from crypto_assets.storage.base import Commit
from crypto_assets.storage.delta_files import HISTORY_CLEANED
from crypto_assets.storage.store import DeltaStore
from crypto_assets.transforms.bars import GRACE_S

ANY = "*"
"""Key of all partitions, and of the only one of an unpartitioned asset."""
BRONZE, SILVER = dg.AssetKey(list(RAW_PRICES.asset_key)), dg.AssetKey(list(SILVER_PRICES.asset_key))
ENOUGH_DATA = "enough_data"
REFUSALS = 100
"""Number of that check's evaluations that are read."""
LOGS = {BRONZE: "prices_topic", dg.AssetKey(list(POLLS.asset_key)): "polls_topic"}
"""Assets that read a topic, with the setting that names it."""
NOT_DATA = frozenset({"CREATE TABLE", "OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", HISTORY_CLEANED})
INCOMPARABLE = "what it follows from cannot be compared from here"
NEVER_MADE, NO_VERSION = "it was never made", "its newest run recorded no version"
ONCE_IS_ENOUGH = frozenset({INCOMPARABLE, NEVER_MADE, NO_VERSION})
"""Reasons that a run cannot remove: a model without data is not made, and an unread log stays unread."""
TICK = timedelta(seconds=1)
"""Commits and events are stamped by one clock, in this order, to the millisecond."""


@dataclass(frozen=True)
class Receipt:
    """Contents of a partition's newest materialization.

    Args:
        storage_id: Id of its event; ids follow the order of writes.
        at: Time (UTC).
        code_version: Code version of the asset then.
        metadata: Its metadata as plain values.
        refused: Whether it reports too little data to make the partition.
    """

    storage_id: int
    at: datetime
    code_version: str | None
    metadata: Mapping[str, Any]
    refused: bool = False

    @property
    def delta_version(self) -> int | None:
        """Version of its own table after the write."""
        return self.metadata.get("delta_version")

    def read(self, table: str) -> int | None:
        """Version of another table that was read; None if not recorded."""
        return self.metadata.get("read_versions", {}).get(table)


@dataclass
class Plan:
    """Partitions to make, by asset in flow order, each with its reason; `unchanged` counts the rest."""

    stale: dict[dg.AssetKey, dict[str, str]] = field(default_factory=dict)
    unchanged: dict[dg.AssetKey, int] = field(default_factory=dict)

    def segments(self, assets: Iterable[str]) -> list[tuple[list[str], list[str]]]:
        """Partitions of a job's assets as range runs in time order: keys, and the assets of each run.

        A run reads only earlier runs or its own range, since assets look back only.

        Args:
            assets: Assets of one grain, as `schema/name`.
        """
        wanted: dict[str, list[str]] = defaultdict(list)
        for asset in assets:
            for key in self.stale.get(dg.AssetKey(asset.split("/")), {}):
                wanted[key].append(asset)
        found: list[tuple[list[str], list[str]]] = []
        for key in sorted(k for k in wanted if k != ANY):
            if found and found[-1][1] == wanted[key] and _follows(found[-1][0][-1], key):
                found[-1][0].append(key)
            else:
                found.append(([key], wanted[key]))
        return found

    def why(self) -> dict[str, int]:
        """Number of partitions by reason."""
        counts: dict[str, int] = defaultdict(int)
        for keys in self.stale.values():
            for reason in keys.values():
                counts[reason] += 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _follows(before: str, key: str) -> bool:
    grain = "hour" if ":" in key else "day"
    return key_slice(before, grain).end == key_slice(key, grain).start


def plan(
    settings: Settings,
    instance: dg.DagsterInstance,
    graph: BaseAssetGraph,
    store: DeltaStore,
    wanted: Mapping[str, Sequence[str]],
    coins: CoinRegistry,
    now: datetime,
) -> Plan:
    """Decide which partitions to make.

    Args:
        settings: Settings of the home. With tables in a workspace or landed files, all are stale.
        instance: Its Dagster instance.
        graph: Asset graph with mappings and code versions.
        store: Its tables.
        wanted: Partition keys by asset (`schema/name`); empty for an unpartitioned asset.
        coins: Coins of the home, as passed to steps.
        now: Present time (UTC).
    """
    comparable = not settings.on_databricks and settings.transport == "kafka"
    keys = {dg.AssetKey(asset.split("/")): list(ks) or [ANY] for asset, ks in wanted.items()}
    ordered = [k for k in graph.toposorted_asset_keys if k in keys]
    if not comparable:
        return Plan({asset: dict.fromkeys(keys[asset], INCOMPARABLE) for asset in ordered})
    digest = given(settings.source, coins, settings.anomaly_budget)  # as the shell records it
    return _Judge(settings, instance, graph, store, digest, now).judge(ordered, keys)


@dataclass
class _Judge:
    """One judgement; commits and receipts are read once."""

    settings: Settings
    instance: dg.DagsterInstance
    graph: BaseAssetGraph
    store: DeltaStore
    digest: str
    now: datetime
    _commits: dict[str, list[Commit]] = field(default_factory=dict)
    _receipts: dict[dg.AssetKey, dict[str, Receipt]] = field(default_factory=dict)
    _planned: dict[dg.AssetKey, Mapping[str, int]] = field(default_factory=dict)
    _reached: dict[tuple[str, int], bool] = field(default_factory=dict)

    @cached_property
    def view(self) -> AssetGraphView:
        """The graph with the partitions of now."""
        return graph_view(self.instance, self.graph, self.now)

    def judge(self, ordered: Sequence[dg.AssetKey], keys: Mapping[dg.AssetKey, Sequence[str]]) -> Plan:
        found = Plan()
        for asset in ordered:
            stale: dict[str, str] = {}
            for key in keys[asset]:
                if reason := self._own(asset, key):
                    stale[key] = reason
            for key, reason in self._log(asset, keys[asset]):
                stale.setdefault(key, reason)
            for parent in sorted(self.graph.get(asset).parent_keys, key=str):
                for key, reason in self._upstream(asset, parent, keys[asset], found.stale.get(parent, {})):
                    stale.setdefault(key, reason)
            for key, reason in self._still_open(asset, keys[asset], grows=BRONZE in found.stale):
                stale.setdefault(key, reason)
            if stale:
                found.stale[asset] = stale
            found.unchanged[asset] = len(keys[asset]) - len(stale)
        return found

    # --- what was recorded ---

    def receipts(self, asset: dg.AssetKey) -> dict[str, Receipt]:
        """Newest materialization of every partition that has one."""
        if asset not in self._receipts:
            kind = dg.DagsterEventType.ASSET_MATERIALIZATION
            if self.graph.has(asset) and self.graph.get(asset).is_partitioned:
                ids = set(self.instance.event_log_storage.get_latest_storage_id_by_partition(asset, kind).values())
                chosen = dg.AssetRecordsFilter(asset_key=asset, storage_ids=sorted(ids))
                records = self.instance.fetch_materializations(chosen, limit=len(ids)).records if ids else []
            else:
                records = self.instance.fetch_materializations(asset, limit=1).records
            made = {r.partition_key or ANY: _receipt(r) for r in records if r.asset_materialization}
            self._receipts[asset] = {**self._refusals(asset), **made}
        return self._receipts[asset]

    def _refusals(self, asset: dg.AssetKey) -> dict[str, Receipt]:
        """Days of a model with too little data, as its runs reported for all their partitions."""
        check = dg.AssetCheckKey(asset, ENOUGH_DATA)
        if check not in self.graph.get(asset).check_keys:
            return {}
        store, found, planned = self.instance.event_log_storage, {}, self.planned(asset)
        for record in reversed(store.get_asset_check_execution_history(check, limit=REFUSALS)):
            evaluation = record.evaluation
            run = self.instance.get_run_by_id(record.run_id)
            if not isinstance(evaluation, dg.AssetCheckEvaluation) or evaluation.passed or run is None:
                continue
            values: dict[str, Any] = {name: value.value for name, value in evaluation.metadata.items()}
            first = run.tags.get(ASSET_PARTITION_RANGE_START_TAG, run.tags.get(PARTITION_NAME_TAG, ""))
            last = run.tags.get(ASSET_PARTITION_RANGE_END_TAG, first)
            at = datetime.fromtimestamp(record.create_timestamp, UTC)
            for key in (k for k in planned if first <= k <= last):
                found[key] = Receipt(planned[key], at, values.get("code_version"), values, refused=True)
        return found

    def planned(self, asset: dg.AssetKey) -> Mapping[str, int]:
        """Id of the newest planned event by partition."""
        if asset not in self._planned:
            kind = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
            store = self.instance.event_log_storage
            self._planned[asset] = store.get_latest_storage_id_by_partition(asset, kind)
        return self._planned[asset]

    def commits(self, table: Table) -> list[Commit]:
        """Row-changing commits of a table, as far back as its log goes."""
        name = table.full_name
        if name not in self._commits:
            self._commits[name] = [
                c
                for c in self.store.commits_after(name, -1, 1_000_000)
                if c.operation not in NOT_DATA and "maintenance" not in c.metadata
            ]
        return self._commits[name]

    # --- the partition itself ---

    def _own(self, asset: dg.AssetKey, key: str) -> str | None:
        receipt = self.receipts(asset).get(key)
        if receipt is None:
            return NEVER_MADE
        if self.planned(asset).get(key, 0) > receipt.storage_id:
            return "a run that was to make it did not"
        current = self.graph.get(asset).code_version
        if receipt.code_version != current:
            return f"its code version changed from {receipt.code_version} to {current}"
        if receipt.metadata.get("given") != self.digest:
            return "the coins or a setting of the steps changed"
        if not self.graph.get(asset).parent_keys and asset not in LOGS and receipt.at.date() != self.now.date():
            return "it follows from the date"
        table = TABLES.get(".".join(asset.path))
        return None if table is None or receipt.refused else self._rows(table, key, receipt)

    def _rows(self, table: Table, key: str, receipt: Receipt) -> str | None:
        """Reason why the rows may differ from those of the receipt; None if they cannot."""
        written, current = receipt.delta_version, self.store.version(table.full_name)
        if written is None:
            return NO_VERSION
        if current is None or current < written:
            return f"{table.full_name} is not the table that was written"
        for commit in self.commits(table):
            if commit.version <= written:
                if commit.version == written and commit.at > receipt.at + TICK:
                    return f"{table.full_name} is not the table that was written"
            elif key in _touched(commit, table, [key]):
                return f"its rows were changed by version {commit.version} of {table.full_name}"
        return None

    # --- the log ---

    def _log(self, asset: dg.AssetKey, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Hours of which the log has, or may have, unstored records."""
        if asset not in LOGS:
            return
        topic = getattr(self.settings, LOGS[asset])
        newest = max(self.receipts(asset).values(), key=lambda r: r.storage_id, default=None)
        topic_id = newest.metadata.get("topic_id") if newest else None
        covered: dict[int, int] = {}
        for receipt in self.receipts(asset).values():
            if receipt.metadata.get("topic_id") == topic_id:
                for partition, (_, end) in receipt.metadata.get("offsets", {}).items():
                    covered[int(partition)] = max(covered.get(int(partition), 0), end)
        try:
            start = reading.lag_start(self.settings, topic, covered, self.now)
        except LogError as error:
            yield from ((key, f"the contents of the log are unknown: {error}") for key in keys)
            return
        if start.topic_id != topic_id:
            yield from ((key, f"topic {topic} is another than the one that was read") for key in keys)
        elif any(start.uncovered.values()):
            # Records stamped ahead of the clock belong to the running hour.
            first = hour_key(floor_hour(start.oldest or self.now))
            yield from ((key, f"topic {topic} has new records") for key in keys if key >= first)

    # --- upstream ---

    def _upstream(
        self, asset: dg.AssetKey, parent: dg.AssetKey, keys: Sequence[str], stale: Mapping[str, str]
    ) -> Iterator[tuple[str, str]]:
        """Partitions that read something of a parent that is newer than they are, or will be."""
        name, table = parent.to_user_string(), TABLES.get(".".join(parent.path))
        if table is None and asset in LOGS:
            return  # its topic, of which every poll is an event: `_log` compares offsets
        yield from ((key, f"{name} is rebuilt") for key in self._children(asset, parent, stale, keys))
        by_version: dict[tuple[int | None, int], list[str]] = defaultdict(list)
        for key in keys:
            receipt = self.receipts(asset).get(key)
            if receipt is not None:
                by_version[receipt.read(".".join(parent.path)), receipt.storage_id].append(key)
        for (version, storage_id), group in by_version.items():
            receipt = self.receipts(asset)[group[0]]
            newer: set[str] = set()
            if table is not None:
                events = asset == SILVER and parent == BRONZE
                for commit in self.commits(table):
                    late = commit.version > version if version is not None else commit.at > receipt.at + TICK
                    if late:
                        newer |= _touched(commit, table, self._known(asset, parent), by_event=events)
            if table is None or version is None or not self._reaches(table, version):
                newer |= set(self._newer(parent, storage_id))
            reached = self._children(asset, parent, newer, group)
            yield from ((key, f"{name} was written after it was read") for key in reached)

    def _reaches(self, table: Table, version: int) -> bool:
        """Whether the table's log still has every commit after a version."""
        key = table.full_name, version  # partitions of a range run have read the same version
        if key not in self._reached:
            first = next(iter(self.store.commits_after(table.full_name, version, 1)), None)
            self._reached[key] = first is None or first.operation != HISTORY_CLEANED
        return self._reached[key]

    def _newer(self, parent: dg.AssetKey, storage_id: int) -> Iterator[str]:
        """Parent partitions that were remade, or planned and not made, after an event."""
        receipts = self.receipts(parent)
        for key, receipt in receipts.items():
            changed = receipt.metadata.get("written", True) and receipt.metadata.get("rows_appended", 1)
            if receipt.storage_id > storage_id and changed and not receipt.refused:
                yield key
        for key, planned in self.planned(parent).items():
            known = receipts.get(key)
            if planned > storage_id and (known is None or planned > known.storage_id):
                yield key  # a run that failed or was killed may have written

    def _still_open(self, asset: dg.AssetKey, keys: Sequence[str], *, grows: bool) -> Iterator[tuple[str, str]]:
        """Partitions whose last windows Bronze had not closed then, if it holds more now, or will."""
        name, table = RAW_PRICES.full_name, TABLES.get(".".join(asset.path))
        if table is None or not (table is PRICE_FEATURES or "is_closed" in table.column_names):
            return
        by_version: dict[int, list[str]] = defaultdict(list)
        for key in keys:
            receipt = self.receipts(asset).get(key)
            if key != ANY and receipt is not None and (read := receipt.read(name)) is not None:
                by_version[read].append(key)
        commits = self.commits(RAW_PRICES) if by_version else []
        for read, group in by_version.items():
            if not grows and not any(c.version > read for c in commits):
                continue
            before = _reached(c for c in commits if c.version <= read)
            for key in group:
                end = key_slice(key, "hour" if ":" in key else "day").end + timedelta(seconds=GRACE_S)
                if before is None or end > before:
                    yield key, "records came that close its last windows"

    def _known(self, asset: dg.AssetKey, parent: dg.AssetKey) -> set[str]:
        """Parent partitions that a commit may touch: all ever made of it or of its child."""
        if not self.graph.get(parent).is_partitioned:
            return {ANY}
        same = self.graph.get(asset).partitions_def == self.graph.get(parent).partitions_def
        return {*self.receipts(parent), *(self.receipts(asset) if same else ())} - {ANY}

    def _children(self, asset: dg.AssetKey, parent: dg.AssetKey, keys: Iterable[str], among: Iterable[str]) -> set[str]:
        """Partitions of an asset, among some, that read these of a parent."""
        chosen = set(keys)
        if not chosen:
            return set()
        if not self.graph.get(asset).is_partitioned or not self.graph.get(parent).is_partitioned or ANY in chosen:
            return set(among)
        return set(among) & child_keys(self.view, parent, chosen, asset)


def _receipt(record: dg.EventLogRecord) -> Receipt:
    made = record.asset_materialization
    assert made is not None
    values: dict[str, Any] = {name: value.value for name, value in made.metadata.items()}
    at = datetime.fromtimestamp(record.timestamp, UTC)
    # A run over several days of a model has an event for each, also for those that had too little data.
    short = {str(text).partition(":")[0] for text in values.get("run_days_without_enough_data", [])}
    tags, key = made.tags or {}, record.partition_key
    return Receipt(record.storage_id, at, tags.get(CODE_VERSION_TAG), values, refused=key in short)


def _reached(commits: Iterable[Commit]) -> datetime | None:
    """How far Bronze reached with these commits, ignoring times later than their commit."""
    times = (
        (datetime.fromisoformat(c.metadata["max_kafka_timestamp"]), c.at)
        for c in commits
        if "max_kafka_timestamp" in c.metadata
    )
    return max((stamp for stamp, at in times if stamp <= at + TICK), default=None)


def _touched(commit: Commit, table: Table, keys: Iterable[str], *, by_event: bool = False) -> set[str]:
    """Partitions, among some, that a commit may have changed: all of them if it does not list its slices.

    Args:
        commit: A commit.
        table: Its table.
        keys: Partition keys.
        by_event: For Bronze: hours of event time instead of arrival.
    """
    if by_event and "touched_hours" in commit.metadata:
        return set(keys) & set(json.loads(commit.metadata["touched_hours"]))
    if "slice_start" not in commit.metadata:
        return set(keys)
    piece = Slice(
        datetime.fromisoformat(commit.metadata["slice_start"]), datetime.fromisoformat(commit.metadata["slice_end"])
    )
    width = HOUR if table.grain == "hour" else DAY
    found = set()
    for key in keys:
        start = key_slice(key, table.grain).start if key != ANY and table.grain else piece.start
        if start < piece.end and start + width > piece.start:
            found.add(key)
    return found
