"""The running window of hours, and the run request that refreshes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import dagster as dg

from crypto_assets.contracts.slices import floor_hour, hour_key
from crypto_assets.dagster_private import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

SETTLING = timedelta(minutes=5)
"""Time after an hour's end within which its last records may still arrive."""


def running_window(now: datetime) -> list[str]:
    """Hourly keys still changing at `now` (UTC): the running hour, and in its first minutes the previous one.

    The earlier hour comes first, because a chain of offset ranges is extended in order.
    """
    hours = [floor_hour(now)]
    if now - hours[0] < SETTLING:
        hours.insert(0, hours[0] - timedelta(hours=1))
    return [hour_key(h) for h in hours]


def hours_request(run_key: str, keys: Sequence[str], tags: Mapping[str, str]) -> dg.RunRequest:
    """Request one run for one hour or for the range of several."""
    if len(keys) == 1:
        return dg.RunRequest(run_key=run_key, partition_key=keys[0], tags=dict(tags))
    ends = {ASSET_PARTITION_RANGE_START_TAG: keys[0], ASSET_PARTITION_RANGE_END_TAG: keys[-1]}
    return dg.RunRequest(run_key=run_key, tags={**tags, **ends})
