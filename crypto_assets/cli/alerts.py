"""`alerts`: the alert table, printed; with --follow also what comes."""

from __future__ import annotations

from typing import Any

from crypto_assets.cli import output
from crypto_assets.cli.signals import stop_requested
from crypto_assets.contracts.tables import ALERTS
from crypto_assets.home import existing_home
from crypto_assets.settings import Settings
from crypto_assets.storage import delta_files as files

FOLLOW_EVERY_S = 2.0


def _rows(settings: Settings) -> list[dict[str, Any]]:
    # On every target the table is in the home's own lake.
    handle = files.open_table(files.table_path(settings.lake, ALERTS.full_name))
    rows = files.records(handle, ALERTS) if handle is not None else []
    return sorted(rows, key=lambda r: (r["at"], r["alert_id"]))


def run(settings: Settings, *, follow: bool, as_json: bool) -> int:
    """Print alerts; always 0.

    Raises:
        HomeError: There is no home.
    """
    existing_home(settings)
    rows = _rows(settings)
    if as_json:
        output.as_json(rows)
        return 0
    _print(rows)
    if not rows and not follow:
        output.say("no alert was ever raised here")
    seen = {r["alert_id"] for r in rows}
    with stop_requested() as stop:
        while follow and not stop.wait(FOLLOW_EVERY_S):
            new = [r for r in _rows(settings) if r["alert_id"] not in seen]
            seen |= {r["alert_id"] for r in new}
            _print(new)
    return 0


def _print(rows: list[dict[str, Any]]) -> None:
    for r in rows:
        delivered = f"delivered {r['delivered_at']:%H:%M:%S}" if r["delivered_at"] else "not delivered"
        output.say(
            f"{r['at']:%Y-%m-%d %H:%M:%S}Z {r['state']:<8} {r['severity']:<5} {r['cause']}: {r['summary']} "
            f"({delivered})"
        )
