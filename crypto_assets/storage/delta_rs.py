"""`DeltaStore` on local Delta tables: delta-rs commits, Sail reads.

Belongs here: opening, reading and committing by delta-rs. Does not belong here: when a write is safe
(`storage.store`), reading helpers (`storage.delta_files`), housekeeping (`storage.maintenance`), what rows mean.

A commit is made on the handle that everything was read through, with no commit retries of delta-rs's own, so any
commit in between is a conflict: conditions need no query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets import paths
from crypto_assets.contracts.arrow import arrow_schema, conform, spark_schema
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.render import LOG_STATISTICS
from crypto_assets.contracts.slices import Slice
from crypto_assets.storage import checkpoints, staging
from crypto_assets.storage import delta_files as files
from crypto_assets.storage.attempts import Overtaken, Patience
from crypto_assets.storage.backend import EVERYTHING, Change
from crypto_assets.storage.base import Commit, WriteResult
from crypto_assets.storage.maintenance import RETENTION_HOURS
from crypto_assets.storage.store import DeltaStore

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import CommitProperties, DeltaTable
    from pyspark.sql import DataFrame, SparkSession

_ROW_GROUP = 128 * 1024
"""Rows of a group: few enough that a reader of two cores gets work for both, and that a writer stays small."""
_ONE_FILE_BYTES = 1 << 40
_CONFLICT_RETRIES = 15


class DeltaRsStore(DeltaStore):
    """The tables below a local folder.

    Args:
        lake: Root folder; a table lies in `<lake>/<schema>/<table>`.
        spark: Gives the Sail session when a frame is first asked for.
    """

    def __init__(self, lake: str, spark: Callable[[], SparkSession]) -> None:
        paths.require("the lake", lake, paths.TABLES, remedy="Choose another folder with CRYPTO_ASSETS_LAKE")
        super().__init__(DeltaRsBackend(lake, spark))
        self.lake = lake

    def restore(
        self,
        table: str,
        slice_: Slice,
        rows: pa.Table,
        transaction: tuple[str, int],
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
            transaction: App id of the hour, and the highest sequence number of its rows.
            audit: Sees the rows first.
            commit_metadata: What the commit records.

        Raises:
            AuditFailed: From `audit`; nothing was committed.
        """
        contract = self._contract(table)
        staged = conform(contract, rows)
        staging.refuse_outside(contract, slice_, staged)
        audit(staged)
        snapshot, before = self._writable(contract)
        info = self._info(contract, slice_, commit_metadata)
        change = Change(staged, info, [transaction], None, slice_.predicate(contract))
        return WriteResult(table, True, staged.num_rows, before, self._commit(contract, snapshot, change))

    def recorded(self, table: str, app_id: str) -> int:
        """Highest version that the log records for an app id; 0 without one."""
        handle = files.open_table(self.path(table))
        return (handle.transaction_version(app_id) or 0) if handle is not None else 0


class DeltaRsSnapshot:
    """An open handle on a version."""

    def __init__(self, contract: Table, path: str, handle: DeltaTable) -> None:
        self._contract, self._path, self.handle = contract, path, handle

    @property
    def version(self) -> int:
        """Delta version."""
        return self.handle.version()

    def rows(self, slice_: Slice | None, columns: Sequence[str] | None, where: str | None) -> pa.Table:
        """Rows with the contract's types."""
        schema = arrow_schema(self._contract, columns)
        values = files.selection(self.handle, self._contract, schema.names)
        conditions = [slice_.predicate(self._contract)] if slice_ else []
        conditions += [f"({where})"] if where else []
        tail = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return files.query(self.handle, f"SELECT {values} FROM t{tail}").cast(schema)  # noqa: S608

    def stored(self, where: str | None) -> tuple[pa.Table, None]:
        """Rows that a write depends on: no commit may come before it anyway."""
        return self.rows(None, None, where), None

    def aggregate(self, values: Mapping[str, str], by: Sequence[str], where: str) -> pa.Table:
        """SQL aggregates over the rows of a condition."""
        keys = ", ".join(files.quote(name) for name in by)
        found = ", ".join(f"{sql} AS {files.quote(name)}" for name, sql in values.items())
        return files.query(self.handle, f"SELECT {keys}, {found} FROM t WHERE {where} GROUP BY {keys}")  # noqa: S608

    def hours(self) -> list[datetime]:
        """Slices of which there are rows, from the log alone."""
        return files.slices_present(self.handle, self._contract)

    def rows_by_partition(self) -> dict[Any, int]:
        """Rows by Delta partition, from the log alone."""
        return files.rows_by_partition(self.handle, self._contract)

    def write(self, change: Change) -> int:
        """Commit on this handle, which moves along."""
        import pyarrow as pa
        from deltalake import Transaction, WriterProperties, write_deltalake

        # Its transactions stop writers on Spark that read before this commit.
        properties = _once(dict(change.metadata), [Transaction(*each) for each in change.transactions])
        hooks = checkpoints.left_to_us()
        predicate = None if change.replaces == EVERYTHING else change.replaces
        with _unless_overtaken(self._path, self.version):
            if change.replaces is not None and isinstance(change.rows, pa.Table) and not change.rows.num_rows:
                self.handle.delete(predicate, commit_properties=properties, post_commithook_properties=hooks)
            else:
                write_deltalake(
                    self.handle,
                    change.rows,
                    mode="append" if change.replaces is None else "overwrite",  # type: ignore[arg-type]
                    predicate=predicate,
                    commit_properties=properties,
                    post_commithook_properties=hooks,
                    writer_properties=WriterProperties(
                        compression="ZSTD", compression_level=1, max_row_group_size=_ROW_GROUP
                    ),
                )
        return self.version


class DeltaRsBackend:
    """Local tables.

    Args:
        lake: Root folder.
        spark: Gives the Sail session.
    """

    engine = "sail+delta-rs"
    patience = Patience(attempts=200, first_pause_s=0.01, longest_pause_s=0.5)  # conflicts are frequent and cheap
    answers_at_once = True
    near = 0  # the log alone lists the hours, and an hour is one small query
    slices_together = 48

    def __init__(self, lake: str, spark: Callable[[], SparkSession]) -> None:
        self._lake = lake
        self.session = spark
        self._readers: dict[str, tuple[tuple[int, int, int], DeltaTable]] = {}

    def folder(self, contract: Table) -> str:
        """Folder of a table."""
        return files.table_path(self._lake, contract.full_name)

    def version(self, contract: Table) -> int | None:
        """Current version."""
        handle = self._reader(self.folder(contract))
        return None if handle is None else handle.version()

    def open(self, contract: Table, version: int | None = None) -> DeltaRsSnapshot | None:
        """A handle on the current or a given version, for reading."""
        path = self.folder(contract)
        handle = self._reader(path)
        if handle is not None and version not in (None, handle.version()):
            handle = files.open_table(path, version)
        return None if handle is None else DeltaRsSnapshot(contract, path, handle)

    def _reader(self, path: str) -> DeltaTable | None:
        """A handle on the current version, on which nothing may commit; kept until there is a newer one.

        Opening a table costs as much as a small query on it (measured: 60 of them were an eighth of a refresh).
        """
        state, handle = self._readers.get(path, (None, None))
        if handle is None or state is None or files.commit_state(path, state[0]) != state:
            handle = files.open_table(path)
            self._readers.pop(path, None)
            if handle is not None and (found := files.commit_state(path, handle.version())):
                self._readers[path] = found, handle
        return handle

    def frame(self, contract: Table, version: int, slice_: Slice | None) -> DataFrame:
        """A lazy Sail frame.

        It can be read while up to `checkpoints.LAG` more commits come. A version from before the last checkpoint is
        read at once, by delta-rs.
        """
        if version < checkpoints.last(self.folder(contract)):
            snapshot = self.open(contract, version)
            assert snapshot is not None
            return self.session().createDataFrame(snapshot.rows(slice_, None, None), spark_schema(contract))
        # Without versionAsOf the frame would see whatever is current when it runs.
        reader = self.session().read.format("delta").option("versionAsOf", version)
        return reader.load(files.table_path(paths.plain(self._lake), contract.full_name))

    def create(self, contract: Table) -> bool:
        """Create the table unless it exists."""
        from deltalake import DeltaTable, Schema
        from deltalake.exceptions import DeltaError

        path = self.folder(contract)
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
                    commit_properties=_once(),
                )
            except DeltaError:  # includes a commit that lost the race for version 0
                if not files.exists(path):
                    raise
                return False
            return True

    def writable(self, contract: Table) -> DeltaRsSnapshot:
        """A handle on the current version, with the contract's columns."""
        import pyarrow as pa
        from deltalake import Schema

        handle = files.open_table(self.folder(contract))
        if handle is None:
            raise FileNotFoundError(f"{contract.full_name} vanished from {self._lake} while being written")
        snapshot = DeltaRsSnapshot(contract, self.folder(contract), handle)
        if later := {c.name for c in files.added_later(snapshot.handle, contract)}:
            # The contract gained them after the table was made; the handle moves along.
            fields = [f for f in Schema.from_arrow(_commented(contract)).fields if f.name in later]
            with _unless_overtaken(self.folder(contract), snapshot.version):
                snapshot.handle.alter.add_columns(
                    fields, commit_properties=_once(), post_commithook_properties=checkpoints.left_to_us()
                )
        files.refuse_other_columns(pa.schema(snapshot.handle.schema().to_arrow()), contract)
        return snapshot

    def committed(self, contract: Table, version: int) -> None:
        """Write a checkpoint when one is due."""
        with files.ONE_CALL:
            checkpoints.after_commit(self.folder(contract), version)

    def version_of(self, contract: Table, mark: str, after: int) -> int | None:
        """Version of the commit whose metadata holds a mark, from the log's files."""
        return files.version_of(self.folder(contract), mark, after)

    def is_conflict(self, error: Exception, _contract: Table, read: Mapping[str, int]) -> bool:
        """True if others' commits made a frame unreadable: it is rebuilt on the newest version."""
        if checkpoints.OUT_OF_REACH not in f"{error.__cause__ or error}":
            return False
        return any(v < checkpoints.last(files.table_path(self._lake, t)) for t, v in read.items())

    def commits(self, contract: Table, after: int, limit: int) -> list[Commit]:
        """Commits of the log's files."""
        return files.read_commits(self.folder(contract), after, limit)

    def keeper(self, contract: Table) -> DeltaRsKeeper | None:
        """A handle on the current version, for housekeeping."""
        handle = files.open_table(self.folder(contract))
        return None if handle is None else DeltaRsKeeper(contract, self.folder(contract), handle)


class DeltaRsKeeper:
    """A handle on a table, and its folder.

    A file may only be deleted when no reader can still need it: everything here keeps `RETENTION_HOURS`, longer than
    any step runs. `vacuum(0)` is never asked for.
    """

    def __init__(self, contract: Table, path: str, handle: DeltaTable) -> None:
        self._contract, self._path, self._handle = contract, path, handle

    def size(self) -> dict[str, object]:
        """Live files and bytes; files on disk that the present version does not list; files of the log."""
        live = {uri.rsplit("/", 1)[1] for uri in self._handle.file_uris()}
        # Each writer names its files by a random number, and folders are encoded in the log.
        data = (f for f in Path(self._path).rglob("*.parquet") if "_delta_log" not in f.relative_to(self._path).parts)
        return {
            "files": len(live),
            "bytes": sum(files.add_actions(self._handle).column("size_bytes").to_pylist()),
            "unreferenced_files": len({f.name for f in data} - live),
            "log_files_before": self._log_files(),
        }

    def count(self, where: str) -> int:
        """Rows of a condition."""
        return files.query(self._handle, f"SELECT count(*) AS n FROM t WHERE {where}").column("n")[0].as_py()  # noqa: S608

    def delete(self, where: str) -> None:
        """Delete the rows of a condition."""
        with files.ONE_CALL:
            self._handle.delete(where, **_moving("expire"))

    def partitions(self) -> list[tuple[date | None, int]]:
        """Files by Delta partition, from the log alone."""
        actions = files.add_actions(self._handle)
        if not self._contract.partition_by:
            return [(None, actions.num_rows)]
        (name,) = (f"partition.{column}" for column in self._contract.partition_by)
        counts = actions.group_by(name).aggregate([([], "count_all")]).to_pylist()
        return [(row[name], row["count_all"]) for row in counts]

    def compact(self, value: date | None) -> int:
        """Make one file of a Delta partition."""
        # As the log spells it.
        text = f"{value:%Y-%m-%d %H:%M:%S.%f}" if isinstance(value, datetime) else f"{value}"
        filters = [(self._contract.partition_by[0], "=", text)] if value is not None else None
        with files.ONE_CALL:
            done = self._handle.optimize.compact(
                partition_filters=filters, target_size=_ONE_FILE_BYTES, **_moving("compact")
            )
        return done["numFilesAdded"]

    def vacuum(self, *, dry_run: bool) -> int:
        """Files unreferenced for longer than the retention, orphans of killed writers among them."""
        with files.ONE_CALL:
            dead = self._handle.vacuum(
                retention_hours=RETENTION_HOURS,
                dry_run=dry_run,
                enforce_retention_duration=True,
                post_commithook_properties=checkpoints.left_to_us(),
                full=True,
            )
        return len(dead)

    def finish(self, *, dry_run: bool) -> dict[str, object]:
        """Write a checkpoint and clean the log."""
        if not dry_run:
            with files.ONE_CALL:
                checkpoints.write_behind(self._path, self._handle.version())
                # A fresh handle: cleaning up deletes log files that only a newer checkpoint replaces.
                handle = files.open_table(self._path)
                assert handle is not None
                handle.cleanup_metadata()
                self._handle = handle
        return {"log_files_after": self._log_files(), "version": self._handle.version()}

    def _log_files(self) -> int:
        return sum(1 for f in (Path(self._path) / "_delta_log").iterdir() if f.is_file())


def _moving(what: str) -> dict[str, Any]:
    """Properties of a commit that only moves or expires rows: others' commits in between do not matter."""
    from deltalake import CommitProperties

    commit = CommitProperties(custom_metadata={"maintenance": what}, max_commit_retries=_CONFLICT_RETRIES)
    return {"commit_properties": commit, "post_commithook_properties": checkpoints.left_to_us()}


@contextmanager
def _unless_overtaken(path: str, version: int) -> Iterator[None]:
    """One call into delta-rs that commits on a version.

    Raises:
        Overtaken: Another commit came first. delta-rs reports a full disk as a failed commit, too.
    """
    from deltalake.exceptions import CommitFailedError

    with files.ONE_CALL:
        try:
            yield
        except CommitFailedError as error:
            if files.latest_version(path) == version:
                raise
            raise Overtaken(str(error)) from error


# --- tables -------------------------------------------------------------------------------------------------------


def _once(metadata: dict[str, str] | None = None, transactions: list[Any] | None = None) -> CommitProperties:
    """Properties of a commit; delta-rs itself does not retry it."""
    from deltalake import CommitProperties

    return CommitProperties(custom_metadata=metadata, max_commit_retries=0, app_transactions=transactions)


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
