"""`doctor`: checks installation, configuration and environment; each finding comes with its fix.

Belongs here: the list of checks, and the report. Nothing is changed, created or started, no credit is spent, and no
value of a variable is printed. Does not belong here: how late the data is (`status`), whether it is right (`verify`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from crypto_assets.cli import output
from crypto_assets.cli.doctor import environment as variables
from crypto_assets.cli.doctor import log, machine, market, source, tables
from crypto_assets.cli.doctor.finding import Finding
from crypto_assets.errors import FAILED, SUCCESS
from crypto_assets.faults import explain, in_short, redacted
from crypto_assets.settings import Settings
from crypto_assets.settings import environment as of_process

DOTENV = Path(".env")
UNKNOWN = "docs/runbook.md, By message; what is not there is a mistake of this program"


def examine(settings: Settings, environment: Mapping[str, str], now: datetime) -> list[Finding]:
    """Check everything that the settings refer to.

    Args:
        settings: Settings in force.
        environment: Names (and values, which are not shown) of the process environment and `.env`.
        now: Present time (UTC).
    """
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("credentials", lambda: variables.credentials(settings)),
        ("databricks", lambda: variables.databricks(settings)),
        ("home", lambda: machine.home(settings)),
        ("databases", lambda: machine.storage(settings)),
        ("DAGSTER_HOME", lambda: machine.dagster_home(settings, environment)),
        ("disk", lambda: machine.disk(settings)),
        ("java", lambda: machine.java(settings)),
        ("spark", lambda: machine.spark(settings)),
        ("kafka", lambda: log.kafka(settings, now)),
        ("lake", lambda: tables.lake(settings)),
        ("clock", lambda: tables.clock(settings, now)),
        ("models", lambda: tables.tracking(settings)),
        (market.AREA, lambda: market.rules(settings)),
        ("quota", lambda: source.quota(settings, now)),
        ("clock", lambda: source.source_clock(settings)),
    ]
    return _made([*_environment(environment), *checks], settings)


def _environment(environment: Mapping[str, str]) -> list[tuple[str, Callable[[], Iterable[Finding]]]]:
    return [
        ("environment", lambda: variables.dotenv(DOTENV)),
        ("environment", lambda: variables.names(environment)),
        ("proxy", lambda: variables.proxies(environment)),
    ]


def _made(checks: list[tuple[str, Callable[[], Iterable[Finding]]]], settings: Settings | None) -> list[Finding]:
    """Findings of the checks; a check that fails is itself a finding, and the others still run."""
    found: list[Finding] = []
    for area, check in checks:
        try:
            found += list(check())
        except Exception as error:  # noqa: BLE001 - see above
            text = in_short(error, settings.home if settings else None)
            text = redacted(text, settings.secrets() if settings else {})
            found.append(Finding(area, "error", f"could not be looked at: {text}", UNKNOWN))
    return found


def run(load: Callable[[], Settings], *, now: datetime, as_json: bool, verbose: bool = False) -> int:
    """Examine and print; 1 when something does not work, else 0.

    Args:
        load: Gives the settings; a failure is a finding, and the environment is still checked.
        now: Present time (UTC).
        as_json: Print JSON: everything.
        verbose: Print also what is good.
    """
    names = {**dict.fromkeys(variables.dotenv_names(DOTENV), ""), **of_process()}
    try:
        findings = examine(load(), names, now)
    except Exception as error:
        fault = explain(error)
        if fault is None:
            raise
        findings = _made(_environment(names), None)
        if not any(fault.text == f.found for f in findings):
            findings.append(Finding("settings", "error", fault.text, "as the finding says"))
    code = FAILED if any(f.level == "error" for f in findings) else SUCCESS
    if as_json:
        output.as_json({"exit_code": code, "findings": [asdict(f) for f in findings]})
        return code
    order = ("error", "warn", "note", "ok")
    shown = [f for f in findings if verbose or f.level != "ok"]
    output.table("Findings", [asdict(f) for f in sorted(shown, key=lambda f: order.index(f.level))])
    count = {level: sum(f.level == level for f in findings) for level in order}
    output.say(
        f"{count['error']} errors, {count['warn']} warnings, {count['note']} notes, {count['ok']} good"
        + ("" if verbose else " (--verbose shows them)")
    )
    return code
