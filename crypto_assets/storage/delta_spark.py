"""`DeltaStore` on Spark: JVM Spark, Databricks, or either behind Spark Connect.

Belongs here: opening, reading and committing by `DataFrameWriter` and SQL on table names. Does not belong here: when a
write is safe (`storage.store`), sessions (`engine.spark`), what rows mean.

Nothing here needs a JVM in this process (no `DeltaTable`, `_jvm` or RDD), so that the store works over Spark Connect.

Spark opens the snapshot that it commits on by itself, when it writes: later than everything was read that the rows were
made from. So the query that gives a write its rows also reads, in the same Delta transaction, the part of the table
that they depend on, and fails when that is no longer as it was (`storage.conditions`). What changed between reading and
that snapshot fails the query; what another commits after it is a conflict for Delta, because under Serializable
isolation (every table has it) a transaction conflicts with every commit that adds rows where it has read.

Spark skips the write of an application transaction that was used *silently*, so each write's mark is looked for in the
history.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts import render
from crypto_assets.contracts.arrow import arrow_schema, arrow_type, spark_schema
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import Slice
from crypto_assets.storage import damage, log_files, staging
from crypto_assets.storage import delta_files as files
from crypto_assets.storage.attempts import Overtaken, Patience
from crypto_assets.storage.backend import EVERYTHING, Change
from crypto_assets.storage.base import Commit, StorageError
from crypto_assets.storage.conditions import FILE, OVERTAKEN, Condition, same_files

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructField

_ROWS_OF_A_FILE = 200_000
"""Rows that are written as one file of a Delta partition, and by one task."""
Z_ORDER = "coin_id"
"""Column by which the rows of a closed partition are laid out, where the table has it: boards ask for one coin."""
_CONFLICT = re.compile(
    OVERTAKEN + r"|DELTA_CONCURRENT|DELTA_METADATA_CHANGED|DELTA_PROTOCOL_CHANGED|DELTA_VERSIONS_NOT_CONTIGUOUS"
    r"|FIELDS?_ALREADY_EXISTS"  # another writer has added the contract's new columns
    r"|DELTA_CREATE_TABLE_WITH_NON_EMPTY_LOCATION"  # another writer is creating it at this moment
    r"|Concurrent(Append|Transaction|Write|DeleteRead|DeleteDelete|Modification)Exception"
    r"|(Metadata|Protocol)ChangedException|FileAlreadyExistsException"
)
"""How Delta names a lost race, whatever carries the error (Py4J, Spark Connect, Databricks)."""


class SparkSnapshot:
    """A version of a table, which frames are pinned to."""

    def __init__(self, backend: SparkBackend, contract: Table, version: int) -> None:
        self._backend, self._contract, self.version = backend, contract, version

    @cached_property
    def _frame(self) -> DataFrame:
        frame = self._backend.frame(self._contract, self.version, None)
        return staging.completed_frame(self._contract, frame)

    def rows(self, slice_: Slice | None, columns: Sequence[str] | None, where: str | None) -> pa.Table:
        """Rows with the contract's types."""
        frame, schema = self._frame, arrow_schema(self._contract, columns)
        for condition in [slice_.predicate(self._contract) if slice_ else None, where]:
            frame = frame.where(condition) if condition else frame
        try:
            return frame.select(*[f"`{n}`" for n in schema.names]).toArrow().cast(schema)
        except Exception as error:
            folder = self._backend.folder(self._contract)
            raise damage.explained(error, [folder] if folder else []) or error from error

    def stored(self, where: str | None) -> tuple[pa.Table, Condition]:
        """Rows that a write depends on, and the condition that they still lie in the same files."""
        from pyspark.sql import functions as F

        schema, predicate = arrow_schema(self._contract), where or EVERYTHING
        columns = [*[f"`{n}`" for n in schema.names], F.expr(FILE).alias("_file")]
        found = self._frame.where(predicate).select(*columns).toArrow()
        names = found.column("_file").unique().to_pylist()
        return found.drop_columns(["_file"]).cast(schema), same_files(predicate, names)

    def aggregate(self, values: Mapping[str, str], by: Sequence[str], where: str) -> pa.Table:
        """SQL aggregates over the rows of a condition."""
        from pyspark.sql import functions as F

        found = [F.expr(sql).alias(name) for name, sql in values.items()]
        return self._frame.where(where).groupBy(*by).agg(*found).toArrow()

    def hours(self) -> list[datetime]:
        """Slices with rows; for a local table the log is sufficient."""
        if (handle := self._handle()) is not None:
            return files.slices_present(handle, self._contract)
        column = str(self._contract.time_column)
        return sorted(self._frame.select(column).distinct().toArrow().column(0).to_pylist())

    def rows_by_partition(self) -> dict[Any, int]:
        """Rows by Delta partition of a local table, from the log alone; empty for a managed one."""
        handle = self._handle()
        return {} if handle is None else files.rows_by_partition(handle, self._contract)

    def _handle(self) -> DeltaTable | None:
        """The log of a local table; None for a managed one."""
        folder = self._backend.folder(self._contract)
        return files.open_table(folder, self.version) if folder else None

    def write(self, change: Change) -> int | None:
        """Commit under the change's condition; the version is found by the commit's mark."""
        import pyarrow as pa

        backend, name = self._backend, self._backend.name(self._contract)
        rows = change.rows if isinstance(change.rows, pa.Table) else change.rows.read_all()
        made = backend.session().createDataFrame(rows, spark_schema(self._contract))
        # An Arrow table comes in pieces of 10,000 rows, and each would be a file.
        frame = made.coalesce(1 + rows.num_rows // _ROWS_OF_A_FILE)
        if change.condition is not None:
            frame = change.condition.guard(frame, rows.num_rows, backend.session().table(name))
        ((app_id, number),) = change.transactions
        writer = frame.write.format("delta").option("txnAppId", app_id).option("txnVersion", number)
        writer = writer.option("userMetadata", json.dumps(dict(change.metadata), sort_keys=True))
        if change.replaces is None:
            writer = writer.mode("append")
        else:
            writer = writer.mode("overwrite").option("replaceWhere", change.replaces)
        writer.saveAsTable(name)
        return backend.version_of(self._contract, change.metadata["write_id"], self.version)


class SparkBackend:
    """Tables of one catalog.

    Args:
        spark: Gives the session when it is first needed.
        catalog: Catalog of the tables; None = the session's own.
        lake: Folder of tables that are registered at a place, `<lake>/<schema>/<table>`, as delta-rs writes them; None
            = managed tables. The catalog then knows them by schemas that carry a mark of the lake, since one session
            may see several.
    """

    engine = "spark"
    patience = Patience(attempts=60, first_pause_s=0.05, longest_pause_s=2.0)  # a commit takes a second
    answers_at_once = False
    near = 4  # one query mostly gives all that a plan needs
    slices_together = 1  # a write of Spark records one application transaction

    def __init__(
        self,
        spark: Callable[[], SparkSession],
        catalog: str | None = None,
        *,
        lake: str | None = None,
    ) -> None:
        self.session = spark
        self._catalog = catalog
        self._lake = lake
        self._prefix = f"lake_{hashlib.sha256(lake.encode()).hexdigest()[:8]}_" if lake else ""
        self._known: set[str] = set()
        self._checked: set[str] = set()

    def name(self, contract: Table) -> str:
        """Quoted name of a table in SQL."""
        return ".".join(f"`{part}`" for part in self._parts(contract))

    def _parts(self, contract: Table) -> list[str]:
        schema, name = contract.full_name.split(".")
        return [*filter(None, [self._catalog]), f"{self._prefix}{schema}", name]

    def folder(self, contract: Table) -> str | None:
        """Folder of a table; None for a managed one."""
        return files.table_path(self._lake, contract.full_name) if self._lake else None

    def exists(self, contract: Table) -> bool:
        """True if the table exists in the catalog."""
        if contract.full_name in self._known:
            return True
        folder, name = self.folder(contract), self.name(contract)
        if folder is not None:
            if files.latest_version(folder) is None:  # a folder alone is there before the first commit
                if lost := damage.lost_log(Path(folder)):
                    raise StorageError(log_files.refusal(contract.full_name, [lost]))
                return False
            log_files.refuse_catalog_managed(folder)
            self._create_schema(contract)
            self._run(f"CREATE TABLE IF NOT EXISTS {name} USING DELTA LOCATION {files.literal(folder)}")
        elif not self.session().catalog.tableExists(name):
            return False
        self._known.add(contract.full_name)
        return True

    def version(self, contract: Table) -> int | None:
        """Newest version in the log, or in the history of a managed table."""
        if not self.exists(contract):
            return None
        folder = self.folder(contract)
        if folder is not None:
            log_files.make_readable(folder)
            return files.latest_version(folder)
        history = self.session().sql(f"DESCRIBE HISTORY {self.name(contract)} LIMIT 1")
        return history.select("version").collect()[0][0]

    def open(self, contract: Table, version: int | None = None) -> SparkSnapshot | None:
        """The current or a given version."""
        current = self.version(contract) if version is None or not self.exists(contract) else version
        return None if current is None else SparkSnapshot(self, contract, current)

    def frame(self, contract: Table, version: int, _slice: Slice | None) -> DataFrame:
        """A lazy frame, by the table's name."""
        self.exists(contract)
        return self.session().read.option("versionAsOf", version).table(self.name(contract))

    def create(self, contract: Table) -> bool:
        """Create the table unless it exists.

        Raises:
            Overtaken: Another process is creating it, or its folder holds something else than a table.
        """
        if self.exists(contract):
            return False
        self._create_schema(contract)
        name, folder = ".".join(self._parts(contract)), self.folder(contract)
        try:
            self._run(render.create_table(contract, name, folder))
        except Exception as error:
            # Another process may have made it at this moment, or be making it, or have been killed while it did.
            if not _is_conflict(error):
                raise
            if not self.exists(contract):
                if folder is not None:  # Spark refuses to create a table over a log folder in which nothing is
                    with suppress(OSError):  # gone, or no longer empty
                        (Path(folder) / "_delta_log").rmdir()
                raise Overtaken(
                    f"{contract.full_name} is being created, or its folder holds something else than a table"
                ) from error
            return False
        self._known.add(contract.full_name)
        return True

    def _create_schema(self, contract: Table) -> None:
        schema, folder = self.name(contract).rpartition(".")[0], self.folder(contract)
        at = f" LOCATION {files.literal(str(Path(folder).parent))}" if folder else ""
        self._run(f"CREATE SCHEMA IF NOT EXISTS {schema}{at}")

    def _run(self, statement: str) -> None:
        # Spark replaces `${x}` in a statement, also within the literal of a path such as `/${x}/lake`.
        self.session().sql(statement.replace("${", "\\u0024{"))

    def writable(self, contract: Table) -> SparkSnapshot:
        """The current version; the table's columns are compared once."""
        if contract.full_name not in self._checked:
            name, spark = self.name(contract), self.session()
            stored = set(spark.table(name).columns)
            later = [c for c in contract.columns if c.nullable and c.name not in stored]
            if later:
                spark.sql(render.add_columns(name, later))
            files.refuse_other_columns(_arrow_fields(spark.table(name).schema.fields), contract)
            self._checked.add(contract.full_name)
        snapshot = self.open(contract)
        assert snapshot is not None
        return snapshot

    def committed(self, _contract: Table, _version: int) -> None:
        """Nothing: Delta writes checkpoints by itself."""

    def version_of(self, contract: Table, mark: str, after: int) -> int | None:
        """Version of the commit whose metadata holds a mark."""
        folder = self.folder(contract)
        if folder is not None:
            return files.version_of(folder, mark, after)
        limit = 16  # the newest come first, and mostly it is the newest
        while True:
            history = self.session().sql(f"DESCRIBE HISTORY {self.name(contract)} LIMIT {limit}")
            rows = history.select("version", "userMetadata").collect()
            found = next((r[0] for r in rows if r[0] > after and mark in (r[1] or "")), None)
            if found is not None or len(rows) < limit or rows[-1][0] <= after:
                return found
            limit *= 16

    def is_conflict(self, error: Exception, contract: Table, _read: Mapping[str, int]) -> bool:
        """True if Delta reports that another writer committed first."""
        folder = self.folder(contract)
        if folder is not None and "DELTA_VERSIONS_NOT_CONTIGUOUS" in str(error):
            # Seen while another writer commits; a commit that is lost for good is no conflict.
            return log_files.inspect(folder).is_readable
        return _is_conflict(error)

    def commits(self, contract: Table, after: int, limit: int) -> list[Commit]:
        """Commits of the log's files, or of the history of a managed table."""
        folder = self.folder(contract)
        if folder is not None:
            # Commits of delta-rs keep their metadata in fields that DESCRIBE HISTORY does not show.
            return files.read_commits(folder, after, limit)
        newest = self.version(contract)
        if newest is None or newest <= after:
            return []
        # The newest come first; what commits of this very moment push out is filled in like a cleaned log.
        history = self.session().sql(f"DESCRIBE HISTORY {self.name(contract)} LIMIT {newest - max(after, -1)}")
        rows = history.where(f"version > {int(after)}").orderBy("version").limit(limit).collect()
        return [Commit(r.version, r.timestamp, r.operation, files.user_metadata(r.userMetadata)) for r in rows]

    def keeper(self, contract: Table) -> SparkKeeper | None:
        """The table by its name."""
        return SparkKeeper(self.session(), self.name(contract), contract) if self.exists(contract) else None


class SparkKeeper:
    """OPTIMIZE, DELETE and VACUUM by a table's name; Delta itself writes checkpoints and cleans the log.

    Where a workspace has predictive optimization, the maintenance job is off and this is not used.
    """

    def __init__(self, spark: SparkSession, name: str, contract: Table) -> None:
        self._spark, self._name, self._contract = spark, name, contract

    def size(self) -> dict[str, object]:
        """Live files and bytes."""
        detail = self._spark.sql(f"DESCRIBE DETAIL {self._name}").select("numFiles", "sizeInBytes").collect()[0]
        return {"files": detail[0], "bytes": detail[1]}

    def count(self, where: str) -> int:
        """Rows of a condition."""
        return self._spark.table(self._name).where(where).count()

    def delete(self, where: str) -> None:
        """Delete the rows of a condition."""
        self._spark.sql(f"DELETE FROM {self._name} WHERE {where}").collect()  # noqa: S608

    def partitions(self) -> list[tuple[date | None, int]]:
        """Files by Delta partition."""
        from pyspark.sql import functions as F

        by = self._contract.partition_by
        files_ = self._spark.table(self._name).select(*by, F.col("_metadata.file_path").alias("_path")).distinct()
        rows = files_.groupBy(*by).count().toArrow().to_pylist()
        return [(row[by[0]] if by else None, row["count"]) for row in rows]

    def compact(self, value: date | None) -> int:
        """Rewrite a Delta partition, laid out by `Z_ORDER`."""
        text = f"{value:%Y-%m-%dT%H:%M:%SZ}" if isinstance(value, datetime) else f"{value}"
        clause = "" if value is None else f" WHERE {self._contract.partition_by[0]} = '{text}'"
        layout = f" ZORDER BY ({Z_ORDER})" if Z_ORDER in self._contract.column_names else ""
        done = self._spark.sql(f"OPTIMIZE {self._name}{clause}{layout}").select("metrics.numFilesAdded").collect()
        return done[0][0]

    def vacuum(self, *, dry_run: bool) -> int:
        """Files past `delta.deletedFileRetentionDuration`; at most the number that VACUUM lists."""
        dead = len(self._spark.sql(f"VACUUM {self._name} DRY RUN").collect())
        if not dry_run:
            self._spark.sql(f"VACUUM {self._name}").collect()
        return dead

    def finish(self, *, dry_run: bool) -> dict[str, object]:  # noqa: ARG002 - nothing is left to do
        """The newest version."""
        history = self._spark.sql(f"DESCRIBE HISTORY {self._name} LIMIT 1")
        return {"version": history.select("version").collect()[0][0]}


def _arrow_fields(fields: Sequence[StructField]) -> pa.Schema:
    """Fields of a stored table in Arrow's types; null stands for a type that no contract has."""
    import pyarrow as pa

    others = {"float": pa.float32(), "smallint": pa.int16(), "tinyint": pa.int8(), "timestamp_ntz": pa.timestamp("us")}

    def arrow(text: str) -> pa.DataType:
        try:
            return arrow_type(text)
        except ValueError:
            return others.get(text, pa.null())

    return pa.schema([pa.field(f.name, arrow(f.dataType.simpleString()), f.nullable) for f in fields])


def _is_conflict(error: BaseException) -> bool:
    """True if Delta reports that another writer committed first."""
    return _CONFLICT.search(f"{type(error).__name__} {error}") is not None
