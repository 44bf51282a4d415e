"""The micro-batch: missing Bronze rows, their Silver, the touched bars, the newest quotes.

It is the same on every engine and whatever triggers it (`streaming.wake`). The tables are the truth: no state of the
process decides what is written, so it may be killed anywhere and another, or a batch run, continues. What it caches
beyond the tables only saves reading: a restart reads it from them again, and commits of other writers are noticed by
Bronze's version and handled like its own.

Belongs here: the order of one micro-batch and the settling of hours. Does not belong here: reading the log
(`streaming.arrivals`), rows (`streaming.silver`, `streaming.gold`), Dagster (`streaming.reports`).
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from crypto_assets.assets import bars, bronze, latest, silver
from crypto_assets.assets.log_slices.continuity import Continuity
from crypto_assets.assets.log_slices.coverage import Coverage, coverage
from crypto_assets.assets.log_slices.rows import newest_time
from crypto_assets.contracts.slices import HOUR, Slice, floor_day, floor_hour, hour_key
from crypto_assets.contracts.tables import LATEST_PRICES, SILVER_PRICES
from crypto_assets.engine.base import Engine, Result, StepInputs
from crypto_assets.engine.inputs import StepInputBuilder
from crypto_assets.log.kafka.reading import end_offsets
from crypto_assets.settings import Settings
from crypto_assets.storage.base import AppendBatch
from crypto_assets.streaming import gold, resume
from crypto_assets.streaming import silver as increment
from crypto_assets.streaming.arrivals import BRONZE, Arrival, Cursor, Piece, arrivals_after
from crypto_assets.streaming.reports import Reports
from crypto_assets.transforms.bars import GRACE_S

if TYPE_CHECKING:
    import pyarrow as pa

BARS = ("gold.bars_1m", "gold.bars_5m", "gold.bars_1h")
SHARE = 12
"""Idle time after each refresh of a table of bars, in multiples of its duration: one window may span many batches."""
GRACE = timedelta(seconds=GRACE_S)


@dataclass
class RefreshThrottle:
    """Throttles refreshes of a table of bars: pending spans, Bronze's last end, earliest next refresh."""

    spans: list[gold.Span] = field(default_factory=list)
    as_of: datetime | None = None
    not_before: float = 0.0

    def done(self, as_of: datetime, began: float) -> None:
        """Record a refresh that began at `began` (monotonic seconds)."""
        now = time.monotonic()
        self.spans, self.as_of, self.not_before = [], as_of, now + SHARE * (now - began)


@dataclass
class Summary:
    """Totals of a stream since its start."""

    batches: int = 0
    records: int = 0
    silver_rows: int = 0
    quarantined: int = 0
    late_hours: list[str] = field(default_factory=list)
    hours_settled: list[str] = field(default_factory=list)
    hours_rebuilt: int = 0
    seconds: list[float] = field(default_factory=list)
    covered_until: str | None = None
    covered_offsets: dict[str, int] = field(default_factory=dict)
    reported: int = 0

    def to_record(self) -> dict[str, object]:
        """Values for `--json`."""
        took = sorted(self.seconds)
        quantile = (
            {f"batch_seconds_p{q}": round(took[min(len(took) - 1, len(took) * q // 100)], 3) for q in (50, 99)}
            if took
            else {}
        )
        return {**{k: v for k, v in self.__dict__.items() if k != "seconds"}, **quantile}

    @property
    def text(self) -> str:
        """Summary for people."""
        took = sorted(self.seconds)
        middle = f", {took[len(took) // 2]:.2f} s a batch (median)" if took else ""
        late = f"; late records of {', '.join(self.late_hours)} are left to the restatement" if self.late_hours else ""
        return (
            f"{self.records:,} records in {self.batches} micro-batches{middle}; {self.silver_rows:,} rows into Silver, "
            f"{self.quarantined:,} quarantined; hours settled: {len(self.hours_settled)}; "
            f"covered until {self.covered_until or 'nothing'}{late}"
        )


@dataclass(frozen=True)
class Progress:
    """Position of a stream after a micro-batch.

    Args:
        records: Records brought into Bronze since its start.
        waiting: Records in the log at the start of the micro-batch that it did not take.
        covered_until: Highest broker timestamp that Gold reflects (UTC); None = nothing has been read yet.
    """

    records: int
    waiting: int
    covered_until: datetime | None


class Loop:
    """The stream of one home. Safe to call from several threads: one micro-batch runs at a time.

    Args:
        settings: Settings of the home.
        engine: Engine; the stream is its only user in this process.
        reports: Where materializations are reported.
        on_batch: Called after every micro-batch, empty ones included.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        reports: Reports,
        on_batch: Callable[[Progress], None] = lambda _progress: None,
    ) -> None:
        self.summary = Summary()
        self._on_batch = on_batch
        self.lock = threading.RLock()
        self._settings, self._engine, self._reports = settings, engine, reports
        self._builder = StepInputBuilder(settings)
        self._continuity = Continuity(always=True)
        self._appended: dict[str, Arrival] = {}
        self._run_id = f"stream-{uuid.uuid4().hex[:12]}"
        self._cursor: Cursor | None = None
        self._bronze_version = -1
        self._until: datetime | None = None
        self._bars = {name: RefreshThrottle() for name in BARS}
        self._open: set[datetime] = set()
        self._arrived: set[datetime] = set()
        self._days: set[datetime] = set()
        self._latest: list[pa.Table] = []
        self._latest_known = False
        self._recent = gold.RecentRows()

    # --- one micro-batch ------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Run one micro-batch; return True while unread records may remain.

        Raises:
            StepFailed: The log cannot be read, went backwards, or lost records that were never stored.
            AuditFailed: A blocking rule failed.
        """
        with self.lock:
            began = time.monotonic()
            inputs = self._builder.build(now=datetime.now(UTC), run_id=self._run_id)
            cursor = self._cursor or self._begin(inputs)
            piece = cursor.next(datetime.now(UTC))
            written = self._append(cursor, piece) if piece is not None else 0
            changed = self._follow(inputs)
            self._refresh(inputs, everything=piece is None)
            self._settle()
            self._send_due()
            if changed:
                self.summary.batches += 1
                self.summary.seconds.append(time.monotonic() - began)
            self.summary.records += written
            self._on_batch(Progress(self.summary.records, max(0, cursor.lag - written), self._until))
            return piece is not None

    def drain(self, stop: threading.Event | None = None) -> None:
        """Run micro-batches until Bronze has what the log held at the call, or until stopped.

        The end is fixed at the call, because a log that is written faster than it is read never ends.
        """
        goal = {p: end for p, (_, end) in end_offsets(self._settings, self._settings.prices_topic).items()}
        while self.step() and not (stop is not None and stop.is_set()):
            if self._cursor is not None and all(self._cursor.ends.get(p, 0) >= end for p, end in goal.items()):
                break

    def finish(self) -> None:
        """Do postponed work: wide bars, and every report that waits for its minute."""
        with self.lock:
            if self._cursor is not None:
                inputs = self._builder.build(now=datetime.now(UTC), run_id=self._run_id)
                self._follow(inputs)
                self._refresh(inputs, everything=True)
            self._send_due(everything=True)

    # --- its parts ------------------------------------------------------------------------------------------------

    def _begin(self, inputs: StepInputs) -> Cursor:
        """Find the position from the tables, and bring what depends on Bronze up to date."""
        covered = resume.reached(self._engine)
        self._until = covered.until if covered.topic_id is not None else None
        hour = floor_hour(self._until) if self._until is not None else None
        cursor = Cursor(self._settings, covered.offsets, covered.topic_id, hour)
        version = self._engine.store.version(BRONZE)
        if version is not None and hour is not None:
            done = increment.complete_to(self._engine)
            hours = self._arrival_hours((hour - HOUR, hour))
            known = done is not None and done <= version
            if not known:
                self._rebuild([hour_key(h) for h in hours], inputs)
                done = version
            self._bronze_version = done if done is not None else version
            # A stream killed between Silver and Gold has left rows that Gold lacks.
            quoted = [c.coin_id for c in inputs.coins.active_at(inputs.now)]
            lacking = resume.unreflected(self._engine, tuple(self._bars), covered, quoted)
            if known and lacking is not None:
                self._touch(increment.touched_windows(lacking))
                self._latest, self._latest_known = [lacking], True
            else:
                self._touch([(h, h + HOUR) for h in hours])
            self._open |= set(hours)
        self._cursor = cursor
        return cursor

    def _append(self, cursor: Cursor, piece: Piece) -> int:
        """Append the rows of a piece that Bronze lacks; return their number."""
        inputs = self._builder.build(now=datetime.now(UTC), run_id=self._run_id)
        inputs = replace(inputs, bounds={piece.key: piece.bounds})
        writes = bronze.append(
            self._engine,
            piece.key,
            inputs,
            leftovers=piece.begins,
            continuity=self._continuity,
            committed=self._keep,
        )
        for write in writes:
            if write.committed:
                ends = write.metadata.get("ends", {})
                assert isinstance(ends, dict)
                cursor.reached(ends)
        if not any(w.committed for w in writes):
            # Another writer has stored it: continue from what is stored.
            covered = coverage(self._engine)
            if covered.topic_id == cursor.topic_id:
                cursor.reached(covered.offsets)
            cursor.reached({b.partition: b.end for b in piece.bounds.partitions})
        return sum(w.rows for w in writes if w.committed)

    def _keep(self, slice_: Slice, batch: AppendBatch, batch_id: str) -> None:
        """Cache appended rows until they go into Silver, so that they need not be read back."""
        self._appended[batch_id] = Arrival(slice_, batch.rows, batch.covers)

    def _follow(self, inputs: StepInputs) -> bool:
        """Bring every new Bronze commit into Silver; return whether there was one."""
        version = self._engine.store.version(BRONZE)
        own, self._appended = self._appended, {}
        if version is None or version <= self._bronze_version:
            return False
        arrivals, known = arrivals_after(self._engine, self._bronze_version, own)
        arrivals = [a for a in arrivals if a.rows.num_rows]
        for arrival in arrivals:
            newest = newest_time(arrival.rows.column("kafka_timestamp"), inputs.now)
            if newest is not None and (self._until is None or newest > self._until):
                self._until = newest
        if not known:
            hour = floor_hour(self._until) if self._until else floor_hour(inputs.now)
            hours = sorted({h for a in arrivals for h in (a.slice.start - HOUR, a.slice.start)} | {hour - HOUR, hour})
            hours = self._arrival_hours(hours)
            self._rebuild([hour_key(h) for h in hours], inputs)
            self._touch([(h, h + HOUR) for h in hours])
            self._latest_known = False
        elif arrivals:
            self._merge(arrivals, inputs, version)
        self._bronze_version = version
        return bool(arrivals) or not known

    def _merge(self, arrivals: list[Arrival], inputs: StepInputs, version: int) -> None:
        merged = increment.merge(self._engine, arrivals, inputs, version)
        self.summary.silver_rows += merged.inserted
        self.summary.quarantined += merged.quarantined
        self.summary.hours_rebuilt += len(merged.rebuilt)
        self.summary.late_hours = sorted({*self.summary.late_hours, *merged.late})
        self._arrived |= {a.slice.start for a in arrivals}
        if merged.rebuilt:
            self._touch([(h, h + HOUR) for h in merged.hours])
            self._latest_known = False
        else:
            self._touch(increment.touched_windows(merged.rows))
        self._latest.append(merged.rows)
        assert self._cursor is not None
        for arrival in arrivals:
            if self._cursor.topic_id in arrival.rows.column("topic_id").unique().to_pylist():
                self._cursor.reached({piece.partition: piece.end for piece in arrival.covers})

    def _arrival_hours(self, hours: Iterable[datetime]) -> list[datetime]:
        """The hours, among some, in which Bronze holds records."""
        store = self._engine.store
        found = [h for h in hours if store.read(BRONZE, Slice(h, h + HOUR)).select("kind").limit(1).toArrow().num_rows]
        self._arrived |= set(found)
        return found

    def _rebuild(self, keys: list[str], inputs: StepInputs) -> None:
        """Rebuild Silver and quarantine of whole hours by the steps."""
        if keys:
            silver.work(self._engine, keys, inputs)
            silver.work_quarantine(self._engine, keys, inputs)
            self.summary.hours_rebuilt += len(keys)

    def _touch(self, spans: list[gold.Span]) -> None:
        for pace in self._bars.values():
            pace.spans += spans
        self._open |= set(gold.by_hour(spans))

    def _refresh(self, inputs: StepInputs, *, everything: bool) -> None:
        """Refresh the newest quotes, and bars when due or when there is nothing else to do."""
        if self._until is None or self._cursor is None:
            return
        as_of, covered = self._until, Coverage(self._until, self._cursor.topic_id, dict(self._cursor.ends))
        self._refresh_latest(inputs)  # first, because people watch it
        for name, pace in self._bars.items():
            began = time.monotonic()
            behind = pace.spans or pace.as_of != as_of
            if behind and (everything or began >= pace.not_before):
                # Windows of all open hours may have closed meanwhile.
                touched = {**dict.fromkeys(self._open), **gold.by_hour(pace.spans)}
                done = gold.refresh_bars(self._engine, name, touched, inputs, covered, self._recent)
                pace.done(as_of, began)
                self._reports.offer_result(name, done)

    def _refresh_latest(self, inputs: StepInputs) -> None:
        assert self._until is not None
        assert self._cursor is not None
        if not self._latest_known:
            done = latest.work(self._engine, [None], inputs).tables[LATEST_PRICES.full_name]
            self._latest_known = True
            for row in self._engine.store.read_arrow(LATEST_PRICES.full_name, columns=["covered_offsets"]).to_pylist():
                # Only this table knows partitions without recent records.
                known = {int(p): end for p, end in json.loads(row["covered_offsets"]).items()}
                self._cursor.ends = {**known, **self._cursor.ends}
        elif self._latest:
            import pyarrow as pa

            names = gold.QUOTED
            rows = pa.concat_tables([t.select(names) for t in self._latest])
            covered = Coverage(self._until, self._cursor.topic_id, dict(self._cursor.ends))
            done = gold.refresh_latest(self._engine, rows, inputs, covered, self._recent)
        else:
            return
        self._latest = []
        self._reports.offer_result(LATEST_PRICES.full_name, done)

    # --- ended hours ----------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Hand ended hours to the steps: all their checks, and the bars that close only now.

        An hour has ended once the stream reads a later one and Bronze covers its end by the bars' grace.
        """
        if self._until is None or self._cursor is None or self._cursor.hour is None:
            return
        over = sorted(
            h for h in self._open | self._arrived if h < self._cursor.hour and h + HOUR + GRACE <= self._until
        )
        for hour in over:
            key = hour_key(hour)
            inputs = self._builder.build(now=datetime.now(UTC), run_id=self._run_id, keys=[key], reads_log="prices")
            # Bronze has no hour of events alone: its records arrived in the next.
            steps = (bronze.work, silver.work_quarantine) if hour in self._arrived else ()
            for work in (*steps, silver.work, bars.work):
                self._report(work(self._engine, [key], inputs))
            self._open.discard(hour)
            self._arrived.discard(hour)
            self.summary.hours_settled.append(key)
            self._days.add(floor_day(hour))
        for day in sorted(self._days):
            if day + 24 * HOUR + GRACE <= self._until and not any(floor_day(h) == day for h in self._open):
                inputs = self._builder.build(now=datetime.now(UTC), run_id=self._run_id)
                self._report(bars.work_day(self._engine, [f"{day:%Y-%m-%d}"], inputs))
                self._days.discard(day)

    def _report(self, result: Result) -> None:
        for name, table in result.tables.items():
            self._reports.offer_result(name, table, final=True)

    def _send_due(self, *, everything: bool = False) -> None:
        """Report what is due, with the running hour of the tables that have no separate report."""
        cursor = self._cursor
        if cursor is not None and self._until is not None:
            self.summary.covered_until = self._until.isoformat()
            self.summary.covered_offsets = {str(p): end for p, end in sorted(cursor.ends.items())}
            for hour in self._arrived:
                about = {"covered_until": self._until.isoformat(), "bronze_version": self._bronze_version}
                self._reports.offer(BRONZE, hour_key(hour), about)
                self._reports.offer(SILVER_PRICES.full_name, hour_key(hour), about)
        self.summary.reported += self._reports.flush(everything=everything)
