"""Checks that the log still is the one a table was filled from, by rereading its last stored records.

A log that lost its newest records (power loss, a folder restored from an older copy) grows again under the same topic
id and soon ends after the stored end: its end proves nothing, its contents do. So records are appended only while the
log still holds the stored ones before them. And since a topic may be re-created between the query for bounds and the
read, its id is queried again after the read.

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
"""Offsets before the stored end whose records are compared: the last alone might be equal by chance."""
NEAR = 4 * HOUR
"""Hours searched first for the last records."""
COLUMNS = ("partition", "offset", "kafka_timestamp", "message_key", "raw_json", "raw_bytes")
SHOWN = 10
"""Maximum number of differences that a message names."""


@dataclass(frozen=True)
class LogRecord:
    """Identity of one record; the value as SHA-256, None for a record without value."""

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
        tails: Last records that this process has stored, by table, incarnation and Kafka partition, with their stored
            end, so that a stream need not read them back. Used only while the table ends there.
        always: Compare before every commit, for long-running streams; else once per step.
    """

    always: bool = False
    tails: dict[tuple[str, str, int], tuple[int, dict[int, LogRecord]]] = field(default_factory=dict)
    _compared: set[tuple[str, str, int]] = field(default_factory=set)
    _verified: object = None

    def require(
        self,
        engine: Engine,
        table: Table,
        bounds: LogBounds,
        ends: Mapping[int, int],
        slice_: Slice,
        read: object = None,
    ) -> None:
        """Verify that the log still holds the stored records; call it after reading and before committing.

        Args:
            engine: Engine whose store and log are read.
            table: The append-once table.
            bounds: Names the topic and its incarnation.
            ends: Stored ends of the Kafka partitions to extend.
            slice_: Arrival hour that is written.
            read: Stands for the last read that rows to commit are from; the topic's id is verified once after it. None
                = verify it in any case.

        Raises:
            LogReplaced: The log and the stored records differ; names partitions, offsets and both records.
            LogError: The topic's id has changed since its bounds were queried.
            LogError: The log cannot be queried.
        """
        place = (table.full_name, bounds.topic_id)
        wanted = {p: end for p, end in ends.items() if self.always or (*place, p) not in self._compared}
        if not wanted and read is not None and self._verified is read:
            return
        stored = self._tails(engine, table, bounds.topic_id, wanted, slice_)
        ranges = [OffsetRange(p, min(records), max(records) + 1) for p, records in sorted(stored.items()) if records]
        found, compared = engine.read_log_again(bounds.topic, bounds.topic_id, ranges)
        differences = different(stored, records_of(found), compared)
        if differences:
            raise LogReplaced(replaced(bounds.topic, bounds.topic_id, differences))
        self._compared |= {(*place, p) for p in wanted}
        self._verified = read

    def stored(self, table: Table, topic_id: str, covers: Iterable[OffsetRange], rows: pa.Table) -> None:
        """Cache the last of the rows just stored."""
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
    """Stored records within `TAIL` offsets before the last record below a stored end, by Kafka partition.

    Transactions leave holes, gap rows hold no record, and a partition may have been silent for long: the last record is
    searched for near the end and near the hour first, then in the whole table.
    """
    from pyspark.sql import functions as F

    def rows(within: Slice | None, tops: Mapping[int, int]) -> Records:
        near = " OR ".join(f"(partition = {p} AND offset < {e} AND offset >= {e - TAIL})" for p, e in tops.items())
        mine = f"topic_id = '{topic_id}' AND kind = 'record' AND ({near})"
        return records_of(engine.store.read_arrow(table.full_name, within, columns=COLUMNS, where=mine))

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
    """Identities of rows of the table, or of the log (with the column `value`)."""
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
    """An offset at which log and stored record differ; `found` None = the log has no record there."""

    partition: int
    offset: int
    stored: LogRecord
    found: LogRecord | None

    def __str__(self) -> str:
        found = "no record" if self.found is None else str(self.found)
        return f"partition {self.partition} offset {self.offset}: stored {self.stored}, the log has {found}"


def different(stored: Records, found: Records, compared: Iterable[OffsetRange]) -> list[Difference]:
    """Stored offsets within compared ranges at which the log holds another record, or none, in order.

    Offsets that are not stored prove nothing: an hour between two stored ones may be missing.
    """
    pairs = [(piece, stored.get(piece.partition, {}), found.get(piece.partition, {})) for piece in compared]
    return [
        Difference(piece.partition, offset, record, theirs.get(offset))
        for piece, ours, theirs in pairs
        for offset, record in sorted(ours.items(), key=lambda item: item[0])
        if piece.start <= offset < piece.end and record != theirs.get(offset)
    ]


def replaced(topic: str, topic_id: str, differences: list[Difference]) -> str:
    """Message for a log that holds other records than were stored from it; one difference per Kafka partition."""
    last = {d.partition: d for d in differences}
    listed = "; ".join(str(d) for d in list(last.values())[:SHOWN])
    return (
        f"the log was cut and has grown again: topic {topic} (incarnation {topic_id}) holds other records than were "
        f"stored from it: {listed}. Its newest records were lost (a power loss, a folder restored from an older copy) "
        "and others have taken their offsets. Nothing more of it is stored until its records are taken as a new "
        "incarnation beside the stored rows: crypto-assets adopt-log shows which, and with --apply does it"
    )


def _last_rows(rows: pa.Table, partition: int) -> pa.Table:
    """The last rows of one Kafka partition, in offset order."""
    import numpy as np

    pc = compute()
    mine = pc.and_(pc.equal(rows.column("partition"), partition), pc.equal(rows.column("kind"), "record"))
    return rows.select(COLUMNS).take(np.flatnonzero(mine.to_numpy())[-TAIL:])
