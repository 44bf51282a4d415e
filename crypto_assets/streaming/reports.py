"""Reports the stream's writes to Dagster as materializations: at most one per partition and minute.

Belongs here: events outside of runs, and their rate. Does not belong here: what was written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.base import PartitionResult, TableResult

if TYPE_CHECKING:
    import dagster as dg

EVERY_S = 60.0
"""Seconds between two reports of one partition."""


class Reports:
    """Queue of reports; the newest of a partition replaces the one before.

    Args:
        instance: Target instance; None = no reports (a cluster has no Dagster instance).
        banner: Sentence that names the data mode.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance | None,
        banner: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._instance, self._banner, self._clock = instance, banner, clock
        self._waiting: dict[tuple[str, str | None], tuple[dict[str, Any], PartitionResult | None]] = {}
        self._sent: dict[tuple[str, str | None], float] = {}
        self._final: set[tuple[str, str | None]] = set()

    def offer(
        self, table: str, partition: str | None, metadata: Mapping[str, Any], done: PartitionResult | None = None
    ) -> None:
        """Queue a report of a partition for the end of its minute; a step's report is not replaced by a lesser one."""
        key = (table, partition)
        if self._instance is None or (key in self._final and done is None):
            return
        self._waiting[key] = (dict(metadata), done)

    def offer_result(self, table: str, result: TableResult, *, final: bool = False) -> None:
        """Queue reports of a step's partitions, with its checks.

        Args:
            table: Full name.
            result: Its result.
            final: The partition has ended: from now on only a step's result is reported for it.
        """
        for partition, done in result.partitions.items():
            self.offer(table, partition, done.metadata, done)
            if final and self._instance is not None:
                self._final.add((table, partition))

    def flush(self, *, everything: bool = False) -> int:
        """Report what is due, or everything; return the number of materializations."""
        if self._instance is None:
            return 0
        now = self._clock()
        due = [k for k in self._waiting if everything or now - self._sent.get(k, -EVERY_S) >= EVERY_S]
        for key in due:
            for event in self._events(key, *self._waiting.pop(key)):
                self._instance.report_runless_asset_event(event)
            self._sent[key] = now
        return len(due)

    def _events(self, key: tuple[str, str | None], metadata: dict[str, Any], done: PartitionResult | None) -> list[Any]:
        import dagster as dg

        from crypto_assets.checks import factories as checks
        from crypto_assets.checks.rules import folded
        from crypto_assets.dagster_private import DATA_VERSION_TAG

        table, partition = key
        asset = dg.AssetKey(TABLES[table].asset_key)
        shown = {name: value for name, value in metadata.items() if isinstance(value, (str, int, float, bool))}
        if done is not None:
            shown["dagster/partition_row_count" if partition else "dagster/row_count"] = done.rows
        events: list[Any] = [
            dg.AssetMaterialization(
                asset,
                description="by the stream",
                partition=partition,
                metadata={**shown, "source": self._banner, "reported_by": "stream"},
                tags={DATA_VERSION_TAG: done.data_version} if done is not None else None,
            )
        ]
        for outcome in folded(TABLES[table], done.checks) if done is not None else ():
            # Outside of runs Dagster accepts one evaluation per check and partition, ever; the text names it instead.
            text = f"{partition}: {outcome.description}" if partition else outcome.description
            events.append(checks.evaluation(replace(outcome, description=text), asset, None))
        return events
