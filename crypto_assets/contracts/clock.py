"""Which times can be believed: a clock may be ahead for a moment, and what it stamped stays when it is put right.

Belongs here: the one comparison of a recorded time with the present. Does not belong here: asking for the present.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from crypto_assets.contracts.messages import CLOCK_SKEW_LIMIT_S

SKEW = timedelta(seconds=CLOCK_SKEW_LIMIT_S)
"""By how much clocks of different machines may differ."""


def is_ahead(moment: datetime, now: datetime) -> bool:
    """Whether a recorded time is later than the present, by more than clocks may differ."""
    return moment > now + SKEW


def is_ahead_ms(stamp: int, now: datetime) -> bool:
    """The same of a time in milliseconds since 1970, which may be too late for a `datetime`."""
    return stamp > (now + SKEW).timestamp() * 1000
