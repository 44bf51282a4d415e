"""`demo`: runs two days, or more simulated ones, end to end (source, Kafka, all assets) in a separate home.

Belongs here: the order of the stages and the report. Everything that happens is the product's own code path: the
producer of the sensor, the jobs of the schedules. The demo's home is rebuilt on another day, because its recording is
shifted so that it ends yesterday.
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import dagster as dg

from crypto_assets import binding
from crypto_assets.cli import output, prices
from crypto_assets.cli import report as facts
from crypto_assets.cli.instance import open_instance
from crypto_assets.cli.runs import Outcome, Scheduled
from crypto_assets.cli.up import running_broker
from crypto_assets.contracts.slices import DAY, Slice, day_key, floor_day, hour_keys
from crypto_assets.engine.engines import make_engine
from crypto_assets.errors import UsageError
from crypto_assets.files import UnreadableFile, read_object, write_atomic
from crypto_assets.home import HomeError, open_home, refuse_unfit
from crypto_assets.orchestration import producer_sensor
from crypto_assets.orchestration.event_store import check_states
from crypto_assets.producer.loop import Producer, open_producer
from crypto_assets.serving.lake import open_lake
from crypto_assets.settings import Settings
from crypto_assets.status.report import write_state
from crypto_assets.status.verdict import DEMO_MARKER
from crypto_assets.wiring import build_definitions

DAYS = 2
"""Days unless asked otherwise, and newest days of a longer demo that are polled every minute."""
LONGEST = 90
POLL_EVERY = timedelta(minutes=1)
POLL_EVERY_BEFORE = timedelta(minutes=5)
"""Between polls of earlier days: weeks that models learn from need one price a slot, not one a minute."""
POLL_PHASE = timedelta(seconds=59, milliseconds=500)
"""The recording has a quote a minute, stamped :59; a poll half a second later sees it within the same hour."""


@dataclass
class Stages:
    """Seconds by stage, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage and announce its start: some take half a minute."""
        output.say(f"{name} ...", style="dim")
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def _unusual(settings: Settings) -> dict[str, str]:
    """Transport and engine where they are not the usual ones, by the variable that sets them."""
    chosen = {"CRYPTO_ASSETS_TRANSPORT": settings.transport, "CRYPTO_ASSETS_TARGET": settings.target}
    return {name: value for name, value in chosen.items() if value not in ("kafka", "local")}


def demo_home(settings: Settings) -> Path:
    """Folder of the demo's home: CRYPTO_ASSETS_HOME, or one for the source, the transport and the engine."""
    return settings.home_path or Path(".crypto_assets") / "-".join(
        ["demo", settings.source, *_unusual(settings).values()]
    )


def demo_settings(base: Settings, now: datetime, days: int = DAYS) -> Settings:
    """Settings of the demo: a home that shares nothing with another one, its partitions starting with its first day.

    Args:
        base: Settings of the environment and the command line.
        now: Present time (UTC).
        days: Whole days that end with yesterday.

    Raises:
        UsageError: The demo has no live mode, reads the tables that it fills, or has no recording of so many days.
    """
    if base.is_live:
        raise UsageError(
            "the demo plays a recording or simulated prices: crypto-assets demo --source replay; for live prices use: "
            "make up SOURCE=coingecko"
        )
    if base.on_databricks:
        raise UsageError(
            f"the demo reports from tables on this machine, and with CRYPTO_ASSETS_TARGET={base.target} they are in a "
            "workspace; use local or spark, or on Databricks: crypto-assets up"
        )
    if not DAYS <= days <= LONGEST:
        raise UsageError(f"--days {days}: choose {DAYS} to {LONGEST}")
    if days > DAYS and base.source != "simulator":
        raise UsageError(
            f"--days {days}: the recording has {DAYS} days; longer demos: --source simulator --days {days}"
        )
    first = floor_day(now) - days * DAY
    return base.apart(home_path=demo_home(base), partitions_start=first.date())


def run(base: Settings, now: datetime, *, days: int = DAYS, verbose: bool = False) -> int:
    """Run the demo and print what came of it.

    Args:
        base: Settings of the environment and the command line.
        now: Present time (UTC).
        days: Whole days that end with yesterday.
        verbose: Print every stage, step, table and check too.

    Returns:
        0 if every run succeeded, else 1.

    Raises:
        UsageError: The demo cannot run with these settings.
        HomeError: Its folder holds what the demo did not make.
    """
    stages = Stages()
    began = time.perf_counter()
    settings = demo_settings(base, now, days)
    refuse_unfit(settings)
    repeated = _prepare_home(settings, now.date())
    home = open_home(settings)
    _mark(home.path, now.date(), finished=repeated)
    span = Slice(floor_day(now) - days * DAY, floor_day(now))
    output.say(settings.source_facts.banner, style="bold")
    to = "and" if days == DAYS else f"to ({days} days)"
    output.say(f"days {day_key(span.start)} {to} {day_key(span.end - DAY)}, home {home.path}")
    if unused := base.outside():
        output.say(f"set and not used, since the demo keeps everything in its own home: {', '.join(unused)}")
    if repeated:
        output.say("this day's demo was run before: only what changed since is made again")
    with ExitStack() as stack:
        stack.enter_context(home.lock("serve", doing="demo"))
        with stages.stage("start Kafka" if settings.transport == "kafka" else "prepare landing"):
            servers = stack.enter_context(running_broker(settings))
        output.say(f"kafka {servers}" + (" (Apache Kafka, embedded)" if settings.transport == "kafka" else ""))
        instance = open_instance(home)
        tick = _produce(settings, instance, span, stages)
        scheduled = Scheduled(build_definitions(settings), instance, settings, stages.stage)
        report = scheduled.run(hour_keys(span), [day_key(span.start + i * DAY) for i in range(days)], now)
        if verbose:
            output.say(tick)
        if report.unchanged or verbose:
            output.say(report.text)
        _print_report(settings, instance, report)
        if verbose:
            _print_lists(settings, instance, stages, report)
    _mark(home.path, now.date(), finished=not report.failed)
    more = "" if verbose else "; every step, table and check: --verbose"
    output.say(f"total     {time.perf_counter() - began:.1f} s{more}")
    output.table("Next", next_commands(settings))
    return 1 if report.failed else 0


def _prepare_home(settings: Settings, today: date) -> bool:
    """Keep the home of the same day; remove that of another. Only a home that the demo made is ever removed.

    Raises:
        HomeError: Something else lies in the folder.
    """
    home, marker = settings.home, settings.home / DEMO_MARKER
    if not home.exists() or (home.is_dir() and not any(home.iterdir())):
        _mark(home, today, finished=False)
        return False
    usual = home.parent == Path(".crypto_assets").absolute() and home.name.startswith("demo-")
    if not usual and not marker.exists():
        raise HomeError(
            f"{home} holds what the demo did not make, and the demo removes what it finds: name an empty or a new "
            "folder with CRYPTO_ASSETS_HOME or --home, or unset it"
        )
    bound, kept = None, {}
    with suppress(UnreadableFile):  # then it is recreated
        bound = binding.read(home, settings.lake)
        kept = read_object(marker) if marker.exists() else {"finished": False}
    if bound is not None and bound.partitions_start == settings.partitions_start:
        return kept.get("day") == today.isoformat() and bool(kept.get("finished", True))
    output.say(f"the demo in {home} is of another day: rebuilding it")
    with running_broker(settings):
        pass
    shutil.rmtree(home)
    _mark(home, today, finished=False)
    return False


def _mark(home: Path, today: date, *, finished: bool) -> None:
    """Say in the home that it is a demo, of which day, and whether it came to its end."""
    write_atomic(home / DEMO_MARKER, json.dumps({"day": today.isoformat(), "finished": finished}) + "\n")


def _produce(settings: Settings, instance: dg.DagsterInstance, span: Slice, stages: Stages) -> str:
    """Poll the stand-in through the span and publish what changed.

    Returns:
        What the sensor did at the last poll.
    """
    newest = max(span.start, span.end - DAYS * DAY)
    anchor = (span.end - DAY).date()
    with stages.stage("poll and publish"):
        if newest > span.start:
            rarely = settings.model_copy(update={"poll_interval_s": POLL_EVERY_BEFORE / timedelta(seconds=1)})
            with open_producer(rarely, anchor=anchor) as producer:
                _catch_up(producer, poll_moments(span.start, newest, POLL_EVERY_BEFORE))
        with open_producer(settings, anchor=anchor) as producer:
            moments = poll_moments(newest, span.end)
            if producer.last_poll_at is not None and producer.last_poll_at >= moments[-1]:
                output.say("every poll of these days is in the topic already: nothing is sent")
                return "producer sensor: no tick"
            _catch_up(producer, moments[:-1])
            outcome = _last_poll_by_sensor(producer, instance, settings, moments[-1])
    return f"producer sensor at {moments[-1]:%Y-%m-%d %H:%M}: {outcome}"


def _catch_up(producer: Producer, moments: list[datetime]) -> None:
    """Poll at those of the times that lie after the newest poll."""
    done = producer.last_poll_at
    left = [m for m in moments if done is None or m > done]
    with output.progress(f"polling {len(left):,} times over HTTP, publishing", len(left)) as advance:
        summary = producer.catch_up(left, advance)
    output.say(summary.text)


def _last_poll_by_sensor(producer: Producer, instance: dg.DagsterInstance, settings: Settings, moment: datetime) -> str:
    """The newest poll as the sensor makes it, so that the topics have observations and evaluated checks."""
    result = producer_sensor.evaluate(producer, instance, None, moment, settings.source)
    for event in result.asset_events:
        instance.report_runless_asset_event(event)
    asked = [r.partition_key or "a range of hours" for r in result.run_requests or ()]
    skipped = result.skip_reason.skip_message if result.skip_reason else None
    return f"asks to refresh {', '.join(asked)}" if asked else str(skipped)


def poll_moments(start: datetime, end: datetime, every: timedelta = POLL_EVERY) -> list[datetime]:
    """Virtual times at which the stand-in is polled in [start, end), the last one just before the end."""
    first = start.replace(second=0, microsecond=0) + every - timedelta(minutes=1) + POLL_PHASE
    count = max(0, int((end - first) / every) + 1)
    return [m for m in (first + i * every for i in range(count)) if start <= m < end]


def _print_report(settings: Settings, instance: dg.DagsterInstance, report: Outcome) -> None:
    """Summary for newcomers: prices, flags, problems, and checks expected to fail."""
    engine = make_engine(settings)
    # For the page, which has no Dagster to ask.
    write_state(settings, instance, engine.store, partial(datetime.now, UTC))
    output.say()
    with open_lake(settings) as lake:
        prices.show(prices.board(lake, datetime.now(UTC)), "Newest prices")
    holes = facts.holes(engine) if settings.source == "replay" else []
    for line in (*facts.flag_lines(engine), *facts.check_lines(check_states(instance), holes)):
        output.say(line)
    for line in report.failed:
        output.fail(line)
    if report.failed:
        home = shlex.quote(str(demo_home(settings)))
        output.fail(
            f"{len(report.failed)} failures, see above; every event of the runs: crypto-assets ui --home {home}"
        )


def _print_lists(settings: Settings, instance: dg.DagsterInstance, stages: Stages, report: Outcome) -> None:
    output.say()
    output.table("Seconds per stage", [{"stage": k, "seconds": v} for k, v in stages.seconds.items()])
    output.table("Seconds per asset step", [{"step": k, "seconds": v} for k, v in report.seconds.items()])
    engine = make_engine(settings)
    output.table("Rows and partitions", facts.rows_and_partitions(engine, instance))
    output.table("Checks that are not green", facts.checks(instance))
    output.table("Five highest anomaly scores", facts.highest_scores(engine))


def next_commands(settings: Settings) -> list[dict[str, str]]:
    """Suggested next steps, each with a command that uses the demo's home and engine."""
    name, home = settings.source, shlex.quote(str(demo_home(settings)))
    same = "".join(f"{variable}={value} " for variable, value in _unusual(settings).items())
    return [
        {"next": "look at lineage, runs, partitions, checks", "command": f"{same}make ui SOURCE={name}"},
        {"next": "prices", "command": f".venv/bin/crypto-assets prices --home {home}"},
        {"next": "rows, lag, runs and checks", "command": f".venv/bin/crypto-assets status --home {home}"},
        {"next": "prove the lake against the log", "command": f".venv/bin/crypto-assets verify --home {home}"},
        {"next": "run the pipeline until Ctrl-C", "command": f"{same}make up SOURCE={name}"},
        {"next": "live prices", "command": "make up SOURCE=coingecko"},
    ]
