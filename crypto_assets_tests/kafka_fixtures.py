"""Fixtures with a real embedded broker, for any test of the suite (a pytest plugin).

`kafka_broker` (session) is the running broker of a temporary home: `.bootstrap_servers`, `.home`, `.config`.
`topic_factory` makes topics with unique names; `impatient` shortens the wait for a broker that is gone.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from crypto_assets.files import file_lock, write_atomic
from crypto_assets.log.kafka.broker import EmbeddedBroker
from crypto_assets.log.kafka.reading import end_offsets
from crypto_assets.log.kafka.topic import await_topic


class RunningBroker:
    """A started embedded broker and the client options that reach it."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.broker = broker
        self.home: Path = broker.home
        self.bootstrap_servers = broker.bootstrap_servers

    @property
    def config(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.bootstrap_servers, "log_level": 0}


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """One real broker for the whole session, shared by its xdist workers, stopped by the last of them at its end."""
    own = tmp_path_factory.getbasetemp()
    home = (own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own) / "kafka-home"
    broker = EmbeddedBroker(home)
    with _users(home) as users:
        broker.start(timeout_s=120)
        users.add(os.getpid())
    try:
        yield RunningBroker(broker)
    finally:
        with _users(home) as users:
            users.discard(os.getpid())
            if not users:
                broker.stop()


@contextmanager
def _users(home: Path) -> Iterator[set[int]]:
    """Process ids of the living workers that use the broker, to be changed by one of them at a time."""
    file = home / "users.json"
    with file_lock(home / "users.lock", timeout_s=180):
        users = set(json.loads(file.read_text())) if file.exists() else set()
        users = {pid for pid in users if psutil.pid_exists(pid)}
        yield users
        write_atomic(file, json.dumps(sorted(users)))


@pytest.fixture
def topic_factory(kafka_broker: RunningBroker) -> Callable[..., str]:
    """`topic_factory(partitions=3, config=None, name=None) -> name`: creates a topic and waits until it is there.

    The default configuration is that of a virtual home (CreateTime, kept for ever), so that tests may publish at
    any time they like; pass `config={"message.timestamp.type": "LogAppendTime"}` for a live one.
    """
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient(kafka_broker.config)

    def make(partitions: int = 3, config: dict[str, str] | None = None, name: str | None = None) -> str:
        topic = name or f"t-{uuid.uuid4().hex[:12]}"
        chosen = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"} if config is None else config
        for future in admin.create_topics([NewTopic(topic, partitions, 1, config=chosen)]).values():
            future.result(30)
        await_topic(admin, kafka_broker.config, topic)
        end_offsets(kafka_broker.config, topic)  # waits until every leader answers
        return topic

    return make


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions to a broker that is gone fail after 2 s instead of 15."""
    for module in ("offsets", "topic"):
        monkeypatch.setattr(f"crypto_assets.log.kafka.{module}.ANSWER_TIMEOUT_S", 2.0)
