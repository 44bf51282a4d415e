"""The sensor that turns red checks, failed runs and missing ticks into alerts, stores and delivers them.

Belongs here: one tick: read new events, route them, have them stored and delivered. Does not belong here: which
observation is an alert (`alerts`), storing and sending (`outbox`, `channels`), Dagster's storage (`event_store`).

It cannot report its own death: `crypto-assets status --json` exits non-zero when ticks are missing, for cron or a
health check.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import dagster as dg

from crypto_assets.alerts.alerts import Alert, Ancestors, Condition, Evaluation, RunOutcome, State, route
from crypto_assets.alerts.market import MarketAlerts, Ticked
from crypto_assets.alerts.outbox import (
    Place,
    Waiting,
    deliver_waiting,
    recount,
    store_transitions,
    waiting_from_json,
    waiting_to_json,
)
from crypto_assets.alerts.webhook import WEBHOOK, Webhook
from crypto_assets.contracts.tables import ALERTS
from crypto_assets.errors import reason
from crypto_assets.redaction import redact
from crypto_assets.settings import Settings
from crypto_assets.storage.store import DeltaStore

if TYPE_CHECKING:
    from crypto_assets.dagster_private import BaseAssetGraph
    from crypto_assets.orchestration import event_store

KEY = dg.AssetKey(list(ALERTS.asset_key))
EVALUATIONS_PER_TICK = 2000
FAILURES_PER_TICK = 50
TICKS_MISSING = "producer_ticks_missing"
RULES_FAIL = "market_rules_fail"
TICK_TIMEOUT = timedelta(seconds=60)
STATE_AFTER_AT_MOST_S = 20.0
"""Seconds that a tick may have taken when the state of the home is still written after it."""
REPORTED_EVERY = timedelta(hours=1)
"""Maximum interval between reports of the table, which keeps it fresh also without alerts."""


@dataclass
class Cursor:
    """Sensor state kept between ticks."""

    evaluations: int
    failures: int
    state: State = field(default_factory=State)
    waiting: dict[Place, Waiting] = field(default_factory=dict)
    alive_since: datetime | None = None
    last_tick: datetime | None = None
    reported_at: datetime | None = None

    def to_text(self) -> str:
        """JSON."""
        return json.dumps(
            {
                "evaluations": self.evaluations,
                "failures": self.failures,
                "state": self.state.to_json(),
                "waiting": waiting_to_json(self.waiting),
                "alive_since": _iso(self.alive_since),
                "last_tick": _iso(self.last_tick),
                "reported_at": _iso(self.reported_at),
            }
        )

    @classmethod
    def from_text(cls, text: str | None, newest: int) -> Cursor:
        """Rebuild the cursor; without text begin at the present, since whatever is still red is evaluated again."""
        if not text:
            return cls(newest, newest)
        raw = json.loads(text)
        return cls(
            raw["evaluations"],
            raw["failures"],
            State.from_json(raw["state"]),
            waiting_from_json(raw["waiting"]),
            _time(raw["alive_since"]),
            _time(raw["last_tick"]),
            _time(raw.get("reported_at")),
        )


def build(status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED) -> dg.SensorDefinition:
    """The sensor definition.

    Args:
        status: Whether it runs before a person has switched it.
    """

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=10,
        default_status=status,
        required_resource_keys={"engine", "step_inputs"},
        description="Red checks, failed runs and missing producer ticks become alerts in ops/alerts and at the "
        "webhook: transitions only, one per cause.",
    )
    def alerts_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        assert context.repository_def is not None
        ancestors = ancestors_in(context.repository_def.asset_graph)
        store, settings = context.resources.engine.store, context.resources.step_inputs.settings
        began = time.monotonic()
        ticked = tick(context.instance, store, settings, ancestors, context.cursor, datetime.now(UTC))
        # A broker that does not answer takes another 15 s, and a tick that is not over after 60 s is lost.
        if time.monotonic() - began < STATE_AFTER_AT_MOST_S:
            from crypto_assets.status.report import write_state

            write_state(settings, context.instance, store, partial(datetime.now, UTC))
        return ticked

    return alerts_sensor


def ancestors_in(graph: BaseAssetGraph) -> Ancestors:
    """Function of the upstream asset keys of an asset; empty for one that the graph lacks."""

    @cache
    def ancestors(asset: str) -> frozenset[str]:
        key = dg.AssetKey.from_user_string(asset)
        found = graph.get_ancestor_asset_keys(key) if graph.has(key) else ()
        return frozenset(k.to_user_string() for k in found)

    return ancestors


def tick(
    instance: dg.DagsterInstance,
    store: DeltaStore,
    settings: Settings,
    ancestors: Ancestors,
    cursor_text: str | None,
    now: datetime,
) -> dg.SensorResult:
    """Run one tick: observe, route, store, deliver, report.

    Args:
        instance: Instance whose events are read.
        store: Store that holds `ops.alerts`.
        settings: Webhook address and source.
        ancestors: Upstream asset keys of an asset.
        cursor_text: Cursor of the previous tick.
        now: Present time (UTC).
    """
    from crypto_assets.orchestration import event_store  # its storage takes a third of the start

    cursor = Cursor.from_text(cursor_text, event_store.newest_id(instance))
    evaluations = event_store.check_evaluations(instance, cursor.evaluations, EVALUATIONS_PER_TICK)
    failures = event_store.failed_runs(instance, cursor.failures, FAILURES_PER_TICK)
    cursor.evaluations = max((i for i, _ in evaluations), default=cursor.evaluations)
    cursor.failures = max((f.storage_id for f in failures), default=cursor.failures)
    if cursor.last_tick is None or now - cursor.last_tick > TICK_TIMEOUT:
        cursor.alive_since = now  # after a pause this sensor cannot blame the producer yet
    market, failing = market_tick(settings, store, cursor.state, now)
    routed = route(
        cursor.state,
        evaluations=[e for _, e in evaluations],
        runs=list(_run_outcomes(instance, failures, cursor.state)),
        conditions=[c for c in [ticks_missing(instance, cursor, now), failing] if c is not None],
        ancestors=ancestors,
        now=now,
    )
    written = store_transitions(store, routed.transitions)
    written += recount(store, routed.recounted)
    url = settings.alert_webhook_url
    places = [(a.alert_id, WEBHOOK) for a in routed.transitions]
    cursor.waiting |= {place: Waiting(now) for place in places if place not in cursor.waiting}
    channels = {WEBHOOK: Webhook(url)} if url is not None else {}
    if url is None:
        cursor.waiting.clear()
    delivered, given_up = deliver_waiting(store, cursor.waiting, channels, settings.source, now)
    cursor.last_tick = now
    due = cursor.reported_at is None or now - cursor.reported_at >= REPORTED_EVERY
    if written or delivered or given_up or due or market.fired or market.resolved:
        cursor.reported_at = now
    text = _message(evaluations, routed.transitions, cursor, delivered, given_up, configured=url is not None)
    text += _market_message(market)
    events = _events(store, routed.transitions, delivered) if cursor.reported_at == now else []
    return dg.SensorResult(asset_events=events, skip_reason=text, cursor=cursor.to_text())


# --- observing ----------------------------------------------------------------------------------------------------


def _run_outcomes(
    instance: dg.DagsterInstance, failures: Sequence[event_store.FailedRun], state: State
) -> Iterator[RunOutcome]:
    """Failures in order, and each failing job's newest success if that came later."""
    from crypto_assets.orchestration import event_store

    failing = {s.name: red.last for s, red in state.reds.items() if s.kind == "run"}
    for failed in failures:
        steps = event_store.failed_steps(instance, failed.run_id)
        assets = tuple(dict.fromkeys(asset for step in steps for asset in step.assets))
        failing[failed.job] = failed.at
        why = _named(steps) or failed.description
        yield RunOutcome(failed.job, failed.run_id, False, failed.at, why, assets)
    for job, at in failing.items():
        filters = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS])
        for record in instance.get_run_records(filters, limit=1):
            ended = datetime.fromtimestamp(record.end_time or 0, UTC)
            if ended > at:
                yield RunOutcome(job, record.dagster_run.run_id, True, ended)


def _named(steps: Sequence[event_store.FailedStep]) -> str:
    """The first failure with its error, the others by name; empty without any."""
    if not steps:
        return ""
    others = ", ".join(step.step for step in steps[1:])
    return f"{steps[0]}; failed too: {others}" if others else str(steps[0])


def ticks_missing(instance: dg.DagsterInstance, cursor: Cursor, now: datetime) -> Condition | None:
    """Condition that the running producer sensor has not ticked for `TICK_TIMEOUT`; None if unknown.

    A skipped tick is alive; a failed one is not, since it published nothing.
    """
    from crypto_assets.orchestration import event_store

    newest, trouble = event_store.producer_alive(instance)
    firing = cursor.state.firing(TICKS_MISSING)
    if newest is None:
        return Condition(TICKS_MISSING, False, now, "the producer sensor is stopped") if firing else None
    if now - newest <= TICK_TIMEOUT:
        return Condition(TICKS_MISSING, False, newest, "the producer ticks again") if firing else None
    if not firing and cursor.alive_since is not None and now - cursor.alive_since <= TICK_TIMEOUT:
        return None
    why = f"its ticks fail: {trouble}" if trouble else "see the daemon's log (logs/dagster.log in the home)"
    return Condition(
        TICKS_MISSING,
        True,
        newest + TICK_TIMEOUT,
        f"the producer sensor runs but has had no good tick since {newest:%Y-%m-%d %H:%M:%S}Z; {why}",
    )


def market_tick(settings: Settings, store: DeltaStore, state: State, now: datetime) -> tuple[Ticked, Condition | None]:
    """Evaluate market rules where nothing else does so within seconds, and the condition that they fail.

    Whatever fails there, alerts on the pipeline go on: the failure is one of them.
    """
    firing = state.firing(RULES_FAIL)
    try:
        done = MarketAlerts(settings, store).tick(now)
    except Exception as error:  # noqa: BLE001
        text = f"market alerts are not evaluated: {redact(reason(error), settings.secrets())}"
        return Ticked(), Condition(RULES_FAIL, True, now, text, explains=False)
    return done, Condition(RULES_FAIL, False, now, "market alerts are evaluated again") if firing else None


# --- reporting ----------------------------------------------------------------------------------------------------


def _events(store: DeltaStore, transitions: Sequence[Alert], delivered: int) -> list[Any]:
    firing = [a for a in transitions if a.state == "firing"]
    lines = [f"- **{a.state}** {a.severity} {a.cause} {a.partition_key or ''}: {a.summary}" for a in transitions]
    metadata = {
        "firing": len(firing),
        "resolved": len(transitions) - len(firing),
        "delivered": delivered,
        "delta_version": store.version("ops.alerts") or 0,
        "transitions": dg.MetadataValue.md("\n".join(lines) or "none"),
    }
    return [dg.AssetMaterialization(KEY, metadata=metadata)]


def _message(
    evaluations: Sequence[tuple[int, Evaluation]],
    transitions: Sequence[Alert],
    cursor: Cursor,
    delivered: int,
    given_up: int,
    *,
    configured: bool,
) -> str:
    firing = sum(a.state == "firing" for a in transitions)
    text = (
        f"{len(evaluations):,} evaluations read; {firing} alerts fired, {len(transitions) - firing} resolved, "
        f"{len(cursor.state.open)} open"
    )
    if not configured:
        return f"{text}; no webhook (ALERT_WEBHOOK_URL is not set)"
    gone = f", {given_up} given up after 24 h" if given_up else ""
    return f"{text}; {delivered} delivered, {len(cursor.waiting)} waiting{gone}"


def _market_message(market: Ticked) -> str:
    """What market rules did in the tick; empty for nothing."""
    if market == Ticked():
        return ""
    gone = f", {market.given_up} given up after 24 h" if market.given_up else ""
    return (
        f"; market: {market.fired} fired, {market.resolved} resolved, {market.delivered} delivered, "
        f"{market.waiting} waiting{gone}"
    )


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
