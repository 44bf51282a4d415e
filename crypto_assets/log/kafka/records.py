"""Reading the records of exact offset ranges by one consumer, and their keys and headers as text.

The rest of the product takes `read_ranges` from `log.kafka.reading`. Does not belong here: questions about offsets
(`log.kafka.offsets`), or what records mean.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from crypto_assets.collector import collector_paused
from crypto_assets.log.errors import LogTrimmed, LogWentBackwards
from crypto_assets.log.kafka.client import unavailable
from crypto_assets.log.kafka.offsets import config_of, end_offsets
from crypto_assets.settings import Settings
from crypto_assets.storage.base import OffsetRange

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from confluent_kafka import Consumer, Message

BASE64_MARKER = "base64:"
"""Prefix of a header value that is not UTF-8 and is therefore given in base64."""
CHUNK_ROWS = 40_000
"""Small enough that the rows of one chunk are made while the next is read, also within an hour of 100,000 records."""
_BATCH = 10_000
_IDLE_TIMEOUT_S = 30.0


def read_ranges(
    source: Settings | Mapping[str, Any],
    topic: str,
    ranges: Sequence[OffsetRange],
    *,
    chunk_rows: int = CHUNK_ROWS,
    idle_timeout_s: float = _IDLE_TIMEOUT_S,
) -> Iterator[pa.Table]:
    """Read exact offset ranges in chunks of at most `chunk_rows` rows.

    A range ends by the consumer's position, never by its last record: transaction markers and aborted records leave
    holes. Within a partition rows come in offset order.

    Args:
        source: Settings, or client options.
        topic: The topic.
        ranges: At most one range per partition.
        chunk_rows: Rows after which a chunk is handed out; it bounds memory.
        idle_timeout_s: Seconds without any progress after which the log counts as unavailable.

    Yields:
        Tables with partition int32, offset int64, kafka_timestamp timestamp[us, UTC], message_key string (null
        without key; a key that is not UTF-8 as `base64:...`), value binary (null for a tombstone), headers string
        (a JSON object with sorted keys; values that are not UTF-8 as `base64:...`, repeated names as a list).

    Raises:
        LogTrimmed: Records of a range are no longer retained; the message names them.
        LogWentBackwards: A range ends after the end of the log.
        LogUnavailable: No broker answers, or nothing arrived for `idle_timeout_s`.
        ValueError: Two ranges of one partition, or a range that ends before it starts.
    """
    config = config_of(source)
    wanted = _checked(ranges)
    if not wanted:
        return
    _refuse_unreadable(config, topic, wanted)
    consumer = _consumer(config, sum(piece.end - piece.start for piece in wanted.values()))
    try:
        yield from _Reader(consumer, config, topic, wanted, chunk_rows, idle_timeout_s).chunks()
    finally:
        consumer.close()


def _checked(ranges: Sequence[OffsetRange]) -> dict[int, OffsetRange]:
    wanted: dict[int, OffsetRange] = {}
    for piece in ranges:
        if piece.start > piece.end or piece.start < 0:
            raise ValueError(f"{piece} is no range of offsets")
        if piece.partition in wanted:
            raise ValueError(f"partition {piece.partition} has two ranges; read them one after the other")
        wanted[piece.partition] = piece
    return {p: piece for p, piece in wanted.items() if piece.start < piece.end}


def _refuse_unreadable(config: Mapping[str, Any], topic: str, wanted: Mapping[int, OffsetRange]) -> None:
    known = end_offsets(config, topic)
    absent = sorted(set(wanted) - set(known))
    if absent:
        raise LogWentBackwards(f"topic {topic} has no partitions {absent}, it has {sorted(known)}: it was re-created")
    ahead = [
        f"partition {p}: the log ends at {known[p][1]}, the range at {piece.end}"
        for p, piece in sorted(wanted.items())
        if piece.end > known[p][1]
    ]
    if ahead:
        raise LogWentBackwards(f"log of topic {topic} went backwards or holds an open transaction: {'; '.join(ahead)}")
    missing = [
        str(OffsetRange(p, piece.start, min(known[p][0], piece.end)))
        for p, piece in sorted(wanted.items())
        if known[p][0] > piece.start
    ]
    if missing:
        raise LogTrimmed(topic, "; ".join(missing))


def _consumer(config: Mapping[str, Any], rows: int) -> Consumer:
    """A consumer tuned for reading `rows` records: a small range fetches little beyond its end."""
    from confluent_kafka import Consumer

    return Consumer(
        {
            **config,
            "group.id": "crypto-assets-reader",  # required by the client; never joined and never committed
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            # What is fetched beyond the ranges was fetched in vain: a fetch is a small part of the ranges (a record of
            # 330 bytes takes about 130 compressed), and the client fetches ahead of the reader only about as much.
            "fetch.message.max.bytes": min(4 << 20, max(64 << 10, rows * 8)),
            "queued.min.messages": max(1000, rows // 8),
            "queued.max.messages.kbytes": 16 << 10,
            "fetch.queue.backoff.ms": 5,  # the default pauses a whole second whenever the queue was full
            "error_cb": lambda _error: None,
        }
    )


class _Reader:
    """One pass over the ranges of one topic."""

    def __init__(
        self,
        consumer: Consumer,
        config: Mapping[str, Any],
        topic: str,
        wanted: Mapping[int, OffsetRange],
        chunk_rows: int,
        idle_timeout_s: float,
    ) -> None:
        self._consumer = consumer
        self._config = config
        self._topic = topic
        self._positions = {p: piece.start for p, piece in wanted.items()}
        self._ends = {p: piece.end for p, piece in wanted.items()}
        self._open = set(wanted)
        self._chunk_rows = chunk_rows
        self._idle_timeout_s = idle_timeout_s
        self._headers = _HeaderCache()

    def chunks(self) -> Iterator[pa.Table]:
        import pyarrow as pa
        from confluent_kafka import TopicPartition

        self._consumer.assign([TopicPartition(self._topic, p, start) for p, start in self._positions.items()])
        gathered: list[pa.Table] = []
        rows = 0
        idle_since = time.monotonic()
        while self._open:
            left = sum(self._ends[p] - self._positions[p] for p in self._open)
            room = self._chunk_rows - rows
            # asking for no more than is left returns as soon as it is there; the time-out only serves holes
            # A batch is a hundred thousand small objects without cycles that live for milliseconds: walking them again
            # and again took half of the time of reading.
            with collector_paused():
                batch = self._consumer.consume(num_messages=min(_BATCH, left, room), timeout=0.1)
                table = self._table(batch) if batch else None
                arrived = bool(batch)
                del batch  # before the collector is back
            if arrived:
                idle_since = time.monotonic()
                if table is not None and table.num_rows:
                    gathered.append(table)
                    rows += table.num_rows
            elif time.monotonic() - idle_since > self._idle_timeout_s:
                waiting = "; ".join(f"partition {p} at {self._positions[p]} of {self._ends[p]}" for p in self._open)
                raise unavailable(
                    self._config, f"read topic {self._topic}", f"nothing for {self._idle_timeout_s} s ({waiting})"
                )
            if rows >= self._chunk_rows:
                yield pa.concat_tables(gathered)
                gathered, rows = [], 0
        if rows:
            yield pa.concat_tables(gathered)

    def _table(self, batch: list[Message]) -> pa.Table | None:
        """The batch's records that lie in the ranges, and the bookkeeping of positions."""
        events = [m for m in batch if m.error() is not None]
        records = [m for m in batch if m.error() is None] if events else batch
        table = self._inside(records) if records else None
        # Only now: the end of a partition is signalled after its last records, which may be of the same batch.
        for event in events:
            self._note(event)
        return table

    def _inside(self, batch: list[Message]) -> pa.Table:
        """The records that lie in the ranges; advances the positions to where they end."""
        import numpy as np

        partitions = np.array([m.partition() for m in batch], dtype=np.int32)
        offsets = np.array([m.offset() for m in batch], dtype=np.int64)
        inside = np.ones(len(batch), dtype=bool)
        for partition in np.unique(partitions).tolist():
            mine = partitions == partition
            last = int(offsets[mine][-1])
            end = self._ends.get(partition, 0)
            if partition not in self._open:
                inside &= ~mine  # a record that was already queued when its partition was done
                continue
            if last >= end:
                inside &= ~mine | (offsets < end)
            self._advance(partition, last + 1)
        if not inside.all():
            batch = [m for m, keep in zip(batch, inside.tolist(), strict=True) if keep]
            partitions, offsets = partitions[inside], offsets[inside]
        return self._columns(batch, partitions, offsets)

    def _note(self, event: Message) -> None:
        from confluent_kafka import KafkaError

        error = event.error()
        if error is None:
            return
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - public, named so
            # the position passed everything up to here, holes included
            partition, offset = event.partition(), event.offset()
            if partition is not None and offset is not None and partition in self._open:
                self._advance(partition, offset)
        elif error.code() in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:  # noqa: SLF001
            # retention was quicker than the reader
            remaining = {p: OffsetRange(p, self._positions[p], self._ends[p]) for p in self._open}
            _refuse_unreadable(self._config, self._topic, remaining)
            raise unavailable(self._config, f"read topic {self._topic}", error)
        elif error.fatal() or not error.retriable():
            raise unavailable(self._config, f"read topic {self._topic}", error)

    def _advance(self, partition: int, position: int) -> None:
        from confluent_kafka import TopicPartition

        self._positions[partition] = max(position, self._positions[partition])
        if self._positions[partition] >= self._ends[partition]:
            self._open.discard(partition)
            # stop fetching what follows the range
            self._consumer.pause([TopicPartition(self._topic, partition)])

    def _columns(self, batch: list[Message], partitions: np.ndarray, offsets: np.ndarray) -> pa.Table:
        import pyarrow as pa

        stamps = pa.array([m.timestamp()[1] for m in batch], pa.int64())
        return pa.table(
            {
                "partition": pa.array(partitions, pa.int32()),
                "offset": pa.array(offsets, pa.int64()),
                "kafka_timestamp": stamps.cast(pa.timestamp("ms", "UTC")).cast(pa.timestamp("us", "UTC")),
                "message_key": texts_of([m.key() for m in batch]),
                "value": pa.array([m.value() for m in batch], pa.binary()),
                "headers": pa.array(self._header_texts(batch), pa.string()),
            }
        )

    def _header_texts(self, batch: list[Message]) -> list[str]:
        """JSON texts of the headers."""
        if len(self._headers) > 10_000:
            self._headers.clear()
        cache = self._headers
        return [cache[tuple(m.headers() or ())] for m in batch]


class _HeaderCache(dict[tuple, str]):
    """JSON text by headers: the ten records of a poll have equal ones, so most are looked up without any Python."""

    def __missing__(self, key: tuple) -> str:
        text = self[key] = headers_json(key)
        return text


def _text(value: bytes | str | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return BASE64_MARKER + base64.b64encode(value).decode()


def texts_of(values: list[Any]) -> pa.Array:
    """Bytes as text; a value that is not UTF-8 as `base64:...`."""
    import pyarrow as pa

    raw = pa.array(values, pa.binary())
    try:
        return raw.cast(pa.string())
    except pa.ArrowInvalid:  # some key is not UTF-8
        return pa.array([_text(v) for v in values], pa.string())


def headers_json(headers: Iterable[tuple[str, bytes | str | None]]) -> str:
    """Record headers as the text of a JSON object with sorted keys.

    Values that are not UTF-8 become `base64:...`; a name that occurs more than once becomes a list of its values.
    """
    pairs = list(headers)
    if len(dict(pairs)) < len(pairs):
        grouped: dict[str, list[str | None]] = {}
        for name, value in pairs:
            grouped.setdefault(name, []).append(_text(value))
        flat = {name: values[0] if len(values) == 1 else values for name, values in grouped.items()}
        return json.dumps(flat, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    # names are distinct, so sorting never compares values; most fragments repeat from record to record
    return "{" + ",".join([_fragment(pair) for pair in sorted(pairs)]) + "}"


@lru_cache(maxsize=4096)
def _fragment(pair: tuple[str, bytes | str | None]) -> str:
    name, value = pair
    text = _text(value)
    return f"{encode_basestring(name)}:{'null' if text is None else encode_basestring(text)}"
