"""The questions that can be asked about the offsets of a topic.

Everything is asked with isolation level read_committed, so "end" means the last stable offset, and every error inside
an answer is raised: an unknown partition, for example, answers with offset 0 beside its error. Does not belong here:
reading records (`log.kafka.records`), which offsets belong to an hour (`log.kafka.hours`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from crypto_assets.log.errors import LogUnavailable
from crypto_assets.log.kafka.client import client_config, unavailable
from crypto_assets.log.kafka.topic import ANSWER_TIMEOUT_S, admin_client, describe, id_text
from crypto_assets.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient


T = TypeVar("T")


def config_of(source: Settings | Mapping[str, Any]) -> dict[str, Any]:
    """Client options of settings; options as they are."""
    return client_config(source) if isinstance(source, Settings) else dict(source)


def _spec() -> Any:
    from confluent_kafka.admin import OffsetSpec  # pyright: ignore[reportPrivateImportUsage] - documented there

    return OffsetSpec


def _offset_and_time(found: Any) -> tuple[int, int]:
    return found.offset, found.timestamp


class _NoLeaderYet(LogUnavailable):
    """A partition is electing its leader, as in the first moments of a topic: worth asking again."""


class Offsets:
    """The questions that can be asked about the offsets of one topic, of all partitions at once."""

    def __init__(self, admin: AdminClient, config: Mapping[str, Any], topic: str, partitions: Iterable[int]) -> None:
        self._admin = admin
        self._config = config
        self._topic = topic
        self._partitions = list(partitions)

    def latest(self) -> dict[int, int]:
        """Offset after the last stable record."""
        return self._ask(_spec().latest(), "end offsets")

    def earliest(self) -> dict[int, int]:
        """First retained offset."""
        return self._ask(_spec().earliest(), "start offsets")

    def at(self, moments: Sequence[datetime]) -> list[dict[int, tuple[int, int]]]:
        """For each moment, the first record whose time is at or after it: its offset and its time.

        Times in milliseconds since 1970; both are -1 where there is no such record.
        """
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        asked = []
        for moment in moments:
            # all questions first, then all answers: 72 hours take one round trip, not 72
            stamp = (moment - epoch) // timedelta(milliseconds=1)
            what = f"offsets at {moment.isoformat()}"
            asked.append((self._send(_spec().for_timestamp(stamp), what), what))
        answers = []
        for moment, (futures, what) in zip(moments, asked, strict=True):
            try:
                answers.append(self._collect(futures, what, _offset_and_time))
            except _NoLeaderYet:
                stamp = (moment - epoch) // timedelta(milliseconds=1)
                answers.append(self._ask(_spec().for_timestamp(stamp), what, _offset_and_time))
        return answers

    def newest(self) -> dict[int, int]:
        """Highest record time, milliseconds since 1970, -1 where there is no record."""
        return self._ask(_spec().max_timestamp(), "newest record times", attrgetter("timestamp"))

    def _ask(self, spec: Any, what: str, value: Callable[[Any], T] = attrgetter("offset")) -> dict[int, T]:
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            try:
                return self._collect(self._send(spec, what), what, value)
            except _NoLeaderYet:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def _send(self, spec: Any, what: str) -> dict[TopicPartition, Any]:
        from confluent_kafka import IsolationLevel, KafkaException, TopicPartition

        wanted = {TopicPartition(self._topic, p): spec for p in self._partitions}
        try:
            return self._admin.list_offsets(
                wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ANSWER_TIMEOUT_S
            )
        except KafkaException as error:
            raise unavailable(self._config, f"{what} of topic {self._topic}", error) from error

    def _collect(self, futures: dict[TopicPartition, Any], what: str, value: Callable[[Any], T]) -> dict[int, T]:
        from confluent_kafka import KafkaError, KafkaException

        electing = {
            KafkaError.NOT_LEADER_FOR_PARTITION,
            KafkaError.LEADER_NOT_AVAILABLE,
            KafkaError.OFFSET_NOT_AVAILABLE,
            KafkaError.UNKNOWN_LEADER_EPOCH,
            KafkaError.FENCED_LEADER_EPOCH,
        }
        answers: dict[int, T] = {}
        errors: list[str] = []
        passing = True
        for target, future in futures.items():
            try:
                answers[target.partition] = value(future.result(ANSWER_TIMEOUT_S))
            except (KafkaException, TimeoutError) as error:
                errors.append(f"partition {target.partition}: {error}")
                reason = error.args[0] if error.args else None
                passing = passing and isinstance(reason, KafkaError) and reason.code() in electing
        if errors:
            failure = unavailable(self._config, f"{what} of topic {self._topic}", "; ".join(errors))
            raise _NoLeaderYet(str(failure)) if passing else failure
        return answers


def offsets_of(config: Mapping[str, Any], topic: str) -> tuple[Offsets, str]:
    """A topic's questions, and its incarnation."""
    admin = admin_client(config)
    description = describe(admin, config, topic)
    return Offsets(admin, config, topic, sorted(p.id for p in description.partitions)), id_text(description)


def end_offsets(source: Settings | Mapping[str, Any], topic: str) -> dict[int, tuple[int, int]]:
    """First retained offset and end (offset after the last stable record) of every partition.

    Raises:
        LogUnavailable: No broker answers, an answer holds an error, or the topic does not exist.
    """
    log, _ = offsets_of(config_of(source), topic)
    low, high = log.earliest(), log.latest()
    return {partition: (low[partition], high[partition]) for partition in high}


def newest_timestamp_ms(source: Settings | Mapping[str, Any], topic: str) -> int:
    """Highest record time of a topic in milliseconds since 1970; -1 when it holds no record.

    Raises:
        LogUnavailable: No broker answers, an answer holds an error, or the topic does not exist.
    """
    log, _ = offsets_of(config_of(source), topic)
    return max(log.newest().values(), default=-1)
