from __future__ import annotations

import subprocess
import uuid

import pytest
from confluent_kafka.admin import AdminClient

from crypto_assets.log.errors import LogError, LogUnavailable
from crypto_assets.log.kafka.topic import ensure_topics, require_topics, topic_id
from crypto_assets.settings import Settings
from crypto_assets_tests.log.messages import T0


def home(kafka_broker, **changes) -> Settings:
    suffix = uuid.uuid4().hex[:8]
    names = {"kafka_topic": f"prices-{suffix}", "kafka_polls_topic": f"polls-{suffix}"}
    return Settings(**({"home_path": kafka_broker.home, "source": "replay"} | names | changes))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("coingecko", {"message.timestamp.type": "LogAppendTime", "retention.ms": "604800000"}),
        ("replay", {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}),
        ("simulator", {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": "60000"}),
    ],
)
def test_topics_are_created_once_as_the_mode_needs_them(kafka_broker, source, expected):
    settings = home(kafka_broker, source=source)
    first = require_topics(settings, T0)
    assert [s.topic for s in first] == [settings.prices_topic, settings.polls_topic]
    assert all(s.created and s.partitions == 3 and s.checked_at == T0 for s in first)
    assert all(expected.items() <= s.config.items() for s in first)
    second = require_topics(settings, T0)
    assert not any(s.created for s in second)
    assert [s.topic_id for s in second] == [s.topic_id for s in first]
    config = {"bootstrap.servers": kafka_broker.bootstrap_servers}
    assert topic_id(config, settings.prices_topic) == first[0].topic_id


def test_every_mismatch_is_reported_and_the_printed_command_fixes_it(kafka_broker, topic_factory):
    topic = topic_factory(
        partitions=2,
        config={"message.timestamp.type": "CreateTime", "cleanup.policy": "compact", "retention.ms": "1000"},
    )
    settings = home(kafka_broker, source="coingecko", kafka_topic=topic)
    with pytest.raises(LogError) as caught:
        require_topics(settings, T0)
    for part in (
        "cleanup.policy is compact",
        "timestamp.type is CreateTime",
        "retention.ms is 1000",
        "has 2 partitions",
    ):
        assert part in str(caught.value)
    problems = ensure_topics(settings, T0)[0].problems
    commands = [p.split("; fix: ")[1] for p in problems if "java" in p]
    assert len(commands) == 3
    for command in commands[:1]:
        subprocess.run(command, shell=True, check=True, capture_output=True, timeout=120)
    fixed = ensure_topics(settings.model_copy(update={"kafka_partitions": 2}), T0)[0].problems
    assert len(fixed) == 2
    assert problems[0] not in fixed


def test_keeping_more_than_needed_is_fine(kafka_broker, topic_factory):
    topic = topic_factory(config={"message.timestamp.type": "LogAppendTime", "retention.ms": "-1"})
    assert ensure_topics(home(kafka_broker, source="coingecko", kafka_topic=topic), T0)[0].problems == ()


def test_a_missing_topic_says_what_creates_it(kafka_broker):
    with pytest.raises(LogUnavailable, match=r"topic absent does not exist .*crypto-assets produce --once"):
        topic_id({"bootstrap.servers": kafka_broker.bootstrap_servers}, "absent")
    assert "absent" not in AdminClient(kafka_broker.config).list_topics(timeout=10).topics


def test_the_fix_for_an_external_kafka_is_its_own_tool(kafka_broker, topic_factory):
    topic = topic_factory()
    settings = home(
        kafka_broker, source="coingecko", kafka_topic=topic, kafka_bootstrap_servers=kafka_broker.bootstrap_servers
    )
    problem = ensure_topics(settings, T0)[0].problems[0]
    assert "kafka-configs.sh --bootstrap-server" in problem
    assert f"--entity-name {topic} --add-config message.timestamp.type=LogAppendTime" in problem
