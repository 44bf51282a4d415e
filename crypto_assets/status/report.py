"""What every table of a home holds, how late it is, and whether the promise of freshness is kept: one report.

The command `status` prints it; the alert sensor writes it to `state/status.json`, which the API serves.

Belongs here: measuring, the report, writing it. Does not belong here: what follows from it (`verdict`), the promise's
arithmetic (`checks.freshness`), what is wrong with the installation (`cli.doctor`), where facts about tables are known
from (`table_facts`).
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import dagster as dg

from crypto_assets.assets.card import assets_of
from crypto_assets.assets.log_slices import landing
from crypto_assets.checks import freshness
from crypto_assets.contracts.tables import RAW_PRICES, TABLES
from crypto_assets.faults import in_short
from crypto_assets.files import write_atomic
from crypto_assets.home import Home, first_day
from crypto_assets.log.errors import LogError, LogUnavailable
from crypto_assets.log.kafka import reading
from crypto_assets.orchestration import event_store
from crypto_assets.orchestration.event_store import CheckState
from crypto_assets.settings import Settings
from crypto_assets.status.table_facts import Covered, Facts, TableFacts, facts_of, happened
from crypto_assets.status.verdict import Measured, Producer, Verdict, judge, service_of
from crypto_assets.storage.store import DeltaStore

T = TypeVar("T")
Clock = Callable[[], datetime]
STATE_FILE = "state/status.json"
WRITTEN_EVERY_S = 20.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class LastRun:
    """The run that last made an asset, or was to; `state` is Dagster's, or `sensor` when no run did."""

    run_id: str
    state: str
    age_s: float
    job: str | None = None


@dataclass(frozen=True)
class AssetStatus:
    """One asset.

    Args:
        asset: Asset key as `schema/name`.
        rows: Rows stored; None when the asset is no table or has not been created.
        rows_of: Partition that `rows` are of; None = the whole table.
        newest_event: Newest event time stored (UTC).
        event_age_s: Its age in seconds; 0 when it lies ahead, as the end of a running slot does.
        event_ahead_s: Seconds by which something that has happened lies ahead of this machine's clock.
        last_run: The run that last made it or was to; None = none ever.
        checks_green: Checks whose newest evaluation is green.
        checks_red: Names of the others, with `(warn)` or `(not evaluated)` behind.
        findings: What each of these found, in the same order.
    """

    asset: str
    rows: int | None
    rows_of: str | None
    newest_event: datetime | None
    event_age_s: float | None
    event_ahead_s: float | None
    last_run: LastRun | None
    checks_green: int
    checks_red: tuple[str, ...]
    findings: tuple[str, ...]


@dataclass(frozen=True)
class StatusReport:
    """Everything `status` knows.

    Args:
        at: Time of the report (UTC): that of the lag and of the newest quote's age.
        home: Home folder.
        source: Data mode.
        banner: The sentence that names the data mode.
        as_of: What the figures of tables are of, where it is not the present.
        service: Who serves the home, and whether that promises anything.
        lag_s: Age of the oldest record of the prices topic that is not in `gold.latest_prices`; 0 = none, None =
            unknown.
        lag_records: Such records (an upper bound); None = unknown.
        lag_unknown_because: Why the lag is unknown.
        event_age_s: Age of the newest quote in `gold.latest_prices`; never negative.
        cadence_s: Seconds between polls in force.
        promise: The promise as a sentence.
        promised_s: Highest age and lag that keep it.
        producer: The producer sensor.
        assets: Every asset, in flow order.
        verdict: What follows.
    """

    at: datetime
    home: str
    source: str
    banner: str
    as_of: str | None
    service: str
    lag_s: float | None
    lag_records: int | None
    lag_unknown_because: str | None
    event_age_s: float | None
    cadence_s: float
    promise: str
    promised_s: float
    producer: Producer
    assets: tuple[AssetStatus, ...]
    verdict: Verdict

    @property
    def exit_code(self) -> int:
        """0 = ok or nothing promised, 1 = problems, 3 = unknown."""
        return self.verdict.exit_code

    def to_json(self) -> str:
        """JSON text: times as ISO 8601, durations in seconds; `reasons` are all that the verdict follows from."""
        found = asdict(self) | {
            "verdict": self.verdict.word,
            "exit_code": self.exit_code,
            "reasons": [*self.verdict.problems, *self.verdict.unknown],
            "problems": self.verdict.problems,
            "unknown": self.verdict.unknown,
        }
        return json.dumps(found, default=lambda v: v.isoformat(), ensure_ascii=False, indent=2)


def write_state(settings: Settings, instance: dg.DagsterInstance, store: DeltaStore, clock: Clock) -> None:
    """Write the report to `state/status.json` of the home, its time as `written_at`; readers see the old or the new.

    At most every `WRITTEN_EVERY_S`. What fails is logged: the state is then unknown to its readers, by its age.

    Args:
        settings: Settings of the home.
        instance: Its Dagster instance.
        store: Its tables.
        clock: Present time (UTC).
    """
    path = settings.home / STATE_FILE
    try:
        if path.exists() and abs(clock().timestamp() - path.stat().st_mtime) < WRITTEN_EVERY_S:
            return
        found = collect(settings, instance, store, clock)
        text = json.loads(found.to_json()) | {"written_at": found.at.isoformat()}
        write_atomic(path, json.dumps(text, ensure_ascii=False))
    except Exception as error:  # noqa: BLE001 - a state that cannot be written must not keep alerts from going out
        _LOG.warning("%s is not written: %s", path, in_short(error, settings.home))


def collect(
    settings: Settings,
    instance: dg.DagsterInstance | None,
    store: DeltaStore,
    clock: Clock,
    unreadable: Sequence[str] = (),
) -> StatusReport:
    """Measure everything; a part that cannot be read is a reason, and the others are measured all the same.

    Reading may take many seconds, while the pipeline goes on. Every age is therefore that at the moment when its fact
    had been read: neither data that came meanwhile nor the wait for another part makes it wrong.

    Args:
        settings: Settings of the home.
        instance: Its Dagster instance; None when it cannot be opened.
        store: Its tables.
        clock: Present time (UTC), asked after each part.
        unreadable: Parts that are already known to be unreadable, and why.
    """
    parts = Parts(list(unreadable), settings.home)
    cadence = freshness.cadence_s(settings)
    promised = freshness.thresholds(freshness.pace_s(settings))[0].total_seconds()
    facts = facts_of(settings, instance)
    covered = parts.read("gold/latest_prices", facts.covered, Covered())
    at = clock()  # the lag too is that of what was covered then, however long the log takes to answer
    unread = Lag(unknown_because="the log cannot be read")
    lag = parts.read("the log", lambda: _lag_of(settings, store, covered, at), unread)
    sensor = parts.read("the event log", lambda: _producer(instance, clock), (Producer(False, None, None), None))
    service = service_of(Home(settings.home, settings.source, first_day(settings)), *sensor)
    states = parts.read("the event log", lambda: event_store.check_states(instance) if instance else [], [])
    known = parts.read("the event log", lambda: _known(instance, clock), {})
    assets = _assets(facts, states, known, clock, parts)
    age = _age(covered.newest_quote, at)
    ahead = {a.asset: a.event_ahead_s for a in assets if a.event_ahead_s}
    if sensor[0].newest_tick_age_s is not None and sensor[0].newest_tick_age_s < 0:
        ahead["the producer's newest tick"] = -sensor[0].newest_tick_age_s
    verdict = judge(
        Measured(
            service,
            sensor[0],
            promised,
            lag.seconds,
            lag.unknown_because,
            age,
            ahead,
            tuple(parts.read("the event log", lambda: _failed_runs(instance, known), [])),
            lag.wrong,
            tuple(parts.unreadable),
        )
    )
    return StatusReport(
        at=at,
        home=str(settings.home),
        source=settings.source,
        banner=settings.source_facts.banner,
        as_of=f"tables are in catalog {settings.catalog} of the workspace: rows and newest events are those that each "
        "asset's last run wrote, rows those of its newest partition"
        if settings.on_databricks
        else None,
        service=service.text,
        lag_s=lag.seconds,
        lag_records=lag.records,
        lag_unknown_because=lag.unknown_because,
        event_age_s=age,
        cadence_s=cadence,
        promise=freshness.promise(cadence, settings.refresh_every_s),
        promised_s=promised,
        producer=sensor[0],
        assets=tuple(assets),
        verdict=verdict,
    )


# --- parts --------------------------------------------------------------------------------------------------------


@dataclass
class Parts:
    """Reads parts of a home that may be damaged."""

    unreadable: list[str]
    home: Path | None = None

    def read(self, what: str, read: Callable[[], T], otherwise: T) -> T:
        """Result of `read`; on failure `otherwise`, with the cause added to the unreadable (once)."""
        try:
            return read()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a part, the others are still measured
            reason = f"{what} cannot be read: {in_short(error, self.home)}"
            if reason not in self.unreadable:
                self.unreadable.append(reason)
            return otherwise


@dataclass(frozen=True)
class Lag:
    """Lag in seconds and records; `wrong` when the log shows a fault rather than an age."""

    seconds: float | None = None
    records: int | None = None
    unknown_because: str | None = None
    wrong: tuple[str, ...] = ()


def _lag_of(settings: Settings, store: DeltaStore, covered: Covered, now: datetime) -> Lag:
    if settings.on_databricks and covered.until is None:
        return Lag(unknown_because="no run of gold/latest_prices has reported how far it reaches")
    if settings.transport != "landing":
        return _lag(settings, covered.offsets, now)
    if not settings.on_databricks or covered.until is None:
        return _landing_lag(settings, store, covered.until, now)
    # Which files are stored only the workspace knows; what is not covered arrived later than what is.
    return Lag(max(0.0, (now - covered.until).total_seconds()))


def _lag(settings: Settings, covered: Mapping[int, int], now: datetime) -> Lag:
    try:
        start = reading.lag_start(settings, settings.prices_topic, covered, now)
        ahead = [_ahead(settings, settings.prices_topic, now)]
    except LogUnavailable as error:
        return Lag(unknown_because=str(error))
    except LogError as error:
        return Lag(unknown_because="see the problem", wrong=(str(error),))
    with contextlib.suppress(LogError):  # the lag is that of prices: unreadable polls do not affect it
        ahead.append(_ahead(settings, settings.polls_topic, now))
    lag = 0.0 if start.oldest is None else max(0.0, (now - start.oldest).total_seconds())
    return Lag(lag, sum(start.uncovered.values()), wrong=tuple(filter(None, ahead)))


def _ahead(settings: Settings, topic: str, now: datetime) -> str:
    """Warning about records stamped ahead of the clock; empty without any."""
    found = reading.ahead(settings, topic, now)
    return reading.ahead_text(topic, found, now) if found else ""


def _landing_lag(settings: Settings, store: DeltaStore, until: datetime | None, now: datetime) -> Lag:
    """The same of landed records of the last seven days; files that cannot be read yet make it unknown."""
    folder = settings.landing / settings.prices_topic
    if not folder.is_dir():
        return Lag(unknown_because=f"landing folder {folder} does not exist here; see CRYPTO_ASSETS_LANDING")
    try:
        found = landing.pending(store, RAW_PRICES, folder, until, now)
    except LogError as error:
        return Lag(unknown_because=str(error))
    if found.waiting:
        return Lag(
            unknown_because=f"files without a newline at their end cannot be read yet: {', '.join(found.waiting[:10])}"
        )
    lag = 0.0 if found.oldest is None else max(0.0, (now - found.oldest).total_seconds())
    return Lag(lag, found.records)


def _producer(instance: dg.DagsterInstance | None, clock: Clock) -> tuple[Producer, datetime | None]:
    """The producer sensor, and the time of its newest good tick."""
    if instance is None:
        return Producer(False, None, None), None
    state = event_store.sensor_state(instance, "producer")
    newest, trouble = event_store.producer_alive(instance)
    age = None if newest is None else round((clock() - newest).total_seconds(), 3)
    return Producer(state is not None and state.is_running, age, trouble, known=state is not None), newest


def _assets(
    facts: TableFacts, states: Sequence[CheckState], known: Mapping[str, LastRun | None], clock: Clock, parts: Parts
) -> list[AssetStatus]:
    checks: dict[str, list[CheckState]] = {}
    for state in states:
        checks.setdefault(state.asset, []).append(state)
    tables = {"/".join(t.asset_key): t for t in TABLES.values()}
    found = []
    for name in [*sorted({*known, *checks} - set(tables)), *tables]:
        table = tables.get(name)
        of_table = Facts() if table is None else parts.read(name, partial(facts.of, table), Facts())
        newest, now = of_table.newest_event, clock()
        ahead = (newest - now).total_seconds() if newest is not None and table is not None and happened(table) else 0.0
        found.append(
            AssetStatus(
                name,
                of_table.rows,
                of_table.partition,
                newest,
                _age(newest, now),
                round(ahead, 3) if ahead > 0 else None,
                known.get(name),
                sum(s.passed for s in checks.get(name, [])),
                tuple(s.label for s in checks.get(name, []) if not s.passed),
                tuple(s.summary or s.description for s in checks.get(name, []) if not s.passed),
            )
        )
    return found


def _known(instance: dg.DagsterInstance | None, clock: Clock) -> dict[str, LastRun | None]:
    """Every asset that Dagster knows of, with the run that last made it or was to make it."""
    if instance is None:
        return {}
    keys = list(instance.all_asset_keys())
    entries = {r.asset_entry.asset_key.to_user_string(): r.asset_entry for r in instance.get_asset_records(keys)}
    ids = {e.last_run_id for e in entries.values()} | {
        e.last_materialization.run_id for e in entries.values() if e.last_materialization is not None
    }
    wanted = [i for i in ids if i]
    records = (
        {r.dagster_run.run_id: r for r in instance.get_run_records(dg.RunsFilter(run_ids=wanted))} if wanted else {}
    )
    now, found = clock(), dict[str, LastRun | None]({k.to_user_string(): None for k in keys})
    for name, entry in entries.items():
        made = entry.last_materialization
        record = records.get(entry.last_run_id or "")
        if record is not None and (made is None or made.run_id != entry.last_run_id):
            at = record.end_time or record.start_time or record.create_timestamp.timestamp()
            state = record.dagster_run.status.value
        elif made is not None:
            record = records.get(made.run_id)
            at, state = made.timestamp, record.dagster_run.status.value if record else "DELETED"
            state = state if made.run_id else "sensor"
        else:
            continue
        run_id = record.dagster_run.run_id if record is not None else (made.run_id if made is not None else "")
        job = record.dagster_run.job_name if record is not None else None
        found[name] = LastRun(run_id, state, max(0.0, round(now.timestamp() - at, 1)), job)
    return found


def _failed_runs(instance: dg.DagsterInstance | None, known: Mapping[str, LastRun | None]) -> list[str]:
    """A sentence for each failed run that is the newest of an asset which a schedule moves."""
    failed = {name: r for name, r in known.items() if r is not None and r.state == "FAILURE"}
    scheduled = assets_of("refresh", "daily", "slot") if failed else ()  # imports every asset
    runs = {r.run_id: r for name, r in failed.items() if name in scheduled}
    failures = []
    for run_id, last in runs.items():
        assert instance is not None
        why = "; ".join(str(step) for step in event_store.failed_steps(instance, run_id)) or "it does not say why"
        failures.append(f"run {run_id[:8]} of {last.job} failed, and none of its assets' runs since succeeded: {why}")
    return failures


# --- for people ---------------------------------------------------------------------------------------------------


def _age(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else max(0.0, round((now - moment).total_seconds(), 3))
