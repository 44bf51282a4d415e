"""Which hours a refresh asks for, and the request of one run for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import dagster as dg

from crypto_assets.contracts.slices import floor_hour, hour_key
from crypto_assets.dagster_private import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

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


def hours_request(run_key: str, keys: Sequence[str], tags: Mapping[str, str]) -> dg.RunRequest:
    """One run for one hour, or for the range from the first to the last of several."""
    if len(keys) == 1:
        return dg.RunRequest(run_key=run_key, partition_key=keys[0], tags=dict(tags))
    ends = {ASSET_PARTITION_RANGE_START_TAG: keys[0], ASSET_PARTITION_RANGE_END_TAG: keys[-1]}
    return dg.RunRequest(run_key=run_key, tags={**tags, **ends})
