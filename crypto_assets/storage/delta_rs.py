"""`TableStore` on local Delta tables: delta-rs writes, Sail reads.

Belongs here: the five verbs and their write protocol. Does not belong here: reading helpers (`storage.delta_files`),
housekeeping (`storage.maintenance`), what rows mean.

The protocol: every write opens a handle first, reads what it depends on, and commits on that same handle with no
commit retries of delta-rs's own, so any commit of anybody in between is a conflict. A conflict restarts from the
beginning with everything read anew; rows are never sent again as they were.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from crypto_assets import paths
from crypto_assets.contracts.arrow import ContractViolation, arrow_schema, conform, empty_rows, spark_schema
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.render import LOG_STATISTICS
from crypto_assets.contracts.slices import Slice, hour_key
from crypto_assets.contracts.tables import TABLES
from crypto_assets.storage import checkpoints, damage, ledger, staging
from crypto_assets.storage import delta_files as files
from crypto_assets.storage.attempts import RecordedReads, commit_info, until_committed
from crypto_assets.storage.base import AppendBatch, Commit, StoredRanges, WriteResult, replace_app_id
from crypto_assets.storage.maintenance import RETENTION_HOURS, maintain
from crypto_assets.storage.ranges import incarnation

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable, WriterProperties
    from pyspark.sql import DataFrame, SparkSession

ENGINE = "sail+delta-rs"
MAX_ATTEMPTS = 200
_LONGEST_PAUSE_S = 0.5
_ROW_GROUP = 128 * 1024
_LOG = logging.getLogger(__name__)


class DeltaRsStore:
    """The tables below a local folder.

    Args:
        lake: Root folder; a table lies in `<lake>/<schema>/<table>`.
        spark: Gives the Sail session when a frame is first asked for.
        tables: Contracts by full name.
    """

    def __init__(self, lake: str, spark: Callable[[], SparkSession], tables: Mapping[str, Table] = TABLES) -> None:
        paths.require("the lake", lake, paths.TABLES, remedy="Choose another folder with CRYPTO_ASSETS_LAKE")
        self.lake = lake
        self._spark = spark
        self._tables = tables
        self._reads = RecordedReads()

    # --- reading --------------------------------------------------------------------------------------------------

    def path(self, table: str) -> str:
        """Folder of a table."""
        return files.table_path(self.lake, self._contract(table).full_name)

    def exists(self, table: str) -> bool:
        """Whether the table has been created."""
        return self.version(table) is not None

    def version(self, table: str) -> int | None:
        """Current Delta version, or None when the table does not exist."""
        handle = files.open_table(self.path(table))
        return None if handle is None else handle.version()

    def read(self, table: str, slice_: Slice | None = None, *, version: int | None = None) -> DataFrame:
        """A lazy Sail frame pinned to one version; see `TableStore.read`.

        It can be read while up to `checkpoints.LAG` more commits come. A version from before the last checkpoint is
        read at once, by delta-rs.
        """
        contract = self._contract(table)
        pinned = self.version(table) if version is None else version
        if pinned is None:
            return self._spark().createDataFrame(empty_rows(contract), spark_schema(contract))
        self._reads.note(table, pinned)
        if pinned < checkpoints.last(self.path(table)):
            rows = self.read_arrow(table, slice_, version=pinned)
            return self._spark().createDataFrame(rows, spark_schema(contract))
        # Without versionAsOf the frame would see whatever is current when it runs.
        reader = self._spark().read.format("delta").option("versionAsOf", pinned)
        stored = reader.load(files.table_path(paths.plain(self.lake), contract.full_name))
        frame = staging.completed_frame(contract, stored)
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
        """Rows with the contract's types; see `TableStore.read_arrow`. `columns` also gives the order."""
        contract = self._contract(table)
        handle = files.open_table(self.path(table), version)
        if handle is None:
            return empty_rows(contract, columns)
        self._reads.note(table, handle.version())
        return files.select(handle, contract, slice_, columns, where)

    def commits_after(self, table: str, version: int, limit: int) -> list[Commit]:
        """Commits with a higher version, oldest first, at most `limit`.

        Where housekeeping has removed the first of them, the list begins with an entry whose operation is
        `delta_files.HISTORY_CLEANED`. For a table of log records it has `touched_hours` of every late record stored,
        since which of them the lost commits brought can no longer be known.
        """
        contract = self._contract(table)

        def late_hours(_last_missing: int) -> dict[str, str]:
            if "event_hour" not in contract.column_names:
                return {}
            late = self.read_arrow(table, columns=["event_hour"], where="event_hour < arrival_hour")
            return {"touched_hours": json.dumps(sorted({hour_key(h) for h in late.column(0).unique().to_pylist()}))}

        return files.read_commits(self.path(table), version, limit, late_hours)

    # --- append_once ----------------------------------------------------------------------------------------------

    def append_once(
        self,
        table: str,
        slice_: Slice,
        app_id: str,
        build: Callable[[StoredRanges], AppendBatch | None],
        *,
        audit: Callable[[pa.Table], None] | None = None,
    ) -> WriteResult:
        """Append what `build` returns for the ranges stored so far, exactly once; see `TableStore.append_once`.

        Args:
            table: A table with topic_id, partition, range_start, range_end, seq and batch_id.
            slice_: The arrival hour.
            app_id: `<name>/<topic_id>/<hour>`; ranges are those of this topic incarnation.
            build: Makes the rows; runs again after a conflict.
            audit: Sees the rows before they are committed.

        Raises:
            AuditFailed: From `audit`.
            ContractViolation: The rows do not fit the contract, the slice, the incarnation or `covers`.
            WriteConflict: Others committed between each of many attempts.
        """
        contract = self._contract(table)
        incarnation(app_id)

        def attempt() -> WriteResult:
            handle, before = self._writable(contract)
            stored = files.stored_ranges(handle, contract, slice_, app_id)
            batch = build(stored)
            if batch is None or batch.rows.num_rows == 0:
                return WriteResult(table, False, 0, before, handle.version())
            staging.check_batch(contract, slice_, incarnation(app_id), stored, batch)
            if audit is not None:
                audit(batch.rows)
            seq, batch_id = stored.max_seq + 1, uuid.uuid4().hex
            own = {"app_id": app_id, "seq": str(seq), "batch_id": batch_id}
            info = commit_info(ENGINE, contract, slice_, {**batch.commit_metadata, **own}, {})
            rows = staging.completed(contract, batch.rows, seq, batch_id)
            after = self._commit(contract, handle, rows, info, (app_id, seq))
            ends = {**stored.ends, **{c.partition: c.end for c in batch.covers}}
            return WriteResult(
                table,
                True,
                batch.rows.num_rows,
                before,
                after,
                metadata={"seq": seq, "batch_id": batch_id, "ends": ends},
            )

        return self._until_committed(table, attempt)

    # --- replace_slice --------------------------------------------------------------------------------------------

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
        commit_metadata: dict[str, str] | None = None,
    ) -> WriteResult:
        """Replace exactly one slice by what `build` returns; see `TableStore.replace_slice`.

        Raises:
            SliceRefused: The inputs have expired (also with `rebuild`: what is gone cannot be rebuilt), or an hour
                or day that has rows would lose them all, without `rebuild`.
            AuditFailed: From `audit`.
            ContractViolation: The rows do not fit the contract or lie outside the slice.
            WriteConflict: Others committed between each of many attempts.
        """
        contract = self._contract(table)
        staging.refuse_expired(contract, slice_, now, input_retention_days)

        def attempt() -> WriteResult:
            handle, before = self._writable(contract)
            with self._reads.recorded() as versions:
                staged = conform(contract, staging.loaded(build()))
            staging.refuse_outside(contract, slice_, staged)
            if audit is not None:
                audit(staged)
            stored = files.select(handle, contract, slice_)
            if not rebuild:
                staging.refuse_shrinking(contract, stored, staged)
            if staging.same_rows(contract, stored, staged):
                read: dict[str, object] = {"read_versions": dict(versions)}
                return WriteResult(table, False, staged.num_rows, before, handle.version(), metadata=read)
            info = commit_info(ENGINE, contract, slice_, commit_metadata or {}, versions)
            rows = staged if staged.num_rows else None
            after = self._commit(contract, handle, rows, info, mode="overwrite", predicate=slice_.predicate(contract))
            told: dict[str, object] = {"rows_before": stored.num_rows, "read_versions": dict(versions)}
            return WriteResult(table, True, staged.num_rows, before, after, metadata=told)

        return self._until_committed(table, attempt)

    # --- merge ----------------------------------------------------------------------------------------------------

    def merge(
        self,
        table: str,
        rows: DataFrame | pa.Table,
        *,
        mode: Literal["insert_if_absent", "upsert", "replace_all"],
        audit: Callable[[pa.Table], None] | None = None,
        commit_metadata: dict[str, str] | None = None,
    ) -> WriteResult:
        """Merge on the contract's key; see `TableStore.merge`. `rows` of the result are those inserted or changed.

        Raises:
            AuditFailed: From `audit`.
            ContractViolation: The rows do not fit the contract, or a key occurs twice among them.
            WriteConflict: Others committed between each of many attempts.
        """
        contract = self._contract(table)
        ledger.refuse_change(contract, mode)
        staged = conform(contract, staging.loaded(rows))
        staging.refuse_doubled_keys(contract, staged)
        if audit is not None:
            audit(staged)

        def attempt() -> WriteResult:
            handle, before = self._writable(contract)
            info = commit_info(ENGINE, contract, None, {"mode": mode, **(commit_metadata or {})}, {})
            narrow = staging.key_scope if mode == "insert_if_absent" else staging.days_scope
            scope = None if mode == "replace_all" else narrow(contract, staged)
            stored = files.select(handle, contract, where=scope)
            added = staging.without_keys(contract, staged, stored)
            if mode == "insert_if_absent":
                result, same = added, not added.num_rows
            elif mode == "replace_all":
                result, same = staged, staging.same_rows(contract, stored, staged)
            else:
                result = staging.concat(staging.without_keys(contract, stored, staged), staged)
                same = staging.same_rows(contract, stored, result)
            if same:
                return WriteResult(table, False, 0, before, handle.version())
            if contract.chain:
                after = self._append_linked(contract, handle, result, info)
            elif mode == "insert_if_absent":
                after = self._commit(contract, handle, result, info)
            else:
                rows_or_none = result if result.num_rows else None
                after = self._commit(contract, handle, rows_or_none, info, mode="overwrite", predicate=scope)
            rows_changed = added.num_rows if mode == "insert_if_absent" else staged.num_rows
            return WriteResult(table, True, rows_changed, before, after)

        return self._until_committed(table, attempt)

    def _append_linked(self, contract: Table, handle: DeltaTable, rows: pa.Table, info: Mapping[str, str]) -> int:
        """Append rows to a ledger behind the newest of this snapshot; the version committed."""
        numbers = files.query(handle, ledger.heads_query(contract))
        newest = files.select(handle, contract, where=ledger.rows_at(contract, numbers))
        commit = handle.version() + 1
        linked = ledger.linked(contract, rows, newest, commit)
        return self._commit(contract, handle, linked, info, (ledger.app_id(contract.full_name), commit))

    def restore(
        self,
        table: str,
        slice_: Slice,
        rows: pa.Table,
        transactions: tuple[str, int],
        *,
        audit: Callable[[pa.Table], None],
        commit_metadata: Mapping[str, str],
    ) -> WriteResult:
        """Replace an hour of an append-once table by all that it held, although some of its files are lost.

        For repairs, which nothing else writes beside: the rows carry seq and batch_id, the stored ones are not read.

        Args:
            table: An append-once table.
            slice_: The hour.
            rows: All its rows.
            transactions: App id of the hour, and the highest sequence number of its rows.
            audit: Sees the rows first.
            commit_metadata: What the commit records.

        Raises:
            AuditFailed: From `audit`; nothing was committed.
        """
        contract = self._contract(table)
        staged = conform(contract, rows)
        staging.refuse_outside(contract, slice_, staged)
        audit(staged)
        handle, before = self._writable(contract)
        info = commit_info(ENGINE, contract, slice_, commit_metadata, {})
        replaced = slice_.predicate(contract)
        some = staged if staged.num_rows else None
        after = self._commit(contract, handle, some, info, transactions, mode="overwrite", predicate=replaced)
        return WriteResult(table, True, staged.num_rows, before, after)

    def recorded(self, table: str, app_id: str) -> int:
        """Highest version that the log records for an app id; 0 without one."""
        handle = files.open_table(self.path(table))
        return (handle.transaction_version(app_id) or 0) if handle is not None else 0

    # --- housekeeping ---------------------------------------------------------------------------------------------

    def maintain(self, table: str, *, now: datetime, closed_before: datetime, dry_run: bool) -> dict[str, object]:
        """Compact, expire, vacuum, checkpoint and clean one table; see `storage.maintenance.maintain`."""
        contract = self._contract(table)
        with files.ONE_CALL:
            return maintain(self.path(table), contract, now=now, closed_before=closed_before, dry_run=dry_run)

    def create(self, table: str) -> bool:
        """Create the table from its contract unless it exists; whether it was this call that created it.

        Many processes may try at once: one of them commits version 0 and the others find it.
        """
        from deltalake import CommitProperties, DeltaTable, Schema
        from deltalake.exceptions import DeltaError

        contract = self._contract(table)
        path = self.path(table)
        with files.ONE_CALL:
            if files.exists(path):
                return False
            try:
                DeltaTable.create(
                    path,
                    schema=Schema.from_arrow(_commented(contract)),
                    mode="error",
                    partition_by=list(contract.partition_by),
                    name=contract.full_name,
                    description=contract.description,
                    configuration=_configuration(contract),
                    commit_properties=CommitProperties(max_commit_retries=0),
                )
            except DeltaError:  # includes a commit that lost the race for version 0
                if not files.exists(path):
                    raise
                return False
            return True

    # --- inside ---------------------------------------------------------------------------------------------------

    def _contract(self, table: str) -> Table:
        if table not in self._tables:
            raise KeyError(f"no contract for table {table!r}; known are {', '.join(sorted(self._tables))}")
        return self._tables[table]

    def _writable(self, contract: Table) -> tuple[DeltaTable, int | None]:
        """A handle on the current version, and that version (None when the table was created just now)."""
        import pyarrow as pa

        created = self.create(contract.full_name)
        handle = files.open_table(self.path(contract.full_name))
        if handle is None:
            raise FileNotFoundError(f"{contract.full_name} vanished from {self.lake} while being written")
        later = files.added_later(handle, contract)
        if later:
            self._add_columns(contract, handle, [c.name for c in later])
        problems = files.stored_problems(pa.schema(handle.schema().to_arrow()), contract)
        if problems:
            raise ContractViolation(contract.full_name, problems)
        return handle, None if created else handle.version()

    def _add_columns(self, contract: Table, handle: DeltaTable, names: Sequence[str]) -> None:
        """Add columns that the contract gained after the table was made; the handle moves along."""
        from deltalake import CommitProperties, Schema

        fields = [f for f in Schema.from_arrow(_commented(contract)).fields if f.name in names]
        with files.ONE_CALL:
            handle.alter.add_columns(
                fields,
                commit_properties=CommitProperties(max_commit_retries=0),
                post_commithook_properties=checkpoints.left_to_us(),
            )

    def _commit(
        self,
        contract: Table,
        handle: DeltaTable,
        rows: pa.Table | pa.RecordBatchReader | None,
        metadata: Mapping[str, str],
        transaction: tuple[str, int] | None = None,
        *,
        mode: Literal["append", "overwrite"] = "append",
        predicate: str | None = None,
    ) -> int:
        """Append rows, or overwrite those of a predicate (None = all); no rows: delete them.

        Args:
            contract: Contract of the table.
            handle: Snapshot to commit on; it moves along.
            rows: Rows to write.
            metadata: What the commit records.
            transaction: App id and version; by default those by which replacing writers exclude each other.
            mode: Whether to overwrite.
            predicate: What is overwritten.

        Returns:
            The version committed. When the library fails after its commit, that version too: it stands.
        """
        from deltalake import CommitProperties, Transaction, write_deltalake

        # Its own transaction stops writers on Spark that read before this commit.
        before = handle.version()
        app_id, app_version = transaction or (replace_app_id(contract.full_name), before + 1)
        mark = uuid.uuid4().hex
        properties = CommitProperties(
            custom_metadata={**metadata, "write_id": mark},
            max_commit_retries=0,
            app_transactions=[Transaction(app_id, app_version)],
        )
        hooks, path = checkpoints.left_to_us(), self.path(contract.full_name)
        with files.ONE_CALL:
            try:
                if rows is not None:
                    write_deltalake(
                        handle,
                        rows,
                        mode=mode,  # type: ignore[arg-type]
                        predicate=predicate,
                        commit_properties=properties,
                        post_commithook_properties=hooks,
                        writer_properties=_writer_properties(),
                    )
                else:
                    handle.delete(predicate, commit_properties=properties, post_commithook_properties=hooks)
                after = handle.version()
            except Exception as error:
                stands = files.version_of(path, mark, before)
                if stands is None:
                    raise
                _LOG.warning("%s: version %d is committed; afterwards: %s", contract.full_name, stands, error)
                after = stands
            checkpoints.after_commit(path, after)
        return after

    def _until_committed(self, table: str, attempt: Callable[[], WriteResult]) -> WriteResult:
        from deltalake.exceptions import CommitFailedError

        path = self.path(table)
        opened: int | None = None

        def noting() -> WriteResult:
            nonlocal opened
            opened = files.latest_version(path)
            return attempt()

        def is_conflict(error: Exception) -> bool:
            # delta-rs says of a full disk, too, that the commit failed: only a commit that came first is a conflict.
            if isinstance(error, CommitFailedError):
                return files.latest_version(path) != opened
            # A frame that others' commits have put out of reach is built anew, on the newest version.
            out_of_reach = checkpoints.OUT_OF_REACH in f"{error.__cause__ or error}"
            return out_of_reach and any(v < checkpoints.last(self.path(t)) for t, v in self._reads.last().items())

        return until_committed(
            table,
            noting,
            is_conflict,
            lambda error: damage.explained(error, [path, *(self.path(t) for t in self._reads.last())]),
            attempts=MAX_ATTEMPTS,
            first_pause_s=0.01,
            longest_pause_s=_LONGEST_PAUSE_S,
        )


# --- tables -------------------------------------------------------------------------------------------------------


def _configuration(contract: Table) -> dict[str, str | None]:
    """Table properties. delta.setTransactionRetentionDuration is never among them: it would re-open replays."""
    properties: dict[str, str | None] = {
        "delta.isolationLevel": "Serializable",
        "delta.logRetentionDuration": f"interval {RETENTION_HOURS} hours",
        "delta.deletedFileRetentionDuration": f"interval {RETENTION_HOURS} hours",
        "delta.checkpointInterval": "10",
    }
    if "raw_json" in contract.column_names and contract.write == "append_once":
        columns = ",".join(n for n in LOG_STATISTICS if n in contract.column_names)
        properties["delta.dataSkippingStatsColumns"] = columns
    return properties


def _commented(contract: Table) -> pa.Schema:
    import pyarrow as pa

    comments = {c.name: {"comment": c.description} for c in contract.columns}
    return pa.schema([f.with_metadata(comments[f.name]) for f in arrow_schema(contract)])


def _writer_properties() -> WriterProperties:
    from deltalake import WriterProperties

    # Row groups small enough that a reader of two cores gets work for both, and that a writer stays small.
    return WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=_ROW_GROUP)
