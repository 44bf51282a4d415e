"""Measures on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from crypto_assets.ml import evaluation, scoring
from crypto_assets.ml.panel import SLOTS_A_DAY, anomaly_inputs
from crypto_assets_tests.ml.synthetic import panel_of, walk


def test_skill_is_one_minus_the_ratio_of_squared_errors() -> None:
    outcomes = np.array([1.0, -2.0, 3.0, -1.0])
    forecasts = np.array([1.0, -1.0, 0.0, 1.0])
    found = evaluation.skill(outcomes - forecasts, outcomes, forecasts, np.array([0, 0, 1, 1]))
    assert found.value == pytest.approx(1 - (0 + 1 + 9 + 4) / (1 + 4 + 9 + 1))
    assert (found.samples, found.days) == (4, 2)
    assert found.direction_hit == pytest.approx(2 / 3), "a forecast of no change has no direction"
    perfect = evaluation.skill(outcomes * 0, outcomes, outcomes, np.array([0, 0, 1, 1]))
    assert (perfect.value, perfect.lower, perfect.upper) == (1, 1, 1)


def test_the_bootstrap_draws_whole_days() -> None:
    """One good day among 14 is no evidence, though its slots are many; the same errors spread over all days are."""
    rng = np.random.default_rng(1)
    outcomes = rng.standard_normal(14 * 288)
    day = np.repeat(np.arange(14), 288)
    lucky = np.where(day == 3, outcomes, -0.01 * outcomes)
    spread = np.where(rng.random(len(outcomes)) < 1 / 14, outcomes, -0.01 * outcomes)
    one, all_ = (evaluation.skill(outcomes - f, outcomes, f, day) for f in (lucky, spread))
    assert one.value > 0
    assert all_.value == pytest.approx(one.value, abs=0.03)
    assert one.lower < 0 < all_.lower
    assert evaluation.skill(outcomes - lucky, outcomes, lucky, day) == one, "the same seed gives the same interval"


def test_flags_within_half_an_hour_are_one_episode() -> None:
    flags = np.zeros(100, dtype=bool)
    assert evaluation.episodes(flags) == 0
    flags[[10, 16, 22, 29, 50]] = True
    assert evaluation.episodes(flags) == 3


def test_flag_statistics_count_whole_days() -> None:
    flags = np.zeros((2, 2 * SLOTS_A_DAY + 5), dtype=bool)
    flags[:, 0] = True  # before the first whole day
    flags[0, [10, 11, 400]] = True
    flags[1, 400] = True
    found = evaluation.flag_statistics(flags, ("a", "b"))
    assert found["flags"] == 4
    assert found["days"] == 2
    assert (found["mean_per_coin_day"], found["median_per_coin_day"]) == (1.0, 1.0)
    assert found["share"] == {"a": 0.75, "b": 0.25}
    # With two coins, one of them is half of the market.
    assert found["episodes"] == 3
    assert found["market_wide_episodes"] == 2
    assert evaluation.flag_statistics(flags[:, :100], ("a", "b"))["days"] == 0


def test_scope_is_market_wide_when_half_of_the_others_were_flagged_within_five_minutes() -> None:
    flags = np.zeros((5, 10), dtype=bool)
    flags[[0, 1], 4], flags[2, 3], flags[3, 2] = True, True, True
    assert scoring.scope(flags, 0, 4) == "market_wide"
    assert scoring.scope(flags, 2, 3) == "coin_specific"
    assert scoring.scope(flags, 4, 4) is None
    assert scoring.scope(flags[:1], 0, 4) is None
    flags[0, 9] = flags[1, 8] = True
    assert scoring.scope(flags, 0, 9) == "coin_specific"


def test_suspicion_names_stale_single_and_incomplete_data() -> None:
    good = {"price": 1.0, "staleness_s": 5.0, "sample_count": 5, "is_complete": True}
    assert scoring.suspicion(good) is None
    assert scoring.suspicion({**good, "staleness_s": 305.0}) == "stale"
    assert scoring.suspicion({**good, "price": None, "staleness_s": None}) == "stale"
    assert scoring.suspicion({**good, "sample_count": 1}) == "single_sample"
    assert scoring.suspicion({**good, "sample_count": 1}, frozen=True) == "frozen"
    assert scoring.suspicion({**good, "staleness_s": 305.0}, frozen=True) == "stale"
    assert scoring.suspicion({**good, "is_complete": False}) == "incomplete"


def test_explanations_name_the_strongest_inputs_first() -> None:
    import json

    data = panel_of(walk(4, 3, 500)).cut(300, 500)
    data["rz"][1, 20] = -40.0
    first = json.loads(scoring.explanation(anomaly_inputs(data)[1, 20]) or "")
    assert first[0] == {"feature": "rz", "sigma": -40.0}
    assert len(first) == scoring.EXPLAINED
    assert [abs(f["sigma"]) for f in first] == sorted((abs(f["sigma"]) for f in first), reverse=True)
    for field in data.values:
        data[field][2, 7] = np.nan
    assert scoring.explanation(anomaly_inputs(data)[2, 7]) is None
