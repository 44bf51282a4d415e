"""`status`: what every table holds, how late it is, and whether the promise of freshness is kept.

Belongs here: measuring and showing. Does not belong here: the promise's arithmetic (`quality.freshness`), what is
wrong with the installation (`doctor`), where facts about tables are known from (`table_facts`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from crypto_assets.cli import output
from crypto_assets.cli.table_facts import Covered, Facts, TableFacts, facts_of
from crypto_assets.contracts.tables import TABLES

if TYPE_CHECKING:
    import dagster as dg

    from crypto_assets.settings import Settings
    from crypto_assets.storage.base import TableStore

TICK_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class LastRun:
    """The run that last touched an asset; `state` is Dagster's, or `sensor` when no run did. Ages in seconds."""

    run_id: str
    state: str
    age_s: float


@dataclass(frozen=True)
class AssetStatus:
    """One asset.

    Args:
        asset: Asset key as `schema/name`.
        rows: Rows stored; None when the asset is no table or has not been created.
        rows_of: Partition that `rows` are of; None = the whole table.
        newest_event: Newest event time stored (UTC).
        event_age_s: Its age in seconds.
        last_run: Who materialized it last; None = never.
        checks_green: Checks whose newest evaluation is green.
        checks_red: Names of the others; a warning has `(warn)` behind it.
    """

    asset: str
    rows: int | None
    rows_of: str | None
    newest_event: datetime | None
    event_age_s: float | None
    last_run: LastRun | None
    checks_green: int
    checks_red: tuple[str, ...]


@dataclass(frozen=True)
class ProducerStatus:
    """The producer sensor: whether it runs, the age of its newest good tick, and why newer ones failed."""

    running: bool
    newest_tick_age_s: float | None
    trouble: str | None


@dataclass(frozen=True)
class StatusReport:
    """Everything `status` knows.

    Args:
        at: Time of the report (UTC).
        home: Home folder.
        source: Data mode.
        banner: The sentence that names the data mode.
        as_of: What the figures of tables are of, where it is not the present.
        lag_s: Age of the oldest record of the prices topic that is not in `gold.latest_prices`; 0 = none, None =
            unknown.
        lag_records: Such records (an upper bound); None = unknown.
        lag_unknown_because: Why the lag is unknown.
        event_age_s: Age of the newest quote in `gold.latest_prices`.
        cadence_s: Seconds between polls in force.
        promise: The promise as a sentence.
        promised_s: Highest lag that keeps it.
        producer: The producer sensor.
        assets: Every asset, in flow order.
        problems: Why the exit code is not 0.
    """

    at: datetime
    home: str
    source: str
    banner: str
    as_of: str | None
    lag_s: float | None
    lag_records: int | None
    lag_unknown_because: str | None
    event_age_s: float | None
    cadence_s: float
    promise: str
    promised_s: float
    producer: ProducerStatus
    assets: tuple[AssetStatus, ...]
    problems: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 when the promise is broken or ticks are missing, else 0."""
        return 1 if self.problems else 0

    def to_json(self) -> str:
        """JSON text: times as ISO 8601, durations in seconds."""
        return json.dumps(
            asdict(self) | {"exit_code": self.exit_code}, default=lambda v: v.isoformat(), ensure_ascii=False, indent=2
        )


def collect(settings: Settings, instance: dg.DagsterInstance, store: TableStore, now: datetime) -> StatusReport:
    """Measure everything.

    Args:
        settings: Settings of the home.
        instance: Its Dagster instance.
        store: Its tables.
        now: Present time (UTC).
    """
    from crypto_assets.compute.inputs import BANNERS
    from crypto_assets.quality import freshness

    cadence = freshness.cadence_s(settings)
    promised = freshness.thresholds(freshness.pace_s(settings))[0].total_seconds()
    facts = facts_of(settings, instance, store)
    covered = facts.covered()
    lag_s, lag_records, unknown = _lag_of(settings, store, covered, now)
    producer = _producer(settings, instance, now)
    problems = []
    if producer.running and (producer.newest_tick_age_s is None or producer.newest_tick_age_s > TICK_TIMEOUT_S):
        age = "none yet" if producer.newest_tick_age_s is None else f"{producer.newest_tick_age_s:.0f} s old"
        why = f": {producer.trouble}" if producer.trouble else ""
        problems.append(
            f"the producer sensor runs and its newest good tick is {age} (at most {TICK_TIMEOUT_S:.0f} s){why}; "
            "if the daemon is down: crypto-assets up"
        )
    if lag_s is not None and lag_s > promised:
        problems.append(f"lag {lag_s:,.0f} s is more than the promised {promised:,.0f} s; see failed runs in the UI")
    if lag_s is None and producer.running:
        problems.append(f"the lag is unknown: {unknown}")
    return StatusReport(
        at=now,
        home=str(settings.home),
        source=settings.source,
        banner=BANNERS[settings.source],
        as_of=f"tables are in catalog {settings.catalog} of the workspace: rows and newest events are those that each "
        "asset's last run wrote, rows those of its newest partition"
        if settings.on_databricks
        else None,
        lag_s=lag_s,
        lag_records=lag_records,
        lag_unknown_because=unknown,
        event_age_s=_age(covered.newest_quote, now),
        cadence_s=cadence,
        promise=freshness.promise(cadence, settings.refresh_every_s),
        promised_s=promised,
        producer=producer,
        assets=tuple(_assets(facts, instance, now)),
        problems=tuple(problems),
    )


def run(settings: Settings, *, now: datetime, as_json: bool) -> int:
    """Collect and print; the report's exit code.

    Raises:
        HomeError: There is no home, or it is bound to something else.
    """
    from crypto_assets.cli.instance import open_instance
    from crypto_assets.compute.engines import make_engine
    from crypto_assets.home import existing_home

    home = existing_home(settings)
    with open_instance(home) as instance:
        report = collect(settings, instance, make_engine(settings).store, now)
    if as_json:
        output.as_json(json.loads(report.to_json()))
    else:
        render(report)
    return report.exit_code


def render(report: StatusReport) -> None:
    """Print the report for people."""
    output.say(report.banner, style="bold")
    output.say(f"home {report.home}")
    if report.as_of:
        output.say(report.as_of)
    output.table("Assets", [_shown(a) for a in report.assets])
    if report.lag_s is None:
        lag = f"unknown ({report.lag_unknown_because})"
    else:
        behind = (
            "at most" if report.lag_records is None else f"{report.lag_records:,} records not in gold/latest_prices yet"
        )
        lag = f"{_short(report.lag_s)} ({behind})"
    output.say(f"lag       {lag}; newest quote is {_short(report.event_age_s)} old")
    output.say(f"promise   {report.promise}")
    state = "runs" if report.producer.running else "is stopped"
    tick = f", newest good tick {_short(report.producer.newest_tick_age_s)} ago" if report.producer.running else ""
    output.say(f"producer  {state}{tick}")
    for problem in report.problems:
        output.say(f"PROBLEM   {problem}", style="red")


# --- parts --------------------------------------------------------------------------------------------------------


def _lag_of(
    settings: Settings, store: TableStore, covered: Covered, now: datetime
) -> tuple[float | None, int | None, str | None]:
    """Seconds, records, and why they are unknown."""
    if settings.on_databricks and covered.until is None:
        return None, None, "no run of gold/latest_prices has told how far it reaches"
    if settings.transport != "landing":
        return _lag(settings, covered.offsets, now)
    if not settings.on_databricks or covered.until is None:
        return _landing_lag(settings, store, covered.until, now)
    # Which files are stored only the workspace knows; what is not covered arrived later than what is.
    return max(0.0, (now - covered.until).total_seconds()), None, None


def _lag(settings: Settings, covered: Mapping[int, int], now: datetime) -> tuple[float | None, int | None, str | None]:
    """Seconds, records, and why they are unknown."""
    from crypto_assets.kafka import log
    from crypto_assets.kafka.errors import LogError

    try:
        start = log.lag_start(settings, settings.prices_topic, covered)
    except LogError as error:
        return None, None, str(error)
    lag = 0.0 if start.oldest is None else max(0.0, (now - start.oldest).total_seconds())
    return lag, sum(start.uncovered.values()), None


def _landing_lag(
    settings: Settings, store: TableStore, until: datetime | None, now: datetime
) -> tuple[float | None, int | None, str | None]:
    """The same of landed records of the last seven days; files that cannot be read yet make it unknown."""
    from crypto_assets.contracts.tables import RAW_PRICES
    from crypto_assets.kafka.errors import LogError
    from crypto_assets.steps import landing

    folder = settings.landing / settings.prices_topic
    if not folder.is_dir():
        return None, None, f"landing folder {folder} does not exist here; see CRYPTO_ASSETS_LANDING"
    try:
        found = landing.pending(store, RAW_PRICES, folder, until, now)
    except LogError as error:
        return None, None, str(error)
    if found.waiting:
        return None, None, f"files without a newline at their end cannot be read yet: {', '.join(found.waiting[:10])}"
    lag = 0.0 if found.oldest is None else max(0.0, (now - found.oldest).total_seconds())
    return lag, found.records, None


def _producer(settings: Settings, instance: dg.DagsterInstance, now: datetime) -> ProducerStatus:
    """State of the producer sensor. Under `ui` what was started by `up` is off, though its state is still stored."""
    from dagster._core.scheduler.instigation import InstigatorStatus

    from crypto_assets.automation import event_store
    from crypto_assets.automation.alert_sensor import producer_alive
    from crypto_assets.home import Home

    state = event_store.sensor_state(instance, "producer")
    newest, trouble = producer_alive(instance)
    if state is not None and state.status is InstigatorStatus.DECLARED_IN_CODE:
        home = Home(settings.home, settings.source, settings.partitions_start)
        if "(ui)" in (home.holder("serve") or ""):
            return ProducerStatus(False, _age(newest, now), trouble)
    return ProducerStatus(state is not None and state.is_running, _age(newest, now), trouble)


def _assets(facts: TableFacts, instance: dg.DagsterInstance, now: datetime) -> list[AssetStatus]:
    import dagster as dg

    from crypto_assets.automation import event_store

    checks: dict[str, list[event_store.CheckState]] = {}
    for state in event_store.check_states(instance):
        checks.setdefault(state.asset, []).append(state)
    known = {k.to_user_string(): k for k in instance.all_asset_keys()}
    names = ["/".join(t.asset_key) for t in TABLES.values()]
    names = [*sorted(set(known) - set(names)), *names]
    keys = [known.get(n) or dg.AssetKey(n.split("/")) for n in names]
    runs = _last_runs(instance, keys, now)
    found = []
    for name in names:
        table = TABLES.get(name.replace("/", "."))
        known_of = facts.of(table) if table is not None else Facts()
        states = checks.get(name, [])
        red = tuple(s.label for s in states if not s.passed)
        green = sum(s.passed for s in states)
        newest = known_of.newest_event
        found.append(
            AssetStatus(name, known_of.rows, known_of.partition, newest, _age(newest, now), runs.get(name), green, red)
        )
    return found


def _last_runs(instance: dg.DagsterInstance, keys: list[dg.AssetKey], now: datetime) -> dict[str, LastRun]:
    import dagster as dg

    events = {
        record.asset_entry.asset_key.to_user_string(): event
        for record in instance.get_asset_records(keys)
        if (event := record.asset_entry.last_materialization) is not None
    }
    ids = [e.run_id for e in events.values() if e.run_id]
    states = {r.run_id: r.status.value for r in instance.get_runs(dg.RunsFilter(run_ids=ids))} if ids else {}
    return {
        name: LastRun(
            event.run_id,
            states.get(event.run_id, "DELETED") if event.run_id else "sensor",
            max(0.0, round(now.timestamp() - event.timestamp, 1)),
        )
        for name, event in events.items()
    }


# --- for people ---------------------------------------------------------------------------------------------------


def _shown(asset: AssetStatus) -> dict[str, Any]:
    run_ = asset.last_run
    return {
        "asset": asset.asset,
        "rows": asset.rows if asset.rows_of is None else f"{asset.rows} in {asset.rows_of}",
        "newest event": f"{asset.newest_event:%Y-%m-%d %H:%M:%S}" if asset.newest_event else None,
        "age": _short(asset.event_age_s) if asset.event_age_s is not None else None,
        "last run": f"{run_.state.lower()} {run_.run_id[:8]} {_short(run_.age_s)} ago" if run_ else None,
        "checks": f"{asset.checks_green} green" + (f", {len(asset.checks_red)} red" if asset.checks_red else ""),
        "red": ", ".join(asset.checks_red[:3]) + (" ..." if len(asset.checks_red) > 3 else ""),
    }


def _short(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _age(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else round((now - moment).total_seconds(), 3)
