"""The idempotent publisher of price and poll messages.

Every message is checked against its JSON Schema before it is sent, and counts as published only when the broker has
confirmed it. Does not belong here: building messages (`crypto_assets.market.payload`) or deciding when to poll
(`crypto_assets.producer.loop`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from crypto_assets.contracts.messages import (
    HEADER_CADENCE,
    HEADER_POLL_ID,
    HEADER_SCHEMA_VERSION,
    HEADER_SENT_AT,
    HEADER_SOURCE,
    POLL_SCHEMA,
    POLL_SCHEMA_VERSION,
    PRICE_SCHEMA,
    SCHEMA_VERSION,
)
from crypto_assets.log.errors import PublishFailed
from crypto_assets.log.kafka.client import unavailable
from crypto_assets.log.kafka.offsets import newest_timestamp_ms

if TYPE_CHECKING:
    from confluent_kafka import Producer
    from jsonschema import Draft202012Validator

_SHOWN_FAILURES = 20
QUEUE_LIMIT = 20_000
"""Messages that may wait in this process; above it, publishing waits for the broker."""


@lru_cache(maxsize=2)
def _validator(kind: Literal["price", "poll"]) -> Draft202012Validator:
    from jsonschema import Draft202012Validator

    schema = PRICE_SCHEMA if kind == "price" else POLL_SCHEMA
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def schema_problems(kind: Literal["price", "poll"], message: Mapping[str, Any]) -> list[str]:
    """Everything about a message that its JSON Schema does not allow; empty = valid. No values are repeated."""
    found = _validator(kind).iter_errors(message)  # about 50 microseconds a message
    return [f"{'.'.join(map(str, e.path)) or 'message'}: {_reason(e)}" for e in found]


def _reason(error: Any) -> str:
    if error.validator in {"required", "additionalProperties"}:
        return error.message
    return f"breaks {error.validator} {error.validator_value!r}"


def number_text(value: float) -> str:
    """A number of seconds as short plain decimal text: `60`, `2.5`."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


class Publisher:
    """Publishes prices and polls with acks=all, idempotence, snappy and a delivery report per message.

    Not safe for use by several threads. Use as a context manager, or call `close`.

    Args:
        config: Client options from `client.client_config`.
        prices_topic: Topic of price messages.
        polls_topic: Topic of poll messages.
        source: Data mode, put into the `source` header.
        virtual: Whether records carry a virtual arrival time (replay and simulator homes) instead of the broker's.
        timeout_s: Seconds after which an unconfirmed message has failed.
        queue_limit: Messages that may wait for the broker before publishing blocks.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        prices_topic: str,
        polls_topic: str,
        source: str,
        virtual: bool,
        timeout_s: float = 30.0,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        self._config = dict(config)
        self.prices_topic = prices_topic
        self.polls_topic = polls_topic
        self.source = source
        self.virtual = virtual
        self._timeout_s = timeout_s
        self._queue_limit = queue_limit
        self._producer: Producer | None = None
        self._failures: list[str] = []
        self._confirmed = 0
        self._sent = 0
        self._floors: dict[str, int] = {}

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def enqueue_prices(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        poll_id: str,
        cadence_s: float,
        headers: Mapping[str, str] | None = None,
        arrival: datetime | None = None,
    ) -> None:
        """Send the prices of one poll; they count as published once `flush` returns. Blocks while the queue is full.

        Args:
            messages: Price messages, version 1.
            poll_id: Id of the poll they come from.
            cadence_s: Seconds between polls in force.
            headers: Extra headers of a replay (`recorded_at`, `shift_days`, `seam`).
            arrival: Virtual arrival (UTC); required in virtual homes, refused in live ones.

        Raises:
            PublishFailed: A message breaks its schema (then none was sent), or the queue stayed full.
            ValueError: `arrival` is missing, not allowed, or earlier than the topic's newest record.
            LogUnavailable: The topic's newest record could not be read.
        """
        self._refuse_invalid("price", messages)
        all_headers = [
            *self._headers(poll_id),
            (HEADER_CADENCE, number_text(cadence_s).encode()),
            *self._sent_at(),
            *((name, value.encode()) for name, value in (headers or {}).items()),
        ]
        stamp = self._stamp(self.prices_topic, arrival)
        for message in messages:
            self._produce(self.prices_topic, message["coin_id"], message, all_headers, stamp)

    def enqueue_poll(self, message: Mapping[str, Any], *, arrival: datetime | None = None) -> None:
        """Send one poll record, as `enqueue_prices` sends prices."""
        self._refuse_invalid("poll", [message])
        stamp = self._stamp(self.polls_topic, arrival)
        # keyed by source: the polls of a home stay in their order within one partition
        self._produce(
            self.polls_topic, self.source, message, self._headers(message["poll_id"], POLL_SCHEMA_VERSION), stamp
        )

    def flush(self) -> int:
        """Wait until everything enqueued is confirmed.

        Returns:
            Number of messages confirmed since the last flush.

        Raises:
            PublishFailed: Naming the messages that were not. Such a message may still have been
                written (its confirmation was lost), so sending it again can double it in the log; Silver removes that.
        """
        if self._producer is not None:
            left = self._producer.flush(self._timeout_s + 5.0)
            if left:
                self._failures.append(f"{left} messages were still waiting after {self._timeout_s + 5.0:.0f} s")
        confirmed, sent, failures = self._confirmed, self._sent, self._failures
        self._failures, self._confirmed, self._sent = [], 0, 0
        if failures:
            # an idempotent producer that failed may be in a fatal state: the next call starts with a new one
            self._producer = None
            raise self._failed(failures)
        assert confirmed == sent, f"{sent} sent, {confirmed} confirmed, no failure reported"
        return confirmed

    def close(self) -> None:
        """Give up what is still waiting and release the client. `flush` first to publish it."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(1.0)
            self._producer = None

    def floor(self, topic: str) -> datetime | None:
        """Newest record time in a topic of a virtual home (UTC), below which nothing may be sent; None when empty.

        Raises:
            LogUnavailable: The broker did not answer.
        """
        stamp = self._floor_ms(topic)
        return datetime.fromtimestamp(stamp / 1000, UTC) if stamp >= 0 else None

    def _headers(self, poll_id: str, version: str = SCHEMA_VERSION) -> list[tuple[str, str | bytes | None]]:
        return [
            (HEADER_SCHEMA_VERSION, version.encode()),
            (HEADER_SOURCE, self.source.encode()),
            (HEADER_POLL_ID, poll_id.encode()),
        ]

    def _sent_at(self) -> list[tuple[str, str | bytes | None]]:
        """The real time, for records that do not get it from the broker."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return [(HEADER_SENT_AT, now.encode())] if self.virtual else []

    def _refuse_invalid(self, kind: Literal["price", "poll"], messages: Iterable[Mapping[str, Any]]) -> None:
        failures = []
        for index, message in enumerate(messages):
            problems = schema_problems(kind, message)
            if problems:
                name = message.get("coin_id") or message.get("poll_id") or "?"
                failures.append(f"{kind} message {index} ({name}): {'; '.join(problems)}")
        if failures:
            raise PublishFailed(
                f"{len(failures)} messages break the {kind} schema, nothing of their poll was sent:\n  "
                + "\n  ".join(failures[:_SHOWN_FAILURES])
            )

    def _stamp(self, topic: str, arrival: datetime | None) -> int:
        if not self.virtual:
            if arrival is not None:
                raise ValueError("a live home takes no arrival time: the broker stamps its records")
            return 0  # librdkafka's "now"; the broker overwrites it
        if arrival is None or arrival.tzinfo is None:
            raise ValueError(f"a {self.source} home needs the virtual arrival time with its zone, got {arrival!r}")
        stamp = round(arrival.timestamp() * 1000)
        floor = self._floor_ms(topic)
        if stamp < floor:
            raise ValueError(
                f"arrival {arrival.isoformat()} in {topic} is earlier than its newest record, "
                f"{datetime.fromtimestamp(floor / 1000, UTC).isoformat()}: hours would not be slices of the log"
            )
        self._floors[topic] = stamp
        return stamp

    def _floor_ms(self, topic: str) -> int:
        if topic not in self._floors:
            self._floors[topic] = newest_timestamp_ms(self._config, topic)
        return self._floors[topic]

    def _client(self) -> Producer:
        if self._producer is None:
            from confluent_kafka import Producer

            self._producer = Producer(
                {
                    **self._config,
                    "enable.idempotence": True,
                    "acks": "all",
                    "compression.type": "snappy",
                    "linger.ms": 5,
                    "partitioner": "murmur2_random",  # as Java clients place keys
                    "message.timeout.ms": round(self._timeout_s * 1000),
                    "queue.buffering.max.messages": self._queue_limit,
                    "error_cb": lambda _error: None,  # what matters arrives in the delivery reports
                }
            )
        return self._producer

    def _produce(
        self,
        topic: str,
        key: str,
        message: Mapping[str, Any],
        headers: list[tuple[str, str | bytes | None]],
        stamp: int,
    ) -> None:
        from confluent_kafka import KafkaException

        value = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
        client = self._client()
        deadline = time.monotonic() + self._timeout_s + 5.0
        while True:
            try:
                client.produce(
                    topic,
                    value=value,
                    key=key.encode(),
                    headers=headers,
                    timestamp=stamp,
                    on_delivery=self._on_delivery,
                )
                break
            except BufferError:
                # the queue is full: wait for reports, which make room
                client.poll(0.1)
                if time.monotonic() > deadline:
                    raise self._give_up(f"{topic} {key}: the queue stayed full") from None
            except KafkaException as error:
                raise self._give_up(f"{topic} {key}: {error}") from error
        self._sent += 1
        client.poll(0)

    def _give_up(self, reason: str) -> PublishFailed:
        """Drop the client with everything that waits in it, all of which then counts as unpublished."""
        waiting = self._sent - self._confirmed - len(self._failures)
        failures = [reason, *self._failures]
        if waiting > 0:
            failures.append(f"{waiting} messages before it were still waiting")
        self._producer, self._failures, self._confirmed, self._sent = None, [], 0, 0
        return self._failed(failures)

    def _on_delivery(self, error: object, message: Any) -> None:
        if error is None:
            self._confirmed += 1
        else:
            key = (message.key() or b"").decode(errors="replace")
            self._failures.append(f"{message.topic()} {key}: {error}")

    def _failed(self, failures: list[str]) -> PublishFailed:
        hint = unavailable(self._config, "publish", "unconfirmed messages")
        shown = "\n  ".join(failures[:_SHOWN_FAILURES])
        more = f"\n  and {len(failures) - _SHOWN_FAILURES} more" if len(failures) > _SHOWN_FAILURES else ""
        return PublishFailed(f"{len(failures)} messages were not published:\n  {shown}{more}\n{hint}")
