"""Our topics: creating them, and proving that they keep records the way exact hours need.

Live topics carry the broker's own time (LogAppendTime); the topics of replay and simulator homes carry the virtual
arrival (CreateTime), are kept for ever and accept nothing stamped in the future. Does not belong here: records.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from crypto_assets.jvm.fetch import ensure_jars, find_java
from crypto_assets.jvm.jars import KAFKA_BROKER
from crypto_assets.log.errors import LogError, LogUnavailable
from crypto_assets.log.kafka.client import client_config, unavailable
from crypto_assets.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient, TopicDescription  # pyright: ignore[reportPrivateImportUsage] - documented there

RETENTION_MS = int(timedelta(days=7) / timedelta(milliseconds=1))
ANSWER_TIMEOUT_S = 15.0

LIVE_CONFIG = {
    "cleanup.policy": "delete",
    "message.timestamp.type": "LogAppendTime",
    "retention.ms": str(RETENTION_MS),
    "retention.bytes": "-1",
}
VIRTUAL_CONFIG = {
    "cleanup.policy": "delete",
    "message.timestamp.type": "CreateTime",
    "message.timestamp.after.max.ms": "60000",
    "retention.ms": "-1",
    "retention.bytes": "-1",
}


@dataclass(frozen=True)
class TopicStatus:
    """One topic as it is.

    Args:
        topic: Its name.
        topic_id: Its incarnation: a re-created topic has another one.
        created: Whether this call created it.
        partitions: Number of partitions.
        config: The settings that matter, as the broker has them.
        problems: What is not as it must be, each with the command that fixes it; empty = good.
        checked_at: Time of the check (UTC).
    """

    topic: str
    topic_id: str
    created: bool
    partitions: int
    config: dict[str, str]
    problems: tuple[str, ...]
    checked_at: datetime


def expected_config(settings: Settings) -> dict[str, str]:
    """Topic settings that a home of this mode needs."""
    return dict(LIVE_CONFIG if settings.is_live else VIRTUAL_CONFIG)


def ensure_topics(settings: Settings, now: datetime) -> list[TopicStatus]:
    """Create the topics of prices and polls where absent, and check both.

    Args:
        settings: Settings of the home.
        now: Time of the check (UTC), recorded in the result.

    Returns:
        One status per topic; read `problems`, or call `require_topics` to have them raised.

    Raises:
        LogUnavailable: The broker cannot be reached or refuses.
    """
    config = client_config(settings)
    admin = admin_client(config)
    created = {
        topic: _create(admin, config, topic, settings) for topic in (settings.prices_topic, settings.polls_topic)
    }
    return [_status(admin, config, settings, topic, new, now) for topic, new in created.items()]


def require_topics(settings: Settings, now: datetime) -> list[TopicStatus]:
    """Like `ensure_topics`, but every problem of every topic is raised.

    Raises:
        LogError: With one line per problem and its fix.
        LogUnavailable: The broker cannot be reached or refuses.
    """
    statuses = ensure_topics(settings, now)
    problems = [f"{status.topic}: {problem}" for status in statuses for problem in status.problems]
    if problems:
        raise LogError("topics are not as exact hours need them:\n  " + "\n  ".join(problems))
    return statuses


def topic_id(config: Mapping[str, Any], topic: str) -> str:
    """Id of the topic's present incarnation, as Kafka's own tools print it (URL-safe base64).

    Raises:
        LogUnavailable: The topic does not exist or the broker cannot be reached.
    """
    return id_text(describe(admin_client(config), config, topic))


def id_text(description: TopicDescription) -> str:
    """The id in a description as Kafka's own tools print it; librdkafka uses the other base64 alphabet."""
    return str(description.topic_id).replace("+", "-").replace("/", "_")


def admin_client(config: Mapping[str, Any]) -> AdminClient:
    """An admin client whose failures arrive as errors of calls, never as lines on stderr."""
    from confluent_kafka.admin import AdminClient

    options: dict[str, Any] = {**config, "error_cb": lambda _error: None}
    return AdminClient(options)


def describe(admin: AdminClient, config: Mapping[str, Any], topic: str) -> TopicDescription:
    """The topic's id and partitions.

    Raises:
        LogUnavailable: The topic does not exist or the broker cannot be reached.
    """
    from confluent_kafka import KafkaError, KafkaException, TopicCollection

    try:
        futures = admin.describe_topics(TopicCollection([topic]), request_timeout=ANSWER_TIMEOUT_S)
        return futures[topic].result(ANSWER_TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        reason = error.args[0] if error.args else error
        if isinstance(reason, KafkaError) and reason.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise LogUnavailable(
                f"topic {topic} does not exist at {config.get('bootstrap.servers')}; the producer creates it: "
                "crypto-assets produce --once"
            ) from error
        raise unavailable(config, f"describe topic {topic}", error) from error


def _create(admin: AdminClient, config: Mapping[str, Any], topic: str, settings: Settings) -> bool:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import NewTopic  # pyright: ignore[reportPrivateImportUsage] - documented there

    try:
        existing = admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics
    except KafkaException as error:
        raise unavailable(config, "list topics", error) from error
    if topic in existing:
        return False
    new = NewTopic(
        topic, settings.kafka_partitions, settings.kafka_replication_factor, config=expected_config(settings)
    )
    try:
        admin.create_topics([new], request_timeout=ANSWER_TIMEOUT_S)[topic].result(ANSWER_TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        reason = error.args[0] if error.args else error
        if isinstance(reason, KafkaError) and reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False  # another process was quicker
        raise unavailable(config, f"create topic {topic}", error) from error
    return True


def _status(
    admin: AdminClient, config: Mapping[str, Any], settings: Settings, topic: str, created: bool, now: datetime
) -> TopicStatus:
    description = await_topic(admin, config, topic) if created else describe(admin, config, topic)
    found = _read_config(admin, config, topic)
    expected = expected_config(settings)
    wrong = {name: value for name, value in expected.items() if not _satisfies(name, found.get(name), value)}
    problems = [
        f"{name} is {found.get(name)}, must be {value}; fix: {alter_command(settings, topic, {name: value})}"
        for name, value in wrong.items()
    ]
    partitions = len(description.partitions)
    if partitions != settings.kafka_partitions:
        problems.append(
            f"it has {partitions} partitions, KAFKA_PARTITIONS says {settings.kafka_partitions}; "
            f"fix: set KAFKA_PARTITIONS={partitions}"
        )
    return TopicStatus(
        topic=topic,
        topic_id=id_text(description),
        created=created,
        partitions=partitions,
        config={name: found.get(name, "") for name in expected},
        problems=tuple(problems),
        checked_at=now,
    )


def await_topic(admin: AdminClient, config: Mapping[str, Any], topic: str) -> TopicDescription:
    """Describe a topic that was created just now: a broker may answer before it has heard of it or of its leaders.

    Raises:
        LogUnavailable: It is still unknown after 15 s.
    """
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while True:
        try:
            description = describe(admin, config, topic)
        except LogUnavailable:
            if time.monotonic() > deadline:
                raise
        else:
            if all(p.leader is not None and p.leader.id >= 0 for p in description.partitions):
                return description
            if time.monotonic() > deadline:
                raise unavailable(config, f"find the leaders of topic {topic}", "none elected")
        time.sleep(0.05)


def _satisfies(name: str, found: str | None, expected: str) -> bool:
    if found is None:
        return False
    if name in {"retention.ms", "retention.bytes"}:
        # keeping more than is needed is fine; -1 keeps all
        return int(found) == -1 or (int(expected) != -1 and int(found) >= int(expected))
    if name == "message.timestamp.after.max.ms":
        return int(found) <= int(expected)
    return found == expected


def _read_config(admin: AdminClient, config: Mapping[str, Any], topic: str) -> dict[str, str]:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import ConfigResource  # pyright: ignore[reportPrivateImportUsage] - documented there

    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    try:
        future = admin.describe_configs([resource], request_timeout=ANSWER_TIMEOUT_S)[resource]
        entries = future.result(ANSWER_TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        raise unavailable(config, f"describe the configuration of topic {topic}", error) from error
    return {name: entry.value for name, entry in entries.items() if entry.value is not None}


def alter_command(settings: Settings, topic: str, wanted: Mapping[str, str]) -> str:
    """The shell command that sets topic settings: Kafka's own tool, from our jars for the embedded broker."""
    if settings.kafka_bootstrap_servers:
        tool = ["kafka-configs.sh"]
        servers = settings.kafka_bootstrap_servers
        if settings.security_protocol != "PLAINTEXT":
            tool += ["--command-config", "client.properties"]
    else:
        tool = [str(find_java()), "-cp", str(ensure_jars(KAFKA_BROKER) / "*"), "kafka.admin.ConfigCommand"]
        servers = str(client_config(settings)["bootstrap.servers"])
    pairs = ",".join(f"{name}={value}" for name, value in wanted.items())
    return shlex.join(
        [
            *(*tool, "--bootstrap-server", servers, "--alter"),
            *("--entity-type", "topics", "--entity-name", topic, "--add-config", pairs),
        ]
    )
