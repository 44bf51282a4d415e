"""The alert sensor on a real SQLite instance, a real Delta table and a real local webhook."""

# Annotations are not postponed: Dagster looks at those of `context` when it decorates.

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._utils.error import SerializableErrorInfo

from crypto_assets.alerts import sensor as alert_sensor
from crypto_assets.alerts.market import Enabled
from crypto_assets.alerts.sensor import REPORTED_EVERY
from crypto_assets.checks.factories import evaluation
from crypto_assets.checks.rules import folded, parts
from crypto_assets.contracts.tables import SILVER_PRICES
from crypto_assets.engine.base import CheckOutcome
from crypto_assets.orchestration import event_store
from crypto_assets.settings import Settings
from crypto_assets.storage.delta_rs import DeltaRsStore
from crypto_assets_tests.alerts.market_home import MarketHome, row

KAFKA, BRONZE, SILVER = (dg.AssetKey(k) for k in (["kafka", "crypto_prices_raw"], ["bronze", "raw"], ["silver", "toy"]))


@dg.asset(key=BRONZE, deps=[KAFKA])
def bronze() -> None:
    raise dg.Failure("the log cannot be asked: start it: crypto-assets broker start", allow_retries=False)


@dg.asset(key=SILVER, deps=[BRONZE], check_specs=[dg.AssetCheckSpec("unique_key", asset=SILVER)])
def silver():
    yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])


def no_spark() -> Any:
    raise AssertionError("alerts need no Spark session")


class Bench:
    """The sensor with everything around it, ticking on demand."""

    def __init__(self, instance: dg.DagsterInstance, lake: Path, webhook: str | None) -> None:
        self.instance = instance
        self.store = DeltaRsStore(str(lake), no_spark)
        self.sensor = alert_sensor.build()
        self.definitions = dg.Definitions(
            assets=[dg.AssetSpec(KAFKA), dg.AssetSpec(["ops", "alerts"]), bronze, silver],
            jobs=[dg.define_asset_job("refresh", selection=[bronze, silver])],
            sensors=[self.sensor],
            resources={
                "engine": dg.ResourceDefinition.hardcoded_resource(self),
                "step_inputs": dg.ResourceDefinition.hardcoded_resource(self),
            },
            executor=dg.in_process_executor,
        )
        self.settings = Settings(source="simulator", home_path=lake.parent, alert_webhook_url=webhook)  # type: ignore[arg-type]
        self.cursor: str | None = None

    def tick(self) -> Any:
        resources = {"engine": self, "step_inputs": self}
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources=resources, definitions=self.definitions
        ) as context:
            data = self.sensor.evaluate_tick(context)
        self.cursor = data.cursor
        for event in data.asset_events:
            self.instance.report_runless_asset_event(event)
        return data

    def evaluate(self, key: dg.AssetKey, check: str, *, passed: bool, partition: str | None = None) -> None:
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=key, check_name=check, passed=passed, partition=partition, description=f"{check} said so"
            )
        )

    def run(self, name: str) -> None:
        selection = [BRONZE] if name == "bronze" else [SILVER]
        job = self.definitions.resolve_job_def("refresh").get_subset(asset_selection=set(selection))
        job.execute_in_process(instance=self.instance, raise_on_error=False)

    def rows(self) -> list[dict[str, Any]]:
        return sorted(self.store.read_arrow("ops.alerts").to_pylist(), key=lambda r: (r["at"], r["state"]))

    def producer(self, *, running: bool = True) -> InstigatorState:
        origin = RemoteInstigatorOrigin(
            RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("crypto_assets"), "__repository__"), "producer"
        )
        status = InstigatorStatus.RUNNING if running else InstigatorStatus.STOPPED
        state = InstigatorState(origin, InstigatorType.SENSOR, status, SensorInstigatorData(min_interval=10))
        known = event_store.sensor_state(self.instance, "producer")
        return self.instance.update_instigator_state(state) if known else self.instance.add_instigator_state(state)

    def producer_tick(self, at: datetime, status: TickStatus = TickStatus.SKIPPED, error: str | None = None) -> None:
        state = event_store.sensor_state(self.instance, "producer")
        assert state is not None
        self.instance.create_tick(
            TickData(
                state.instigator_origin_id,
                "producer",
                InstigatorType.SENSOR,
                status,
                at.timestamp(),
                selector_id=state.selector_id,
                error=SerializableErrorInfo(error, [], None) if error else None,
            )
        )


@pytest.fixture
def instance(tmp_path: Path):
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as made:
        yield made


@pytest.fixture
def bench(instance, tmp_path, receiver) -> Bench:
    made = Bench(instance, tmp_path / "lake", receiver.url)
    made.tick()
    return made


def bodies(receiver) -> list[tuple[str, str]]:
    return [(b["state"], b["cause"]) for b in (json.loads(body) for _, body in receiver.accepted)]


def test_the_table_is_reported_every_hour_also_without_an_alert(bench):
    assert bench.tick().asset_events == []
    state = json.loads(bench.cursor)
    state["reported_at"] = (datetime.now(UTC) - REPORTED_EVERY).isoformat()
    bench.cursor = json.dumps(state)
    (event,) = bench.tick().asset_events
    assert event.metadata["firing"].value == 0


def test_market_rules_are_evaluated_where_nothing_else_does(bench, receiver):
    market = MarketHome(bench.settings.home, receiver.url, source="simulator")
    market.rules_file("rules:\n- {name: jump, description: up, table: features.price_features, when: r5 > 0.01}\n")
    market.write([row("bitcoin", 1)])
    (jump,) = [r for r in market.market.rules() if r.name == "jump"]
    with market.market.changing() as state:
        state.enabled["jump"] = Enabled(jump.content_hash, None)
    bench.tick()
    market.write([row("bitcoin", 2, r5=0.02)])
    message = bench.tick().skip_message
    assert message.endswith("; market: 1 fired, 0 resolved, 1 delivered, 0 waiting")
    assert market.market.tick(datetime.now(UTC)).fired == 0  # the slot is judged
    assert bodies(receiver) == [("firing", "jump bitcoin")]


def test_market_rules_that_fail_are_an_alert_and_keep_no_other_from_firing(bench, receiver):
    market = MarketHome(bench.settings.home, receiver.url, source="simulator")
    market.market.path.parent.mkdir(parents=True, exist_ok=True)
    market.market.path.write_text("{", encoding="utf-8")
    bench.evaluate(KAFKA, "delivered", passed=False)
    bench.tick()
    assert set(bodies(receiver)) == {
        ("firing", "kafka/crypto_prices_raw delivered"),
        ("firing", "market_rules_fail"),
    }
    market.market.path.unlink()
    bench.tick()
    assert bodies(receiver)[-1] == ("resolved", "market_rules_fail")


def test_a_red_check_is_stored_delivered_once_and_recovers(bench, receiver):
    bench.evaluate(KAFKA, "delivered", passed=False)
    first = bench.tick()
    assert first.skip_message.startswith(
        "1 evaluations read; 1 alerts fired, 0 resolved, 1 open; 1 delivered, 0 waiting"
    )
    assert [e.asset_key for e in first.asset_events] == [dg.AssetKey(["ops", "alerts"])]
    bench.evaluate(KAFKA, "delivered", passed=False)
    second = bench.tick()
    assert second.asset_events == []
    assert second.skip_message.startswith("1 evaluations read; 0 alerts fired")
    bench.evaluate(KAFKA, "delivered", passed=True)
    bench.tick()
    assert bodies(receiver) == [
        ("firing", "kafka/crypto_prices_raw delivered"),
        ("resolved", "kafka/crypto_prices_raw delivered"),
    ]
    rows = bench.rows()
    assert [(r["state"], r["attempts"], r["delivered_at"] is not None) for r in rows] == [
        ("firing", 1, True),
        ("resolved", 1, True),
    ]
    assert [h["idempotency-key"] for h, _ in receiver.accepted] == [r["alert_id"] for r in rows]
    assert receiver.url not in json.dumps(bench.cursor)


def test_a_tick_that_is_repeated_stores_and_sends_nothing_new(bench, receiver):
    bench.evaluate(KAFKA, "delivered", passed=False)
    before = bench.cursor
    bench.tick()
    version, rows = bench.store.version("ops.alerts"), bench.rows()
    bench.cursor = before  # the process died before the cursor was saved
    bench.tick()
    assert [r["alert_id"] for r in bench.rows()] == [r["alert_id"] for r in rows]
    assert len({h["idempotency-key"] for h, _ in receiver.accepted}) == 1
    assert version is not None


def test_a_webhook_that_is_down_gets_every_alert_in_order_later(bench, receiver, monkeypatch):
    receiver.answers = [503, 503, 503]
    bench.evaluate(KAFKA, "delivered", passed=False)
    assert "0 delivered, 1 waiting" in bench.tick().skip_message
    bench.evaluate(KAFKA, "delivered", passed=True)
    assert "0 delivered, 2 waiting" in bench.tick().skip_message  # not asked again at once
    assert len(receiver.seen) == 3
    state = json.loads(bench.cursor)
    for waits in state["waiting"].values():
        waits[2] = None
    bench.cursor = json.dumps(state)
    assert "2 delivered, 0 waiting" in bench.tick().skip_message
    assert [s for s, _ in bodies(receiver)] == ["firing", "resolved"]
    assert [r["attempts"] for r in bench.rows()] == [4, 1]


def test_a_second_rule_of_a_red_contract_reaches_the_webhook_and_one_recovery_ends_both(bench, receiver):
    def evaluated(*red: str) -> None:
        rules = [CheckOutcome(name, name not in red, f"{name} said so") for name in parts(SILVER_PRICES)]
        (contract,) = folded(SILVER_PRICES, rules)
        bench.instance.report_runless_asset_event(evaluation(contract, SILVER, None))
        bench.tick()

    evaluated("price_positive")
    evaluated("price_positive", "unique_key")
    evaluated("price_positive", "unique_key")
    evaluated()
    cause = "silver/toy contract"
    assert bodies(receiver) == [("firing", cause), ("firing", cause), ("resolved", cause)]
    summary = json.loads(receiver.accepted[1][1])["summary"]
    assert summary == (
        "fails further rules (unique_key): unique_key: unique_key said so; price_positive: price_positive said so"
    )
    assert len({row["alert_id"] for row in bench.rows()}) == 3


def test_without_a_webhook_alerts_are_kept_in_the_table(instance, tmp_path):
    bench = Bench(instance, tmp_path / "lake", None)
    bench.tick()
    bench.evaluate(KAFKA, "delivered", passed=False)
    assert "no webhook (ALERT_WEBHOOK_URL is not set)" in bench.tick().skip_message
    assert [(r["state"], r["delivered_at"], r["attempts"]) for r in bench.rows()] == [("firing", None, 0)]


def test_what_was_red_before_the_first_tick_is_not_told(instance, tmp_path):
    bench = Bench(instance, tmp_path / "lake", None)
    bench.evaluate(KAFKA, "delivered", passed=False)
    assert bench.tick().skip_message.startswith("0 evaluations read")
    assert not bench.store.exists("ops.alerts")


def test_a_failed_run_names_its_step_and_ends_with_the_next_success(bench, receiver):
    bench.run("bronze")
    bench.tick()
    (row,) = bench.rows()
    assert row["cause"] == "run of refresh"
    assert "failed: step bronze__raw: the log cannot be asked: start it: crypto-assets broker start" in row["summary"]
    bench.run("silver")
    bench.tick()
    assert bodies(receiver) == [("firing", "run of refresh"), ("resolved", "run of refresh")]


def test_a_run_that_failed_downstream_of_a_red_check_is_counted_in_its_summary(bench, receiver):
    bench.evaluate(KAFKA, "delivered", passed=False)
    bench.tick()
    bench.run("bronze")
    bench.tick()
    (row,) = bench.rows()
    assert row["cause"] == "kafka/crypto_prices_raw delivered"
    assert row["summary"].endswith("[1 consequence: run of refresh]")
    assert row["delivered_at"] is not None
    assert len(receiver.seen) == 1


def test_evaluations_of_runs_and_of_partitions_are_followed_in_order(bench):
    bench.run("silver")
    bench.evaluate(SILVER, "unique_key", passed=False, partition="2024-05-01-12:00")
    found = event_store.check_evaluations(bench.instance, 0, 10)
    assert [(e.asset, e.check, e.partition, e.passed) for _, e in found] == [
        ("silver/toy", "unique_key", None, True),
        ("silver/toy", "unique_key", "2024-05-01-12:00", False),
    ]
    assert event_store.check_evaluations(bench.instance, found[0][0], 10) == found[1:]
    assert event_store.check_evaluations(bench.instance, 0, 1) == found[:1]


def test_missing_producer_ticks_fire_and_recover(bench):
    now = datetime.now(UTC)

    def condition(cursor_state: alert_sensor.Cursor, seconds: float) -> tuple[bool, datetime, str] | None:
        found = alert_sensor.ticks_missing(bench.instance, cursor_state, now + timedelta(seconds=seconds))
        return (found.firing, found.at, found.summary) if found else None

    cursor = alert_sensor.Cursor(0, 0, alive_since=now)
    assert condition(cursor, 100) is None  # never started
    bench.producer()
    bench.producer_tick(now)  # a skipped tick is alive
    assert condition(cursor, 59) is None
    fired = condition(cursor, 61)
    assert fired is not None
    assert fired[:2] == (True, now + timedelta(seconds=60))
    bench.producer_tick(now + timedelta(seconds=61), TickStatus.FAILURE, "ValueError: no credits\n")
    failing = condition(cursor, 62)
    assert failing is not None
    assert failing[0]
    assert "its ticks fail: ValueError: no credits" in failing[2]
    # this sensor itself was away: it does not blame the producer before it has watched for a while
    assert condition(alert_sensor.Cursor(0, 0, alive_since=now + timedelta(seconds=61)), 62) is None


def test_missing_ticks_become_an_alert_through_the_sensor(bench):
    now = datetime.now(UTC)
    bench.producer()
    bench.producer_tick(now - timedelta(seconds=120))
    state = json.loads(bench.cursor)
    state["alive_since"] = (now - timedelta(seconds=300)).isoformat()
    bench.cursor = json.dumps(state)
    bench.tick()
    assert [(r["cause"], r["state"]) for r in bench.rows()] == [("producer_ticks_missing", "firing")]
    bench.producer_tick(datetime.now(UTC))
    bench.tick()
    assert [(r["cause"], r["state"]) for r in bench.rows()][1] == ("producer_ticks_missing", "resolved")
    bench.producer(running=False)
    assert bench.tick().asset_events == []
