"""From the log to Bronze: hours of a topic, appended exactly once; landed files go to `assets.log_slices.landing`.

Belongs here: which offsets an hour still lacks, rows from records, the chain of ranges as a check. Does not belong
here: reading Kafka (`log.kafka.reading`), the write protocol (`storage`), judging records (`transforms.parse`).

Hour H covers [start, b(H+1)) of every Kafka partition, where start is what the hour before has stored and b(t) is the
first offset at or after t. Stored ranges win over b(t), which moves when the log is trimmed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import zip_longest

from crypto_assets.assets import commit_report
from crypto_assets.assets.card import Reads, Step
from crypto_assets.assets.log_slices import landing
from crypto_assets.assets.log_slices import report as log_report
from crypto_assets.assets.log_slices.continuity import Continuity
from crypto_assets.assets.log_slices.poll_rows import PollRows
from crypto_assets.assets.log_slices.rows import PriceRows, ReadAhead, RowMaker, gap_rows, gather
from crypto_assets.assets.publishing import has_rows, summary
from crypto_assets.checks import rules
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import HOUR, Slice, hour_key, key_slice
from crypto_assets.contracts.tables import POLLS, RAW_PRICES
from crypto_assets.engine.base import (
    CheckOutcome,
    Engine,
    PartitionResult,
    Result,
    StepFailed,
    StepInputs,
    TableResult,
)
from crypto_assets.log.errors import LogError, LogTrimmed, LogWentBackwards
from crypto_assets.storage.base import AppendBatch, LogBounds, OffsetRange, PartitionBounds, StoredRanges, WriteResult

OFFSETS_CONTIGUOUS = landing.CONTIGUOUS
EXTRA_CHECKS = {
    OFFSETS_CONTIGUOUS: "The offset ranges stored for the hour follow each other and the hours before without a hole "
    "or an overlap, in every Kafka partition."
}
"""Checks that these steps evaluate beside the contract's."""


@Step(
    "bronze_raw_prices",
    [RAW_PRICES],
    reads=[Reads("kafka/crypto_prices_raw")],
    moved_by="refresh",
    role="ingest",
    log="prices",
    checks=EXTRA_CHECKS,
)
def work(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Bring hours of `bronze.raw_prices` up to what the log holds.

    Args:
        engine: Engine whose store is written and whose log is read.
        partition_keys: Hours, in any order.
        inputs: `bounds` of every hour (that of the hour before is used where given), `accept_gap`, `now`, `run_id`.

    Returns:
        Per hour: rows stored, what was appended, end offsets as data version, touched event hours, checks.

    Raises:
        StepFailed: Bounds are missing, records are no longer retained, or the log went backwards or cannot be read.
    """
    result = _ingest(engine, RAW_PRICES, "bronze", PriceRows(inputs.partitions_start), partition_keys, inputs)
    return commit_report.with_commits(engine, RAW_PRICES, result, inputs)


@Step(
    "ops_polls",
    [POLLS],
    reads=[Reads("kafka/crypto_polls")],
    moved_by="refresh",
    role="ingest",
    log="polls",
    checks=EXTRA_CHECKS,
)
def work_polls(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Bring hours of `ops.polls` up to what the log holds; otherwise as `work`."""
    return _ingest(engine, POLLS, "polls", PollRows(), partition_keys, inputs)


def append(
    engine: Engine,
    key: str,
    inputs: StepInputs,
    *,
    leftovers: bool,
    continuity: Continuity,
    committed: Callable[[Slice, AppendBatch, str], None],
) -> list[WriteResult]:
    """What `work` writes for one hour, without its report: for a stream, which writes often and reports later.

    Args:
        engine: Engine whose store is written and whose log is read.
        key: The hour.
        inputs: As `work` takes them; the bounds may end earlier than the log does.
        leftovers: First append what the hour before still lacks, as `work` does: wanted once when an hour begins.
        continuity: The stream's, which remembers what it has stored.
        committed: Gets the hour, the rows and the `batch_id` of every commit.

    Raises:
        StepFailed: As `work` raises it.
    """
    bounds, piece = inputs.bounds[key], key_slice(key, "hour")
    try:
        with ReadAhead(partial(engine.read_log, bounds.topic)) as ahead:
            maker = PriceRows(inputs.partitions_start)
            hour = _Hour(engine, RAW_PRICES, "bronze", maker, inputs, bounds, piece, ahead, continuity)
            hour.committed = committed
            return hour.bring_up_to_date() if leftovers else [hour.append({})]
    except LogError as error:
        raise StepFailed(f"{RAW_PRICES.full_name}: {error}") from error


@dataclass(frozen=True)
class Plan:
    """What one commit will cover: ranges to read, and trimmed ranges to record as gaps."""

    reads: tuple[OffsetRange, ...]
    gaps: tuple[OffsetRange, ...]


def plan(
    bounds: LogBounds,
    stored: StoredRanges,
    *,
    what: str,
    accept_gap: bool,
    chained: Mapping[int, int],
    log_reaches: Callable[[int, int], bool],
) -> Plan:
    """The offsets that an hour still lacks.

    Args:
        bounds: b(H) and b(H+1) of every Kafka partition.
        stored: What the table holds, on the snapshot that will be committed on.
        what: Table and hour, for messages.
        accept_gap: Record trimmed offsets as gaps instead of failing.
        chained: Partitions of which the hour before is complete up to b(H) (values are not used): H starts at its end.
        log_reaches: Whether the log of a partition still reaches an offset, asked when bounds say it does not.

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
            "what it holds now as a new incarnation beside the stored rows: crypto-assets adopt-log says what that "
            "means, and with --apply does it"
        )
    if gone and not accept_gap:
        raise StepFailed(
            f"{what}: records of {topic} were deleted by its retention before they were stored: {'; '.join(gone)}. "
            "Accept the loss with accept_gap = true in the run's config (it is recorded as a gap), and fill the hours "
            "from history: crypto-assets backfill DAY --from history"
        )
    return Plan(tuple(reads), tuple(gaps))


def _expected_start(
    b: PartitionBounds, stored: StoredRanges, chained: Mapping[int, int], partitions: Sequence[int]
) -> tuple[int, bool]:
    """Where the hour goes on in one Kafka partition, and whether that is only a lower bound of what is unknown."""
    if b.partition in stored.ends:
        return stored.ends[b.partition], False
    if b.end == 0 and not b.log_start:
        return 0, False  # the partition never had a record: spares the search through all earlier hours
    before = stored.previous_ends.get(b.partition)
    if before is None and b.adopted_from >= 0:
        return b.adopted_from, False  # whatever its hours: all that an adopted log holds was never stored
    if before is not None and (b.partition in chained or b.start <= b.log_start != 0):
        # Either the hour before is complete up to here, or where H began can no longer be known from the log.
        return before, False
    if b.start <= b.log_start != 0:
        return 0, True
    if before is None and any(p in stored.previous_ends for p in partitions):
        return b.log_start, False  # it was added to the topic after the chains of the others began: it is read whole
    return max(b.start, before or 0), False


def _ingest(
    engine: Engine, table: Table, name: str, maker: RowMaker, partition_keys: Sequence[str], inputs: StepInputs
) -> Result:
    if landing.FOLDER_PARAM in inputs.params:
        return landing.ingest(engine, table, name, maker, partition_keys, inputs)
    keys = sorted(set(partition_keys))
    missing = [key for key in keys if key not in inputs.bounds]
    if missing:
        raise StepFailed(f"{table.full_name}: no offset bounds were given for {', '.join(missing)}; run the step again")
    result, writes = TableResult(), []
    done: dict[tuple[datetime, str], Mapping[int, int]] = {}  # stored ends by the end of an hour and incarnation
    topics, continuity = {inputs.bounds[key].topic for key in keys}, Continuity()
    try:
        with ExitStack() as stack:
            ahead = {t: stack.enter_context(ReadAhead(partial(engine.read_log, t))) for t in topics}
            for key, following in zip_longest(keys, keys[1:]):
                bounds = inputs.bounds[key]
                piece = key_slice(key, "hour")
                hour = _Hour(engine, table, name, maker, inputs, bounds, piece, ahead[bounds.topic], continuity)
                hour.next = inputs.bounds[following] if following else None
                writes += hour.bring_up_to_date(done.get((hour.slice.start, bounds.topic_id)))
                assert hour.write is not None
                result.partitions[key] = log_report.of_a_commit(hour.write, bounds.topic_id, hour.report)
                done[hour.slice.end, bounds.topic_id] = hour.ends
    except LogError as error:
        raise StepFailed(f"{table.full_name}: {error}") from error
    result.metadata = {**summary(writes), "run_rows_appended": sum(w.rows for w in writes)}
    return Result({table.full_name: result})


@dataclass
class _Hour:
    """One hour of one table: its commits and its report."""

    engine: Engine
    table: Table
    name: str
    maker: RowMaker
    inputs: StepInputs
    bounds: LogBounds
    slice: Slice
    ahead: ReadAhead
    continuity: Continuity
    committed: Callable[[Slice, AppendBatch, str], None] = lambda _slice, _batch, _batch_id: None
    next: LogBounds | None = None
    stored: StoredRanges | None = None
    appended: dict[str, object] = field(default_factory=dict)
    write: WriteResult | None = None
    ends: dict[int, int] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """Table and hour, for messages."""
        return f"{self.table.full_name} {hour_key(self.slice.start)}"

    def bring_up_to_date(self, before_ends: Mapping[int, int] | None = None) -> list[WriteResult]:
        """Append what the hour before still lacks, then what this hour lacks; at most one commit each.

        Args:
            before_ends: Stored ends of the hour before, if it was brought up to date just now.
        """
        writes = []
        if before_ends is None:
            before = self._before()
            writes = [before.append({}, leftovers=True)]
            before_ends = dict(before.stored.ends) if before.stored else {}
        self.write = self.append(before_ends)
        return [*writes, self.write]

    def _before(self) -> _Hour:
        """The hour before, bounded by b(H), in the Kafka partitions whose beginning there is known."""
        piece = Slice(self.slice.start - HOUR, self.slice.start)
        given = self.inputs.bounds.get(hour_key(piece.start))
        own = {b.partition: b.start for b in given.partitions} if given else {}
        partitions = tuple(replace(b, start=own.get(b.partition, -1), end=b.start) for b in self.bounds.partitions)
        bounds = replace(self.bounds, partitions=tuple(replace(b, provisional=False) for b in partitions))
        return replace(self, bounds=bounds, slice=piece, next=None, stored=None, appended={}, write=None, ends={})

    def append(self, chained: Mapping[int, int], *, leftovers: bool = False) -> WriteResult:
        """Append what the hour lacks in one commit.

        Args:
            chained: See `plan`.
            leftovers: Only complete an hour that has rows (else it was never asked for), in Kafka partitions that it
                holds or whose b(H) is still to be had from the log.
        """

        def build(stored: StoredRanges) -> AppendBatch | None:
            self.stored = stored
            bounds = self.bounds
            if leftovers:
                # Where even b(H) is trimmed, nothing is left of this hour; what is missing is H's to report.
                retained = [b for b in bounds.partitions if b.end > b.log_start]
                known = [b for b in retained if b.partition in stored.ends or b.start > b.log_start or b.start == 0]
                bounds = replace(bounds, partitions=tuple(known) if stored.ends else ())
            todo = plan(
                bounds,
                stored,
                what=self.what,
                accept_gap=self.inputs.accept_gap,
                chained=chained,
                log_reaches=self._log_reaches,
            )
            batch[0] = self._batch(todo, stored) if todo.reads or todo.gaps else None
            return batch[0]

        batch: list[AppendBatch | None] = [None]
        app_id = f"{self.name}/{self.bounds.topic_id}/{hour_key(self.slice.start)}"
        audit = rules.audit(self.table, [hour_key(self.slice.start)])
        written = self.engine.store.append_once(self.table.full_name, self.slice, app_id, build, audit=audit)
        if written.committed and batch[0] is not None:
            self.continuity.stored(self.table, self.bounds.topic_id, batch[0].covers, batch[0].rows)
            self.committed(self.slice, batch[0], str(written.metadata["batch_id"]))
        return written

    def _log_reaches(self, partition: int, offset: int) -> bool:
        """Whether the log still ends at or after an offset: bounds may merely be older than what was stored."""
        try:
            for _ in self.engine.read_log(self.bounds.topic, [OffsetRange(partition, offset - 1, offset)]):
                break
        except LogTrimmed:
            return True  # it was there once
        except LogWentBackwards:
            return False
        return True

    def _batch(self, todo: Plan, stored: StoredRanges) -> AppendBatch:
        """Read the ranges, prove that they continue what is stored, and make the rows of one commit."""
        gaps = gap_rows(self.table, self.bounds, self.slice, todo.gaps, self.inputs.now)
        rows = gather(
            self.table,
            [gaps],
            self.ahead.take(todo.reads) if todo.reads else (),
            lambda chunk: self.maker.rows(self.table, self.bounds, self.slice, todo.reads, chunk, self.inputs.now),
            self.inputs.now,
        )
        ends = {r.partition: stored.ends.get(r.partition, stored.previous_ends.get(r.partition)) for r in todo.reads}
        known = {p: end for p, end in ends.items() if end is not None}
        self.continuity.require(self.engine, self.table, self.bounds, known, self.slice)
        if self.next is not None:
            # While this hour is written: what the next one lacks if it holds nothing and nothing was trimmed.
            whole = [OffsetRange(b.partition, b.start, b.end) for b in self.next.partitions]
            self.ahead.expect([piece for piece in whole if piece.start < piece.end])
        touched = self.maker.touched(rows.table)
        newest = rows.max_timestamp
        self.appended = {
            "touched_hours": touched,
            "max_kafka_timestamp": None if newest is None else newest.isoformat(),
            "gaps": [[g.partition, g.start, g.end] for g in todo.gaps],
        }
        covers = (*todo.gaps, *todo.reads)
        metadata = {
            "run_id": self.inputs.run_id,
            "touched_hours": json.dumps(touched),
            "covers": json.dumps([[c.partition, c.start, c.end] for c in covers]),
        }
        if newest is not None:
            metadata["max_kafka_timestamp"] = newest.isoformat()
        return AppendBatch(rows.table, covers, metadata)

    # --- reporting ------------------------------------------------------------------------------------------------

    def report(self) -> PartitionResult:
        """What the hour now holds, with its checks."""
        assert self.write is not None
        key = hour_key(self.slice.start)
        rows, ranges = log_report.read_back(self.engine, self.table, self.slice, self.bounds.topic_id)
        self.ends = ends = log_report.ends(ranges)
        asked = ", ".join(f"{b.partition}: [{b.start}, {b.end})" for b in self.bounds.partitions)
        why = f"topic {self.bounds.topic} holds no record of this hour (offsets by Kafka partition {asked})"
        appended = self.appended if self.write.committed else {}
        return PartitionResult(
            rows=rows.num_rows,
            data_version=f"{self.bounds.topic_id}@" + ",".join(f"{p}:{end}" for p, end in ends.items()),
            metadata={
                "rows_appended": self.write.rows if self.write.committed else 0,
                "delta_version": self.write.version_after,
                "topic": self.bounds.topic,
                "topic_id": self.bounds.topic_id,
                "offsets": {str(p): [min(r[1] for r in ranges if r[0] == p), end] for p, end in ends.items()},
                "provisional_partitions": [b.partition for b in self.bounds.partitions if b.provisional],
                **appended,
            },
            checks=[
                has_rows(rows.num_rows, why),
                *rules.evaluate(self.table, rows, [key])[key],
                self._contiguous(ranges),
            ],
        )

    def _contiguous(self, ranges: list[tuple[int, int, int]]) -> CheckOutcome:
        """Whether every range begins where the one before it ended, beginning with the hours before."""
        assert self.stored is not None
        problems: list[str] = []
        for partition in sorted({r[0] for r in ranges}):
            mine = [r for r in ranges if r[0] == partition]
            end = self.stored.previous_ends.get(partition)
            for _, start, stop in mine:
                if end is not None and start < end:
                    problems.append(f"partition {partition}: [{start}, {end}) is stored twice")
                elif end is not None and start > end:
                    problems += self._hole(OffsetRange(partition, end, start))
                end = stop
        if problems:
            text = f"{'; '.join(problems)}"
            return CheckOutcome(OFFSETS_CONTIGUOUS, False, text, metadata={"problems": problems})
        count = len(ranges)
        return CheckOutcome(OFFSETS_CONTIGUOUS, True, f"{count} range(s) follow each other", metadata={"ranges": count})

    def _hole(self, piece: OffsetRange) -> list[str]:
        """What is wrong with offsets that no range covers: nothing if the log proves that they hold no record."""
        span = f"partition {piece.partition}: [{piece.start}, {piece.end}) is not stored"
        try:
            for chunk in self.engine.read_log(self.bounds.topic, [piece]):
                first = chunk.column("kafka_timestamp")[0].as_py()
                hour = hour_key(first)
                return [f"{span}; its records begin at {first.isoformat()}: materialize {hour} and the hours after it"]
        except LogError as error:
            return [f"{span} and the log cannot say whether it holds records: {error}"]
        return []
