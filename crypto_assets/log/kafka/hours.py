"""Which offsets belong to an hour: b(t), the first offset at or after a time, of every Kafka partition.

Belongs here: bounds, and record times that cannot be believed. Does not belong here: asking a broker
(`log.kafka.offsets`), what has already been stored of an hour (`assets.log_slices.kafka`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from crypto_assets.contracts.clock import is_ahead, is_ahead_ms
from crypto_assets.contracts.slices import HOUR, hour_key
from crypto_assets.log.errors import LogUnavailable
from crypto_assets.log.kafka.adoption import incarnation_of
from crypto_assets.log.kafka.offsets import Offsets, config_of
from crypto_assets.log.kafka.records import read_ranges
from crypto_assets.log.kafka.topic import admin_client, describe, id_text
from crypto_assets.settings import Settings
from crypto_assets.storage.base import LogBounds, OffsetRange, PartitionBounds


def bounds(
    source: Settings | Mapping[str, Any], topic: str, hours: Sequence[datetime], now: datetime | None = None
) -> dict[str, LogBounds]:
    """Offsets of every partition for each hour, by the rule that loses and doubles nothing beside a live producer.

    All high watermarks are read first, then b(t), the first offset whose record time is at or after t. Where no such
    record exists b(t) is that *earlier* watermark, and an hour that ends there is provisional: what arrives between
    the two queries is then left to the next poll. (Asked the other way round, 8 of 60,047 records were doubled and
    13 missing.) b never falls as t grows.

    A record stamped later than `now` is no bound: a broker's clock that was ahead for a moment would else close every
    hour up to its time, and hide what arrives after the clock was put right. Where Kafka's answer is such a record,
    what follows it in the log is read; see `_search`.

    Args:
        source: Settings, or client options.
        topic: The topic.
        hours: Hour starts (UTC).
        now: Present time (UTC); None = every record's time is believed.

    Returns:
        By partition key (`2024-01-31-23:00`): [b(H), b(H+1)) of every partition, with the topic's incarnation.

    Raises:
        LogUnavailable: No broker answers, an answer holds an error, or the topic does not exist or was re-created
            meanwhile.
        ValueError: A time is not a whole hour in UTC.
    """
    for hour in hours:
        if hour.tzinfo is None or hour.utcoffset() != timedelta(0) or hour.minute or hour.second or hour.microsecond:
            raise ValueError(f"{hour.isoformat()} is not the start of an hour in UTC")
    config = config_of(source)
    admin = admin_client(config)
    description = describe(admin, config, topic)
    partitions = sorted(p.id for p in description.partitions)
    log = Offsets(admin, config, topic, partitions)
    high = log.latest()
    low = log.earliest()
    moments = sorted({moment for hour in hours for moment in (hour, hour + HOUR)})
    found: dict[datetime, dict[int, tuple[int, bool]]] = {}
    reached = dict.fromkeys(partitions, 0)
    asked = dict(zip(moments, log.at(moments), strict=True))
    if now is None:
        firsts = {m: {p: (o if o >= 0 else high[p], o >= 0) for p, (o, _) in row.items()} for m, row in asked.items()}
    else:
        firsts = _believable(config, topic, asked, high, now)
    for moment in moments:
        row = {}
        for partition in partitions:
            offset, real = firsts[moment][partition]
            # a record that arrived after the watermarks were read may already have given an earlier b(t) beyond them
            reached[partition] = max(reached[partition], offset)
            row[partition] = (reached[partition], not real)
        found[moment] = row
    again = id_text(describe(admin, config, topic))
    if again != id_text(description):
        raise LogUnavailable(f"topic {topic} was re-created while its offsets were read; run the step again")
    incarnation = incarnation_of(source, again)
    return {
        hour_key(hour): LogBounds(
            topic=topic,
            topic_id=incarnation.id,
            partitions=tuple(
                PartitionBounds(
                    p,
                    found[hour][p][0],
                    *found[hour + HOUR][p],
                    log_start=low[p],
                    adopted_from=incarnation.starts.get(p, -1),
                )
                for p in partitions
            ),
        )
        for hour in hours
    }


def _believable(
    config: Mapping[str, Any],
    topic: str,
    asked: Mapping[datetime, Mapping[int, tuple[int, int]]],
    high: Mapping[int, int],
    now: datetime,
) -> dict[datetime, dict[int, tuple[int, bool]]]:
    """b(t) and whether a record proves it, by moment and Kafka partition, from record times that can be believed.

    Args:
        config: Client options.
        topic: The topic.
        asked: Kafka's answers: offset and time (ms since 1970) by moment and Kafka partition; -1 = no such record.
        high: Ends of the Kafka partitions.
        now: Present time (UTC).
    """
    found: dict[datetime, dict[int, tuple[int, bool]]] = {}
    unclear: dict[int, dict[datetime, int]] = {}
    for moment, answers in asked.items():
        found[moment] = {}
        for partition, (offset, stamp) in answers.items():
            ahead = offset >= 0 and is_ahead_ms(stamp, now)
            real = offset >= 0 and not ahead
            found[moment][partition] = (offset if real else high[partition], real)
            if ahead and not is_ahead(moment, now) and offset < high[partition]:
                unclear.setdefault(partition, {})[moment] = offset
    for partition, firsts in unclear.items():
        for moment, answer in _search(config, topic, partition, firsts, high[partition], now).items():
            found[moment][partition] = answer
    return found


def _search(
    config: Mapping[str, Any], topic: str, partition: int, firsts: Mapping[datetime, int], high: int, now: datetime
) -> dict[datetime, tuple[int, bool]]:
    """b(t) of moments for which Kafka named a record that is stamped ahead, by reading what follows it.

    It is the offset after the last record before t; records stamped ahead between that and the next one that can be
    believed arrived at a time that nothing tells, and go with what follows them.
    """
    found = {moment: (offset, False) for moment, offset in firsts.items()}
    piece = OffsetRange(partition, min(firsts.values()), high)
    for chunk in read_ranges(config, topic, [piece]):
        stamps = chunk.column("kafka_timestamp").to_pylist()
        for offset, stamp in zip(chunk.column("offset").to_pylist(), stamps, strict=True):
            if is_ahead(stamp, now):
                continue
            for moment, (start, proven) in found.items():
                if not proven and offset >= start:
                    found[moment] = (start, True) if stamp >= moment else (offset + 1, False)
        if all(proven for _, proven in found.values()):
            break
    return found
