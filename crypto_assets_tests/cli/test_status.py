"""Status of a home with real tables, a real Dagster instance and a real broker, and every exit code it has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from crypto_assets.cli import status
from crypto_assets.cli.instance import open_instance
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.tables import TABLES
from crypto_assets.home import HomeError, open_home
from crypto_assets.settings import Settings
from crypto_assets.status import report as report_of
from crypto_assets.status.table_facts import Covered, StoredFacts
from crypto_assets.storage.delta_rs import DeltaRsStore
from crypto_assets_tests.storage import catalog_managed
from crypto_assets_tests.storage.rows import alert, table

NOW = datetime.now(UTC).replace(microsecond=0)
LATEST = dg.AssetKey(["gold", "latest_prices"])


def no_spark() -> Any:
    raise AssertionError("status needs no Spark session")


def quote(covered: dict[int, int], age_s: float = 5) -> dict[str, Any]:
    values = dict.fromkeys(TABLES["gold.latest_prices"].column_names)
    return values | {
        "coin_id": "bitcoin",
        "symbol": "BTC",
        "price_usd": Decimal("7000.5"),
        "last_updated_at": NOW - timedelta(seconds=age_s),
        "available_at": NOW,
        "source": "simulator",
        "covered_until": NOW,
        "covered_offsets": json.dumps(covered),
        "age_s": age_s,
        "refreshed_at": NOW,
    }


class Bench:
    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.settings, self.instance = settings, instance
        self.store = DeltaRsStore(settings.lake, no_spark)

    def write(self, row: dict[str, Any]) -> None:
        import pyarrow as pa

        rows = pa.Table.from_pylist([row], schema=arrow_schema(TABLES["gold.latest_prices"]))
        self.store.merge("gold.latest_prices", rows, mode="replace_all")

    def collect(self, now: datetime = NOW) -> report_of.StatusReport:
        return report_of.collect(self.settings, self.instance, self.store, lambda: now)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(source="simulator", home_path=tmp_path / "home")  # type: ignore[call-arg]


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    with open_instance(open_home(settings)) as instance:
        yield Bench(settings, instance)


@pytest.fixture
def with_log(bench: Bench, kafka_broker, topic_factory) -> Bench:
    topic = topic_factory(partitions=2)
    bench.settings = bench.settings.model_copy(
        update={"kafka_bootstrap_servers": kafka_broker.bootstrap_servers, "kafka_topic": topic}
    )
    return bench


def publish(bench: Bench, kafka_broker, partition: int, at: datetime) -> None:
    from confluent_kafka import Producer

    producer = Producer(kafka_broker.config)
    producer.produce(bench.settings.prices_topic, b"{}", partition=partition, timestamp=int(at.timestamp() * 1000))
    assert producer.flush(20) == 0


def by_name(report: report_of.StatusReport) -> dict[str, report_of.AssetStatus]:
    return {a.asset: a for a in report.assets}


def ticks(bench: Bench, at: datetime | None = NOW) -> Any:
    """A producer sensor that is switched on and has ticked: a daemon serves the home."""
    from crypto_assets_tests.alerts.test_alert_sensor import Bench as Ticks

    made = object.__new__(Ticks)
    made.instance = bench.instance
    made.producer()
    if at is not None:
        made.producer_tick(at)
    return made


@pytest.fixture
def served(with_log: Bench, kafka_broker) -> Bench:
    """A home whose promise is kept."""
    publish(with_log, kafka_broker, 0, NOW)
    with_log.write(quote({0: 1}))
    ticks(with_log)
    return with_log


def test_an_empty_home_that_nothing_serves_is_shown_with_that_problem(bench):
    report = bench.collect()
    assert {a.asset for a in report.assets} == {"/".join(t.asset_key) for t in TABLES.values()}
    assert all(a.rows is None and a.last_run is None for a in report.assets)
    assert report.lag_s is None
    assert report.lag_unknown_because is not None
    assert "crypto-assets broker start" in report.lag_unknown_because
    assert report.verdict.word == "promise broken"
    assert report.verdict.problems == ("nothing serves this home: start it with crypto-assets up",)
    assert len(report.verdict.unknown) == 2  # no broker, no quote
    assert report.promise.startswith("cadence 60 s")


@pytest.mark.kafka
def test_lag_is_the_age_of_the_oldest_record_not_in_latest_prices(with_log, kafka_broker):
    for partition, age in ((0, 500), (0, 40), (1, 20)):
        publish(with_log, kafka_broker, partition, NOW - timedelta(seconds=age))
    with_log.write(quote({0: 2, 1: 1}))
    ticks(with_log)
    report = with_log.collect()
    assert (report.lag_s, report.lag_records, report.event_age_s, report.exit_code) == (0.0, 0, 5.0, 0)

    with_log.write(quote({0: 1, 1: 0}))
    report = with_log.collect()
    assert (report.lag_s, report.lag_records, report.exit_code) == (40.0, 2, 0)
    latest = by_name(report)["gold/latest_prices"]
    assert (latest.rows, latest.newest_event, latest.event_age_s) == (1, NOW - timedelta(seconds=5), 5.0)

    with_log.write(quote({0: 0, 1: 0}))
    report = with_log.collect()
    assert report.lag_s == 500
    assert report.exit_code == 1
    assert report.verdict.problems == ("lag 500 s is more than the promised 180 s; see failed runs in the UI",)


def test_runs_and_checks_of_an_asset(bench):
    specs = [dg.AssetCheckSpec(n, asset=LATEST) for n in ("quotes_moved", "contract", "has_rows")]

    @dg.asset(key=LATEST, check_specs=specs)
    def latest():
        yield dg.MaterializeResult(
            check_results=[
                dg.AssetCheckResult(check_name="quotes_moved", passed=True),
                dg.AssetCheckResult(check_name="contract", passed=False),
                dg.AssetCheckResult(check_name="has_rows", passed=False, severity=dg.AssetCheckSeverity.WARN),
            ]
        )

    run = dg.materialize([latest], instance=bench.instance)
    for partition, passed in (("2024-05-01-12:00", False), ("2024-05-01-13:00", True)):
        bench.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey(["silver", "prices"]), check_name="contract", passed=passed, partition=partition
            )
        )
    bench.instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey(["ops", "alerts"])))
    found = by_name(bench.collect(datetime.now(UTC)))
    one = found["gold/latest_prices"]
    assert one.last_run is not None
    assert (one.last_run.run_id, one.last_run.state) == (run.run_id, "SUCCESS")
    assert (one.checks_green, one.checks_red) == (1, ("contract", "has_rows (warn)"))
    assert (found["silver/prices"].checks_green, found["silver/prices"].checks_red) == (1, ())
    by_sensor = found["ops/alerts"].last_run
    assert by_sensor is not None
    assert by_sensor.state == "sensor"


def test_a_range_run_is_red_when_any_of_its_partitions_is(bench):
    keys = ["a", "b", "c"]
    asset_key = dg.AssetKey(["gold", "bars_1m"])

    def bars(context):
        for key in keys:
            context.log_event(
                dg.AssetCheckEvaluation(
                    asset_key=asset_key, check_name="ohlc", passed=key != "a", partition=key, description=f"of {key}"
                )
            )
        yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=False)])

    made = dg.asset(key=asset_key, check_specs=[dg.AssetCheckSpec("ohlc", asset=asset_key)])(bars)
    dg.materialize([made], instance=bench.instance)
    assert by_name(bench.collect())["gold/bars_1m"].checks_red == ("ohlc",)
    from crypto_assets.orchestration.event_store import check_states

    (state,) = check_states(bench.instance)
    assert (state.red, state.description) == (("a",), "of a")


@pytest.mark.kafka
def test_missing_producer_ticks_are_a_problem_only_while_the_sensor_runs(served):
    assert served.collect(NOW + timedelta(seconds=30)).exit_code == 0
    with open_home(served.settings).lock("serve", doing="up"):
        late = served.collect(NOW + timedelta(seconds=61))
        assert late.exit_code == 1
        assert "newest good tick is 61 s old" in late.verdict.problems[0]
        ticks(served, None).producer(running=False)
        stopped = served.collect(NOW + timedelta(seconds=61))
    assert stopped.verdict.problems == (
        "the producer sensor is stopped: nothing polls; start it in the UI, Automation",
    )


def test_what_cannot_be_told_while_the_producer_runs_is_3(bench):
    ticks(bench)
    report = bench.collect()
    assert (report.exit_code, report.verdict.word, report.verdict.problems) == (3, "cannot tell", ())
    assert report.verdict.unknown[0].startswith("the lag is unknown: no Kafka")
    assert report.verdict.unknown[1] == "there is no quote in gold/latest_prices yet"


@pytest.mark.kafka
def test_old_quotes_break_the_promise_though_nothing_lags(served):
    served.write(quote({0: 1}, age_s=450))
    report = served.collect()
    assert (report.lag_s, report.exit_code) == (0.0, 1)
    assert report.verdict.problems[0].startswith("the newest quote is 450 s old, more than the promised 180 s")


@pytest.mark.kafka
def test_data_of_the_future_is_a_problem_of_the_clock_and_no_negative_age(served):
    served.write(quote({0: 1}, age_s=-1))
    assert served.collect().exit_code == 0  # two clocks within tolerance
    served.write(quote({0: 1}, age_s=-5))
    report = served.collect()
    assert (report.event_age_s, report.exit_code) == (0.0, 1)
    assert "clock is behind the newest data (gold/latest_prices by 5 s)" in report.verdict.problems[0]
    assert by_name(report)["gold/latest_prices"].event_ahead_s == 5.0
    back = served.collect(NOW - timedelta(days=1))
    assert "the producer's newest tick by 86,400 s" in back.verdict.problems[0]
    assert "-" not in json.dumps([a["event_age_s"] for a in json.loads(back.to_json())["assets"]])


@pytest.mark.kafka
def test_ages_are_those_at_the_time_when_a_fact_was_read(served, kafka_broker, monkeypatch):
    """A report that takes long: a quote, a record and a tick are newer than its beginning."""
    clock, asked = [NOW], StoredFacts.covered

    def slow(facts: StoredFacts) -> Covered:
        clock.append(NOW + timedelta(seconds=150))
        return asked(facts)

    monkeypatch.setattr(StoredFacts, "covered", slow)
    served.write(quote({0: 1}, age_s=-140))
    publish(served, kafka_broker, 1, NOW + timedelta(seconds=110))
    ticks(served, NOW + timedelta(seconds=145))
    report = report_of.collect(served.settings, served.instance, served.store, lambda: clock[-1])
    assert report.verdict.problems == ()
    assert (report.event_age_s, report.lag_s, report.producer.newest_tick_age_s) == (10.0, 40.0, 5.0)
    assert by_name(report)["gold/latest_prices"].event_ahead_s is None
    assert report.at == NOW + timedelta(seconds=150)


@pytest.mark.kafka
def test_a_slow_log_makes_no_lag_and_no_old_quote(served, kafka_broker, monkeypatch):
    publish(served, kafka_broker, 1, NOW - timedelta(seconds=20))
    clock, asked = [NOW], report_of.reading.lag_start

    def slow(*args: Any) -> Any:
        clock.append(NOW + timedelta(seconds=600))
        return asked(*args)

    monkeypatch.setattr(report_of.reading, "lag_start", slow)
    report = report_of.collect(served.settings, served.instance, served.store, lambda: clock[-1])
    assert (report.event_age_s, report.lag_s, report.at) == (5.0, 20.0, NOW)


@pytest.mark.kafka
def test_a_home_that_is_served_no_more_says_since_when(served):
    report = served.collect(NOW + timedelta(minutes=10))
    assert report.exit_code == 1
    assert (
        report.verdict.problems[0]
        == f"nothing serves this home since {NOW:%Y-%m-%d %H:%M:%S}Z: start it with crypto-assets up"
    )
    assert any("the newest quote is 605 s old" in p for p in report.verdict.problems)


def test_the_lock_of_a_killed_or_copied_home_serves_nothing(bench, tmp_path):
    import shutil

    home = open_home(bench.settings)
    with home.lock("serve", doing="up"):
        assert bench.collect().service.startswith("served by process")
        shutil.copytree(bench.settings.home, tmp_path / "copy")
    copy = Bench(bench.settings.model_copy(update={"home_path": tmp_path / "copy"}), bench.instance)
    assert "process" in (tmp_path / "copy" / "state" / "serve.lock").read_text()
    assert copy.collect().service == "nothing serves this home"


@pytest.mark.parametrize(("doing", "word"), [("up", "promise broken"), ("ui", "no promise"), ("demo", "no promise")])
def test_only_up_promises(bench, doing, word):
    bench.write(quote({}, age_s=90_000))
    with open_home(bench.settings).lock("serve", doing=doing):
        report = bench.collect()
    assert report.verdict.word == word
    assert f"({doing})" in report.service


def test_a_demo_promises_nothing_until_a_daemon_has_served_it(bench):
    bench.write(quote({}, age_s=90_000))
    (bench.settings.home / "demo.json").write_text('{"day": "2026-01-01"}')
    report = bench.collect()
    assert (report.verdict.word, report.exit_code) == ("no promise", 0)
    ticks(bench, NOW - timedelta(hours=1))
    assert bench.collect().exit_code == 1


def _table_log(home: Path) -> Path:
    return home / "lake" / "gold" / "latest_prices" / "_delta_log" / f"{1:020d}.json"


def _event_log(home: Path) -> Path:
    return home / "dagster" / "history" / "runs" / "index.db"


@pytest.mark.parametrize(
    ("part", "named"), [(_table_log, "gold/latest_prices cannot be read"), (_event_log, "the event log cannot be read")]
)
def test_a_part_that_cannot_be_read_is_3_and_the_others_are_shown(settings, bench, capsys, part, named):
    bench.write(quote({}))
    bench.instance.report_runless_asset_event(dg.AssetMaterialization(LATEST))
    (settings.home / "demo.json").write_text('{"day": "2026-01-01"}')
    assert status.run(settings, clock=lambda: NOW, as_json=True) == 0
    capsys.readouterr()
    bench.instance.dispose()
    for stale in part(settings.home).parent.glob("index.db-*"):
        stale.unlink()
    part(settings.home).write_text("this is no such file\n")
    assert status.run(settings, clock=lambda: NOW, as_json=True) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "cannot tell"
    assert any(named in reason for reason in told["reasons"])
    assert len(told["assets"]) >= len(TABLES)


def test_a_failed_newest_run_of_a_scheduled_asset_is_named(bench):
    @dg.asset(key=LATEST)
    def latest():
        raise dg.Failure("the log cannot be asked")

    @dg.asset(key=dg.AssetKey(["bronze", "market_history"]))  # no schedule moves it
    def history():
        raise dg.Failure("nothing to fetch")

    (bench.settings.home / "demo.json").write_text('{"day": "2026-01-01"}')
    dg.materialize([history], instance=bench.instance, raise_on_error=False)
    assert bench.collect().exit_code == 0
    dg.materialize([latest], instance=bench.instance, raise_on_error=False)
    report = bench.collect()
    assert report.exit_code == 1
    assert "step gold__latest_prices: the log cannot be asked" in report.verdict.problems[0]
    last = by_name(report)["gold/latest_prices"].last_run
    assert last is not None
    assert last.state == "FAILURE"


@pytest.mark.kafka
def test_a_log_that_went_backwards_is_wrong_whatever_is_promised(served):
    served.write(quote({0: 7}))
    report = served.collect()
    assert report.exit_code == 1
    assert any("went backwards" in p for p in report.verdict.problems)


def test_a_table_whose_commits_a_catalog_keeps_is_said_and_the_others_are_measured(bench):
    bench.write(quote({}))
    bench.store.merge("ops.alerts", table("ops.alerts", [alert("a")]), mode="upsert")
    catalog_managed.by_commit(Path(bench.store.path("ops.alerts")))
    report = bench.collect()
    assert by_name(report)["gold/latest_prices"].rows == 1
    assert by_name(report)["ops/alerts"].rows is None
    (said,) = [r for r in report.verdict.unknown if "ops/alerts" in r]
    assert said.startswith("ops/alerts cannot be read: ops.alerts: its newest commits are kept by a catalog")
    assert said.endswith("ALTER TABLE ops.alerts DROP FEATURE catalogManaged")


def test_an_asset_is_one_line_and_what_is_red_stands_below(bench, capsys):
    names, found = [f"check_with_a_rather_long_name_{n} (warn)" for n in range(9)], "it found this and that " * 100
    run = report_of.LastRun("c" * 32, "FAILURE", 90_000.0)
    report = bench.collect()
    assets = [
        replace(a, rows=12_345_678, newest_event=NOW, event_age_s=90_000.0, last_run=run, checks_red=tuple(names),
                findings=(found,) * 9)
        for a in report.assets
    ]  # fmt: skip
    status.render(replace(report, assets=tuple(assets)))
    lines = capsys.readouterr().out.splitlines()
    first, below = (
        next(i for i, line in enumerate(lines) if line.startswith(text)) for text in ("asset ", "Checks that")
    )
    shown = lines[first + 1 : below - 1]
    assert [line.split()[0] for line in shown] == [a.asset for a in assets]
    for text in ("12,345,678", "failure cccccccc 25.0 h ago", "0 green, 9 not"):
        assert all(text in line for line in shown), text
    assert sum("check_with_a_rather_long_name" in line for line in lines[below:]) == 9 * len(assets)
    assert len(lines[below:]) < 6 * 9 * len(assets), "what it found is shortened"


def test_the_command_prints_json_or_text_and_needs_a_home(settings, bench, capsys):
    code = status.run(settings, clock=lambda: NOW, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert code == told["exit_code"] == 1
    assert told["verdict"] == "promise broken"
    assert told["reasons"] == told["problems"] + told["unknown"]
    assert told["source"] == "simulator"
    assert told["producer"] == {"running": False, "newest_tick_age_s": None, "trouble": None, "known": False}
    bench.write(quote({}))
    assert status.run(settings, clock=lambda: NOW, as_json=False) == 1
    text = capsys.readouterr().out
    assert "gold/latest_prices" in text
    assert "newest quote is 5.0 s old" in text
    assert "PROBLEM   nothing serves this home" in text
    assert "UNKNOWN   the lag is unknown" in text
    assert "verdict   promise broken (exit code 1)" in text
    nowhere = settings.model_copy(update={"home_path": settings.home / "nowhere"})
    with pytest.raises(HomeError, match="crypto-assets demo"):
        status.run(nowhere, clock=lambda: NOW, as_json=False)
    assert not nowhere.home.exists()
