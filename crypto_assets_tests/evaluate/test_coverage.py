"""Coverage of intervals on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from crypto_assets.evaluate.coverage import coverage
from crypto_assets.ml.panel import SLOTS_A_DAY

DAYS = 9


def test_coverage_by_coin_week_and_hour() -> None:
    """Coin a misses every tenth slot; coin b everything in the first hour of each day, and its last day is unknown."""
    outcomes = np.zeros((2, DAYS * SLOTS_A_DAY))
    outcomes[0, ::10] = 3.0
    hours = np.arange(DAYS * SLOTS_A_DAY) % SLOTS_A_DAY // 12
    outcomes[1, hours == 0] = -3.0
    outcomes[1, -SLOTS_A_DAY:] = np.nan
    bound = np.ones_like(outcomes)
    found = coverage(outcomes, -bound, bound, ("a", "b"), 20_000 * SLOTS_A_DAY + 1)
    assert found.samples == (2 * DAYS - 1) * SLOTS_A_DAY
    assert found.by_coin == {"a": pytest.approx(0.9, abs=1e-3), "b": pytest.approx(23 / 24)}
    assert found.by_hour[0] == pytest.approx(0.9 * DAYS / (2 * DAYS - 1), abs=0.01)
    assert all(share > 0.9 for share in found.by_hour[1:])
    assert len(found.by_week) == 1, "two days are no week"
    assert found.coin_weeks == 2
    assert found.weeks_within == 0.5, "b is off by almost six points"
    assert found.weekly_error == pytest.approx((23 / 24 - 0.9) / 2, abs=1e-3)
    assert found.width == pytest.approx(20_000)
    missed = (outcomes[0] == 3).sum() + (outcomes[1] == -3).sum()
    assert found.winkler == pytest.approx((2 + 20 * 2 * missed / found.samples) * 1e4)


def test_without_forecasts_nothing_is_known() -> None:
    nothing = np.full((1, SLOTS_A_DAY), np.nan)
    found = coverage(nothing, nothing, nothing, ("a",), 1)
    assert found.samples == 0
    assert np.isnan([found.covered, found.weekly_error, found.winkler, found.width]).all()
