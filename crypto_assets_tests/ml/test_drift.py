"""Drift: a quiet market has none, and feeds that repeat, smooth or round their quotes do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from crypto_assets.ml import drift
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel
from crypto_assets_tests.ml.synthetic import panel_of

DAYS = drift.REFERENCE_DAYS + drift.RECENT_DAYS


@pytest.fixture(scope="module")
def prices() -> np.ndarray:
    """Four coins with heavy tails and a common part; a day before those compared makes the scale known."""
    rng = np.random.default_rng(2)
    slots = (DAYS + 1) * SLOTS_A_DAY
    returns = 0.001 * (rng.standard_t(4, (4, slots)) + rng.standard_t(4, slots))
    return 100 * np.exp(np.cumsum(returns, axis=1))


def changed(prices: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> Panel:
    """Features where one coin's quotes are changed over the last seven days."""
    moved = prices.copy()
    last = slice(prices.shape[1] - drift.RECENT_DAYS * SLOTS_A_DAY, None)
    moved[1, last] = change(moved[1, last])
    return panel_of(moved)


def test_equal_distributions_have_index_zero_and_it_grows_with_their_distance() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.standard_normal(8064), rng.standard_normal(2016)
    close = drift.psi(before, after, 8064, 2016)
    wide = drift.psi(before, 1.5 * after, 8064, 2016)
    wider = drift.psi(before, 2 * after, 8064, 2016)
    assert close is not None
    assert wide is not None
    assert wider is not None
    assert 0 <= close < 0.02 < wide < wider
    assert drift.psi(before, before, 8064, 8064) == pytest.approx(0)
    # Shares by hand: the bins are below and above the only edge.
    two = drift.psi(np.array([0.0, 1.0]), np.array([0.0, 1.0, 1.0, 1.0]), 2, 4)
    assert two == pytest.approx((0.25 - 0.5) * np.log(0.5) + (0.75 - 0.5) * np.log(1.5), abs=1e-3)


def test_too_little_is_known_of_a_young_coin_to_say() -> None:
    some = np.r_[np.ones(100), np.full(300, np.nan)]
    assert drift.psi(some, np.ones(50), 400, 50) is None
    assert drift.psi(np.ones(400), some, 400, 400) is None


def test_a_steady_market_has_not_drifted(prices: np.ndarray) -> None:
    found = drift.measure(panel_of(prices))
    assert found.red == {}
    assert found.text == "no drift in 4 coins"
    assert all(of.keys() == drift.THRESHOLDS.keys() for of in found.indices.values())
    young = drift.measure(panel_of(prices[:, : 5 * SLOTS_A_DAY]))
    assert young.text == "no drift in 0 coins; 4 have too few days"


def test_a_calmer_market_alone_is_no_drift(prices: np.ndarray) -> None:
    calm = np.log(prices)
    last = prices.shape[1] - drift.RECENT_DAYS * SLOTS_A_DAY
    calm[:, last:] = calm[:, [last]] + 0.4 * (calm[:, last:] - calm[:, [last]])
    assert drift.measure(panel_of(np.exp(calm))).red == {}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda p: p[np.arange(len(p)) // 2 * 2], id="each quote given twice"),
        pytest.param(lambda p: (p + np.roll(p, 1) + np.roll(p, 2)) / 3, id="smoothed over three slots"),
        pytest.param(lambda p: np.exp(np.round(np.log(p) / 0.002) * 0.002), id="rounded to 0.2 %"),
    ],
)
def test_a_feed_that_changed_is_named(prices: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> None:
    found = drift.measure(changed(prices, change))
    assert list(found.red) == ["coin-01"]
    strongest = found.red["coin-01"][0]
    assert found.text.startswith(f"coin-01: {strongest} ")
    assert f"(over {drift.THRESHOLDS[strongest]:g})" in found.text
