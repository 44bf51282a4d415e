from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import tempfile
from datetime import timedelta

import psutil
import pytest

from crypto_assets.files import LockHeld, file_lock, write_atomic
from crypto_assets.home import open_home
from crypto_assets.log.errors import BrokerError, LogUnavailable
from crypto_assets.log.kafka.broker import EmbeddedBroker, bootstrap_of
from crypto_assets.log.kafka.client import client_config
from crypto_assets.log.kafka.reading import bounds, read_ranges
from crypto_assets.log.kafka.topic import ensure_topics
from crypto_assets.settings import Settings
from crypto_assets.storage.base import OffsetRange
from crypto_assets_tests.e2e.commands import run
from crypto_assets_tests.log.messages import T0, send, texts

pytestmark = pytest.mark.slow
"""Each test starts a broker of its own, some of them twice."""


def test_start_stop_and_start_again_keep_port_and_records(tmp_path, impatient):
    settings = Settings(source="replay", home_path=tmp_path)
    open_home(settings)
    with pytest.raises(LogUnavailable, match="no embedded broker yet; start it: crypto-assets broker start"):
        client_config(settings)
    broker = EmbeddedBroker(tmp_path)
    assert not broker.status().running
    assert not broker.stop()
    said: list[str] = []
    try:
        status = broker.start(timeout_s=120, progress=said.append)
        assert status.running
        assert status.pid is not None
        assert any("starting Apache Kafka" in line for line in said)
        # Ctrl-C in our terminal does not reach it
        assert os.getsid(status.pid) == status.pid != os.getsid(0)
        # starting what runs changes nothing
        assert EmbeddedBroker(tmp_path).start().pid == status.pid
        config = client_config(settings)
        topic = ensure_topics(settings, T0)[0].topic
        send(config, topic, [(0, T0, "kept")])

        assert EmbeddedBroker(tmp_path).stop()
        assert not psutil.pid_exists(status.pid)
        assert bootstrap_of(tmp_path) == status.bootstrap_servers
        with pytest.raises(LogUnavailable, match="is not running; start it: crypto-assets broker start"):
            bounds(settings, topic, [T0])

        again = broker.start(timeout_s=120)
        assert (again.port, again.running) == (status.port, True)
        assert again.pid != status.pid
        assert texts(config, topic, [OffsetRange(0, 0, 1)]) == [(0, 0, "kept")]

        # another process can stop it too, while the one that started it lives and does not look
        stopped = run(tmp_path, "broker", "stop", "--home", str(tmp_path))
        assert "stopped" in stopped.stdout, stopped.stdout + stopped.stderr
        assert not broker.status().running
        # a client that was already configured learns of the stop by a named failure as well
        for ask in (
            lambda: bounds(config, topic, [T0]),
            lambda: list(read_ranges(config, topic, [OffsetRange(0, 0, 1)])),
        ):
            with pytest.raises(LogUnavailable, match="crypto-assets broker start"):
                ask()
    finally:
        broker.stop()


def test_a_broker_stops_cleanly_also_when_started_by_a_process_that_ignores_signals(tmp_path):
    broker = EmbeddedBroker(tmp_path)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        broker.start(timeout_s=120)
        assert {signal.getsignal(number) for number in before} == {signal.SIG_IGN}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        broker.stop()
    assert "due to signal SIGTERM" in broker.log_file.read_text()


def test_a_killed_broker_recovers_and_a_stale_pid_is_not_believed(tmp_path):
    broker = EmbeddedBroker(tmp_path)
    try:
        pid = broker.start(timeout_s=120).pid
        assert pid is not None
        psutil.Process(pid).kill()
        psutil.Process(pid).wait(30)
        assert not broker.status().running
        # the id now belongs to somebody else
        file = tmp_path / "kafka" / "broker.pid"
        write_atomic(file, json.dumps(json.loads(file.read_text()) | {"pid": os.getpid()}))
        assert not broker.status().running
        assert not broker.stop()
        assert broker.start(timeout_s=120).running
    finally:
        broker.stop()


def test_a_clock_that_is_set_makes_no_stranger_of_the_broker(tmp_path, monkeypatch):
    broker = EmbeddedBroker(tmp_path)
    boot, start = psutil.boot_time(), psutil.Process.create_time
    try:
        before = broker.start(timeout_s=120)
        # what the system answers once its clock was set an hour ahead
        monkeypatch.setattr("psutil.boot_time", lambda: boot + 3600)
        monkeypatch.setattr("psutil.Process.create_time", lambda process: start(process) + 3600)
        assert EmbeddedBroker(tmp_path).start().pid == before.pid
        assert broker.stop()
    finally:
        broker.stop()


def test_a_broker_that_works_in_another_folder_for_a_moment_is_no_stranger(tmp_path, monkeypatch):
    broker = EmbeddedBroker(tmp_path)
    # where a JVM that starts deletes what ended ones left
    monkeypatch.setattr("psutil.Process.cwd", lambda _process: tempfile.gettempdir())
    try:
        pid = broker.start(timeout_s=120).pid
        assert EmbeddedBroker(tmp_path).start().pid == pid
        copy = shutil.copytree(tmp_path / "kafka", tmp_path / "copy" / "kafka").parent
        assert not EmbeddedBroker(copy).status().running
        moved = tmp_path / "moved"
        moved.mkdir()
        (tmp_path / "kafka").rename(moved / "kafka")
        assert EmbeddedBroker(moved).status().pid == pid
        assert EmbeddedBroker(moved).stop()
    finally:
        broker.stop()


def test_a_port_in_use_is_named_with_the_setting_that_changes_it(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=rf"port {port} .* already in use .*CRYPTO_ASSETS_KAFKA_PORT"):
            EmbeddedBroker(tmp_path, port).start()
    assert not EmbeddedBroker(tmp_path).status().running


def test_a_broker_that_cannot_run_says_its_last_words(tmp_path):
    data = tmp_path / "kafka" / "data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("version=1\nnode.id=99\ncluster.id=AAAAAAAAAAAAAAAAAAAAAA\n")
    with pytest.raises(BrokerError, match="ended while it started") as caught:
        EmbeddedBroker(tmp_path).start(timeout_s=60)
    assert "99" in str(caught.value)


def test_the_last_words_are_of_the_process_that_ended(tmp_path, monkeypatch):
    logs = tmp_path / "kafka" / "logs"
    logs.mkdir(parents=True)
    (logs / "server.log").write_text("2026-01-01T00:00:00.000Z INFO KafkaServer an earlier broker shut down\n")
    monkeypatch.setattr("crypto_assets.log.kafka.broker.HEAP", "no-size")
    (tmp_path / "kafka" / "data").mkdir()
    (tmp_path / "kafka" / "data" / "meta.properties").write_text("version=1\nnode.id=1\n")
    with pytest.raises(BrokerError, match=r"ended while it started \(exit code 1\)") as caught:
        EmbeddedBroker(tmp_path).start(timeout_s=60)
    assert "Invalid maximum heap size: -Xmxno-size" in str(caught.value)
    assert "an earlier broker" not in str(caught.value)


def test_a_lock_has_one_holder(tmp_path):
    path = tmp_path / "a.lock"
    with file_lock(path, timeout_s=0), pytest.raises(LockHeld, match=r"a\.lock"), file_lock(path, timeout_s=0):
        raise AssertionError("two holders")
    with file_lock(tmp_path / "a.lock", timeout_s=0):
        pass


def test_an_external_kafka_needs_no_broker_but_its_credentials(tmp_path):
    base = {"home_path": tmp_path, "kafka_bootstrap_servers": "broker.example:9092"}
    config = client_config(
        Settings(
            **base,
            kafka_security_protocol="SASL_SSL",
            kafka_sasl_username="key",
            kafka_sasl_password="s3cret",
            kafka_ssl_ca_location="/ca.pem",
        )
    )
    assert config["bootstrap.servers"] == "broker.example:9092"
    assert (config["security.protocol"], config["sasl.mechanism"]) == ("SASL_SSL", "PLAIN")
    assert config["ssl.ca.location"] == "/ca.pem"
    assert config["sasl.password"] == "s3cret"
    assert config["sasl.username"] == "key"
    with pytest.raises(LogUnavailable, match=r"KAFKA_SASL_USERNAME .* and KAFKA_SASL_PASSWORD"):
        client_config(Settings(**base, kafka_security_protocol="SASL_SSL"))
    assert "sasl.password" not in client_config(Settings(**base))


def test_an_unreachable_external_kafka_is_named(tmp_path, impatient):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    settings = Settings(home_path=tmp_path, kafka_bootstrap_servers=address)
    with pytest.raises(LogUnavailable, match=address):
        bounds(settings, "crypto-prices-raw", [T0 + timedelta(hours=1)])


@pytest.mark.parametrize("name", ["josé", "it's a,b \\ 100%20 [x] {y} ${z} #?:;=*\n"])
def test_the_data_lie_in_the_home_whatever_its_name_and_locale(tmp_path, monkeypatch, name):
    monkeypatch.setenv("LC_ALL", "C")
    home = tmp_path / name / "h"
    home.mkdir(parents=True)
    broker = EmbeddedBroker(home)
    settings = Settings(source="replay", home_path=home)
    made = []
    try:
        for _ in range(2):
            broker.start(timeout_s=120)
            made.append([t.topic_id for t in ensure_topics(settings, T0)])
            broker.stop()
    finally:
        broker.stop()
    assert made[0] == made[1]
    assert (home / "kafka" / "data" / "meta.properties").is_file()
    assert broker.log_file.is_file()
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert [p.name for p in (tmp_path / name).iterdir()] == ["h"]


def test_a_copy_of_a_home_does_not_take_the_broker_of_the_original_for_its_own(tmp_path):
    original = EmbeddedBroker(tmp_path / "original")
    (tmp_path / "original").mkdir()
    try:
        pid = original.start(timeout_s=120).pid
        shutil.copytree(tmp_path / "original", tmp_path / "copy")
        copy = EmbeddedBroker(tmp_path / "copy")
        assert not copy.status().running
        assert not copy.stop()
        (tmp_path / "original").rename(tmp_path / "moved")
        moved = EmbeddedBroker(tmp_path / "moved")
        assert moved.status().pid == pid, "a home that is moved takes its broker along"
        assert moved.stop()
    finally:
        for name in ("original", "moved"):
            EmbeddedBroker(tmp_path / name).stop()
