"""Clock-skew test for recorded times: timestamps from a clock that ran ahead remain after the clock is corrected.

Does not belong here: reading the clock.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from crypto_assets.contracts.messages import CLOCK_SKEW_LIMIT_S

SKEW = timedelta(seconds=CLOCK_SKEW_LIMIT_S)
"""Tolerated difference between the clocks of two machines."""


def is_ahead(moment: datetime, now: datetime) -> bool:
    """True if a recorded time is later than `now` by more than the tolerated skew."""
    return moment > now + SKEW


def is_ahead_ms(stamp: int, now: datetime) -> bool:
    """`is_ahead` for milliseconds since 1970, which may exceed the range of `datetime`."""
    return stamp > (now + SKEW).timestamp() * 1000
