"""`DeltaStore`: the tables of every engine, and the one protocol by which they are written.

Belongs here: the six verbs, what a write depends on, when it is tried again. Does not belong here: how an engine
opens, reads and commits (`storage.delta_rs`, `storage.delta_spark`), what rows mean.

Every write opens a snapshot of its table first, reads through it what it depends on, and commits under a *condition*:
that this part of the table is still as it was read.

- `append_once` depends on no other batch holding one of its offsets, in whatever hour; so does `append_together`, which
  appends to several hours in one commit.
- `replace_slice` depends on the slice lying in the files that it lay in before any source was read; `merge` likewise on
  those of the keys' scope, or of the whole table; in a ledger on no other commit. Files get no name twice, and without
  deletion vectors (no table has them) rows change only with their files.

A commit that came in between fails the write; nothing is committed, and the attempt starts over with everything read
again: rows are never sent again as they were. delta-rs commits on the snapshot itself, so any commit by anybody is such
a failure; Spark checks the condition in the transaction of the write (decision 0007 in `docs/decisions/`). One commit
holds all or nothing, so a writer may be killed at any moment and leaves nothing to withdraw, and no reader ever sees a
row that does not stay.

Every commit carries a mark. Whatever fails after it, a commit whose mark is in the log stands and is reported so.

Application transactions come on top: app id and sequence of the slice, or `replace/<table>` with the version read plus
one. They save the work of a writer that is late, and stop a writer on Spark whose delta-rs rival committed first; alone
they are not enough. Two hours have two app ids; and one who opened version 5, overtaken by an OPTIMIZE, commits under 6
unhindered although another has opened 6 since.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from crypto_assets.contracts.arrow import conform, empty_rows, spark_schema
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import Slice, hour_key
from crypto_assets.contracts.tables import TABLES
from crypto_assets.storage import damage, ledger, staging
from crypto_assets.storage import delta_files as files
from crypto_assets.storage.attempts import Overtaken, RecordedReads, T, TransactionUsed, until_committed
from crypto_assets.storage.backend import EVERYTHING, Backend, Change, Snapshot
from crypto_assets.storage.base import AppendBatch, Commit, SliceAppend, StoredRanges, WriteResult, replace_app_id
from crypto_assets.storage.conditions import newest_commit_is, ranges_free
from crypto_assets.storage.maintenance import maintain
from crypto_assets.storage.ranges import RangesBySlice, commit_metadata, incarnation

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

_LOG = logging.getLogger(__name__)
ROWS_TOGETHER = 250_000
"""Rows above which a commit takes no further slice."""


class DeltaStore:
    """Reading and writing tables by their `schema.table` name.

    Tables are created from their contract at first write; reading a table that does not exist yet gives an empty frame
    with the contract's schema.

    Args:
        backend: Opens, reads and commits them.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._reads = RecordedReads()

    # --- reading --------------------------------------------------------------------------------------------------

    def path(self, table: str) -> str:
        """Folder of a table.

        Raises:
            ValueError: The table is managed: its folder is the catalog's business.
        """
        folder = self._backend.folder(self._contract(table))
        if folder is None:
            raise ValueError(f"{table} is a managed table: use its name")
        return folder

    @property
    def answers_at_once(self) -> bool:
        """Whether a small query takes milliseconds rather than a job on a cluster."""
        return self._backend.answers_at_once

    @property
    def slices_together(self) -> int:
        """Maximum number of slices that one commit appends to."""
        return self._backend.slices_together

    def exists(self, table: str) -> bool:
        """True if the table exists."""
        return self.version(table) is not None

    def version(self, table: str) -> int | None:
        """Current Delta version, or None when the table does not exist."""
        return self._backend.version(self._contract(table))

    def read(self, table: str, slice_: Slice | None = None, *, version: int | None = None) -> DataFrame:
        """A lazy frame of the whole table or of one slice, pinned to the version current at the call (or `version`)."""
        contract = self._contract(table)
        pinned = self._backend.version(contract) if version is None else version
        if pinned is None:
            return self._backend.session().createDataFrame(empty_rows(contract), spark_schema(contract))
        self._reads.note(table, pinned)
        frame = staging.completed_frame(contract, self._backend.frame(contract, pinned, slice_))
        return frame if slice_ is None else frame.where(slice_.predicate(contract))

    def read_arrow(
        self,
        table: str,
        slice_: Slice | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """The same, loaded, with the contract's types: for small results and for tests.

        Args:
            table: Name of the table.
            slice_: Rows of this slice only.
            columns: These columns, in this order; None = all.
            where: Further portable SQL condition.
            version: Delta version; None = the current one.
        """
        contract = self._contract(table)
        snapshot = self._backend.open(contract, version)
        if snapshot is None:
            return empty_rows(contract, columns)
        self._reads.note(table, snapshot.version)
        return snapshot.rows(slice_, columns, where)

    def slices(self, table: str, *, version: int | None = None) -> list[datetime]:
        """Values of the time column of a table that is partitioned by it, sorted; local tables answer from their log.

        Args:
            table: Name of the table.
            version: Delta version; None = the current one.
        """
        snapshot = self._backend.open(self._contract(table), version)
        return [] if snapshot is None else snapshot.hours()

    def rows_by_partition(self, table: str) -> dict[Any, int]:
        """Rows by value of the Delta partition, as far as the log of the current version tells without a query."""
        snapshot = self._backend.open(self._contract(table))
        return {} if snapshot is None else snapshot.rows_by_partition()

    def commits_after(self, table: str, version: int, limit: int) -> list[Commit]:
        """Commits with a higher version, oldest first, at most `limit`.

        Where housekeeping has removed the first of them, the list begins with an entry whose operation is
        `delta_files.HISTORY_CLEANED`. For a table of log records it has `touched_hours` of every late record stored,
        since which of them the lost commits brought can no longer be known.
        """
        contract = self._contract(table)

        def late_hours() -> dict[str, str]:
            if "event_hour" not in contract.column_names:
                return {}
            late = self.read_arrow(table, columns=["event_hour"], where="event_hour < arrival_hour")
            return {"touched_hours": json.dumps(sorted({hour_key(h) for h in late.column(0).unique().to_pylist()}))}

        return files.with_missing(self._backend.commits(contract, version, limit), version, limit, late_hours)

    # --- writing --------------------------------------------------------------------------------------------------

    def append_once(
        self,
        table: str,
        slice_: Slice,
        app_id: str,
        build: Callable[[StoredRanges], AppendBatch | None],
        *,
        audit: Callable[[pa.Table], None] | None = None,
    ) -> WriteResult:
        """Append what `build` returns for the ranges stored so far, exactly once: `append_together` for one slice."""
        return self.append_together(table, [SliceAppend(slice_, app_id, build, audit)])[0]

    def append_together(
        self,
        table: str,
        appends: Sequence[SliceAppend],
        *,
        sound: Callable[[pa.Table], bool] = lambda _rows: False,
        describe: Callable[[Sequence[AppendBatch]], Mapping[str, str]] | None = None,
    ) -> list[WriteResult]:
        """Append to several slices in one commit, each exactly once.

        Args:
            table: A table with topic_id, partition, range_start, range_end, seq and batch_id.
            appends: One or more slices in order, all of one topic incarnation.
            sound: Whether rows of several slices certainly pass their audits, which are then not asked one by one.
            describe: Metadata of a commit of several batches; that of a single one is its own.

        Returns:
            Results of the first slices, at least of one. The others are left out, to be asked for again, once the
            commit is large enough or beside another writer, whom a short attempt meets less often; and from the first
            one on that cannot be built, since what was built before it is to stand.

        Raises:
            AuditFailed: From the first slice's `audit`.
            ContractViolation: Its rows do not fit the contract, the slice, the incarnation or `covers`.
            WriteConflict: Others committed between each of many attempts.
        """
        contract, topic_id = self._contract(table), incarnation(appends[0].app_id)
        used: dict[str, int] = {}  # highest sequence numbers that other writers are known to have taken
        most = self._backend.slices_together

        def attempt() -> list[WriteResult]:
            nonlocal most
            together, most = appends[:most], 1
            snapshot, before = self._writable(contract)
            ranges = RangesBySlice(snapshot, contract, [a.slice for a in together], topic_id, self._backend.near)
            built = _audited(_built(contract, together, ranges, topic_id, used), sound)
            made = [one for one in built if one.batch is not None]
            after = self._append(contract, snapshot, topic_id, made, describe, used) if made else snapshot.version
            return [one.result(table, before, after) for one in built]

        results, retries = self._until_committed(contract, attempt)
        return [replace(result, retries=retries) for result in results]

    def _append(
        self,
        contract: Table,
        snapshot: Snapshot,
        topic_id: str,
        made: Sequence[_Built],
        describe: Callable[[Sequence[AppendBatch]], Mapping[str, str]] | None,
        used: dict[str, int],
    ) -> int:
        """Commit batches; the version. Numbers that another writer has taken are noted in `used`."""
        batches = [one.batch for one in made if one.batch is not None]
        own = [(one.append.app_id, one.seq, one.batch_id) for one in made]
        named = describe(batches) if describe is not None and len(batches) > 1 else batches[0].commit_metadata
        span = Slice(made[0].append.slice.start, made[-1].append.slice.end)
        info = self._info(contract, span, {**named, **commit_metadata(own)})
        rows = staging.completed(
            contract, [(b.rows, one.seq, one.batch_id) for b, one in zip(batches, made, strict=True)]
        )
        free = ranges_free(topic_id, [piece for batch in batches for piece in batch.covers])
        try:
            return self._commit(contract, snapshot, Change(rows, info, [(app, seq) for app, seq, _ in own], free))
        except TransactionUsed:
            used.update({app: seq for app, seq, _ in own})
            raise

    def replace_slice(
        self,
        table: str,
        slice_: Slice,
        build: Callable[[], DataFrame | pa.Table],
        *,
        audit: Callable[[pa.Table], None] | None = None,
        now: datetime,
        input_retention_days: int | None = None,
        rebuild: bool = False,
        commit_metadata: Mapping[str, str] | None = None,
    ) -> WriteResult:
        """Replace exactly one slice by what `build` returns; rows equal to the stored ones are not written again.

        `build` reads its sources after the snapshot of the table was opened, and runs again after a conflict. `audit`
        sees the rows before they are committed.

        Raises:
            SliceRefused: The slice is older than `input_retention_days` - 1 day before `now` (also with `rebuild`: what
                is gone cannot be rebuilt), or an hour or day that has rows would lose them all, without `rebuild`.
            AuditFailed: From `audit`.
            ContractViolation: The rows do not fit the contract or lie outside the slice.
            WriteConflict: Others committed between each of many attempts.
        """
        contract = self._contract(table)
        staging.refuse_expired(contract, slice_, now, input_retention_days)

        def attempt() -> WriteResult:
            snapshot, before = self._writable(contract)
            with self._reads.recorded() as versions:
                staged = conform(contract, staging.loaded(build()))
            staging.refuse_outside(contract, slice_, staged)
            if audit is not None:
                audit(staged)
            predicate = slice_.predicate(contract)
            stored, unchanged = snapshot.stored(predicate)
            if not rebuild:
                staging.refuse_shrinking(contract, stored, staged)
            details: dict[str, object] = {"read_versions": dict(versions)}
            if staging.same_rows(contract, stored, staged):
                return WriteResult(table, False, staged.num_rows, before, snapshot.version, metadata=details)
            info = self._info(contract, slice_, commit_metadata or {}, versions)
            transactions = [(replace_app_id(table), snapshot.version + 1)]
            after = self._commit(contract, snapshot, Change(staged, info, transactions, unchanged, predicate))
            details["rows_before"] = stored.num_rows
            return WriteResult(table, True, staged.num_rows, before, after, metadata=details)

        return self._until_one_committed(contract, attempt)

    def merge(
        self,
        table: str,
        rows: DataFrame | pa.Table,
        *,
        mode: Literal["insert_if_absent", "upsert", "replace_all"],
        audit: Callable[[pa.Table], None] | None = None,
        commit_metadata: dict[str, str] | None = None,
    ) -> WriteResult:
        """Merge on the contract's key: insert only absent keys, insert or update, or make the table equal to `rows`.

        `rows` of the result are those inserted or changed. `audit` sees the rows before they are committed.

        Raises:
            AuditFailed: From `audit`.
            ContractViolation: The rows do not fit the contract, or a key occurs twice among them.
            WriteConflict: Others committed between each of many attempts.
        """
        import pyarrow as pa

        contract = self._contract(table)
        ledger.refuse_change(contract, mode)
        staged = conform(contract, staging.loaded(rows))
        staging.refuse_doubled_keys(contract, staged)
        if audit is not None:
            audit(staged)

        def attempt() -> WriteResult:
            snapshot, before = self._writable(contract)
            scope = None if mode == "replace_all" else staging.key_scope(contract, staged)
            stored, unchanged = snapshot.stored(scope)
            replaces: str | None = scope or EVERYTHING
            if mode == "insert_if_absent":
                changed = result = staging.without_keys(contract, staged, stored)
                same, replaces = not result.num_rows, None
            else:
                kept = staging.without_keys(contract, stored, staged) if mode == "upsert" else stored.slice(0, 0)
                changed, result = staged, pa.concat_tables([kept, staged])
                same = staging.same_rows(contract, stored, result)
            if same:
                return WriteResult(table, False, 0, before, snapshot.version)
            app_id, number = replace_app_id(table), snapshot.version + 1
            if contract.chain:
                app_id, newest = ledger.app_id(table), _newest(contract, snapshot)
                unchanged = newest_commit_is(max(newest.column("chain_commit").to_pylist(), default=0))
                result = ledger.linked(contract, result, newest, number)
            info = self._info(contract, None, {"mode": mode, **(commit_metadata or {})})
            after = self._commit(contract, snapshot, Change(result, info, [(app_id, number)], unchanged, replaces))
            return WriteResult(table, True, changed.num_rows, before, after)

        return self._until_one_committed(contract, attempt)

    # --- housekeeping ---------------------------------------------------------------------------------------------

    def maintain(
        self, table: str, *, as_of: datetime | None, closed_before: datetime, dry_run: bool
    ) -> dict[str, object]:
        """Compact, expire, vacuum, checkpoint and clean one table; see `storage.maintenance.maintain`."""
        contract = self._contract(table)
        if (keeper := self._backend.keeper(contract)) is None:
            return {"exists": False}
        return maintain(keeper, contract, as_of=as_of, closed_before=closed_before, dry_run=dry_run)

    def create(self, table: str) -> bool:
        """Create the table from its contract unless it exists; whether it was this call that created it.

        Many processes may try at once: one of them commits version 0 and the others find it.
        """
        return self._backend.create(self._contract(table))

    # --- inside ---------------------------------------------------------------------------------------------------

    def _contract(self, table: str) -> Table:
        if table not in TABLES:
            raise KeyError(f"no contract for table {table!r}; known are {', '.join(sorted(TABLES))}")
        return TABLES[table]

    def _info(
        self, contract: Table, slice_: Slice | None, metadata: Mapping[str, str], read: Mapping[str, int] | None = None
    ) -> dict[str, str]:
        """Metadata of a commit: engine, code version, slice, versions read, the step's own, and a mark."""
        info = {"engine": self._backend.engine, "code_version": contract.code_version}
        if slice_ is not None:
            info |= {"slice_start": slice_.start.isoformat(), "slice_end": slice_.end.isoformat()}
        if read:
            info["read_versions"] = json.dumps(dict(read), sort_keys=True)
        return {**info, **metadata, "write_id": uuid.uuid4().hex}

    def _writable(self, contract: Table) -> tuple[Snapshot, int | None]:
        """The snapshot to write on, and its version (None when the table was created just now)."""
        created = self._backend.create(contract)
        snapshot = self._backend.writable(contract)
        return snapshot, None if created else snapshot.version

    def _commit(self, contract: Table, snapshot: Snapshot, change: Change) -> int:
        """The version committed; also when something fails after the commit, which stands.

        Raises:
            Overtaken: Another commit came first; nothing was committed.
        """
        before = snapshot.version  # a handle of delta-rs moves along
        try:
            after = snapshot.write(change)
        except Exception as error:
            after = self._backend.version_of(contract, change.metadata["write_id"], before)
            if after is None:
                raise
            text = " ".join(str(error)[:300].split())
            _LOG.warning("%s: version %d is committed; afterwards: %s", contract.full_name, after, text)
        if after is None:
            taken = ", ".join(f"number {number} of {app_id}" for app_id, number in change.transactions)
            raise TransactionUsed(f"{contract.full_name}: another writer has used {taken}")
        self._backend.committed(contract, after)
        return after

    def _until_one_committed(self, contract: Table, attempt: Callable[[], WriteResult]) -> WriteResult:
        result, retries = self._until_committed(contract, attempt)
        return replace(result, retries=retries)

    def _until_committed(self, contract: Table, attempt: Callable[[], T]) -> tuple[T, int]:
        def is_conflict(error: Exception) -> bool:
            return isinstance(error, Overtaken) or self._backend.is_conflict(error, contract, self._reads.last())

        def explain(error: Exception) -> Exception | None:
            tables = [contract.full_name, *self._reads.last()]
            return damage.explained(error, filter(None, (self._backend.folder(self._contract(t)) for t in tables)))

        return until_committed(contract.full_name, attempt, is_conflict, explain, self._backend.patience)


@dataclass(frozen=True)
class _Built:
    """What an attempt has built for one slice: a batch under the next number of the slice, or None."""

    append: SliceAppend
    stored: StoredRanges
    batch: AppendBatch | None
    seq: int
    batch_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def result(self, table: str, before: int | None, after: int) -> WriteResult:
        """The slice's part of the write."""
        if self.batch is None:
            return WriteResult(table, False, 0, before, after)
        ends = {**self.stored.ends, **{piece.partition: piece.end for piece in self.batch.covers}}
        details: dict[str, object] = {"seq": self.seq, "batch_id": self.batch_id, "ends": ends}
        return WriteResult(table, True, self.batch.rows.num_rows, before, after, metadata=details)


def _built(
    contract: Table, appends: Sequence[SliceAppend], ranges: RangesBySlice, topic_id: str, used: Mapping[str, int]
) -> list[_Built]:
    """Batches for the first slices, until their rows are many or one fails; the first slice's failure is raised."""
    built: list[_Built] = []
    rows = 0
    for append in appends:
        stored = ranges.of(append.slice)
        try:
            batch = append.build(stored)
            if batch is not None and not batch.rows.num_rows:
                batch = None
            if batch is not None:
                staging.check_batch(contract, append.slice, topic_id, stored, batch)
        except Exception:
            if not built:
                raise
            break
        built.append(_Built(append, stored, batch, max(stored.max_seq, used.get(append.app_id, 0)) + 1))
        if batch is not None:
            ranges.stage(append.slice, batch.covers)
            rows += batch.rows.num_rows
        if rows >= ROWS_TOGETHER:
            break
    return built


def _audited(built: list[_Built], sound: Callable[[pa.Table], bool]) -> list[_Built]:
    """The first of them that pass their audits; the first slice's failure is raised."""
    import pyarrow as pa

    batches = [one.batch for one in built if one.batch is not None]
    if len(batches) > 1 and sound(pa.concat_tables([batch.rows for batch in batches])):
        return built
    for n, one in enumerate(built):
        try:
            if one.batch is not None and one.append.audit is not None:
                one.append.audit(one.batch.rows)
        except Exception:
            if not n:
                raise
            return built[:n]
    return built


def _newest(contract: Table, snapshot: Snapshot) -> pa.Table:
    """The newest row of every chain of a ledger."""
    numbers = snapshot.aggregate({"chain_seq": "max(chain_seq)"}, contract.chain, "chain_seq IS NOT NULL")
    return snapshot.rows(None, None, ledger.rows_at(contract, numbers))
