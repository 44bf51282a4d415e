"""Hours of a Kafka topic: which offsets a table lacks of an hour, and whether its ranges are complete.

Hour H covers [start, b(H+1)) of every Kafka partition, where start is the end stored by the hour before and b(t) is the
first offset at or after t. Stored ranges win over b(t), which moves when the log is trimmed.

Does not belong here: reading Kafka (`log.kafka.reading`), the commit (`assets.log_slices.hours`), verifying that the
log is the same (`assets.log_slices.continuity`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

from crypto_assets.assets.log_slices import report as log_report
from crypto_assets.assets.log_slices.continuity import Continuity
from crypto_assets.assets.log_slices.rows import ReadAhead
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import HOUR, Slice, hour_key, key_slice
from crypto_assets.engine.base import Engine, StepFailed, StepInputs
from crypto_assets.log.errors import LogError, LogWentBackwards
from crypto_assets.log.protocol import Held, Lacking, Ranges
from crypto_assets.storage.base import AppendBatch, LogBounds, OffsetRange, PartitionBounds, StoredRanges, WriteResult

if TYPE_CHECKING:
    import pyarrow as pa


HOURS_AHEAD = 100
"""Maximum number of hours that are read together."""


@dataclass
class KafkaLog:
    """Hours of a topic, each preceded by what the hour before still lacks; see `log.protocol.Log`.

    Args:
        engine: Engine whose store is written and whose log is read.
        table: The append-once table.
        inputs: `bounds` of every hour (and of the hour before if given), `accept_gap`, `now`.
        keys: Hours, in any order.
        continuity: Continuity check of this step, or of a stream.
        leftovers: Whether hours before the requested ones are completed.
    """

    engine: Engine
    table: Table
    inputs: StepInputs
    keys: Sequence[str]
    continuity: Continuity = field(default_factory=Continuity)
    leftovers: bool = True
    late: list[str] = field(default_factory=list)
    together = True

    def hours(self) -> Generator[KafkaHour]:
        """The hours in order.

        Raises:
            StepFailed: Bounds are missing.
        """
        keys, given = sorted(set(self.keys)), self.inputs.bounds
        if missing := [key for key in keys if key not in given]:
            raise StepFailed(
                f"{self.table.full_name}: no offset bounds were given for {', '.join(missing)}; run the step again"
            )
        done: dict[tuple[datetime, str], KafkaHour] = {}  # by the end of the hour and incarnation
        with ExitStack() as stack:
            topics = {given[key].topic for key in keys}
            ahead = {t: stack.enter_context(ReadAhead(partial(self.engine.read_log, t))) for t in topics}
            for number, key in enumerate(keys):
                bounds, piece = given[key], key_slice(key, "hour")
                following = [given[later] for later in keys[number + 1 : number + 1 + HOURS_AHEAD]]
                hour = KafkaHour(self, bounds, piece, ahead[bounds.topic], following)
                hour.previous = done.get((piece.start, bounds.topic_id))
                if hour.previous is None and self.leftovers:
                    hour.previous = hour.before()
                    yield hour.previous
                done[piece.end, bounds.topic_id] = hour
                yield hour


@dataclass
class KafkaHour:
    """One hour of a topic; see `log.protocol.LogHour`.

    Args:
        log: Log of the hour.
        bounds: b(H) and b(H+1) of every Kafka partition.
        slice: The hour.
        ahead: Reads the next hours' ranges ahead.
        following: Bounds of the hours written next.
        asked: False = only complete an hour that has rows (else it was never requested), in Kafka partitions that it
            holds or whose b(H) is still in the log.
        previous: The hour before, if it is stored first.
        stored: Ranges that the table held of the hour when it was queried.
        complete: Kafka partitions of which the hour has rows up to its end, with that of the rows.
    """

    log: KafkaLog
    bounds: LogBounds
    slice: Slice
    ahead: ReadAhead
    following: Sequence[LogBounds] = ()
    asked: bool = True
    previous: KafkaHour | None = None
    stored: StoredRanges | None = None
    complete: Mapping[int, int] = field(default_factory=dict)

    def before(self) -> KafkaHour:
        """The hour before, bounded by b(H), in Kafka partitions with a known beginning there."""
        piece = Slice(self.slice.start - HOUR, self.slice.start)
        given = self.log.inputs.bounds.get(hour_key(piece.start))
        own = {b.partition: b.start for b in given.partitions} if given else {}
        partitions = [
            replace(b, start=own.get(b.partition, -1), end=b.start, provisional=False) for b in self.bounds.partitions
        ]
        return KafkaHour(self.log, replace(self.bounds, partitions=tuple(partitions)), piece, self.ahead, asked=False)

    def lacking(self, stored: StoredRanges) -> Lacking | None:
        """See `plan`."""
        self.stored, bounds = stored, self.bounds
        if not self.asked:
            # Where even b(H) is trimmed, nothing is left of this hour; H reports what is missing.
            retained = [b for b in bounds.partitions if b.end > b.log_start]
            known = [b for b in retained if b.partition in stored.ends or b.start > b.log_start or b.start == 0]
            bounds = replace(bounds, partitions=tuple(known) if stored.ends else ())
        lacking = plan(
            bounds,
            stored,
            what=f"{self.log.table.full_name} {hour_key(self.slice.start)}",
            accept_gap=self.log.inputs.accept_gap,
            chained=self.previous.complete if self.previous else {},
            log_reaches=self._log_reaches,
        )
        added = {piece.partition: piece.end for piece in (*lacking.gaps, *lacking.reads)} if lacking else {}
        self.complete = {**stored.ends, **added} if self.asked else stored.ends
        return lacking

    def read(self, lacking: Lacking) -> Iterable[pa.Table]:
        """The records, read ahead if they were expected."""
        return self.ahead.take(lacking.reads)

    def prove(self, lacking: Lacking, stored: StoredRanges) -> None:
        """Compare the last stored records with the log's, and start reading the next hours' ranges."""
        ends = {r.partition: stored.ends.get(r.partition, stored.previous_ends.get(r.partition)) for r in lacking.reads}
        # What this commit brings, too, was read from the log a moment ago.
        known = {p: e for p, e in ends.items() if e is not None and (p in stored.ends or p not in stored.staged)}
        read = self.ahead.last_read if lacking.reads else None
        self.log.continuity.require(self.log.engine, self.log.table, self.bounds, known, self.slice, read)
        # While this hour is written: the next ones' ranges, if they hold nothing and nothing was trimmed.
        same = takewhile(lambda bounds: bounds.topic_id == self.bounds.topic_id, self.following)
        whole = [
            [OffsetRange(b.partition, b.start, b.end) for b in bounds.partitions if b.start < b.end] for bounds in same
        ]
        self.ahead.expect(whole)

    def committed(self, batch: AppendBatch, write: WriteResult) -> None:  # noqa: ARG002
        """Let a stream cache its last records."""
        self.log.continuity.stored(self.log.table, self.bounds.topic_id, batch.covers, batch.rows)

    def held(self, ranges: Ranges) -> Held:
        """See `Held`; the version is the incarnation with the end of every Kafka partition."""
        ends = log_report.ends(ranges)
        topic, partitions, problems = self.bounds.topic, self.bounds.partitions, self._problems(ranges)
        asked = ", ".join(f"{b.partition}: [{b.start}, {b.end})" for b in partitions)
        return Held(
            version=f"{self.bounds.topic_id}@" + ",".join(f"{p}:{end}" for p, end in ends.items()),
            metadata={
                "topic": topic,
                "offsets": {str(p): [min(r[1] for r in ranges if r[0] == p), end] for p, end in ends.items()},
                "provisional_partitions": [b.partition for b in partitions if b.provisional],
            },
            why_empty=f"topic {topic} holds no record of this hour (offsets by Kafka partition {asked})",
            problems=problems,
            unfinished="",
            figures={"problems": problems} if problems else {"ranges": len(ranges)},
        )

    def _problems(self, ranges: Ranges) -> list[str]:
        """Ranges, from the hours before on, that do not begin where the previous one ended."""
        assert self.stored is not None
        problems: list[str] = []
        for partition in sorted({r[0] for r in ranges}):
            end = self.stored.previous_ends.get(partition)
            for _, start, stop in (r for r in ranges if r[0] == partition):
                if end is not None and start < end:
                    problems.append(f"partition {partition}: [{start}, {end}) is stored twice")
                elif end is not None and start > end:
                    problems += self._hole(OffsetRange(partition, end, start))
                end = stop
        return problems

    def _hole(self, piece: OffsetRange) -> list[str]:
        """Describe the fault of uncovered offsets; nothing if the log proves that they hold no record."""
        span = f"{piece} is not stored"
        try:
            for chunk in self.log.engine.read_log(self.bounds.topic, [piece]):
                first = chunk.column("kafka_timestamp")[0].as_py()
                hour = hour_key(first)
                return [f"{span}; its records begin at {first.isoformat()}: materialize {hour} and the hours after it"]
        except LogError as error:
            return [f"{span} and the log cannot be queried for its records: {error}"]
        return []

    def _log_reaches(self, partition: int, offset: int) -> bool:
        """Whether the log still ends at or after an offset: bounds may just be older than the stored rows."""
        try:
            # Not by `read_log`: Spark's source waits for an offset past the end and then reports it as lost.
            last = [OffsetRange(partition, offset - 1, offset)]
            self.log.engine.read_log_again(self.bounds.topic, self.bounds.topic_id, last)
        except LogWentBackwards:
            return False
        return True  # also where retention has removed it: it once existed


def plan(
    bounds: LogBounds,
    stored: StoredRanges,
    *,
    what: str,
    accept_gap: bool,
    chained: Mapping[int, int],
    log_reaches: Callable[[int, int], bool],
) -> Lacking | None:
    """Plan the offsets that an hour still lacks; None = none.

    Args:
        bounds: b(H) and b(H+1) of every Kafka partition.
        stored: Stored ranges on the snapshot that the commit is based on.
        what: Table and hour, for messages.
        accept_gap: Record trimmed offsets as gaps instead of failing.
        chained: Partitions whose previous hour is complete up to b(H) (values unused): H starts at its end.
        log_reaches: Whether the log of a partition still reaches an offset, asked when bounds deny it.

    Raises:
        StepFailed: The log went backwards, or offsets are gone that were never stored; lists every partition.
    """
    reads: list[OffsetRange] = []
    gaps: list[OffsetRange] = []
    gone: list[str] = []
    backwards: list[str] = []
    for b in bounds.partitions:
        start, unknown = _expected_start(b, stored, chained, [o.partition for o in bounds.partitions])
        if b.provisional and start > b.end and not log_reaches(b.partition, start):
            backwards.append(f"partition {b.partition}: stored up to {start}, the log ends at {b.end}")
            continue
        if start >= b.end:
            continue
        end = min(b.end, stored.next_starts.get(b.partition, b.end))
        if start >= end:
            continue
        lost = min(b.log_start, end)
        if start < lost:
            gaps.append(OffsetRange(b.partition, start, lost))
            gone.append(f"partition {b.partition}: {'unknown, at most ' if unknown else ''}[{start}, {lost})")
        if max(start, lost) < end:
            reads.append(OffsetRange(b.partition, max(start, lost), end))
    topic = f"topic {bounds.topic} (incarnation {bounds.topic_id})"
    if backwards:
        raise StepFailed(
            f"{what}: log went backwards: {topic} ends before what was already stored: {'; '.join(backwards)}. "
            "Its records were lost (a power loss) or an older state was restored. Bring its newer state back, or take "
            "what it holds now as a new incarnation beside the stored rows: crypto-assets adopt-log shows what that "
            "means, and with --apply does it"
        )
    if gone and not accept_gap:
        raise StepFailed(
            f"{what}: records of {topic} were deleted by its retention before they were stored: {'; '.join(gone)}. "
            "Accept the loss with accept_gap = true in the run's config (it is recorded as a gap), and fill the hours "
            "from history: crypto-assets backfill DAY --from history"
        )
    if not reads and not gaps:
        return None
    covers = [[piece.partition, piece.start, piece.end] for piece in (*gaps, *reads)]
    shown = {"gaps": [[gap.partition, gap.start, gap.end] for gap in gaps]}
    return Lacking(tuple(reads), tuple(gaps), shown, {"covers": json.dumps(covers)})


def _expected_start(
    b: PartitionBounds, stored: StoredRanges, chained: Mapping[int, int], partitions: Sequence[int]
) -> tuple[int, bool]:
    """Start offset of the hour in one Kafka partition, and whether it is only a lower bound."""
    if b.partition in stored.ends:
        return stored.ends[b.partition], False
    if b.end == 0 and not b.log_start:
        return 0, False  # the partition never had a record: saves searching all earlier hours
    before = stored.previous_ends.get(b.partition)
    if before is None and b.adopted_from >= 0:
        return b.adopted_from, False  # all hours: nothing that an adopted log holds was ever stored
    if before is not None and (b.partition in chained or b.start <= b.log_start != 0):
        # Either the hour before is complete up to here, or H's beginning is no longer known from the log.
        return before, False
    if b.start <= b.log_start != 0:
        return 0, True
    if before is None and any(p in stored.previous_ends for p in partitions):
        return b.log_start, False  # added to the topic after the others' chains began: read in full
    return max(b.start, before or 0), False
