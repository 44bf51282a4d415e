"""The credit governor: how often a plan lets us poll. Pure: state in, state out; time is an argument.

Belongs here: budgets, cadence, Retry-After, the forecast of the day on which the credits run dry. Does not belong
here: keeping the state (`producer.loop`) or polling.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta

QUOTE_CACHE_S = 60.0
"""Seconds after which CoinGecko refreshes /coins/markets: polling faster brings no new quote."""

CALLS_PER_POLL = 3
"""Calls that a poll makes at most: one, and two more after transient failures."""

KEPT_CALLS = timedelta(minutes=1)
MAX_BACKOFF_S = 600.0
KEPT_MONTHS = 24
CLOCK_SLACK_S = 1.0
"""Seconds by which a clock may step back without being noticed."""


@dataclass(frozen=True)
class Budget:
    """What a plan allows. `per_month` None = not metered."""

    per_minute: int
    per_month: int | None


@dataclass(frozen=True)
class CreditState:
    """What must survive a restart. Times are UTC epoch seconds."""

    month: str = ""
    used_this_month: int = 0
    recent_calls: tuple[float, ...] = ()
    blocked_until: float = 0.0
    failures: int = 0
    last_poll: float | None = None
    other_months: Mapping[str, int] = field(default_factory=dict)

    def spent(self, month: str) -> int:
        """Credits spent in a month (`2024-01`): a clock that was a month ahead for a while refills nothing."""
        return self.used_this_month if month == self.month else self.other_months.get(month, 0)

    def to_json(self) -> str:
        """JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> CreditState:
        """Rebuild from `to_json`."""
        raw = json.loads(text)
        polled = raw["last_poll"]
        return cls(
            month=str(raw["month"]),
            used_this_month=int(raw["used_this_month"]),
            recent_calls=tuple(float(call) for call in raw["recent_calls"]),
            blocked_until=float(raw["blocked_until"]),
            failures=int(raw["failures"]),
            last_poll=None if polled is None else float(polled),
            other_months={str(month): int(used) for month, used in raw.get("other_months", {}).items()},
        )


@dataclass(frozen=True)
class CreditReport:
    """Where the budget stands.

    `dry_on` is the time from which the month's credits do not cover another poll, or None: the cadence in force always
    makes what is left last to the end of the month.
    """

    used: int
    left: int | None
    dry_on: datetime | None
    text: str


class Governor:
    """Decides when a poll is due.

    Args:
        budget: What the plan allows.
        loop_s: Seconds between looks of the producer; cadences are multiples of it.
        floor_s: Shortest useful cadence: how often the source has new quotes.
    """

    def __init__(self, budget: Budget, *, loop_s: float = 10.0, floor_s: float = QUOTE_CACHE_S) -> None:
        self.budget, self.loop_s, self.floor_s = budget, loop_s, floor_s

    def cadence_s(self, state: CreditState, now: datetime) -> float:
        """Seconds between polls in force: the source's pace, or what spreads the remaining credits over the month.

        10,000 credits over a month of 31 days are one poll per 267.9 s, in a loop of 10 s one per 270 s.
        """
        shortest = max(self.floor_s, 60.0 / self.budget.per_minute)
        left = self._left(state, now)
        if left is not None:
            remaining_s = (_next_month(now) - now) / timedelta(seconds=1)
            shortest = max(shortest, remaining_s / max(1, self._polls_left(left)))
        return math.ceil(round(shortest / self.loop_s, 6)) * self.loop_s

    def may_poll(self, state: CreditState, now: datetime) -> bool:
        """Whether a poll is due and allowed at `now`, also if it needs all its calls (`CALLS_PER_POLL`)."""
        at = now.timestamp()
        left = self._left(state, now)
        if at < state.blocked_until or self._polls_left(left) <= 0:
            return False
        minute = sum(at - c < KEPT_CALLS.total_seconds() for c in state.recent_calls)
        if minute + min(CALLS_PER_POLL, self.budget.per_minute) > self.budget.per_minute:
            return False
        # Half a loop of slack: a tick that comes a little early must not wait a whole loop more.
        return state.last_poll is None or at - state.last_poll >= self.cadence_s(state, now) - self.loop_s / 2

    def settled(self, state: CreditState, now: datetime) -> CreditState:
        """The state as far as it can be true at `now`; to be saved when it differs.

        A poll later than `now` was made while the clock was ahead, and every wait was counted from it. It counts as
        made now, and what was left to wait is kept: the next poll comes after the cadence, not when that time comes.
        """
        moment = now.timestamp()
        last = state.last_poll
        if last is None or last <= moment + CLOCK_SLACK_S:
            return state
        back = last - moment
        return replace(
            state,
            last_poll=moment,
            blocked_until=state.blocked_until - back if state.blocked_until > last else 0.0,
            recent_calls=tuple(min(c, moment) for c in state.recent_calls),
        )

    def record(
        self, state: CreditState, now: datetime, *, credits_used: int, ok: bool, retry_after_s: float | None = None
    ) -> CreditState:
        """The state after a poll. A failure without Retry-After waits 2, 4, 8 … loops, at most ten minutes."""
        at, month = now.timestamp(), _month(now)
        used = state.spent(month) + credits_used
        kept = tuple(c for c in state.recent_calls if at - c < KEPT_CALLS.total_seconds())
        failures = 0 if ok else state.failures + 1
        wait = 0.0 if ok else min(MAX_BACKOFF_S, self.loop_s * 2.0 ** min(failures, 16))
        if retry_after_s is not None:
            wait = retry_after_s
        return replace(
            state,
            month=month,
            used_this_month=used,
            other_months=state.other_months if state.month == month else _kept_months(state),
            recent_calls=(*kept, *([at] * credits_used)),
            blocked_until=at + wait if wait else state.blocked_until,
            failures=failures,
            last_poll=at,
        )

    def report(self, state: CreditState, now: datetime) -> CreditReport:
        """Credits left, and whether they are dry."""
        used = state.spent(_month(now))
        left = self._left(state, now)
        if left is None:
            return CreditReport(used, None, None, f"{used:,} calls this month, not metered")
        if self._polls_left(left) <= 0:
            tail = f"dry on {now.astimezone(UTC):%Y-%m-%d}, new credits on {_next_month(now):%Y-%m-%d}"
            return CreditReport(used, left, now, f"{left:,} credits left, {tail}")
        return CreditReport(used, left, None, f"{left:,} credits left, lasts to the end of the month at this pace")

    def _polls_left(self, left: int | None) -> float:
        """Polls of one call that the credits buy if the last of them may need all its calls; below 1 there is none.

        A budget of less than that buys one poll.
        """
        if left is None or self.budget.per_month is None:
            return math.inf
        return left - min(CALLS_PER_POLL, self.budget.per_month) + 1

    def _left(self, state: CreditState, now: datetime) -> int | None:
        if self.budget.per_month is None:
            return None
        return max(0, self.budget.per_month - state.spent(_month(now)))


def _kept_months(state: CreditState) -> dict[str, int]:
    """Credits by month other than the one that begins: the newest, since a clock may come back to any of them."""
    months = {**state.other_months, state.month: state.used_this_month}
    return {m: months[m] for m in sorted(months)[-KEPT_MONTHS:] if m}


def _month(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m")


def _next_month(now: datetime) -> datetime:
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)
