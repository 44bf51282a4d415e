"""Which hours a refresh asks for."""

from __future__ import annotations

from datetime import datetime, timedelta

from crypto_assets.contracts.slices import floor_hour, hour_key

SETTLING = timedelta(minutes=5)
"""For so long after an hour's end its last records may still arrive."""


def running_window(now: datetime) -> list[str]:
    """Hourly keys that are still changing at `now` (UTC): the running hour, and in its first minutes the one before.

    The earlier hour comes first, because a chain of offset ranges is extended in order.
    """
    hours = [floor_hour(now)]
    if now - hours[0] < SETTLING:
        hours.insert(0, hours[0] - timedelta(hours=1))
    return [hour_key(h) for h in hours]
