"""Facts about a table for `status`: from the table itself, or from Dagster's events if it is in a workspace.

Belongs here: reading both. Does not belong here: what follows from it (`status`). No table's data is scanned but the
few rows of `gold.latest_prices`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from crypto_assets.assets.publishing import EVENT_COLUMNS, NEWEST_EVENT
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.tables import ALERTS, LATEST_PRICES, QUARANTINE
from crypto_assets.settings import Settings
from crypto_assets.storage import delta_files as files

if TYPE_CHECKING:
    from deltalake import DeltaTable


@dataclass(frozen=True)
class Facts:
    """Of one table.

    Args:
        rows: Rows stored; None = not known, or no such table yet.
        newest_event: Newest event time (UTC).
        partition: The partition that `rows` are of; None = the whole table.
    """

    rows: int | None = None
    newest_event: datetime | None = None
    partition: str | None = None


@dataclass(frozen=True)
class Covered:
    """How far `gold.latest_prices` reaches: offsets by Kafka partition, arrival time, newest quote (UTC)."""

    offsets: Mapping[int, int] = field(default_factory=dict)
    until: datetime | None = None
    newest_quote: datetime | None = None


def facts_of(settings: Settings, instance: dg.DagsterInstance | None) -> TableFacts:
    """From the tables where this process has them, from events where they are in a workspace.

    Args:
        settings: Settings of the home.
        instance: Its Dagster instance; None when it cannot be opened: then nothing is known of a workspace's tables.
    """
    stored = StoredFacts(settings.lake)
    return ToldFacts(instance, stored) if settings.on_databricks and instance is not None else stored


def happened(table: Table) -> bool:
    """True if the newest event of a table has happened, and therefore cannot be ahead of the clock.

    The end of a running slot may be, and so may the times of rejected records.
    """
    column = next((c for c in EVENT_COLUMNS if c in table.column_names), None)
    return column not in (None, "window_end") and table.full_name != QUARANTINE.full_name


class StoredFacts:
    """From the tables' logs and statistics: facts of a table, and how far the newest quotes reach."""

    def __init__(self, lake: str) -> None:
        self._lake = lake

    def of(self, table: Table) -> Facts:
        """All rows and the newest event time, from the statistics in the table's log.

        The newest event is that of the first of `EVENT_COLUMNS`, or of the time column, that has statistics.

        Raises:
            StorageError: The table's files are damaged, or a catalog keeps its commits.
        """
        handle = self._open(table)
        if handle is None:
            return Facts()
        listed = files.listed_files(handle)
        rows = sum(n or 0 for n in listed.column("num_records").to_pylist()) if listed.num_rows else 0
        for column in (*EVENT_COLUMNS, table.time_column):
            name = f"max.{column}"
            if column is None or name not in listed.column_names:
                continue
            values = [v for v in listed.column(name).to_pylist() if isinstance(v, datetime)]
            if values:
                newest = max(values)
                return Facts(rows, newest if newest.tzinfo else newest.replace(tzinfo=UTC))
        return Facts(rows)

    def covered(self) -> Covered:
        """As the newest refresh of the table wrote it."""
        columns = ["covered_offsets", "covered_until", "last_updated_at", "refreshed_at"]
        handle = self._open(LATEST_PRICES)
        rows = files.records(handle, LATEST_PRICES, columns) if handle is not None else []
        if not rows:
            return Covered()
        newest = max(rows, key=lambda r: r["refreshed_at"])
        return Covered(
            _offsets(newest["covered_offsets"]),
            max(r["covered_until"] for r in rows),
            max(r["last_updated_at"] for r in rows),
        )

    def _open(self, table: Table) -> DeltaTable | None:
        return files.open_table(files.table_path(self._lake, table.full_name))


class ToldFacts:
    """From the newest materialization of each table; `ops.alerts`, which the driver writes, from the table itself."""

    def __init__(self, instance: dg.DagsterInstance, own: StoredFacts) -> None:
        self._instance, self._own = instance, own

    def of(self, table: Table) -> Facts:
        """Rows of the newest partition, and the newest event that its last run wrote."""
        if table.full_name == ALERTS.full_name:
            return self._own.of(table)
        partition, metadata = self._newest(table)
        rows = metadata.get("dagster/partition_row_count", metadata.get("dagster/row_count"))
        newest = metadata.get(NEWEST_EVENT, metadata.get("max_kafka_timestamp"))
        return Facts(None if rows is None else int(rows), _time(newest), partition)

    def covered(self) -> Covered:
        """According to the last run of the table."""
        _, metadata = self._newest(LATEST_PRICES)
        return Covered(
            _offsets(metadata.get("covered_offsets", "{}")),
            _time(metadata.get("covered_until")),
            _time(metadata.get(NEWEST_EVENT)),
        )

    def _newest(self, table: Table) -> tuple[str | None, dict[str, Any]]:
        """Newest partition of a table (None = it has none) and the metadata of its newest materialization."""
        key = dg.AssetKey(list(table.asset_key))
        partition = max(self._instance.get_materialized_partitions(key), default=None)
        wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition]) if partition else key
        for record in self._instance.fetch_materializations(wanted, limit=1).records:
            if record.asset_materialization is not None:
                return partition, {name: v.value for name, v in record.asset_materialization.metadata.items()}
        return partition, {}


TableFacts = StoredFacts | ToldFacts


def _offsets(text: str) -> dict[int, int]:
    return {int(p): int(end) for p, end in json.loads(text).items()}


def _time(text: Any) -> datetime | None:
    return None if text is None else datetime.fromisoformat(str(text))
