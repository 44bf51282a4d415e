"""The stream from its settings to its end: what wakes it, handing over while it runs, the command."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from crypto_assets.cli.instance import open_instance
from crypto_assets.cli.stream import Lines
from crypto_assets.contracts.slices import hour_key
from crypto_assets.engine.base import Engine, StepFailed
from crypto_assets.engine.engines import make_engine
from crypto_assets.home import open_home
from crypto_assets.log.kafka import reading
from crypto_assets.settings import Settings
from crypto_assets.streaming.loop import Progress
from crypto_assets.streaming.run import checkpoint_folder, stream
from crypto_assets_tests.e2e.commands import clean_environment, command
from crypto_assets_tests.streaming import tools
from crypto_assets_tests.streaming.tools import MINUTE, SECOND, batch, keys_of, publish, rows, today_at, walk

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(600)]
local = pytest.mark.engine("local")


@pytest.fixture
def instance(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with open_instance(open_home(settings)) as found:
        yield found
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


@pytest.fixture
def home(settings: Settings, engine_name: str, spark, spark_remote: str | None) -> Settings:
    """The settings with the target of this process's engine."""
    target = "local" if engine_name == "local" else "spark"
    return settings.model_copy(update={"target": target, "spark_remote": spark_remote})


def environment(settings: Settings) -> dict[str, str]:
    return {
        **clean_environment(),
        "KAFKA_BOOTSTRAP_SERVERS": str(settings.kafka_bootstrap_servers),
        "KAFKA_TOPIC": settings.prices_topic,
        "KAFKA_POLLS_TOPIC": settings.polls_topic,
        "CRYPTO_ASSETS_SOURCE": "replay",
        "CRYPTO_ASSETS_PARTITIONS_START": settings.partitions_start.isoformat(),
    }


def test_available_now_ends_with_everything_in_gold_and_reported(home: Settings, instance, other: Engine):
    ten = today_at(10)
    publish(home, walk(ten + 55 * MINUTE, ten + 63 * MINUTE, 20 * SECOND))
    summary = stream(home, instance, threading.Event(), available_now=True)
    assert summary.records == 72
    engine = make_engine(home)
    batch(home, other, keys_of(engine))
    tools.assert_equal(engine, other)
    eleven = hour_key(ten + 60 * MINUTE)
    for name in ("bronze/raw_prices", "silver/prices", "gold/bars_1m", "gold/bars_5m", "gold/bars_1h"):
        assert instance.get_materialized_partitions(dg.AssetKey(name.split("/"))) == {hour_key(ten), eleven}, name
    assert instance.get_latest_materialization_event(dg.AssetKey(["gold", "latest_prices"])) is not None
    again = stream(home, instance, threading.Event(), available_now=True)
    assert again.records == 0


def test_available_now_ends_although_records_go_on_arriving(home: Settings):
    ten = today_at(10)
    more = iter(walk(ten + 4 * MINUTE, ten + 12 * MINUTE, 20 * SECOND))
    publish(home, walk(ten, ten + 4 * MINUTE, 20 * SECOND))
    # Without a bound, what arrives during each micro-batch would call for another until there are no more.
    summary = stream(
        home, None, threading.Event(), available_now=True, on_batch=lambda _progress: publish(home, [next(more)])
    )
    assert summary.records >= 36
    assert next(more, None) is not None


def test_continuously_until_told_to_stop_beside_batch_runs(home: Settings, other: Engine):
    ten = today_at(10)
    records = walk(ten, ten + 20 * MINUTE, 20 * SECOND)
    stop, errors = threading.Event(), []

    def run() -> None:
        try:
            stream(home, None, stop, interval_s=0.2)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    publish(home, records[:30])
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    engine = make_engine(home)
    for start in range(30, len(records), 50):
        publish(home, records[start : start + 50])
        batch(home, engine, [hour_key(ten)])  # at the same time as the stream
    wait = threading.Event()
    for _ in range(600):
        if errors or len(rows(engine, "silver.prices")) == len(records):
            break
        wait.wait(0.2)
    stop.set()
    thread.join(300)
    assert errors == []
    assert len(rows(engine, "bronze.raw_prices")) == len(records)
    batch(home, other, keys_of(engine))
    tools.assert_equal(engine, other)


@pytest.mark.engine("spark")
def test_a_checkpoint_that_says_too_much_is_harmless(home: Settings, other: Engine, tmp_path: Path):
    """The query's checkpoint says that everything was done; the tables of a new lake say that nothing was."""
    ten = today_at(10)
    publish(home, walk(ten, ten + 4 * MINUTE, 20 * SECOND))
    assert stream(home, None, threading.Event(), available_now=True).records == 36
    emptied = home.model_copy(update={"lake_uri": str(tmp_path / "restored-lake")})
    assert stream(emptied, None, threading.Event(), available_now=True).records == 36
    engine = make_engine(emptied)
    batch(home, other, keys_of(engine))
    tools.assert_equal(engine, other)


@pytest.mark.engine("spark")
def test_a_checkpoint_that_is_gone_or_of_yesterday_is_harmless(home: Settings, other: Engine, tmp_path: Path):
    """Nothing is stored twice and nothing left out, whatever the query's checkpoint believes."""
    ten, folder, kept = today_at(10), Path(checkpoint_folder(home)), tmp_path / "old-checkpoint"
    records = walk(ten, ten + 6 * MINUTE, 20 * SECOND)
    publish(home, records[:18])
    assert stream(home, None, threading.Event(), available_now=True).records == 18
    shutil.copytree(folder, kept)
    publish(home, records[18:36])
    assert stream(home, None, threading.Event(), available_now=True).records == 18
    shutil.rmtree(folder)
    kept.rename(folder)
    publish(home, records[36:45])
    assert stream(home, None, threading.Event(), available_now=True).records == 9
    shutil.rmtree(folder)
    publish(home, records[45:])
    assert stream(home, None, threading.Event(), available_now=True).records == len(records) - 45
    engine = make_engine(home)
    batch(home, other, keys_of(engine))
    tools.assert_equal(engine, other)


@local
def test_the_command_prints_its_summary_when_it_is_told_to_stop(settings: Settings):
    ten = today_at(10)
    publish(settings, walk(ten, ten + 4 * MINUTE, 20 * SECOND))
    arguments = ("stream", "--home", str(settings.home), "--interval", "0.2", "--json")
    with subprocess.Popen(
        command(*arguments), env=environment(settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        engine, wait = make_engine(settings), threading.Event()
        while not engine.store.exists("gold.latest_prices") and process.poll() is None:
            wait.wait(0.2)
        assert process.poll() is None, process.communicate()[1]
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    summary = json.loads(out)
    assert summary["records"] == 36
    assert summary["silver_rows"] == 36
    assert sum(summary["covered_offsets"].values()) == 36
    assert summary["reported"] > 0


@local
def test_the_command_tells_where_it_stands_and_ends_by_sigint(settings: Settings):
    ten = today_at(10)
    publish(settings, walk(ten, ten + 4 * MINUTE, 20 * SECOND))
    arguments = ("stream", "--home", str(settings.home), "--interval", "0.2")
    with subprocess.Popen(
        command(*arguments), env=environment(settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        head = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert head[0].startswith("REPLAY")
    assert f"topic {settings.prices_topic}" in head[1]
    assert re.match(r"\d+ records/s, 0 waiting; Gold reaches ", head[2]), head[2]
    assert re.match(r"36 records in \d+ micro-batches", rest.splitlines()[-1]), rest


def test_progress_is_told_every_few_seconds_and_seldom_while_idle():
    lines: list[str] = []
    clock = [100.0]
    at = today_at(10)
    tell = Lines(lines.append, clock=lambda: clock[0], now=lambda: at + 3 * SECOND)
    for second, records in ((1, 10), (5, 100), (9, 150), (11, 200), (15, 200), (65, 200), (76, 200)):
        clock[0] = 100.0 + second
        tell(Progress(records, 7, at))
    assert [line.partition(" records/s")[0] for line in lines] == ["10", "18", "8", "0"]
    assert lines[0].endswith(f"7 waiting; Gold reaches {at:%Y-%m-%d %H:%M:%S}Z, 3.0 s ago")


@local
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"KAFKA_TOPIC": "no-such-topic"}, "topic no-such-topic does not exist"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "Kafka at 127.0.0.1:1 gave no usable answer"),
    ],
)
def test_a_missing_topic_or_broker_is_told_in_one_line(settings: Settings, changed: dict[str, str], said: str):
    done = subprocess.run(
        command("stream", "--home", str(settings.home), "--available-now"),
        env={**environment(settings), **changed},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@local
def test_two_streams_of_a_home_are_refused(settings: Settings):
    home = open_home(settings)
    with home.lock("stream", doing="stream"):
        done = subprocess.run(
            command("stream", "--home", str(settings.home), "--available-now"),
            env=environment(settings),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 3
    assert "cannot stream: the home" in " ".join(done.stderr.split())


@local
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"transport": "landing"}, "CRYPTO_ASSETS_TRANSPORT is landing"),
        ({"target": "databricks"}, "job `stream`"),
        ({"target": "databricks-serverless", "role": "remote"}, "give --available-now"),
    ],
)
def test_settings_under_which_no_stream_runs_are_refused(settings: Settings, changed: dict[str, str], said: str):
    with pytest.raises(StepFailed, match=said):
        stream(settings.model_copy(update=changed), None, threading.Event())


@local
def test_partitions_added_to_the_topic_are_read_from_their_beginning(home: Settings):
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewPartitions

    from crypto_assets.log.kafka.client import client_config

    ten = today_at(10)
    publish(home, walk(ten, ten + 4 * MINUTE, 20 * SECOND))
    before = stream(home, None, threading.Event(), available_now=True).records
    partitions = len(reading.end_offsets(home, home.prices_topic))
    admin = AdminClient(client_config(home))  # named, because a client that is collected ends the calls under way
    admin.create_partitions([NewPartitions(home.prices_topic, partitions + 1)])[home.prices_topic].result(30)
    producer = Producer(client_config(home))
    stamp = int((ten + 5 * MINUTE).timestamp() * 1000)
    producer.produce(home.prices_topic, b"{}", "k", partition=partitions, timestamp=stamp)
    assert producer.flush(30) == 0
    assert stream(home, None, threading.Event(), available_now=True).records == 1
    stored = make_engine(home).store.read_arrow("bronze.raw_prices", columns=["partition"]).column(0).to_pylist()
    assert len(stored) == before + 1
    assert stored.count(partitions) == 1
