"""What clients are sent when a table changes.

Belongs here: from a change of a table to events. Does not belong here: sending them (`hub`).
"""

from __future__ import annotations

import json
from itertools import islice

from crypto_assets.serving.follow import Change
from crypto_assets.serving.held import changed
from crypto_assets.serving.hub import Event
from crypto_assets.serving.kept import ALERTS, ANOMALIES, BARS, LATEST, PREDICTIONS

KINDS = {
    LATEST.name: "price",
    **{kept.name: "bar" for kept in BARS.values()},
    ANOMALIES.name: "anomaly",
    PREDICTIONS.name: "prediction",
    ALERTS.name: "alert",
}
INTERVALS = {kept.name: interval for interval, kept in BARS.items()}
MOST_ROWS = 500
"""Rows of a change that are sent one by one; a larger one is a backfill, of which clients load what they show."""


def events_of(change: Change) -> list[Event]:
    """Events of a change: one per row of the newest days, and one of kind `table` that names the version.

    Flags are the news about anomalies: a slot without one sends nothing.
    """
    name, after = change.after.kept.name, change.after
    head = {"table": name, "table_version": after.version, "interval": INTERVALS.get(name)}
    about = json.dumps({k: v for k, v in head.items() if v is not None}, separators=(",", ":")).encode()
    found: list[Event] = []
    kind = KINDS.get(name)
    if kind is not None and change.before is not None and change.before.table_id == after.table_id:
        rows = list(islice(changed(change.before, after), MOST_ROWS + 1))
        if len(rows) <= MOST_ROWS:
            found = [
                Event(kind, group or None, about[:-1] + b',"row":' + row.text + b"}")
                for group, row in rows
                if kind != "anomaly" or b'"is_anomaly":true' in row.text
            ]
    return [*found, Event("table", None, about)]
