"""Bootstrap of paired differences: values that are known, pairs, whole days, and how often the bounds hold."""

from __future__ import annotations

import numpy as np
import pytest

from crypto_assets.ml.bootstrap import Difference, difference


def test_the_value_is_the_difference_of_means_over_pairs_without_nan() -> None:
    first = np.array([1.0, np.nan, 0.0, 1.0, 7.0])
    second = np.array([0.0, 5.0, 0.0, 0.0, np.nan])
    found = difference(first, second, np.array([1, 1, 2, 3, 4]))
    assert found.value == pytest.approx(2 / 3)
    assert found.days == 3
    assert 0 <= found.lower <= found.value <= found.upper <= 1
    nothing = difference(np.array([np.nan]), np.array([1.0]), np.array([1]))
    assert nothing.days == 0
    assert np.isnan([nothing.value, nothing.lower, nothing.upper]).all()


def test_what_makes_a_day_hard_for_both_does_not_widen_the_bounds() -> None:
    rng = np.random.default_rng(1)
    day = np.repeat(np.arange(30), 50)
    hard = rng.standard_normal(30)[day] * 100
    found = difference(hard + 1, hard, day)
    assert found == Difference(pytest.approx(1), pytest.approx(1), pytest.approx(1), 30)


def test_whole_days_are_drawn_from_any_shape() -> None:
    """One lucky day in 20 is no evidence, though it has many samples; the same gain on every day is."""
    day = np.arange(20 * 288) // 288
    lucky = np.where(day == 3, 1.0, -0.01) * np.ones((4, 1))
    spread = np.full(lucky.shape, lucky.mean())
    one, every = (difference(gain, np.zeros_like(gain), day) for gain in (lucky, spread))
    assert one.value == pytest.approx(every.value)
    assert one.lower < 0 < every.lower
    assert one.days == every.days == 20
    assert difference(lucky, np.zeros_like(lucky), day) == one, "the same seed gives the same bounds"


def test_the_bounds_hold_in_about_95_of_100_samples() -> None:
    day = np.repeat(np.arange(40), 20)
    inside = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        gain = 0.5 + rng.standard_normal(40)[day] + rng.standard_normal(len(day))
        found = difference(gain, np.zeros_like(gain), day, resamples=500)
        inside += found.lower <= 0.5 <= found.upper
    assert 88 <= inside <= 99
