"""A Bronze writer that is killed wherever it happens to be, beside two that go on and a producer: each record once."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from crypto_assets.assets import bronze
from crypto_assets.contracts.slices import HOUR
from crypto_assets.engine.sail import SailEngine
from crypto_assets_tests.assets import bronze_child
from crypto_assets_tests.assets.log_tools import MINUTE, TEN, inputs, key, price, publish
from crypto_assets_tests.kafka_fixtures import RunningBroker

pytestmark = pytest.mark.kafka

TABLE = "bronze.raw_prices"
KEYS = [key(TEN), key(TEN + HOUR)]
RACERS = 2


class Writer:
    """A child that works on the hours again and again, as fast as it can."""

    def __init__(self, broker: RunningBroker, topic: str, lake: Path) -> None:
        command = [sys.executable, "-m", bronze_child.__name__, broker.bootstrap_servers, topic, str(lake)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )
        assert self.process.stdin
        assert self.process.stdout
        self._in, self._out = self.process.stdin, self.process.stdout

    def ask(self) -> None:
        self._in.write(",".join(KEYS) + "\n")
        self._in.flush()

    def line(self) -> str:
        text = self._out.readline().strip()
        if not text:
            assert self.process.stderr
            raise AssertionError(f"the child ended: {self.process.stderr.read()[-2000:]}")
        return text

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def finish(self) -> None:
        _, errors = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, errors[-2000:]


class Racer(threading.Thread):
    """A writer that is not killed."""

    def __init__(self, writer: Writer, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.writer, self.stop, self.rounds, self.error = writer, stop, 0, None

    def run(self) -> None:
        try:
            assert self.writer.line() == "ready"
            while not self.stop.is_set():
                self.writer.ask()
                while self.writer.line() != "done":
                    pass
                self.rounds += 1
            self.writer.finish()
        except Exception as error:  # noqa: BLE001 - shown by the test
            self.error = error


class Producer(threading.Thread):
    """Publishes batches over two hours of record time until told to stop."""

    def __init__(self, broker: RunningBroker, topic: str, rounds: int) -> None:
        super().__init__(daemon=True)
        self.broker, self.topic, self.rounds = broker, topic, rounds
        self.turn = threading.Semaphore(0)
        self.count = 0
        self.published = threading.Event()

    def run(self) -> None:
        for round_ in range(self.rounds):
            self.turn.acquire()
            at = TEN + 2 * HOUR * round_ / self.rounds
            batch = [(n % 3, at, price(at - MINUTE)) for n in range(200)]
            publish(self.broker, self.topic, batch)
            self.count += len(batch)
        self.published.set()


def torture(broker: RunningBroker, topic: str, lake: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill a writer `kills` times; where, by the last line that it had printed."""
    chance = random.Random(seed)
    stop, at = threading.Event(), {}
    producer = Producer(broker, topic, kills + 2)
    racers = [Racer(Writer(broker, topic, lake), stop) for _ in range(RACERS)]
    for thread in (producer, *racers):
        thread.start()
    producer.turn.release(2)
    victim = Writer(broker, topic, lake)
    for _ in range(kills):
        following = Writer(broker, topic, lake)  # starts while this one is being killed
        assert victim.line() == "ready"
        producer.turn.release()
        victim.ask()
        last = "ready"
        for _ in range(chance.randrange(1, 12)):
            last = victim.line()
            if last == "done":
                victim.ask()
        # A little further than the line, so that it is also hit within a write or a commit.
        stop.wait(chance.random() * 0.02)
        victim.kill()
        at[last] = at.get(last, 0) + 1
        victim = following
    victim.kill()
    assert producer.published.wait(120)
    stop.set()
    for racer in racers:
        racer.join(120)
        assert racer.error is None, racer.error
        assert racer.rounds > 0
    return at


def assert_exact(broker: RunningBroker, topic: str, lake: Path) -> None:
    engine = SailEngine(str(lake), lambda: broker.config)
    result = bronze.work(engine, KEYS, inputs(broker, topic, KEYS)).tables[TABLE]
    bounds = inputs(broker, topic, KEYS).bounds
    expected = {
        (k, b.partition, offset) for k in KEYS for b in bounds[k].partitions for offset in range(b.start, b.end)
    }
    rows = engine.store.read_arrow(TABLE, columns=["arrival_hour", "partition", "offset"]).to_pylist()
    found = [(key(r["arrival_hour"]), r["partition"], r["offset"]) for r in rows]
    assert len(found) == len(set(found)), "records are doubled"
    assert set(found) == expected
    for partition in result.partitions.values():
        assert [c for c in partition.checks if not c.passed] == []


@pytest.mark.slow
def test_eight_kills(kafka_broker: RunningBroker, topic_factory: Callable[..., str], tmp_path: Path):
    topic = topic_factory()
    torture(kafka_broker, topic, tmp_path / "lake", kills=8, seed=1)
    assert_exact(kafka_broker, topic, tmp_path / "lake")


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(900)
def test_fifty_kills(kafka_broker: RunningBroker, topic_factory: Callable[..., str], tmp_path: Path):
    topic = topic_factory()
    at = torture(kafka_broker, topic, tmp_path / "lake", kills=50, seed=2)
    assert sum(at.values()) == 50
    assert len(at) >= 4, f"the kills were not spread over the work: {at}"
    print(f"killed after: {at}")
    assert_exact(kafka_broker, topic, tmp_path / "lake")
