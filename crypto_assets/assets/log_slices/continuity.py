"""Whether the log still is the one that a table was filled from: its last stored records, read again.

A log that lost its newest records (power loss, a folder restored from an older copy) grows again under the same topic
id, and soon ends after what is stored: its end says nothing, its contents do. So what follows the stored records is
appended only when the log still holds those records. And a topic may be re-created between the question for bounds and
the read, so its id is asked once more after the read.

Belongs here: the last stored records of a Kafka partition, and comparing them. Does not belong here: which offsets an
hour lacks (`assets.log_slices.kafka`), reading (`log.kafka.reading`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from crypto_assets.contracts.arrow import compute
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import HOUR, Slice
from crypto_assets.engine.base import Engine
from crypto_assets.log.errors import LogReplaced
from crypto_assets.storage.base import LogBounds, OffsetRange

if TYPE_CHECKING:
    import pyarrow as pa

TAIL = 16
"""Offsets before the stored end of which the records are compared: the last alone might be equal by chance."""
NEAR = 4 * HOUR
"""Hours in which the last records are looked for first."""
COLUMNS = ("partition", "offset", "kafka_timestamp", "message_key", "raw_json", "raw_bytes")
SHOWN = 10
"""Differences that a message names."""


@dataclass(frozen=True)
class LogRecord:
    """What one record is known again by; the value as SHA-256, None for a record without value."""

    at: datetime
    key: str | None
    digest: str | None

    def __str__(self) -> str:
        value = "no value" if self.digest is None else f"value {self.digest[:12]}"
        return f"{self.at.isoformat(timespec='milliseconds')} key {self.key} {value}"


Records = dict[int, dict[int, LogRecord]]
"""Records by Kafka partition and offset."""


@dataclass
class Continuity:
    """The comparisons of one step, or of one stream.

    Args:
        tails: Last records that this process has stored, by table, incarnation and Kafka partition, with the stored
            end that they were stored up to: a stream need not read them back. Only believed while the table ends there.
        always: Compare before every commit, as a stream does, whose life is long; else once a step.
    """

    always: bool = False
    tails: dict[tuple[str, str, int], tuple[int, dict[int, LogRecord]]] = field(default_factory=dict)
    _compared: set[tuple[str, str, int]] = field(default_factory=set)

    def require(self, engine: Engine, table: Table, bounds: LogBounds, ends: Mapping[int, int], slice_: Slice) -> None:
        """Prove that the log still holds what is stored of it; to be called after reading and before committing.

        Args:
            engine: Engine whose store is read and whose log is asked.
            table: The append-once table.
            bounds: Names the topic and its incarnation.
            ends: Stored ends of the Kafka partitions of which more is to be stored.
            slice_: Arrival hour that is written.

        Raises:
            LogReplaced: The log holds other records than those that are stored; names partitions, offsets, both.
            TopicRecreated: The topic has another id than when its bounds were asked for.
            LogError: The log cannot be asked.
        """
        place = (table.full_name, bounds.topic_id)
        wanted = {p: end for p, end in ends.items() if self.always or (*place, p) not in self._compared}
        stored = self._tails(engine, table, bounds.topic_id, wanted, slice_)
        ranges = [OffsetRange(p, min(records), max(records) + 1) for p, records in sorted(stored.items()) if records]
        found, compared = engine.read_log_again(bounds.topic, bounds.topic_id, ranges)
        differences = different(stored, records_of(found), compared)
        if differences:
            raise LogReplaced(replaced(bounds.topic, bounds.topic_id, differences))
        self._compared |= {(*place, p) for p in wanted}

    def stored(self, table: Table, topic_id: str, covers: Iterable[OffsetRange], rows: pa.Table) -> None:
        """Remember the last of the rows that were stored just now."""
        for piece in covers:
            self._compared.add((table.full_name, topic_id, piece.partition))
            if self.always:
                last = records_of(_last_rows(rows, piece.partition)).get(piece.partition)
                if last:
                    self.tails[table.full_name, topic_id, piece.partition] = (piece.end, last)

    def _tails(self, engine: Engine, table: Table, topic_id: str, ends: Mapping[int, int], slice_: Slice) -> Records:
        found: Records = {}
        for partition, end in ends.items():
            upto, records = self.tails.get((table.full_name, topic_id, partition), (-1, {}))
            if upto == end:
                found[partition] = records
        absent = {p: end for p, end in ends.items() if p not in found}
        return {**found, **(last_records(engine, table, topic_id, absent, slice_) if absent else {})}


def last_records(engine: Engine, table: Table, topic_id: str, ends: Mapping[int, int], slice_: Slice) -> Records:
    """The stored records within `TAIL` offsets before the last record below a stored end, by Kafka partition.

    Transactions leave holes, gap rows hold no record, and a partition may have been silent for long: the last record
    is looked for near the end and near the hour first, then in all of the table.
    """
    from pyspark.sql import functions as F

    def rows(within: Slice | None, tops: Mapping[int, int]) -> Records:
        frame = engine.store.read(table.full_name, within)
        near = [
            (F.col("partition") == p) & (F.col("offset") < e) & (F.col("offset") >= e - TAIL) for p, e in tops.items()
        ]
        mine = (F.col("topic_id") == topic_id) & (F.col("kind") == "record") & reduce(or_, near)
        return records_of(frame.where(mine).select(*COLUMNS).toArrow())

    found = rows(Slice(slice_.start - NEAR, slice_.end), ends)
    absent = sorted(set(ends) - set(found))
    if absent:
        frame = engine.store.read(table.full_name)
        mine = (F.col("topic_id") == topic_id) & (F.col("kind") == "record") & F.col("partition").isin(*absent)
        below = [(F.col("partition") == p) & (F.col("offset") < ends[p]) for p in absent]
        last = frame.where(mine & reduce(or_, below)).groupBy("partition").agg(F.max("offset").alias("last")).toArrow()
        tops = {r["partition"]: r["last"] + 1 for r in last.to_pylist()}
        found |= rows(None, tops) if tops else {}
    return found


def records_of(rows: pa.Table | None) -> Records:
    """Rows of the table, or of the log (with the column `value`), as what they are known again by."""
    found: Records = {}
    for row in rows.to_pylist() if rows is not None else ():
        text = row.get("raw_json")
        value = row["value"] if "value" in row else text.encode() if text is not None else row["raw_bytes"]
        digest = None if value is None else hashlib.sha256(value).hexdigest()
        record = LogRecord(row["kafka_timestamp"], row["message_key"], digest)
        found.setdefault(row["partition"], {})[row["offset"]] = record
    return found


@dataclass(frozen=True)
class Difference:
    """One offset at which the log does not hold the stored record; `found` None = it has no record there."""

    partition: int
    offset: int
    stored: LogRecord
    found: LogRecord | None

    def __str__(self) -> str:
        found = "no record" if self.found is None else str(self.found)
        return f"partition {self.partition} offset {self.offset}: stored {self.stored}, the log has {found}"


def different(stored: Records, found: Records, compared: Iterable[OffsetRange]) -> list[Difference]:
    """Stored offsets within compared ranges at which the log holds another record, or none, in order.

    Offsets that are not stored say nothing: between two stored hours may lie one that was not made yet.
    """
    pairs = [(piece, stored.get(piece.partition, {}), found.get(piece.partition, {})) for piece in compared]
    return [
        Difference(piece.partition, offset, record, theirs.get(offset))
        for piece, ours, theirs in pairs
        for offset, record in sorted(ours.items(), key=lambda item: item[0])
        if piece.start <= offset < piece.end and record != theirs.get(offset)
    ]


def replaced(topic: str, topic_id: str, differences: list[Difference]) -> str:
    """The message for a log that holds other records than were stored from it; one difference a Kafka partition."""
    last = {d.partition: d for d in differences}
    listed = "; ".join(str(d) for d in list(last.values())[:SHOWN])
    return (
        f"the log was cut and has grown again: topic {topic} (incarnation {topic_id}) holds other records than were "
        f"stored from it: {listed}. Its newest records were lost (a power loss, a folder restored from an older copy) "
        "and others have taken their offsets. Nothing more of it is stored until its records are taken as a new "
        "incarnation beside the stored rows: crypto-assets adopt-log says which, and with --apply does it"
    )


def _last_rows(rows: pa.Table, partition: int) -> pa.Table:
    """The last rows of one Kafka partition, which are in order of their offsets."""
    import numpy as np

    pc = compute()
    mine = pc.and_(pc.equal(rows.column("partition"), partition), pc.equal(rows.column("kind"), "record"))
    return rows.select(COLUMNS).take(np.flatnonzero(mine.to_numpy())[-TAIL:])


__all__ = ["Continuity", "Difference", "LogRecord", "Records", "different", "last_records", "records_of", "replaced"]
