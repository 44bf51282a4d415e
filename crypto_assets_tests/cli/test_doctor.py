"""Doctor: what it finds, that every finding has a fix, and that it changes and shows nothing it should not."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from crypto_assets.cli import doctor
from crypto_assets.cli.doctor import environment, log, machine, source, tables
from crypto_assets.cli.doctor.finding import Finding
from crypto_assets.cli.instance import prepare
from crypto_assets.home import open_home
from crypto_assets.market.credits import CreditState
from crypto_assets.producer.loop import STATE_FILE
from crypto_assets.producer.ticks import ProducerState
from crypto_assets.settings import Settings
from crypto_assets.storage.delta_rs import DeltaRsStore

NOW = datetime(2026, 5, 10, 12, tzinfo=UTC)


def make(tmp_path: Path, **values: Any) -> Settings:
    return Settings(**{"source": "simulator", "home_path": tmp_path / "home", **values})


def found(findings: Any, area: str) -> list[tuple[str, str, str]]:
    return [(f.level, f.found, f.fix) for f in findings if f.area == area]


@pytest.mark.parametrize("verbose", [False, True])
def test_what_is_good_is_counted_and_listed_when_asked(verbose, tmp_path, monkeypatch, capsys):
    seen = [Finding("disk", "ok", "9 GB free"), Finding("clock", "warn", "3 s behind", "set the clock")]
    monkeypatch.setattr(doctor, "examine", lambda *_: seen)
    assert doctor.run(lambda: make(tmp_path), now=NOW, as_json=False, verbose=verbose) == 0
    told = capsys.readouterr().out
    assert "3 s behind" in told
    assert ("9 GB free" in told) is verbose
    assert "0 errors, 1 warnings, 0 notes, 1 good" in told


def test_the_other_name_of_a_setting_is_shown_with_the_preferred_one():
    (finding, _) = environment.names({"COINGECKO_API_BASE": "https://api.coingecko.com/api/v3"})
    assert (finding.level, finding.found) == ("note", "COINGECKO_API_BASE is read as COINGECKO_BASE_URL")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CONFLEUNT_API_SECRET", "CONFLUENT_API_SECRET"),
        ("COINGEKO_API_KEY", "COINGECKO_API_KEY"),
        ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
        ("CRYPTO_ASSET_HOME", "CRYPTO_ASSETS_HOME"),
        ("ALERT_WEBHOOK", "ALERT_WEBHOOK_URL"),
    ],
)
def test_near_misses_of_names_are_found_and_no_value_is_shown(name, meant):
    (finding,) = environment.names({name: "hunter2", "PATH": "/bin", "HOME": "/root", "LANG": "C"})
    assert (finding.level, finding.fix) == ("warn", f"did you mean {meant}?")
    assert name in finding.found
    assert "hunter2" not in str(finding)


def test_right_and_unrelated_names_are_left_alone():
    known = dict.fromkeys(
        [
            *environment.known_names().values(),
            *environment.ALSO_KNOWN,
            "PATH",
            "KAFKA_LOG_DIRS",
            "MLFLOW_ENABLE_SYSTEM_METRICS",
            "JAVA_HOME",
        ]
    )
    (finding,) = environment.names(known)  # type: ignore[arg-type]
    assert finding.level == "ok"


def test_an_unknown_name_with_our_prefix_is_found():
    (finding,) = environment.names({"CRYPTO_ASSETS_FLAVOUR": "x"})
    assert finding.level == "warn"
    assert "CRYPTO_ASSETS_SOURCE" in finding.fix


def test_dotenv_names(tmp_path):
    file = tmp_path / ".env"
    file.write_text("# COMMENT=1\nexport COINGEKO_API_KEY=abc\n\nKAFKA_TOPIC = t\nnonsense\n")
    assert environment.dotenv_names(file) == ["COINGEKO_API_KEY", "KAFKA_TOPIC"]
    assert environment.dotenv_names(tmp_path / "absent") == []


def test_it_makes_no_home(tmp_path):
    settings = make(tmp_path)
    findings = doctor.examine(settings, {}, NOW)
    assert not settings.home.exists()
    assert [f for f in findings if f.level == "error"] == []
    assert found(findings, "home")[0][0] == "note"
    assert found(findings, "disk")[0][1].endswith(f"GB free at {tmp_path}")
    assert "crypto-assets broker start" in found(findings, "kafka")[0][2]


def test_a_home_bound_to_another_source_is_an_error(tmp_path):
    open_home(make(tmp_path))
    (finding,) = machine.home(make(tmp_path, source="replay"))
    assert finding.level == "error"
    assert "it holds simulator data" in finding.found


def test_a_foreign_dagster_home_and_a_changed_instance_are_found(tmp_path):
    settings = make(tmp_path)
    folder = prepare(open_home(settings))
    (finding,) = machine.dagster_home(settings, {"DAGSTER_HOME": str(folder)})
    assert finding.level == "ok"
    (finding,) = machine.dagster_home(settings, {"DAGSTER_HOME": "/elsewhere"})
    assert (finding.level, finding.fix) == ("warn", f"export DAGSTER_HOME={folder}, or unset it")
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    _, threads = machine.dagster_home(settings, {"DAGSTER_HOME": str(folder)})
    assert threads.level == "warn"
    assert "use_threads" in threads.found


def test_table_properties_that_break_exactly_once_are_errors(tmp_path):
    from deltalake import DeltaTable

    settings = make(tmp_path)
    store = DeltaRsStore(settings.lake, lambda: None)  # type: ignore[arg-type,return-value]
    store.create("silver.prices")
    store.create("ops.alerts")
    (finding,) = tables.lake(settings)
    assert (finding.level, finding.found) == ("ok", f"2 tables at {settings.lake}")
    DeltaTable(settings.table_uri("silver.prices")).alter.set_table_properties(
        {"delta.setTransactionRetentionDuration": "interval 1 days"}
    )
    _rewrite_isolation(Path(settings.table_uri("ops.alerts")))
    findings = list(tables.lake(settings))
    assert [f.level for f in findings] == ["error", "error"]
    assert "silver.prices: delta.setTransactionRetentionDuration is set" in findings[0].found
    assert "UNSET TBLPROPERTIES" in findings[0].fix
    assert "ops.alerts: delta.isolationLevel is SnapshotIsolation" in findings[1].found


def _rewrite_isolation(table: Path) -> None:
    first = table / "_delta_log" / f"{0:020}.json"
    first.write_text(first.read_text().replace('"Serializable"', '"SnapshotIsolation"'))


@pytest.mark.kafka
def test_broker_topics_and_a_clock_in_the_future(tmp_path, kafka_broker, topic_factory):
    from confluent_kafka import Producer

    good = {"message.timestamp.type": "CreateTime", "retention.ms": "-1", "message.timestamp.after.max.ms": "60000"}
    prices, polls = (
        topic_factory(config={**good, "message.timestamp.after.max.ms": "7200000"}),
        topic_factory(config=good),
    )
    settings = make(tmp_path, kafka_bootstrap_servers=kafka_broker.bootstrap_servers, kafka_topic="not-there-yet")
    levels = [(f.area, f.level) for f in log.kafka(settings, NOW)]
    assert levels == [("kafka", "ok"), ("topics", "note")]

    now = datetime.now(UTC)
    producer = Producer(kafka_broker.config)
    producer.produce(prices, b"{}", timestamp=int((now + timedelta(seconds=600)).timestamp() * 1000))
    assert producer.flush(20) == 0
    settings = settings.model_copy(update={"kafka_topic": prices, "kafka_polls_topic": polls})
    findings = list(log.kafka(settings, now))
    assert [(f.area, f.level) for f in findings] == [
        ("kafka", "ok"),
        ("topics", "error"),
        ("topics", "ok"),
        ("clock", "error"),
    ]
    assert "message.timestamp.after.max.ms" in findings[1].found
    assert "in the future" in findings[3].found


def test_an_external_broker_that_does_not_answer_is_an_error(tmp_path):
    settings = make(tmp_path, kafka_bootstrap_servers="127.0.0.1:1")
    (finding,) = log.kafka(settings, NOW)
    assert finding.level == "error"
    assert "127.0.0.1:1" in finding.found


def test_target_spark_is_looked_at_where_its_sessions_will_be(tmp_path, monkeypatch):
    assert not list(machine.spark(make(tmp_path)))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        at = f"127.0.0.1:{listening.getsockname()[1]}"
        settings = make(tmp_path, target="spark", spark_remote=f"sc://{at}/;token=sesame")
        (there,) = machine.spark(settings)
    (gone,) = machine.spark(settings)
    assert (there.level, there.found) == ("ok", f"Spark Connect at {at}")
    assert gone.level == "error"
    assert at in gone.found
    assert "CRYPTO_ASSETS_SPARK_REMOTE" in gone.fix
    assert "sesame" not in f"{there} {gone}"

    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    (no_java,) = machine.spark(make(tmp_path, target="spark"))
    assert no_java.level == "error"
    assert str(tmp_path / "bin" / "java") in no_java.found
    assert "JAVA_HOME" in no_java.fix


def test_quota_and_credentials_of_a_live_home(tmp_path):
    live = make(tmp_path, source="coingecko", coingecko_api_key="S3CRET", coingecko_plan="demo")
    assert [f.level for f in source.quota(live, NOW)] == ["note"]
    state = live.home / "state" / STATE_FILE
    state.parent.mkdir(parents=True)
    spent_all = CreditState(month="2026-05", used_this_month=10_000, blocked_until=NOW.timestamp() + 60)
    state.write_text(ProducerState(credits=spent_all).to_json())
    spent, blocked = source.quota(live, NOW)
    assert (spent.level, spent.found.split(",")[0]) == ("error", "plan demo: 0 credits left")
    assert "12:01:00Z" in blocked.found
    keyless = make(tmp_path, source="coingecko", coingecko_plan="paid")
    first = next(iter(environment.credentials(keyless)))
    assert (first.level, "COINGECKO_API_KEY" in first.fix) == ("error", True)
    assert "S3CRET" not in str([*environment.credentials(live), spent])


class _Dated(http.server.BaseHTTPRequestHandler):
    behind = timedelta(0)

    def do_HEAD(self) -> None:
        self.send_response_only(404)
        self.send_header("Date", format_datetime(datetime.now(UTC) - self.behind, usegmt=True))
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def server():
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Dated)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_address[1]}"
    made.shutdown()
    made.server_close()
    thread.join()


def test_clock_skew_against_the_source(tmp_path, server, monkeypatch):
    settings = make(tmp_path, source="coingecko", coingecko_base_url=f"{server}/api/v3")
    (finding,) = source.source_clock(settings)
    assert finding.level == "ok"
    monkeypatch.setattr(_Dated, "behind", timedelta(minutes=5))
    (finding,) = source.source_clock(settings)
    assert finding.level == "error"
    assert "s ahead of the source" in finding.found
    silent = make(tmp_path, source="coingecko", coingecko_base_url="http://127.0.0.1:1/api/v3")
    (finding,) = source.source_clock(silent)
    assert (finding.area, finding.level) == ("source", "error")


def test_tracking_addresses(tmp_path, server):
    assert [f.level for f in tables.tracking(make(tmp_path))] == ["ok"]
    settings = make(tmp_path, mlflow_tracking_uri=server, mlflow_registry_uri="databricks-uc")
    tracking, registry = tables.tracking(settings)
    assert (tracking.level, tracking.found) == ("error", "tracking: /health answers 503")
    assert (registry.level, "DATABRICKS_HOST" in registry.found) == ("error", True)


def test_a_look_that_breaks_is_a_finding_without_secrets(tmp_path):
    settings = make(tmp_path, source="coingecko", coingecko_api_key="S3CRET")
    state = settings.home / "state" / STATE_FILE
    state.parent.mkdir(parents=True)
    state.write_text("{S3CRET")
    findings = doctor.examine(settings, {}, NOW)
    assert found(findings, "quota")[0][0] == "error"
    assert "S3CRET" not in str(findings)


def test_the_command_prints_json_or_a_table(tmp_path, capsys):
    settings = make(tmp_path)
    assert doctor.run(lambda: settings, now=NOW, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["exit_code"] == 0
    assert {"area", "level", "found", "fix"} == set(told["findings"][0])
    open_home(settings)
    assert doctor.run(lambda: make(tmp_path, source="replay"), now=NOW, as_json=False) == 1
    assert "1 errors" in capsys.readouterr().out


def test_a_dotenv_is_read_as_the_settings_read_it(tmp_path):
    file = tmp_path / ".env"
    file.write_bytes(b"\xef\xbb\xbfCRYPTO_ASSETS_SOURCE=simulator\n")
    assert environment.dotenv_names(file) == ["CRYPTO_ASSETS_SOURCE"]
    assert not list(environment.dotenv(file))
    file.write_bytes("CRYPTO_ASSETS_SOURCE=simulator\n".encode("utf-16"))
    (damaged,) = environment.dotenv(file)
    assert (damaged.level, damaged.found) == ("error", f"{file} is UTF-16: save it as UTF-8")
    file.write_text("CRYPTO_ASSETS_SOURCE=simulator\nKAFKA_TOPIC='prices\n")
    (lost,) = environment.dotenv(file)
    assert (lost.level, lost.found) == ("warn", f"{file}: line 2 sets nothing")


@pytest.mark.parametrize(("mode", "who"), [(0o644, "everybody"), (0o640, "the file's group"), (0o600, None)])
def test_a_dotenv_with_secrets_that_others_may_read(tmp_path, mode, who):
    file = tmp_path / ".env"
    file.write_text("COINGECKO_API_KEY=hunter2\nKAFKA_TOPIC=t\n")
    file.chmod(mode)
    findings = list(environment.dotenv(file))
    assert [f.fix for f in findings] == ([f"chmod 600 {file}"] if who else [])
    for finding in findings:
        assert who in finding.found
        assert "COINGECKO_API_KEY" in finding.found
        assert "hunter2" not in str(finding)
    file.write_text("KAFKA_TOPIC=t\n")
    assert not list(environment.dotenv(file))


def test_a_proxy_is_named_without_its_password(tmp_path):
    assert not list(environment.proxies({"PATH": "/bin", "https_proxy": ""}))
    (finding,) = environment.proxies({"https_proxy": "http://me:hunter2@proxy:3128", "NO_PROXY": "lan"})
    assert finding.level == "note"
    for named in ("https_proxy", "NO_PROXY", "127.0.0.1"):
        assert named in finding.found
    assert "hunter2" not in str(finding)


def test_a_damaged_table_is_an_error_with_its_files_and_its_repair(tmp_path):
    settings = make(tmp_path)
    store = DeltaRsStore(settings.lake, lambda: None)  # type: ignore[arg-type,return-value]
    store.create("silver.prices")
    store.create("ops.alerts")
    log = Path(settings.table_uri("silver.prices")) / "_delta_log"
    (log / "_last_checkpoint").write_bytes(b"null")
    (log / f"{0:020d}.json").write_bytes(b"")
    (finding,) = tables.lake(settings)
    assert (finding.level, finding.fix) == ("error", "crypto-assets maintain --repair")
    for named in ("silver.prices", "_last_checkpoint names no version", f"{0:020d}.json is empty"):
        assert named in finding.found


def test_a_clock_behind_the_newest_commit_is_an_error(tmp_path):
    settings = make(tmp_path)
    store = DeltaRsStore(settings.lake, lambda: None)  # type: ignore[arg-type,return-value]
    store.create("silver.prices")
    assert not list(tables.clock(settings, datetime.now(UTC)))
    (finding,) = tables.clock(settings, datetime.now(UTC) - timedelta(days=30))
    assert finding.level == "error"
    assert "silver.prices was written" in finding.found
    assert "NTP" in finding.fix


@pytest.mark.parametrize("bytes_free", [400_000_000, 1_000_000_000])
def test_a_disk_that_is_nearly_full(tmp_path, monkeypatch, bytes_free):
    usage = shutil.disk_usage(tmp_path)._replace(free=bytes_free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    (finding,) = machine.disk(make(tmp_path))
    assert finding.level == ("error" if bytes_free < 500_000_000 else "warn")
    assert str(tmp_path) in finding.found


def test_files_that_this_user_may_not_write_are_named(tmp_path, monkeypatch):
    home = open_home(make(tmp_path)).path
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != home / "home.json")
    finding = next(f for f in machine.home(make(tmp_path)) if f.level == "error")
    assert finding.found == f"this user may not write {home}/home.json"
    assert f"chown -R $(id -un) {home}" in finding.fix


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("state/producer.json", "{"),
        ("state/producer.json", "[]"),
        ("state/producer.json", "\0" * 40),
        ("state/replay.json", ""),
        ("state/replay.json", '{"anchor": 7}'),
        ("kafka/port.json", "null"),
        ("coins.toml", "[[coin]\n"),
        ("lake", ""),
    ],
)
def test_damaged_small_files_of_a_home_are_findings(tmp_path, file, text):
    home = open_home(make(tmp_path)).path
    (home / file).parent.mkdir(exist_ok=True)
    (home / file).write_text(text)
    errors = [f for f in doctor.examine(make(tmp_path), {}, NOW) if f.level == "error"]
    assert any(str(home / file) in f.found for f in errors), errors
    assert all(f.fix for f in errors)


def test_no_finding_ends_in_a_colon(tmp_path, monkeypatch):
    def silent(_settings: object) -> None:
        raise AssertionError

    monkeypatch.setattr(machine, "java", silent)
    finding = next(f for f in doctor.examine(make(tmp_path), {}, NOW) if f.area == "java")
    assert finding.found == "could not be looked at: AssertionError"
