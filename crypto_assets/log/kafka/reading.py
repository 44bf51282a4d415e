"""The log for the rest of the product: reading it exactly, where a reader stands, whether it is still the same log.

The one door: `bounds`, `read_ranges` and others are given here too. Does not belong here: how records are read
(`log.kafka.records`), what has already been stored (`crypto_assets.storage`), or what records mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.clock import is_ahead, is_ahead_ms
from crypto_assets.log.errors import LogError, LogWentBackwards
from crypto_assets.log.kafka.adoption import topic_id_of
from crypto_assets.log.kafka.hours import bounds
from crypto_assets.log.kafka.offsets import config_of, end_offsets, newest_timestamp_ms, offsets_of
from crypto_assets.log.kafka.records import headers_json, read_ranges, texts_of
from crypto_assets.log.kafka.topic import topic_id
from crypto_assets.settings import Settings
from crypto_assets.storage.base import OffsetRange

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["bounds", "end_offsets", "headers_json", "newest_timestamp_ms", "read_ranges", "texts_of", "topic_id"]


def read_again(
    source: Settings | Mapping[str, Any], topic: str, incarnation: str, ranges: Sequence[OffsetRange]
) -> tuple[pa.Table | None, tuple[OffsetRange, ...]]:
    """Read a few stored offsets once more, and prove that the topic still is the incarnation that was asked about.

    To be called after what was to be stored has been read: what was read before is then of this incarnation, and of
    the log that these records show. Never a Spark job, whatever the engine.

    Args:
        source: Settings, or client options.
        topic: The topic.
        incarnation: Its id when its bounds were asked for.
        ranges: At most one range per partition; what retention has removed of them is left out.

    Returns:
        The records as `read_ranges` gives them (None = none are retained), and the ranges that could be compared.

    Raises:
        LogError: The topic has another id now.
        LogWentBackwards: A range ends after the end of the log.
        LogUnavailable: No broker answers, or the topic does not exist.
    """
    config = config_of(source)
    _refuse_another(config, topic, incarnation)
    if not ranges:
        return None, ()
    known = end_offsets(config, topic)
    retained = [OffsetRange(r.partition, max(r.start, known.get(r.partition, (0, 0))[0]), r.end) for r in ranges]
    pieces = tuple(r for r in retained if r.start < r.end)
    chunks = list(read_ranges(config, topic, pieces))
    _refuse_another(config, topic, incarnation)
    if not chunks:
        return None, pieces
    import pyarrow as pa

    return pa.concat_tables(chunks), pieces


def _refuse_another(config: Mapping[str, Any], topic: str, incarnation: str) -> None:
    found = topic_id(config, topic)
    if found != topic_id_of(incarnation):
        raise LogError(
            f"topic {topic} was re-created while it was read (its id was {incarnation} and is {found}): nothing of it "
            "was stored; run the step again, which reads the new topic from its beginning"
        )


@dataclass(frozen=True)
class LagStart:
    """Where a reader of a topic stands.

    Args:
        oldest: Record time (UTC) of the oldest record that is not covered; None when everything is.
        uncovered: Offsets not covered, by partition (an upper bound of records, since transactions leave holes).
        topic_id: The topic's incarnation.
    """

    oldest: datetime | None
    uncovered: dict[int, int]
    topic_id: str


def ahead(source: Settings | Mapping[str, Any], topic: str, now: datetime) -> dict[int, int]:
    """Kafka partitions that hold a record stamped later than the present, with its time in ms since 1970.

    Args:
        source: Settings, or client options.
        topic: The topic.
        now: Present time (UTC).

    Raises:
        LogUnavailable: No broker answers, an answer holds an error, or the topic does not exist.
    """
    log, _ = offsets_of(config_of(source), topic)
    return {p: stamp for p, stamp in sorted(log.newest().items()) if is_ahead_ms(stamp, now)}


def ahead_text(topic: str, found: Mapping[int, int], now: datetime) -> str:
    """Message for the result of `ahead`, with the fix."""
    listed = ", ".join(
        f"partition {p} by {(stamp - now.timestamp() * 1000) / 3_600_000:,.1f} h" for p, stamp in found.items()
    )
    return (
        f"the times of topic {topic} run ahead of this machine's clock: {listed}. The clock of the broker (or of this "
        "machine) was wrong when they were stamped; put it right (NTP). What follows them is stored all the same; "
        "until their time has passed, Kafka's retention keeps everything after them"
    )


def lag_start(
    source: Settings | Mapping[str, Any], topic: str, covered: Mapping[int, int], now: datetime | None = None
) -> LagStart:
    """The oldest record of a topic that a reader has not covered.

    Args:
        source: Settings, or client options.
        topic: The topic.
        covered: By partition, the offset up to which everything is covered; an absent partition counts as 0. What
            retention has removed meanwhile counts as covered: it cannot be waited for.
        now: Present time (UTC): records stamped later are ignored; None = trust all times.

    Raises:
        LogWentBackwards: The reader is ahead of the log.
        LogUnavailable: No broker answers, an answer holds an error, or the topic does not exist.
    """
    config = config_of(source)
    log, incarnation = offsets_of(config, topic)
    low, high = log.earliest(), log.latest()
    ahead = [
        f"partition {p}: covered to {end}, the log ends at {high.get(p, 0)}"
        for p, end in sorted(covered.items())
        if end > high.get(p, 0)
    ]
    if ahead:
        raise LogWentBackwards(f"log of topic {topic} went backwards: {'; '.join(ahead)}")
    starts = {p: max(covered.get(p, 0), low[p]) for p in high}
    pending = {p: OffsetRange(p, starts[p], high[p]) for p in high if starts[p] < high[p]}
    return LagStart(
        oldest=_oldest(config, topic, pending, now) if pending else None,
        uncovered={p: high[p] - starts[p] for p in high},
        topic_id=incarnation,
    )


def _oldest(
    config: Mapping[str, Any], topic: str, pending: Mapping[int, OffsetRange], now: datetime | None
) -> datetime | None:
    """Time of the first record of each range that can be believed, the earliest of them; None if there is none."""
    found: list[datetime] = []
    for piece in pending.values():
        start, width = piece.start, 16
        while start < piece.end:
            # a few offsets at a time: the first record ends the search, however long the range is
            window = OffsetRange(piece.partition, start, min(start + width, piece.end))
            stamps = [
                s for chunk in read_ranges(config, topic, [window]) for s in chunk.column("kafka_timestamp").to_pylist()
            ]
            believed = [s for s in stamps if now is None or not is_ahead(s, now)]
            if believed:
                found.append(believed[0])
                break
            start, width = window.end, width * 16
    return min(found, default=None)
