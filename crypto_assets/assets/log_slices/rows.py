"""Records of the log as rows of append-once tables, in bounded memory.

Belongs here: columns of `bronze.raw_prices` and `ops.polls` from chunks of records, gathering the rows of one commit,
reading ahead while it is written. Does not belong here: reading one poll message (`market.polls`), which offsets to
read (`assets.log_slices.kafka`).
"""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.arrow import arrow_schema, arrow_type, compute
from crypto_assets.contracts.clock import SKEW
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import Slice, hour_key
from crypto_assets.market.polls import read_poll
from crypto_assets.storage.base import LogBounds, OffsetRange
from crypto_assets.storage.staging import FILLED_BY_STORE
from crypto_assets.transforms.bronze import event_hour

if TYPE_CHECKING:
    import pyarrow as pa

SPILL_ABOVE_BYTES = 128 * 1024 * 1024
"""Size above which a commit's rows spill to a memory-mapped file, so that an hour of any size can be one commit."""


class RowMaker:
    """Builds the rows of one table from records: the columns that every log table has, and the table's own."""

    def rows(
        self,
        table: Table,
        bounds: LogBounds,
        slice_: Slice,
        ranges: Sequence[OffsetRange],
        chunk: pa.Table,
        now: datetime,
    ) -> pa.Table:
        """Rows of one chunk, one per record, without columns that the store fills in."""
        import pyarrow as pa

        columns = _common_columns(bounds, slice_, ranges, chunk, now)
        self.read(table, columns)
        schema = _schema(table)
        return pa.table([columns[f.name] for f in schema], schema=schema)

    def read(self, table: Table, columns: dict[str, Any]) -> None:
        """Add the columns that are read from the records' values."""
        raise NotImplementedError

    def touched(self, rows: pa.Table) -> list[str]:  # noqa: ARG002
        """Event hours that the rows touch, as sorted partition keys."""
        return []


class PriceRows(RowMaker):
    """Rows of `bronze.raw_prices`; `event_hour` is read leniently."""

    def __init__(self, partitions_start: datetime) -> None:
        self._partitions_start = partitions_start

    def read(self, table: Table, columns: dict[str, Any]) -> None:  # noqa: ARG002
        """Add `event_hour`."""
        columns["event_hour"] = event_hour(columns["raw_json"], columns["kafka_timestamp"], self._partitions_start)

    def touched(self, rows: pa.Table) -> list[str]:
        """Event hours of the rows."""
        return sorted(hour_key(h) for h in rows.column("event_hour").unique().to_pylist() if h is not None)


class PollRows(RowMaker):
    """Rows of `ops.polls`, which are read by their arrival alone."""

    def read(self, table: Table, columns: dict[str, Any]) -> None:
        """Add the message's fields, null where their columns cannot hold them."""
        import pyarrow as pa

        polls = [read_poll(text) for text in columns["raw_json"].to_pylist()]
        for name in read_poll(None):
            columns[name] = pa.array([poll[name] for poll in polls], arrow_type(table.column(name).type))


def gap_rows(table: Table, bounds: LogBounds, slice_: Slice, gaps: Sequence[OffsetRange], now: datetime) -> pa.Table:
    """One row of kind `gap` per range of offsets that was lost, and accepted as lost."""
    import pyarrow as pa

    values: dict[str, Sequence[Any]] = {
        "topic": [bounds.topic] * len(gaps),
        "topic_id": [bounds.topic_id] * len(gaps),
        "partition": [g.partition for g in gaps],
        "offset": [g.start for g in gaps],
        "arrival_hour": [slice_.start] * len(gaps),
        "kind": ["gap"] * len(gaps),
        "range_start": [g.start for g in gaps],
        "range_end": [g.end for g in gaps],
        "bronze_ingested_at": [now] * len(gaps),
    }
    schema = _schema(table)
    arrays = [pa.array(values.get(f.name, [None] * len(gaps)), f.type) for f in schema]
    return pa.table(arrays, schema=schema)


def newest_time(stamps: pa.ChunkedArray | pa.Array, now: datetime) -> datetime | None:
    """Newest record time (UTC) that is not ahead of the present; None without any."""
    pc = compute()
    return pc.max(stamps.filter(pc.less_equal(stamps, now + SKEW))).as_py()


def gather(
    table: Table,
    gaps: pa.Table,
    chunks: Iterable[pa.Table],
    make: Callable[[pa.Table], pa.Table],
    now: datetime,
) -> tuple[pa.Table, datetime | None]:
    """All rows of one commit, and their newest plausible broker time (UTC).

    Args:
        table: Contract.
        gaps: Rows to begin with.
        chunks: Records from the log.
        make: Builds rows of a chunk.
        now: Present time (UTC): later record times are ignored.

    Returns:
        The rows; above `SPILL_ABOVE_BYTES` they lie in a temporary file that is removed with them.
    """
    sink = _Sink(_schema(table))
    sink.add(gaps)
    newest: datetime | None = None

    def take(chunk: pa.Table) -> None:
        sink.add(make(chunk))

    try:
        # Rows of one chunk are built while the next is read: reading keeps one core busy, this mostly the other.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="log-rows") as pool:
            pending: Future[None] | None = None
            for chunk in chunks:
                newest = max(filter(None, (newest, newest_time(chunk.column("kafka_timestamp"), now))), default=None)
                if pending is not None:
                    pending.result()
                pending = pool.submit(take, chunk)
            if pending is not None:
                pending.result()
    except BaseException:
        sink.discard()
        raise
    return sink.table(), newest


class ReadAhead:
    """Reads the ranges most likely needed next in a thread, while the rows before them are written.

    Small ones that follow each other are read together: a read costs more than the records of a quiet hour.

    `take` with other ranges ignores what was read ahead. Memory is bounded by `CHUNKS_AHEAD` and `OFFSETS_TOGETHER`.
    Use as a context manager, or the thread may outlive its caller.

    Args:
        read: Reads ranges of the one topic.
    """

    CHUNKS_AHEAD = 2
    OFFSETS_TOGETHER = 40_000

    def __init__(self, read: Callable[[Sequence[OffsetRange]], Iterator[pa.Table]]) -> None:
        self._read = read
        self._waiting: list[tuple[OffsetRange, ...]] = []
        self._several = False
        self._rows: pa.Table | None = None
        self._chunks: queue.Queue[pa.Table | BaseException | None] = queue.Queue()
        self._unwanted = threading.Event()
        self._thread: threading.Thread | None = None
        self.last_read: object = None
        """Stands for the last read of which something was taken."""

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._drop()

    def expect(self, upcoming: Sequence[Sequence[OffsetRange]]) -> None:
        """Start reading the first ranges of those that will be taken one after the other, unless that has begun.

        What was expected before is dropped.
        """
        wanted = [tuple(ranges) for ranges in upcoming if ranges]
        if self._waiting and wanted[: len(self._waiting)] == self._waiting:
            return
        self._drop()
        if not wanted:
            return
        self._waiting = wanted[: _that_follow(wanted, self.OFFSETS_TOGETHER)]
        self._several, self._rows = len(self._waiting) > 1, None
        self._chunks, self._unwanted = queue.Queue(self.CHUNKS_AHEAD), threading.Event()
        arguments = (_joined(self._waiting), self._chunks, self._unwanted)
        self._thread = threading.Thread(target=self._run, args=arguments, name="read-ahead", daemon=True)
        self._thread.start()

    def take(self, ranges: Sequence[OffsetRange]) -> Iterator[pa.Table]:
        """Chunks of ranges: those read ahead if they were expected, else read now.

        Raises:
            LogError: As reading raised it.
        """
        asked = tuple(ranges)
        if asked not in self._waiting:
            self._drop()
            self.last_read = object()
            yield from self._read(ranges)
            return
        # Once: a second call wants the log's present content. Those before it turned out to be stored.
        self._waiting = self._waiting[self._waiting.index(asked) + 1 :]
        if not self._several:
            self.last_read = object()
            yield from self._arrived()
            return
        if self._rows is None:
            import pyarrow as pa

            self.last_read = object()
            chunks = list(self._arrived())
            order = [("partition", "ascending"), ("offset", "ascending")]
            self._rows = pa.concat_tables(chunks).sort_by(order) if chunks else None
        if self._rows is not None and (found := _within(self._rows, asked)).num_rows:
            yield found

    def _arrived(self) -> Iterator[pa.Table]:
        while (item := self._chunks.get()) is not None:
            if isinstance(item, BaseException):
                self._waiting = []
                raise item
            yield item

    def _drop(self) -> None:
        self._unwanted.set()
        if self._thread is not None:
            self._thread.join()
        self._thread, self._waiting, self._rows = None, [], None

    def _run(self, ranges: Sequence[OffsetRange], chunks: queue.Queue[Any], unwanted: threading.Event) -> None:
        def put(item: pa.Table | BaseException | None) -> None:
            while not unwanted.is_set():
                try:
                    chunks.put(item, timeout=0.1)
                    return
                except queue.Full:
                    continue

        try:
            for chunk in self._read(ranges):
                put(chunk)
                if unwanted.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - handed to who takes the chunks
            put(error)
        put(None)


def _that_follow(upcoming: Sequence[Sequence[OffsetRange]], most: int) -> int:
    """How many of the first ranges can be read as one: at least one, and no more than some offsets of several."""
    ends = {piece.partition: piece.end for piece in upcoming[0]}
    offsets = sum(piece.end - piece.start for piece in upcoming[0])
    for number, ranges in enumerate(upcoming[1:], 1):
        offsets += sum(piece.end - piece.start for piece in ranges)
        if offsets > most or any(ends.get(piece.partition, piece.start) != piece.start for piece in ranges):
            return number
        ends |= {piece.partition: piece.end for piece in ranges}
    return len(upcoming)


def _joined(several: Sequence[Sequence[OffsetRange]]) -> tuple[OffsetRange, ...]:
    """Ranges that follow each other as one a Kafka partition."""
    found: dict[int, OffsetRange] = {}
    for piece in (piece for ranges in several for piece in ranges):
        first = found.get(piece.partition, piece)
        found[piece.partition] = OffsetRange(piece.partition, first.start, piece.end)
    return tuple(found.values())


def _within(rows: pa.Table, ranges: Sequence[OffsetRange]) -> pa.Table:
    """The part of rows that lies in some ranges; the rows are sorted by partition and offset."""
    import numpy as np
    import pyarrow as pa

    found: list[pa.Table] = []
    partitions, offsets = rows.column("partition").to_numpy(), rows.column("offset").to_numpy()
    for piece in ranges:
        first, last = (int(np.searchsorted(partitions, piece.partition, side=side)) for side in ("left", "right"))
        start, end = (first + int(np.searchsorted(offsets[first:last], o)) for o in (piece.start, piece.end))
        found.append(rows.slice(start, end - start))
    return pa.concat_tables(found)


class _Sink:
    """Rows in memory, or above a size in a memory-mapped temporary Arrow file."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._held: list[pa.Table] = []
        self._bytes = 0
        self._path: Path | None = None
        self._writer: Any = None

    def add(self, rows: pa.Table) -> None:
        """Add rows of the schema."""
        self._bytes += rows.nbytes
        self._held.append(rows)
        if self._bytes > SPILL_ABOVE_BYTES:
            writer = self._writer or self._open()
            for part in self._held:
                writer.write_table(part)
            self._held = []

    def table(self) -> pa.Table:
        """All rows."""
        import pyarrow as pa

        if self._path is None:
            return pa.concat_tables(self._held)
        self._writer.close()
        mapped = pa.ipc.open_file(pa.memory_map(str(self._path))).read_all()
        self._path.unlink()  # the mapping keeps the data until the table is dropped
        return mapped

    def discard(self) -> None:
        """Remove the file of unused rows."""
        if self._path is not None:
            self._writer.close()
            self._path.unlink(missing_ok=True)

    def _open(self) -> Any:
        import pyarrow as pa

        with tempfile.NamedTemporaryFile(prefix="crypto-assets-rows-", suffix=".arrow", delete=False) as file:
            self._path = Path(file.name)
        self._writer = pa.ipc.new_file(self._path, self._schema)
        return self._writer


def _schema(table: Table) -> pa.Schema:
    return arrow_schema(table, [n for n in table.column_names if n not in FILLED_BY_STORE])


def _common_columns(
    bounds: LogBounds, slice_: Slice, ranges: Sequence[OffsetRange], chunk: pa.Table, now: datetime
) -> dict[str, Any]:
    """Columns common to all tables of log records."""
    import numpy as np
    import pyarrow as pa

    rows = chunk.num_rows
    whole = {name: _one(chunk.column(name)) for name in chunk.column_names}
    partition = whole["partition"].to_numpy(zero_copy_only=False)
    starts = np.full(int(partition.max(initial=0)) + 1, -1, np.int64)
    ends = starts.copy()
    for piece in ranges:
        if piece.partition < len(starts):
            starts[piece.partition], ends[piece.partition] = piece.start, piece.end
    raw_json, raw_bytes = _texts(whole["value"])

    def constant(value: object, type_: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, type_), rows)

    zoned = pa.timestamp("us", "UTC")
    return {
        # Landed records name their file; Kafka's are all of one topic.
        "topic": whole.get("topic", constant(bounds.topic, pa.string())),
        "topic_id": constant(bounds.topic_id, pa.string()),
        "partition": whole["partition"],
        "offset": whole["offset"],
        "kafka_timestamp": whole["kafka_timestamp"],
        "message_key": whole["message_key"],
        "raw_json": raw_json,
        "raw_bytes": raw_bytes,
        "headers": whole["headers"],
        "arrival_hour": constant(slice_.start, zoned),
        "kind": constant("record", pa.string()),
        "range_start": pa.array(starts[partition]),
        "range_end": pa.array(ends[partition]),
        "bronze_ingested_at": constant(now, zoned),
    }


def _one(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _texts(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Values as text, and as bytes where they are not UTF-8; both null for a record without value."""
    import pyarrow as pa

    try:
        return values.cast(pa.string()), pa.nulls(len(values), pa.binary())
    except pa.ArrowInvalid:  # at least one value is not UTF-8
        pairs = [_decoded(v) for v in values.to_pylist()]
    return pa.array([text for text, _ in pairs], pa.string()), pa.array([raw for _, raw in pairs], pa.binary())


def _decoded(value: bytes | None) -> tuple[str | None, bytes | None]:
    try:
        return (None if value is None else value.decode()), None
    except UnicodeDecodeError:
        return None, value
