"""Finds the offset from which a cut log differs from its stored records.

Belongs here: that offset, by comparing hours backwards. Does not belong here: recording the decision
(`log.kafka.adoption`), refusing to continue (`assets.log_slices.continuity`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from crypto_assets.assets.log_slices.continuity import COLUMNS, records_of
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import HOUR, Slice
from crypto_assets.engine.base import Engine
from crypto_assets.storage.base import OffsetRange


@dataclass(frozen=True)
class Fork:
    """One Kafka partition: stored up to `stored_end`, retained `[low, high)`, equal below `start`."""

    partition: int
    stored_end: int
    low: int
    high: int
    start: int

    @property
    def cut(self) -> bool:
        """Whether the log lost records that are stored."""
        return self.start < self.stored_end


def forks(
    engine: Engine, table: Table, topic: str, incarnation: str, retained: Mapping[int, tuple[int, int]]
) -> list[Fork]:
    """First differing offset per Kafka partition between the log and the rows of one incarnation.

    A log equals the stored rows up to where it was cut, so the backward search ends at the first hour of which every
    retained record is equal.

    Args:
        engine: Engine whose store and log are read.
        table: The append-once table.
        topic: The topic.
        incarnation: The incarnation under which its records are stored.
        retained: First retained offset and end by Kafka partition.

    Raises:
        LogError: The log cannot be read.
    """
    from pyspark.sql import functions as F

    mine = engine.store.read(table.full_name).where(F.col("topic_id") == incarnation)
    ends = {
        r["partition"]: r["end"]
        for r in mine.groupBy("partition").agg(F.max("range_end").alias("end")).toArrow().to_pylist()
    }
    starts = {p: min(ends.get(p, low), high) for p, (low, high) in retained.items()}
    hours = mine.select("arrival_hour").distinct().toArrow().column(0).to_pylist()
    for hour in sorted(hours, reverse=True):
        found = _first_differences(engine, table, topic, incarnation, hour, retained)
        starts |= {p: min(offset, starts[p]) for p, offset in found.items()}
        if not found:
            break
    return [Fork(p, ends.get(p, 0), low, high, max(starts[p], low)) for p, (low, high) in sorted(retained.items())]


def _first_differences(
    engine: Engine,
    table: Table,
    topic: str,
    incarnation: str,
    hour: datetime,
    retained: Mapping[int, tuple[int, int]],
) -> dict[int, int]:
    """First differing offset within one hour's rows, for the Kafka partitions that differ."""
    from pyspark.sql import functions as F

    rows = engine.store.read(table.full_name, Slice(hour, hour + HOUR))
    rows = rows.where((F.col("topic_id") == incarnation) & (F.col("kind") == "record"))
    stored = records_of(rows.select(*COLUMNS).toArrow())
    ranges = []
    first: dict[int, int] = {}
    for partition, records in sorted(stored.items()):
        low, high = retained.get(partition, (0, 0))
        start, end = max(low, min(records)), max(records) + 1
        if end > high:
            first[partition] = max(start, high)
        if start < min(end, high):
            ranges.append(OffsetRange(partition, start, min(end, high)))
    for chunk in engine.read_log(topic, ranges) if ranges else ():
        for partition, records in records_of(chunk).items():
            mine = stored[partition]
            for offset, record in records.items():
                if mine.pop(offset, None) != record:
                    first[partition] = min(offset, first.get(partition, offset))
    for piece in ranges:  # stored but not found
        for offset in stored[piece.partition]:
            if piece.start <= offset < piece.end:
                first[piece.partition] = min(offset, first.get(piece.partition, offset))
    return first
