"""The sensor that turns red checks, failed runs and missing ticks into alerts, stores and delivers them.

Belongs here: one tick: read new events, route them, write `ops.alerts`, deliver waiting alerts. Does not belong here:
which observation is an alert (`alerts`), HTTP (`webhook`), Dagster's storage (`event_store`).

It cannot report its own death: `crypto-assets status --json` exits non-zero when ticks are missing, for cron or a
health check.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from crypto_assets.alerts import webhook
from crypto_assets.alerts.alerts import Alert, Condition, Evaluation, RunOutcome, State, route
from crypto_assets.checks import rules
from crypto_assets.contracts.tables import ALERTS
from crypto_assets.orchestration import event_store

if TYPE_CHECKING:
    import pyarrow as pa

    from crypto_assets.settings import Settings
    from crypto_assets.storage.store import DeltaStore

KEY = dg.AssetKey(list(ALERTS.asset_key))
EVALUATIONS_PER_TICK = 2000
FAILURES_PER_TICK = 50
DELIVERIES_PER_TICK = 20
DELIVERING_AT_MOST_S = 20.0
"""Seconds after which a tick starts no further delivery: a tick may take 60, and one delivery 16."""
TICKS_MISSING = "producer_ticks_missing"
TICK_TIMEOUT = timedelta(seconds=60)
REPORTED_EVERY = timedelta(hours=1)
"""Maximum interval between reports of the table, which keeps it fresh also without alerts."""
GIVE_UP = timedelta(hours=24)
"""Age from which an unaccepted alert is no longer sent; it stays in the table."""


@dataclass
class Waiting:
    """An alert waiting for delivery: since when, POSTs made, time of the next try."""

    since: datetime
    attempts: int = 0
    next_at: datetime | None = None


@dataclass
class Cursor:
    """Sensor state kept between ticks."""

    evaluations: int
    failures: int
    state: State = field(default_factory=State)
    waiting: dict[str, Waiting] = field(default_factory=dict)
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
                "waiting": {k: [_iso(w.since), w.attempts, _iso(w.next_at)] for k, w in self.waiting.items()},
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
        waiting = {
            key: Waiting(datetime.fromisoformat(since), attempts, _time(next_at))
            for key, (since, attempts, next_at) in raw["waiting"].items()
        }
        return cls(
            raw["evaluations"],
            raw["failures"],
            State.from_json(raw["state"]),
            waiting,
            _time(raw["alive_since"]),
            _time(raw["last_tick"]),
            _time(raw.get("reported_at")),
        )


def build(
    interval_s: int = 10, *, status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED
) -> dg.SensorDefinition:
    """The sensor definition; stopped by default.

    Args:
        interval_s: Seconds between ticks.
        status: Whether it runs before a person has switched it.
    """

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=interval_s,
        default_status=status,
        required_resource_keys={"engine", "step_inputs"},
        description="Red checks, failed runs and missing producer ticks become alerts in ops/alerts and at the "
        "webhook: transitions only, one per cause.",
    )
    def alerts_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        assert context.repository_def is not None
        graph = context.repository_def.asset_graph
        known: dict[str, frozenset[str]] = {}

        def ancestors(asset: str) -> frozenset[str]:
            if asset not in known:
                key = dg.AssetKey.from_user_string(asset)
                found = graph.get_ancestor_asset_keys(key) if graph.has(key) else ()
                known[asset] = frozenset(k.to_user_string() for k in found)
            return known[asset]

        resources = context.resources
        return tick(
            context.instance,
            resources.engine.store,
            resources.step_inputs.settings,
            ancestors,
            context.cursor,
            datetime.now(UTC),
        )

    return alerts_sensor


def tick(
    instance: dg.DagsterInstance,
    store: DeltaStore,
    settings: Settings,
    ancestors: Any,
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
    cursor = Cursor.from_text(cursor_text, event_store.newest_id(instance))
    evaluations = event_store.check_evaluations(instance, cursor.evaluations, EVALUATIONS_PER_TICK)
    failures = event_store.failed_runs(instance, cursor.failures, FAILURES_PER_TICK)
    cursor.evaluations = max((i for i, _ in evaluations), default=cursor.evaluations)
    cursor.failures = max((f.storage_id for f in failures), default=cursor.failures)
    _note_liveness(cursor, now)
    routed = route(
        cursor.state,
        evaluations=[e for _, e in evaluations],
        runs=list(_run_outcomes(instance, failures, cursor.state)),
        conditions=[c for c in [ticks_missing(instance, cursor, now)] if c is not None],
        ancestors=ancestors,
        now=now,
    )
    written = store_transitions(store, routed.transitions)
    written += recount(store, routed.recounted)
    url = settings.alert_webhook_url
    if url is not None:
        cursor.waiting |= {a.alert_id: Waiting(now) for a in routed.transitions if a.alert_id not in cursor.waiting}
        delivered, given_up = deliver_waiting(store, cursor.waiting, url, settings.source, now)
    else:
        cursor.waiting.clear()
        delivered, given_up = 0, 0
    cursor.last_tick = now
    due = cursor.reported_at is None or now - cursor.reported_at >= REPORTED_EVERY
    if written or delivered or given_up or due:
        cursor.reported_at = now
    text = _message(evaluations, routed.transitions, cursor, delivered, given_up, configured=url is not None)
    events = _events(store, routed.transitions, delivered) if cursor.reported_at == now else []
    return dg.SensorResult(asset_events=events, skip_reason=text, cursor=cursor.to_text())


# --- observing ----------------------------------------------------------------------------------------------------


def _run_outcomes(
    instance: dg.DagsterInstance, failures: Sequence[event_store.FailedRun], state: State
) -> Iterator[RunOutcome]:
    """Failures in order, and each failing job's newest success if that came later."""
    failing = state.failing_jobs()
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


def _note_liveness(cursor: Cursor, now: datetime) -> None:
    """Record since when this sensor ticks without a gap: after a pause it cannot blame the producer yet."""
    if cursor.last_tick is None or now - cursor.last_tick > TICK_TIMEOUT:
        cursor.alive_since = now


def ticks_missing(instance: dg.DagsterInstance, cursor: Cursor, now: datetime) -> Condition | None:
    """Condition that the running producer sensor has not ticked for `TICK_TIMEOUT`; None if unknown.

    A skipped tick is alive; a failed one is not, since it published nothing.
    """
    newest, trouble = producer_alive(instance)
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


def producer_alive(instance: dg.DagsterInstance) -> tuple[datetime | None, str | None]:
    """Time of the producer's newest good tick, and the error of its newest tick if that failed.

    The time is None when the sensor does not run. A sensor just started counts as alive since its start.
    """
    from crypto_assets.dagster_private import TickStatus

    state = event_store.sensor_state(instance, "producer")
    if state is None or not state.is_running:
        return None, None
    ticks = event_store.newest_ticks(instance, state)
    good = [t.timestamp for t in ticks if t.status != TickStatus.FAILURE]
    data: Any = state.instigator_data
    started = getattr(data, "last_sensor_start_timestamp", None)
    success = getattr(data, "last_tick_success_timestamp", None) if not good else None
    moments = [m for m in (*good, started, success) if m]
    if not moments:
        return None, None
    failed = ticks[0].error if ticks and ticks[0].status == TickStatus.FAILURE else None
    trouble = (failed.cause or failed).message.strip().splitlines()[0][:300] if failed else None
    return datetime.fromtimestamp(max(moments), UTC), trouble


# --- storing and delivering ---------------------------------------------------------------------------------------


def store_transitions(store: DeltaStore, transitions: Sequence[Alert]) -> int:
    """Insert new alerts; a repeated tick inserts nothing and leaves their delivery state."""
    if not transitions:
        return 0
    rows = _arrow([a.row() for a in {a.alert_id: a for a in transitions}.values()])
    return store.merge(ALERTS.full_name, rows, mode="insert_if_absent", audit=rules.audit(ALERTS, [None])).rows


def recount(store: DeltaStore, summaries: Mapping[str, str]) -> int:
    """Update the summaries of stored alerts; return the number of rows changed."""
    rows = _stored(store, list(summaries))
    changed = [{**r, "summary": summaries[r["alert_id"]]} for r in rows if r["summary"] != summaries[r["alert_id"]]]
    if changed:
        store.merge(ALERTS.full_name, _arrow(changed), mode="upsert", audit=rules.audit(ALERTS, [None]))
    return len(changed)


def deliver_waiting(
    store: DeltaStore, waiting: dict[str, Waiting], url: Any, source: str, now: datetime
) -> tuple[int, int]:
    """Deliver due alerts, oldest first, until one is not accepted; return the numbers delivered and given up.

    Order is kept, so a receiver never sees a recovery before its alert. `waiting` is changed in place.
    """
    given_up = [key for key, w in waiting.items() if now - w.since > GIVE_UP]
    for key in given_up:
        del waiting[key]
    if not waiting or any(w.next_at is not None and w.next_at > now for w in waiting.values()):
        return 0, len(given_up)
    rows = sorted(_stored(store, list(waiting)), key=lambda r: (r["at"], r["state"]))[:DELIVERIES_PER_TICK]
    changed: list[dict[str, Any]] = []
    delivered = 0
    end = time.monotonic() + DELIVERING_AT_MOST_S
    for row in rows:
        if time.monotonic() > end:
            break
        waits = waiting[row["alert_id"]]
        done = webhook.deliver(url, webhook.payload(row, source), idempotency_key=row["alert_id"])
        waits.attempts += done.attempts
        changed.append({**row, "attempts": waits.attempts, "delivered_at": now if done.accepted else None})
        if not done.accepted:
            waits.next_at = now + timedelta(seconds=min(10 * 2 ** min(waits.attempts // webhook.ATTEMPTS, 6), 600))
            break
        del waiting[row["alert_id"]]
        delivered += 1
    if changed:
        store.merge(ALERTS.full_name, _arrow(changed), mode="upsert", audit=rules.audit(ALERTS, [None]))
    return delivered, len(given_up)


def _stored(store: DeltaStore, ids: Sequence[str]) -> list[dict[str, Any]]:
    if not ids:
        return []
    listed = ", ".join(f"'{i}'" for i in ids)
    return store.read_arrow("ops.alerts", where=f"alert_id IN ({listed})").to_pylist()


def _arrow(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    from crypto_assets.contracts.arrow import arrow_schema

    return pa.Table.from_pylist([dict(r) for r in rows], schema=arrow_schema(ALERTS))


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


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
