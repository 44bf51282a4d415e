"""`TableStore` on Spark: JVM Spark, Databricks, or either behind Spark Connect.

Belongs here: the five verbs by `DataFrameWriter`, `mergeInto` and SQL on table names. Does not belong here: sessions
(`engine.spark`), what rows mean.

Nothing here needs a JVM in this process (no `DeltaTable`, `_jvm` or RDD), so that the store works over Spark Connect.

The protocol. Spark opens the snapshot that it commits on by itself, when it writes: later than everything was read that
the rows were made from. So a write is *conditional*: the query that gives its rows also reads, in the same Delta
transaction, the part of the table that they depend on, and fails when that is no longer as it was.

- `append_once` depends on no other batch holding one of its offsets, in whatever hour.
- `replace_slice` depends on the slice lying in the files that it lay in before any source was read; `insert_if_absent`
  and `replace_all` likewise on those of the keys' scope, or of the whole table; in a ledger on no other commit. Files
  get no name twice, and without deletion vectors (no table has them) rows change only with their files.
- `upsert` is a MERGE, whose condition is such a query.

What changed between reading and that snapshot fails the query; what another commits after it is a conflict for Delta,
because under Serializable isolation (every table has it) a transaction conflicts with every commit that adds rows
where it has read. Either way nothing is committed, and the attempt starts over with everything read anew. One commit
holds all or nothing, so a writer may be killed at any moment and leaves nothing to withdraw, and no reader ever sees a
row that does not stay. delta-rs keeps its side by refusing any commit in between.

Application transactions come on top (Spark skips the write of a version that was used *silently*, so each write's id is
looked for in the history): app id and sequence of the slice as on delta-rs, and `replace/<table>` with the version read
plus one. They save the work of a writer that is late; alone they are not enough. Two hours have two app ids; and one
who opened version 5, overtaken by an OPTIMIZE, commits under 6 unhindered although another has opened 6 since.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crypto_assets.contracts import render
from crypto_assets.contracts.arrow import ContractViolation, arrow_schema, conform, empty_rows, spark_schema
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import HOUR, Slice, hour_key
from crypto_assets.contracts.tables import TABLES
from crypto_assets.storage import damage, ledger, log_files, spark_maintenance, staging
from crypto_assets.storage import delta_files as files
from crypto_assets.storage.attempts import RecordedReads, commit_info, until_committed
from crypto_assets.storage.base import AppendBatch, Commit, StorageError, StoredRanges, WriteResult, replace_app_id
from crypto_assets.storage.ranges import Neighbours, incarnation, literal, verbatim, within
from crypto_assets.storage.spark_answers import arrow_fields, is_conflict, version_in_history
from crypto_assets.storage.spark_conditions import FILE, Condition, ranges_free, same_files
from crypto_assets.storage.spark_merge import linked, upsert

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

ENGINE = "spark"
_LOG = logging.getLogger(__name__)
MAX_ATTEMPTS = 60
_LONGEST_PAUSE_S = 2.0
_ROWS_OF_A_FILE = 200_000
"""Rows that are written as one file of a Delta partition, and by one task."""
_NEAR = 4 * HOUR
"""Slices this near are asked for together with the one to be written: one query mostly tells all that a plan needs."""


class _Lost(Exception):
    """Another writer was first; nothing of this attempt was committed."""


class DeltaSparkStore:
    """Tables of one catalog.

    Args:
        spark: Gives the session when it is first needed.
        catalog: Catalog of the tables; None = the session's own.
        lake: Folder of tables that are registered at a place, `<lake>/<schema>/<table>`, as delta-rs writes them; None
            = managed tables. The catalog then knows them by schemas that carry a mark of the lake, since one session
            may see several.
        properties: Delta properties of tables that this store creates; None = the contract's.
        tables: Contracts by full name.
    """

    def __init__(
        self,
        spark: Callable[[], SparkSession],
        catalog: str | None = None,
        *,
        lake: str | None = None,
        properties: Callable[[Table], Mapping[str, str]] | None = None,
        tables: Mapping[str, Table] = TABLES,
    ) -> None:
        self._spark = spark
        self._catalog = catalog
        self._lake = lake
        self._prefix = f"lake_{hashlib.sha256(lake.encode()).hexdigest()[:8]}_" if lake else ""
        self._properties = properties
        self._tables = tables
        self._reads = RecordedReads()
        self._known: set[str] = set()
        self._checked: set[str] = set()

    # --- reading --------------------------------------------------------------------------------------------------

    def name(self, table: str) -> str:
        """Quoted name of a table in SQL."""
        return ".".join(f"`{part}`" for part in self._parts(self._contract(table)))

    def _parts(self, contract: Table) -> list[str]:
        schema, name = contract.full_name.split(".")
        return [*filter(None, [self._catalog]), f"{self._prefix}{schema}", name]

    def path(self, table: str) -> str:
        """Folder of a table.

        Raises:
            ValueError: The table is managed: its folder is the catalog's business.
        """
        place = self._place(self._contract(table))
        if place is None:
            raise ValueError(f"{table} is a managed table of {self._catalog}: use its name")
        return place

    def _place(self, contract: Table) -> str | None:
        return files.table_path(self._lake, contract.full_name) if self._lake else None

    def exists(self, table: str) -> bool:
        """Whether the table has been created."""
        contract = self._contract(table)
        if table in self._known:
            return True
        spark = self._spark()
        place = self._place(contract)
        if place is not None:
            if files.latest_version(place) is None:  # a folder alone is there before the first commit
                if lost := damage.lost_log(Path(place)):
                    raise StorageError(log_files.refusal(table, [lost]))
                return False
            self._create_schema(contract)
            spark.sql(verbatim(f"CREATE TABLE IF NOT EXISTS {self.name(table)} USING DELTA LOCATION {literal(place)}"))
        elif not spark.catalog.tableExists(self.name(table)):
            return False
        self._known.add(table)
        return True

    def version(self, table: str) -> int | None:
        """Current Delta version, or None when the table does not exist."""
        if not self.exists(table):
            return None
        place = self._place(self._contract(table))
        if place is not None:
            log_files.make_readable(place)
            return files.latest_version(place)
        return self._spark().sql(f"DESCRIBE HISTORY {self.name(table)} LIMIT 1").select("version").collect()[0][0]

    def read(self, table: str, slice_: Slice | None = None, *, version: int | None = None) -> DataFrame:
        """A lazy frame pinned to one version; see `TableStore.read`."""
        contract = self._contract(table)
        pinned = self.version(table) if version is None else version
        if pinned is None:
            return self._spark().createDataFrame(empty_rows(contract), spark_schema(contract))
        self._reads.note(table, pinned)
        stored = self._spark().read.option("versionAsOf", pinned).table(self.name(table))
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
        if not self.exists(table):
            return empty_rows(contract, columns)
        frame = self.read(table, slice_, version=version)
        if where:
            frame = frame.where(where)
        schema = arrow_schema(contract, columns)
        try:
            return frame.select(*[f"`{n}`" for n in schema.names]).toArrow().cast(schema)
        except Exception as error:
            raise self._explained(error, [table]) or error from error

    def commits_after(self, table: str, version: int, limit: int) -> list[Commit]:
        """Commits with a higher version, oldest first, at most `limit`; see `DeltaRsStore.commits_after`."""
        contract = self._contract(table)

        def late_hours(_last_missing: int) -> dict[str, str]:
            if "event_hour" not in contract.column_names:
                return {}
            late = self.read_arrow(table, columns=["event_hour"], where="event_hour < arrival_hour")
            return {"touched_hours": json.dumps(sorted({hour_key(h) for h in late.column(0).unique().to_pylist()}))}

        place = self._place(contract)
        if place is not None:
            # Commits of delta-rs keep their metadata in fields that DESCRIBE HISTORY does not show.
            return files.read_commits(place, version, limit, late_hours)
        if not self.exists(table):
            return []
        newest = self.version(table)
        if newest is None or newest <= version:
            return []
        # The newest come first; what commits of this very moment push out is filled in like a cleaned log.
        history = self._spark().sql(f"DESCRIBE HISTORY {self.name(table)} LIMIT {newest - max(version, -1)}")
        rows = history.where(f"version > {int(version)}").orderBy("version").limit(limit).collect()
        found = [Commit(r.version, r.timestamp, r.operation, files.user_metadata(r.userMetadata)) for r in rows]
        return files.with_missing(found, version, limit, late_hours)

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

        Raises:
            AuditFailed: From `audit`.
            ContractViolation: The rows do not fit the contract, the slice, the incarnation or `covers`.
            WriteConflict: Others committed between each of many attempts.
        """
        contract = self._contract(table)
        incarnation(app_id)
        used = 0  # highest sequence number that another writer is known to have taken

        def attempt() -> WriteResult:
            nonlocal used
            before = self._writable(contract)
            stored = self._stored_ranges(contract, slice_, app_id, before)
            batch = build(stored)
            if batch is None or batch.rows.num_rows == 0:
                return WriteResult(table, False, 0, before, before)
            staging.check_batch(contract, slice_, incarnation(app_id), stored, batch)
            if audit is not None:
                audit(batch.rows)
            seq, batch_id = max(stored.max_seq, used) + 1, uuid.uuid4().hex
            own = {"app_id": app_id, "seq": str(seq), "batch_id": batch_id}
            rows = staging.completed(contract, batch.rows, seq, batch_id).read_all()
            metadata = commit_info(ENGINE, contract, slice_, {**batch.commit_metadata, **own}, {})
            free = ranges_free(incarnation(app_id), batch.covers)
            after = self._write(contract, rows, app_id, seq, metadata, free, mark=batch_id, before=before)
            if after is None:
                used = seq
                raise _Lost(f"sequence {seq} of {app_id} was used by another writer")
            ends = {**stored.ends, **{c.partition: c.end for c in batch.covers}}
            details = {"seq": seq, "batch_id": batch_id, "ends": ends}
            return WriteResult(table, True, rows.num_rows, before, after, metadata=details)

        return self._until_committed(table, attempt)

    def _stored_ranges(self, contract: Table, slice_: Slice, app_id: str, version: int) -> StoredRanges:
        """Ranges of a slice and of its neighbours, of one topic incarnation, all of one version of the table."""
        from pyspark.sql import functions as F

        topic_id, column = incarnation(app_id), contract.time_column
        assert column is not None
        table = self.read(contract.full_name, version=version)
        first, last = slice_.start - _NEAR, slice_.end - HOUR + _NEAR
        values = (F.max("range_end").alias("e"), F.min("range_start").alias("s"), F.max("seq").alias("q"))

        def by(names: Sequence[str], span: Sequence[datetime]) -> list[dict[str, Any]]:
            return table.where(within(column, topic_id, span)).groupBy(*names).agg(*values).toArrow().to_pylist()

        near = by([column, "partition"], [first, last])
        mine = [r for r in near if slice_.start <= r[column] < slice_.end]
        before = {r["partition"]: r["e"] for r in sorted(near, key=itemgetter(column)) if r[column] < slice_.start}
        after = {r["partition"]: r["s"] for r in sorted(near, key=itemgetter(column))[::-1] if r[column] >= slice_.end}
        hours = cache(lambda: self._slices(contract, table, version))
        return StoredRanges(
            ends={r["partition"]: r["e"] for r in mine},
            starts={r["partition"]: r["s"] for r in mine},
            max_seq=max((r["q"] for r in mine), default=0),
            previous_ends=Neighbours(
                lambda: [h for h in reversed(hours()) if h < first],
                lambda some: ((r["partition"], r["e"]) for r in by(["partition"], some)),
                before,
            ),
            next_starts=Neighbours(
                lambda: [h for h in hours() if h > last],
                lambda some: ((r["partition"], r["s"]) for r in by(["partition"], some)),
                after,
            ),
        )

    def _slices(self, contract: Table, frame: DataFrame, version: int) -> list[datetime]:
        """Slices of which a version of a table has rows, sorted."""
        place = self._place(contract)
        handle = files.open_table(place, version) if place else None
        if handle is not None:  # the log alone says it
            return files.slices_present(handle, contract)
        return sorted(frame.select(str(contract.time_column)).distinct().toArrow().column(0).to_pylist())

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
            before = self._writable(contract)
            with self._reads.recorded() as versions:
                staged = conform(contract, staging.loaded(build()))
            staging.refuse_outside(contract, slice_, staged)
            if audit is not None:
                audit(staged)
            predicate = slice_.predicate(contract)
            stored, unchanged = self._stored(contract, predicate, before)
            if not rebuild:
                staging.refuse_shrinking(contract, stored, staged)
            if staging.same_rows(contract, stored, staged):
                read: dict[str, object] = {"read_versions": dict(versions)}
                return WriteResult(table, False, staged.num_rows, before, before, metadata=read)
            metadata = commit_info(ENGINE, contract, slice_, commit_metadata or {}, versions)
            after = self._replace(contract, staged, before, metadata, unchanged, predicate)
            details: dict[str, object] = {"rows_before": stored.num_rows, "read_versions": dict(versions)}
            return WriteResult(table, True, staged.num_rows, before, after, metadata=details)

        return self._until_committed(table, attempt)

    def _stored(self, contract: Table, where: str | None, version: int) -> tuple[pa.Table, Condition]:
        """Rows of a version that a write depends on, and the condition that they still lie in the same files."""
        from pyspark.sql import functions as F

        schema, predicate = arrow_schema(contract), where or "true"
        frame = self.read(contract.full_name, version=version).where(predicate)
        found = frame.select(*[f"`{n}`" for n in schema.names], F.expr(FILE).alias("_file")).toArrow()
        names = found.column("_file").unique().to_pylist()
        return found.drop_columns(["_file"]).cast(schema), same_files(predicate, names)

    def _replace(
        self,
        contract: Table,
        rows: pa.Table,
        before: int,
        metadata: Mapping[str, str],
        unchanged: Condition,
        predicate: str | None,
    ) -> int:
        """Replace what a predicate selects (None: append) unless anybody replaced since `before`; the new version.

        Raises:
            _Lost: Somebody did.
        """
        write_id = uuid.uuid4().hex
        app_id = ledger.app_id(contract.full_name) if contract.chain else replace_app_id(contract.full_name)
        marked = {**metadata, "write_id": write_id}
        after = self._write(
            contract, rows, app_id, before + 1, marked, unchanged, predicate, mark=write_id, before=before
        )
        if after is None:
            raise _Lost(f"{contract.full_name} was replaced by another writer after version {before}")
        return after

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
            before = self._writable(contract)
            scope = None if mode == "replace_all" else staging.key_scope(contract, staged)
            stored, unchanged = self._stored(contract, scope, before)
            metadata = commit_info(ENGINE, contract, None, {"mode": mode, **(commit_metadata or {})}, {})
            if mode == "upsert":
                if staging.all_stored(contract, stored, staged):
                    return WriteResult(table, False, 0, before, before)
                upsert(self._frame(contract, staged), self.name(table), contract, scope)
                return WriteResult(table, True, staged.num_rows, before, self.version(table))
            if mode == "insert_if_absent":
                rows = staging.without_keys(contract, staged, stored)
                same, predicate = not rows.num_rows, None
            else:
                rows, same, predicate = staged, staging.same_rows(contract, stored, staged), "true"
            if same:
                return WriteResult(table, False, 0, before, before)
            if contract.chain:
                rows, unchanged = linked(self, contract, rows, before)
            after = self._replace(contract, rows, before, metadata, unchanged, predicate)
            return WriteResult(table, True, rows.num_rows, before, after)

        return self._until_committed(table, attempt)

    # --- housekeeping ---------------------------------------------------------------------------------------------

    def maintain(self, table: str, *, now: datetime, closed_before: datetime, dry_run: bool) -> dict[str, object]:
        """Compact, expire and vacuum one table; see `storage.spark_maintenance.maintain`."""
        contract = self._contract(table)
        if not self.exists(table):
            return {"exists": False}
        return spark_maintenance.maintain(
            self._spark(), self.name(table), contract, now=now, closed_before=closed_before, dry_run=dry_run
        )

    def create(self, table: str) -> bool:
        """Create the table from its contract unless it exists; whether it was this call that created it."""
        contract = self._contract(table)
        if self.exists(table):
            return False
        spark = self._spark()
        self._create_schema(contract)
        properties = self._properties(contract) if self._properties is not None else None
        try:
            statement = render.create_table(
                contract, ".".join(self._parts(contract)), self._place(contract), properties
            )
            spark.sql(verbatim(statement))
        except Exception as error:
            # Another process may have made it at this moment, or be making it, or have been killed while it did.
            if not is_conflict(error):
                raise
            if not self.exists(table):
                self._drop_empty_log(contract)
                raise _Lost(f"{table} is being created, or its folder holds something else than a table") from error
            return False
        self._known.add(table)
        return True

    # --- inside ---------------------------------------------------------------------------------------------------

    def _contract(self, table: str) -> Table:
        if table not in self._tables:
            raise KeyError(f"no contract for table {table!r}; known are {', '.join(sorted(self._tables))}")
        return self._tables[table]

    def _create_schema(self, contract: Table) -> None:
        schema = self.name(contract.full_name).rpartition(".")[0]
        place = self._place(contract)
        at = f" LOCATION {literal(str(Path(place).parent))}" if place else ""
        self._spark().sql(verbatim(f"CREATE SCHEMA IF NOT EXISTS {schema}{at}"))

    def _drop_empty_log(self, contract: Table) -> None:
        """Remove a log folder in which nothing is: Spark refuses to create the table there, Delta makes it anew."""
        place = self._place(contract)
        if place is not None:
            with suppress(OSError):  # gone, or no longer empty
                (Path(place) / "_delta_log").rmdir()

    def _writable(self, contract: Table) -> int:
        """Version of the table, which is created when it is absent, and has the contract's columns."""
        self.create(contract.full_name)
        if contract.full_name not in self._checked:
            self._check_columns(contract)
        version = self.version(contract.full_name)
        assert version is not None
        return version

    def _check_columns(self, contract: Table) -> None:
        """Add columns that the contract gained later; refuse any other difference (`ContractViolation`)."""
        spark, name = self._spark(), self.name(contract.full_name)
        stored = set(spark.table(name).columns)
        later = [c for c in contract.columns if c.nullable and c.name not in stored]
        if later:
            spark.sql(render.add_columns(name, later))
        problems = files.stored_problems(arrow_fields(spark.table(name).schema.fields), contract)
        if problems:
            raise ContractViolation(contract.full_name, problems)
        self._checked.add(contract.full_name)

    def _frame(self, contract: Table, rows: pa.Table) -> DataFrame:
        return self._spark().createDataFrame(rows, spark_schema(contract))

    def _write(
        self,
        contract: Table,
        rows: pa.Table,
        app_id: str,
        app_version: int,
        metadata: Mapping[str, str],
        condition: Condition,
        where: str | None = None,
        *,
        mark: str,
        before: int,
    ) -> int | None:
        """Append rows (or replace by them what `where` selects) under an application transaction and a condition.

        Returns:
            The version after `before` whose metadata holds `mark`: also when Spark fails after the commit, which
            stands. None when Spark skipped the write, because the transaction was used.
        """
        name = self.name(contract.full_name)
        # An Arrow table comes in pieces of 10,000 rows, and each would be a file.
        made = self._frame(contract, rows).coalesce(1 + rows.num_rows // _ROWS_OF_A_FILE)
        frame = condition.guard(made, rows.num_rows, self._spark().table(name))
        writer = frame.write.format("delta")
        writer = writer.option("txnAppId", app_id).option("txnVersion", app_version)
        writer = writer.option("userMetadata", json.dumps(dict(metadata), sort_keys=True))
        if where is None:
            writer = writer.mode("append")
        else:
            writer = writer.mode("overwrite").option("replaceWhere", where)
        try:
            writer.saveAsTable(name)
        except Exception as error:
            stands = None if is_conflict(error) else self._version_of(contract.full_name, mark, before)
            if stands is None:
                raise
            told = " ".join(str(error)[:300].split())
            _LOG.warning("%s: version %d is committed; afterwards: %s", contract.full_name, stands, told)
            return stands
        return self._version_of(contract.full_name, mark, before)

    def _version_of(self, table: str, mark: str, after: int) -> int | None:
        """Version of the commit after a version whose metadata holds a mark."""
        place = self._place(self._contract(table))
        if place is not None:
            return files.version_of(place, mark, after)
        return version_in_history(self._spark(), self.name(table), mark, after)

    def _explained(self, error: Exception, tables: Iterable[str]) -> StorageError | None:
        """The error to raise instead of Spark's when the files of local tables are its cause."""
        return damage.explained(error, [self.path(t) for t in tables]) if self._lake else None

    def _until_committed(self, table: str, attempt: Callable[[], WriteResult]) -> WriteResult:
        def came_first(error: Exception) -> bool:
            if isinstance(error, _Lost):
                return True
            if self._lake and "DELTA_VERSIONS_NOT_CONTIGUOUS" in str(error):
                # Seen while another writer commits; a commit that is lost for good is no conflict.
                return log_files.inspect(self.path(table)).is_readable
            return is_conflict(error)

        return until_committed(
            table,
            attempt,
            came_first,
            lambda error: self._explained(error, [table, *self._reads.last()]),
            attempts=MAX_ATTEMPTS,
            first_pause_s=0.05,
            longest_pause_s=_LONGEST_PAUSE_S,
        )
