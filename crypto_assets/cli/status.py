"""`status`: the report of a home, printed for people or as JSON.

Belongs here: showing. Does not belong here: measuring (`crypto_assets.status`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from crypto_assets.cli import output
from crypto_assets.cli.instance import open_instance
from crypto_assets.engine.engines import make_engine
from crypto_assets.home import existing_home
from crypto_assets.settings import Settings

if TYPE_CHECKING:
    from crypto_assets.status.report import AssetStatus, StatusReport

FOUND_CHARS = 110
"""Characters shown of what a check found."""


def run(settings: Settings, *, clock: Callable[[], datetime], as_json: bool) -> int:
    """Collect and print; the report's exit code.

    Raises:
        HomeError: There is no home, or it is bound to something else.
    """
    home = existing_home(settings)
    from crypto_assets.status.report import Parts, collect

    store = make_engine(settings).store
    parts = Parts([], home.path)
    instance = parts.read("the event log", lambda: open_instance(home, reading=True), None)
    try:
        report = collect(settings, instance, store, clock, parts.unreadable)
    finally:
        if instance is not None:
            instance.dispose()
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
    output.table("Assets", [_shown(a) for a in report.assets], right=["age", "last run"])
    red = [
        {"asset": a.asset, "check": check, "found": shorten(found, FOUND_CHARS, placeholder=" …")}
        for a in report.assets
        for check, found in zip(a.checks_red, a.findings, strict=True)
    ]
    if red:
        output.table("Checks that are not green (whole texts: --json)", red)
    if report.lag_s is None:
        lag = f"unknown ({report.lag_unknown_because})"
    else:
        behind = (
            "at most" if report.lag_records is None else f"{report.lag_records:,} records not in gold/latest_prices yet"
        )
        lag = f"{output.duration(report.lag_s)} ({behind})"
    newest = (
        "there is no quote yet"
        if report.event_age_s is None
        else f"newest quote is {output.duration(report.event_age_s)} old"
    )
    output.say(f"lag       {lag}; {newest}")
    output.say(f"promise   {report.promise}")
    output.say(f"service   {report.service}")
    state = "runs" if report.producer.running else "is stopped"
    age = report.producer.newest_tick_age_s
    tick = (
        f", newest good tick {output.duration(max(0.0, age))} ago"
        if report.producer.running and age is not None
        else ""
    )
    output.say(f"producer  {state}{tick}")
    output.say(f"verdict   {report.verdict.word} (exit code {report.exit_code})")
    for problem in report.verdict.problems:
        output.say(f"PROBLEM   {problem}", style="red")
    for reason in report.verdict.unknown:
        output.say(f"UNKNOWN   {reason}", style="red")


def _shown(asset: AssetStatus) -> dict[str, Any]:
    """One line: a run that did well is its age alone."""
    run_ = asset.last_run
    ended = "" if run_ is None or run_.state in ("SUCCESS", "sensor") else f"{run_.state.lower()} {run_.run_id[:8]} "
    return {
        "asset": asset.asset,
        "rows": asset.rows if asset.rows_of is None else f"{asset.rows} in {asset.rows_of}",
        "newest event": f"{asset.newest_event:%Y-%m-%d %H:%M:%S}" if asset.newest_event else None,
        "age": output.duration(asset.event_age_s) if asset.event_age_s is not None else None,
        "last run": f"{ended}{output.duration(run_.age_s)} ago" if run_ else None,
        "checks": f"{asset.checks_green} green" + (f", {len(asset.checks_red)} not" if asset.checks_red else ""),
    }
