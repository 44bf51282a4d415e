from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby

import numpy as np
import pytest

from crypto_assets.market.coins import DEFAULT_COINS
from crypto_assets.sources.simulator import BASES, DAY, STEP, SimulatorFeed

START = datetime(2026, 3, 1, tzinfo=UTC)
COINS = [c.coin_id for c in DEFAULT_COINS.coins]


@pytest.fixture(scope="module")
def feed() -> SimulatorFeed:
    return SimulatorFeed(7)


def matrix(feed: SimulatorFeed, start: datetime, end: datetime, step: timedelta) -> np.ndarray:
    """Prices on a grid as coins x times, read day by day."""
    times = [start + i * step for i in range((end - start) // step)]
    days = [list(some) for _, some in groupby(times, key=datetime.date)]
    return np.hstack([np.array([[float(p) for _, p in feed.history(c, day)] for c in COINS]) for day in days])


def test_equal_seeds_agree_at_any_time_in_any_order(feed):
    moments = [START, START + timedelta(days=400), START + timedelta(seconds=12_345), START - timedelta(days=800)]
    other = SimulatorFeed(7)
    assert [feed.quotes(m) for m in moments] == [other.quotes(m) for m in reversed(moments)][::-1]


def test_other_seeds_give_other_prices(feed):
    ours, theirs = feed.quotes(START), SimulatorFeed(8).quotes(START)
    assert all(a.price != b.price for a, b in zip(ours, theirs, strict=True))


def test_a_restart_far_ahead_agrees_with_the_past(feed):
    ahead = SimulatorFeed(7)
    ahead.quotes(datetime(2035, 1, 1, tzinfo=UTC))
    assert ahead.quotes(START) == feed.quotes(START)


def test_ten_coins_with_everything_a_source_tells(feed):
    quotes = feed.quotes(START + timedelta(seconds=4))
    assert [q.coin_id for q in quotes] == COINS
    for q in quotes:
        assert q.last_updated_at == START
        assert None not in (q.market_cap, q.volume_24h, q.change_1h_pct, q.change_24h_pct, q.change_7d_pct)
        assert min(q.price, q.market_cap or 0, q.volume_24h or 0) > 0


def test_a_quote_lasts_ten_seconds(feed):
    assert feed.quotes(START) == feed.quotes(START + timedelta(seconds=9.999))
    assert feed.quotes(START + STEP) != feed.quotes(START)
    assert feed.quotes(START + STEP)[0].last_updated_at == START + STEP


@pytest.mark.slow
def test_prices_stay_positive_and_of_their_coins_magnitude_for_years(feed):
    prices = matrix(feed, datetime(2024, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), timedelta(hours=24))
    bases = np.array([BASES[c][0] for c in COINS])[:, None]
    assert np.isfinite(prices).all()
    assert (prices > 0).all()
    assert (np.abs(np.log(prices / bases)) < np.log(3)).all()


def test_coins_move_together_but_not_as_one(feed):
    returns = np.diff(np.log(matrix(feed, START, START + 20 * DAY, timedelta(minutes=5))), axis=1)
    pairs = np.corrcoef(returns)[np.triu_indices(len(COINS), 1)]
    assert pairs.min() > 0.5
    assert pairs.max() < 0.7


def test_a_day_moves_as_much_as_it_is_said_to(feed):
    returns = np.diff(np.log(matrix(feed, START, START + 60 * DAY, timedelta(minutes=5))), axis=1)
    daily = returns.std(axis=1) * np.sqrt(288)
    # Two months hold about fifteen independent spells of wild or quiet days.
    assert daily == pytest.approx([BASES[c][1] for c in COINS], rel=0.2)


def test_volatility_comes_in_clusters_and_direction_does_not(feed):
    returns = np.diff(np.log(matrix(feed, START, START + 30 * DAY, timedelta(minutes=5))), axis=1)

    def echo(values: np.ndarray, slots: int) -> float:
        return float(np.mean([np.corrcoef(row[:-slots], row[slots:])[0, 1] for row in values]))

    assert echo(np.abs(returns), 1) > 0.15
    assert echo(np.abs(returns), 12) > 0.1
    assert abs(echo(returns, 1)) < 0.02


def test_midnight_has_no_jump(feed):
    prices = np.log(matrix(feed, START - timedelta(hours=1), START + timedelta(hours=1), STEP))
    steps = np.abs(np.diff(prices, axis=1))
    seam = steps[:, steps.shape[1] // 2]
    assert (seam < 6 * steps.std(axis=1)).all()


def test_changes_are_those_of_its_own_prices(feed):
    now = START + timedelta(hours=5)
    for q in feed.quotes(now):
        for change, back in ((q.change_1h_pct, 1), (q.change_24h_pct, 24), (q.change_7d_pct, 7 * 24)):
            ((_, then),) = feed.history(q.coin_id, [now - timedelta(hours=back)])
            assert change == ((q.price / then - 1) * 100).quantize(Decimal("0.00001"))
