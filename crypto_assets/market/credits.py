"""Credit governor: paces polls to the plan's limits. Pure functions of state; time is an argument.

Belongs here: budgets, cadence, Retry-After, forecasting when the credits run out. Does not belong here: persisting the
state (`producer.loop`) or polling.
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
"""Maximum calls per poll: one, plus two retries after transient failures."""

KEPT_CALLS = timedelta(minutes=1)
MAX_BACKOFF_S = 600.0
KEPT_MONTHS = 24
CLOCK_SLACK_S = 1.0
"""Backward clock step in seconds that is ignored."""


@dataclass(frozen=True)
class Budget:
    """Call limits of a plan; `per_month` None = not metered."""

    per_minute: int
    per_month: int | None


@dataclass(frozen=True)
class CreditState:
    """Governor state that survives restarts. Times are UTC epoch seconds."""

    month: str = ""
    used_this_month: int = 0
    recent_calls: tuple[float, ...] = ()
    blocked_until: float = 0.0
    failures: int = 0
    last_poll: float | None = None
    other_months: Mapping[str, int] = field(default_factory=dict)

    def spent(self, month: str) -> int:
        """Credits spent in a month (`2024-01`); a clock temporarily a month ahead must not refill the budget."""
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
    """Budget status.

    `dry_on` is the time from which the month's credits do not cover another poll; None while they do, since the cadence
    stretches them to the end of the month.
    """

    used: int
    left: int | None
    dry_on: datetime | None
    text: str


class Governor:
    """Decides when a poll is due.

    Args:
        budget: Limits of the plan.
        loop_s: Tick interval of the producer loop in seconds; cadences are multiples of it.
        floor_s: Shortest useful cadence in seconds: how often the source updates quotes.
    """

    def __init__(self, budget: Budget, *, loop_s: float = 10.0, floor_s: float = QUOTE_CACHE_S) -> None:
        self.budget, self.loop_s, self.floor_s = budget, loop_s, floor_s

    def cadence_s(self, state: CreditState, now: datetime) -> float:
        """Effective poll interval in seconds: the source's update interval, or longer to make the credits last.

        10,000 credits in a month of 31 days allow a poll every 267.9 s, every 270 s with ticks of 10 s.
        """
        shortest = max(self.floor_s, 60.0 / self.budget.per_minute)
        left = self._left(state, now)
        if left is not None:
            remaining_s = (_next_month(now) - now) / timedelta(seconds=1)
            shortest = max(shortest, remaining_s / max(1, self._polls_left(left)))
        return math.ceil(round(shortest / self.loop_s, 6)) * self.loop_s

    def may_poll(self, state: CreditState, now: datetime) -> bool:
        """True if a poll is due and the limits allow it at `now`, even if it takes `CALLS_PER_POLL` calls."""
        at = now.timestamp()
        left = self._left(state, now)
        if at < state.blocked_until or self._polls_left(left) <= 0:
            return False
        minute = sum(at - c < KEPT_CALLS.total_seconds() for c in state.recent_calls)
        if minute + min(CALLS_PER_POLL, self.budget.per_minute) > self.budget.per_minute:
            return False
        # Half a tick of slack, so that a slightly early tick does not skip to the next one.
        return state.last_poll is None or at - state.last_poll >= self.cadence_s(state, now) - self.loop_s / 2

    def settled(self, state: CreditState, now: datetime) -> CreditState:
        """The state corrected for a clock that ran ahead; persist it if it differs.

        A poll in the future was made while the clock was ahead, and all waits count from it. It is moved to `now` with
        its remaining wait, so that the next poll follows after one cadence instead of at that future time.
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
        """The state after a poll. Failures without Retry-After back off for 2, 4, 8 … ticks, at most ten minutes."""
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
        """Budget status at `now`."""
        used = state.spent(_month(now))
        left = self._left(state, now)
        if left is None:
            return CreditReport(used, None, None, f"{used:,} calls this month, not metered")
        if self._polls_left(left) <= 0:
            tail = f"dry on {now.astimezone(UTC):%Y-%m-%d}, new credits on {_next_month(now):%Y-%m-%d}"
            return CreditReport(used, left, now, f"{left:,} credits left, {tail}")
        return CreditReport(used, left, None, f"{left:,} credits left, lasts to the end of the month at this pace")

    def _polls_left(self, left: int | None) -> float:
        """Single-call polls covered by the credits, reserving `CALLS_PER_POLL` calls for the last; below 1 = none.

        A monthly budget below that reserve still covers one poll.
        """
        if left is None or self.budget.per_month is None:
            return math.inf
        return left - min(CALLS_PER_POLL, self.budget.per_month) + 1

    def _left(self, state: CreditState, now: datetime) -> int | None:
        if self.budget.per_month is None:
            return None
        return max(0, self.budget.per_month - state.spent(_month(now)))


def _kept_months(state: CreditState) -> dict[str, int]:
    """Credits of the newest previous months, kept because a corrected clock may return to any of them."""
    months = {**state.other_months, state.month: state.used_this_month}
    return {m: months[m] for m in sorted(months)[-KEPT_MONTHS:] if m}


def _month(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m")


def _next_month(now: datetime) -> datetime:
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)
