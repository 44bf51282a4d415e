"""Freshness promises of tables: thresholds from the polling cadence, and as a sentence.

Belongs here: the arithmetic of the promise. Does not belong here: measuring lag (`status`), or checks on the newest
quote (the producer sensor).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from crypto_assets.market.credits import CreditState
from crypto_assets.producer.loop import governor_of
from crypto_assets.settings import Settings

LONG_MONTH = datetime(2024, 1, 1, tzinfo=UTC)
"""Start of an arbitrary month of 31 days."""

DAILY_WARN, DAILY_FAIL = timedelta(hours=26), timedelta(hours=50)
"""A daily table is due once a day at 00:15; a missed day warns within two hours, a second one fails."""

SLOT_S = 300.0
"""Seconds between updates of assets that follow 5-minute slots, whatever the cadence."""


def cadence_s(settings: Settings) -> float:
    """Seconds between new quotes that the configured source and plan allow over a whole month.

    It is the producer's own arithmetic at the start of a month of 31 days: 10,000 credits and a 10 s loop give 270 s.
    The cadence in force may be longer when credits were spent early in the month.
    """
    return governor_of(settings).cadence_s(CreditState(), LONG_MONTH)


def pace_s(settings: Settings) -> float:
    """Seconds between new rows: the interval of polls, or of refreshes if these are rarer."""
    return max(cadence_s(settings), settings.refresh_every_s)


def thresholds(cadence: float) -> tuple[timedelta, timedelta]:
    """Age at which data is late, and at which it is stale: 2 x cadence + 60 s, 4 x cadence + 120 s.

    Args:
        cadence: Seconds between new rows (`pace_s`).
    """
    return timedelta(seconds=2 * cadence + 60), timedelta(seconds=4 * cadence + 120)


def windows(settings: Settings) -> Mapping[str, tuple[timedelta, timedelta]]:
    """Ages at which an asset is late and stale, by its trigger (`assets.card.MovedBy`)."""
    pace = pace_s(settings)
    return {
        "refresh": thresholds(pace),
        "slot": thresholds(max(pace, SLOT_S)),
        "daily": (DAILY_WARN, DAILY_FAIL),
    }


def promise(cadence: float, refresh_every_s: float = 0) -> str:
    """Promise to readers: data age, and how full the bar tables are.

    Args:
        cadence: Seconds between polls.
        refresh_every_s: Seconds between refreshes; 0 = after every poll.
    """
    warn, _ = thresholds(max(cadence, refresh_every_s))
    age = warn.total_seconds()
    age_text = f"{age / 60:g} min" if age % 60 == 0 else f"{age:g} s"
    sparse = [name for name, width in (("bars_1m", 60), ("bars_5m", 300)) if cadence > width]
    filled = f"{' and '.join(sparse)} mostly empty" if sparse else "every bar table filled"
    refreshed = f", refreshed every {refresh_every_s:g} s" if refresh_every_s > cadence else ""
    return f"cadence {cadence:g} s{refreshed} → data age ≤ {age_text}; {filled}"
