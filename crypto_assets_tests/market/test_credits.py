from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.market.credits import CALLS_PER_POLL, MAX_BACKOFF_S, Budget, CreditState, Governor
from crypto_assets.sources.coingecko import BUDGETS

MAY = datetime(2026, 5, 1, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def live(
    governor: Governor,
    start: datetime,
    end: datetime,
    cost: Callable[[datetime], tuple[int, bool]] = lambda _now: (1, True),
    state: CreditState | None = None,
) -> tuple[list[tuple[datetime, int]], CreditState]:
    """Run the producer's loop by a simulated clock: the polls with what they cost, and the state at the end."""
    state, now, polls = state or CreditState(), start, []
    while now < end:
        if governor.may_poll(state, now):
            calls, ok = cost(now)
            polls.append((now, calls))
            state = governor.record(state, now, credits_used=calls, ok=ok)
        now += governor.loop_s * SECOND
    return polls, state


def most_in(polls: list[tuple[datetime, int]], window: timedelta) -> int:
    """Most calls in any window of that length, by brute force."""
    return max((sum(c for t, c in polls if start <= t < start + window) for start, _ in polls), default=0)


@pytest.mark.parametrize(("plan", "cadence"), [("keyless", 60), ("demo", 270), ("paid", 60)])
def test_the_cadence_of_a_fresh_month(plan, cadence):
    assert Governor(BUDGETS[plan]).cadence_s(CreditState(), MAY) == cadence


@pytest.mark.parametrize("plan", list(BUDGETS))
def test_a_months_credits_last_the_month(plan):
    governor = Governor(BUDGETS[plan], loop_s=30.0)
    polls, state = live(governor, MAY, JUNE)
    used = sum(calls for _, calls in polls)
    assert state.used_this_month == used
    assert JUNE - polls[-1][0] <= 2 * timedelta(seconds=governor.cadence_s(CreditState(), MAY))
    assert max(b[0] - a[0] for a, b in pairwise(polls)) <= timedelta(seconds=270)
    if BUDGETS[plan].per_month == 10_000:
        assert 9_700 <= used <= 10_000


def test_what_was_wasted_early_is_spread_over_the_rest():
    governor = Governor(BUDGETS["demo"])
    late = CreditState(month="2026-05", used_this_month=9_000)
    middle = datetime(2026, 5, 16, tzinfo=UTC)
    # 16 days for 1,000 credits: 1,382.4 s, in loops of 10 s.
    assert governor.cadence_s(late, middle) == 1390
    polls, state = live(Governor(BUDGETS["demo"], loop_s=30.0), middle, JUNE, state=late)
    assert 9_900 <= state.used_this_month <= 10_000
    assert JUNE - polls[-1][0] < 2 * timedelta(seconds=1390)


def test_what_was_saved_is_spent_faster_but_never_faster_than_the_source():
    governor = Governor(BUDGETS["demo"])
    saved = CreditState(month="2026-05", used_this_month=100)
    assert governor.cadence_s(saved, datetime(2026, 5, 25, tzinfo=UTC)) == 70
    assert governor.cadence_s(saved, datetime(2026, 5, 31, tzinfo=UTC)) == 60


def test_a_new_month_brings_new_credits():
    governor = Governor(BUDGETS["demo"])
    spent = CreditState(month="2026-05", used_this_month=10_000)
    last = JUNE - 10 * SECOND
    assert not governor.may_poll(spent, last)
    assert governor.may_poll(spent, JUNE)
    assert governor.report(spent, JUNE).left == 10_000
    after = governor.record(spent, JUNE, credits_used=1, ok=True)
    assert (after.month, after.used_this_month) == ("2026-06", 1)
    december = datetime(2026, 12, 31, 23, 59, 50, tzinfo=UTC)
    eve = CreditState(month="2026-12", used_this_month=10_000)
    assert not governor.may_poll(eve, december)
    assert governor.may_poll(eve, december + 10 * SECOND)


def test_the_month_turns_at_midnight_utc_wherever_the_clock_is():
    governor = Governor(BUDGETS["demo"])
    spent = CreditState(month="2026-05", used_this_month=10_000)
    zone = datetime.fromisoformat("2026-06-01T01:30:00+02:00")
    assert not governor.may_poll(spent, zone)
    assert governor.may_poll(spent, zone + timedelta(hours=1))


@pytest.mark.parametrize(
    ("used", "left", "dry", "text"),
    [
        (0, 10_000, False, "10,000 credits left, lasts to the end of the month at this pace"),
        (9_000, 1_000, False, "1,000 credits left, lasts to the end of the month at this pace"),
        (9_998, 2, True, "2 credits left, dry on 2026-05-20, new credits on 2026-06-01"),
        (10_000, 0, True, "0 credits left, dry on 2026-05-20, new credits on 2026-06-01"),
        (10_400, 0, True, "0 credits left, dry on 2026-05-20, new credits on 2026-06-01"),
    ],
)
def test_the_report_says_when_credits_are_dry(used, left, dry, text):
    governor, now = Governor(BUDGETS["demo"]), datetime(2026, 5, 20, 8, tzinfo=UTC)
    state = CreditState(month="2026-05", used_this_month=used)
    report = governor.report(state, now)
    assert (report.used, report.left, report.dry_on, report.text) == (used, left, now if dry else None, text)
    assert governor.may_poll(state, now) is not dry


def test_a_plan_without_meter_says_so():
    report = Governor(BUDGETS["keyless"]).report(CreditState(month="2026-05", used_this_month=1_234), MAY)
    assert (report.left, report.dry_on, report.text) == (None, None, "1,234 calls this month, not metered")


def test_retry_after_survives_a_restart():
    governor = Governor(BUDGETS["keyless"])
    state = governor.record(CreditState(), MAY, credits_used=1, ok=False, retry_after_s=300)
    restarted = CreditState.from_json(state.to_json())
    assert restarted == state
    assert not governor.may_poll(restarted, MAY + 299 * SECOND)
    assert governor.may_poll(restarted, MAY + 300 * SECOND)


def test_retry_after_takes_the_place_of_our_own_wait():
    governor = Governor(BUDGETS["keyless"])
    state = CreditState()
    for _ in range(5):
        state = governor.record(state, MAY, credits_used=1, ok=False)
    told = governor.record(state, MAY, credits_used=1, ok=False, retry_after_s=90)
    assert told.blocked_until - MAY.timestamp() == 90


def test_failures_wait_longer_each_time_up_to_ten_minutes_and_a_success_forgets_them():
    governor = Governor(BUDGETS["paid"])
    state, waits = CreditState(), []
    for _ in range(9):
        state = governor.record(state, MAY, credits_used=1, ok=False)
        waits.append(state.blocked_until - MAY.timestamp())
    assert waits == [20, 40, 80, 160, 320, 600, 600, 600, 600]
    assert waits[-1] == MAX_BACKOFF_S
    later = MAY + timedelta(hours=1)
    healed = governor.record(state, later, credits_used=1, ok=True)
    assert healed.failures == 0
    assert governor.may_poll(healed, later + 60 * SECOND)
    again = governor.record(healed, later, credits_used=1, ok=False)
    assert again.blocked_until - later.timestamp() == 20


def test_thousands_of_failures_do_not_overflow():
    state = CreditState(failures=100_000)
    after = Governor(BUDGETS["paid"]).record(state, MAY, credits_used=1, ok=False)
    assert after.blocked_until - MAY.timestamp() == MAX_BACKOFF_S


def test_a_tick_that_comes_a_little_early_is_still_the_one():
    governor = Governor(BUDGETS["keyless"])
    state = governor.record(CreditState(), MAY, credits_used=1, ok=True)
    assert not governor.may_poll(state, MAY + 50 * SECOND)
    assert governor.may_poll(state, MAY + 59.5 * SECOND)


def test_a_poll_waits_until_all_its_calls_fit_into_the_minute():
    governor = Governor(Budget(per_minute=5, per_month=None))
    state = governor.record(CreditState(), MAY, credits_used=3, ok=True)
    assert not governor.may_poll(state, MAY + 59 * SECOND)
    assert governor.may_poll(state, MAY + 60 * SECOND)


def test_a_budget_below_one_whole_poll_still_polls():
    governor = Governor(Budget(per_minute=1, per_month=1))
    assert governor.may_poll(CreditState(), MAY)
    state = governor.record(CreditState(), MAY, credits_used=1, ok=True)
    assert not governor.may_poll(state, JUNE - SECOND)
    assert governor.may_poll(state, JUNE)


@settings(max_examples=60, deadline=None)
@given(
    per_minute=st.integers(CALLS_PER_POLL, 30),
    per_month=st.one_of(st.none(), st.integers(CALLS_PER_POLL, 400)),
    loop_s=st.sampled_from([1.0, 5.0, 10.0, 30.0]),
    floor_s=st.sampled_from([1.0, 10.0, 60.0]),
    calls=st.lists(st.tuples(st.integers(1, CALLS_PER_POLL), st.booleans()), min_size=1, max_size=20),
    start=st.sampled_from([MAY, JUNE - timedelta(minutes=40), datetime(2024, 2, 29, 23, 30, tzinfo=UTC)]),
)
def test_no_minute_and_no_month_ever_sees_more_calls_than_the_budget(
    per_minute, per_month, loop_s, floor_s, calls, start
):
    governor = Governor(Budget(per_minute, per_month), loop_s=loop_s, floor_s=floor_s)
    given_calls = iter(calls * 10_000)
    polls, state = live(governor, start, start + timedelta(hours=1), lambda _now: next(given_calls))
    assert polls
    assert most_in(polls, timedelta(minutes=1)) <= per_minute
    for month in {(t.year, t.month) for t, _ in polls}:
        used = sum(c for t, c in polls if (t.year, t.month) == month)
        assert per_month is None or used <= per_month
    assert CreditState.from_json(state.to_json()) == state


@settings(max_examples=25, deadline=None)
@given(per_month=st.integers(3, 900), start_day=st.integers(1, 31), seed=st.randoms(use_true_random=False))
def test_a_whole_month_of_retries_stays_within_its_credits(per_month, start_day, seed):
    governor = Governor(Budget(per_minute=30, per_month=per_month), loop_s=600.0)
    start = MAY.replace(day=start_day)
    polls, state = live(governor, start, JUNE, lambda _now: (seed.randint(1, CALLS_PER_POLL), seed.random() < 0.8))
    assert sum(calls for _, calls in polls) <= per_month
    assert state.used_this_month == sum(calls for _, calls in polls)
    assert all(governor.cadence_s(state, t) >= governor.floor_s for t, _ in polls)


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(days=31), timedelta(days=365)])
@pytest.mark.parametrize("wait", [None, 120.0])
def test_after_a_clock_that_was_ahead_the_next_poll_comes_after_the_cadence(jump, wait):
    governor, ahead = Governor(BUDGETS["keyless"]), MAY + jump
    state = governor.record(CreditState(), ahead, credits_used=3, ok=wait is None, retry_after_s=wait)
    state = governor.settled(state, MAY)  # the clock was put right
    assert governor.settled(state, MAY) == state
    due = MAY + (governor.cadence_s(state, MAY) if wait is None else wait) * SECOND
    moments = [MAY + n * governor.loop_s * SECOND for n in range(60)]
    first = next(m for m in moments if governor.may_poll(state, m))
    assert abs(first - due) <= governor.loop_s * SECOND


def test_a_clock_that_jumps_a_month_and_back_refills_no_credits():
    governor = Governor(BUDGETS["demo"])
    state = governor.record(CreditState(), MAY, credits_used=9_000, ok=True)
    state = governor.record(state, JUNE, credits_used=5, ok=True)
    back = CreditState.from_json(governor.settled(state, MAY).to_json())
    assert governor.report(back, MAY).used == 9_000
    again = governor.record(back, MAY + 300 * SECOND, credits_used=1, ok=True)
    assert governor.report(again, MAY + 300 * SECOND).used == 9_001
    assert governor.report(again, JUNE).used == 5
