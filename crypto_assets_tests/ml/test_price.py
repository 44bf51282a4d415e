"""Price forecasters: no skill is found where there is none, a planted one is, and nothing later is looked at."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from crypto_assets.engine.base import NotEnoughData
from crypto_assets.ml import artifacts, price
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel, panel
from crypto_assets_tests.ml.synthetic import SIGMA, START, feature_rows, panel_of, walk

DAYS = price.TRAIN_DAYS + price.EVALUATION_DAYS


def first(data: Panel, coins: int) -> Panel:
    """Only the first coins; what they are compared with stays in their features."""
    return replace(data, coins=data.coins[:coins], values={n: v[:coins] for n, v in data.values.items()})


def hidden(data: Panel, field: str, start: int, end: int) -> Panel:
    """The panel without a field in slots [start, end)."""
    values = {n: v.copy() for n, v in data.values.items()}
    values[field][:, start:end] = np.nan
    return replace(data, values=values)


@pytest.fixture(scope="module")
def planted() -> Panel:
    """Sixteen coins with AR(1) returns, phi = 0.2, over the fewest days that are evaluated."""
    return panel_of(walk(1, 16, DAYS * SLOTS_A_DAY, phi=0.2), scale=SIGMA / np.sqrt(1 - 0.2**2))


@pytest.mark.slow
def test_on_a_random_walk_no_model_is_promoted_in_19_of_20_seeds() -> None:
    promoted = []
    for seed in range(20):
        data = first(panel_of(walk(seed, 4, DAYS * SLOTS_A_DAY), scale=SIGMA), 1)
        trained = price.train(data, 1)
        assert [c.algorithm for c in trained.candidates] == list(price.CANDIDATES)
        assert all(c.skill.days == price.EVALUATION_DAYS for c in trained.candidates)
        promoted += [seed] if trained.model is not None else []
    assert len(promoted) <= 1, promoted


def test_a_planted_ar1_is_promoted(planted: Panel) -> None:
    trained = price.train(planted, 1, ("ridge",))
    assert trained.algorithm == "ridge"
    assert trained.model is not None
    (candidate,) = trained.candidates
    # The best forecast of an AR(1) explains phi squared of the variance, and phi^4 a bar later.
    assert candidate.skill.lower < 0.04 < candidate.skill.upper + 0.01
    assert candidate.skill_delayed is not None
    assert candidate.skill_delayed.lower < 0.0016 < candidate.skill_delayed.upper
    assert candidate.skill.direction_hit > 0.53


def test_an_echo_of_the_newest_price_is_not_promoted() -> None:
    """Noise of the quote itself reverts in the next bar: skill that is gone when the target starts a bar later."""
    prices = walk(3, 8, DAYS * SLOTS_A_DAY)
    bounce = np.random.default_rng(4).standard_normal(prices.shape) * SIGMA / 2
    trained = price.train(panel_of(prices * np.exp(bounce), scale=SIGMA * np.sqrt(1.5)), 1, ("ridge",))
    (candidate,) = trained.candidates
    assert candidate.skill_delayed is not None
    assert candidate.skill.lower > 0.02
    assert candidate.skill_delayed.lower < 0
    assert not candidate.passes
    assert trained.model is None
    assert trained.algorithm == "persistence"


def test_rows_after_the_cutoff_do_not_change_what_is_learnt(planted: Panel) -> None:
    data = first(planted, 16)
    later = panel_of(walk(9, 16, 300)).cut(288, 300)
    values = {n: np.concatenate([v, later.values[n]], axis=1) for n, v in data.values.items()}
    table = feature_rows(replace(data, values=values))
    cutoff = START + timedelta(days=DAYS)
    assert table.num_rows == 16 * (DAYS * SLOTS_A_DAY + 12)
    from_all = price.train(panel(table, cutoff, known_at=cutoff), 1, ("ridge",))
    # The row of the cut-off's own slot became available a second after it: it is not known yet.
    ends = [t.timestamp() for t in table.column("available_at").to_pylist()]
    table = table.filter(np.array(ends) <= cutoff.timestamp())
    from_known = price.train(panel(table, cutoff, known_at=cutoff), 1, ("ridge",))
    assert from_all.model is not None
    hashes = {artifacts.content_hash(f.parameters(), f.model) for f in (from_all, from_known)}
    assert len(hashes) == 1


def test_the_target_is_of_prices_h_slots_apart_and_the_embargo_is_the_horizon() -> None:
    data = panel_of(walk(5, 4, 600), scale=SIGMA)
    for slots in (1, 12):
        outcome = price.target(data, slots)
        expected = np.log(data["price"][2, 100 + slots] / data["price"][2, 100]) / (SIGMA * np.sqrt(slots))
        assert outcome[2, 100] == pytest.approx(expected)
        assert np.isnan(outcome[:, -slots:]).all()
        assert np.isfinite(outcome[:, -slots - 1]).all()
        # A training panel that is cut at a day's start has no label that ends later.
        _, _, at = price._samples(data.cut(0, 500), slots)
        assert at.max() == 500 - slots - 1
        delayed = price.target(data, slots, 1)
        assert delayed[2, 100] == pytest.approx(
            np.log(data["price"][2, 101 + slots] / data["price"][2, 101]) / (SIGMA * np.sqrt(slots))
        )


def test_volume_is_no_input() -> None:
    data = panel_of(walk(5, 4, 600), scale=SIGMA)
    assert not any("volume" in name for name in data.values)
    assert price.inputs(data).shape == (4, 600, 7)


def test_each_week_is_forecast_by_the_28_days_before_it(planted: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = price._fit
    monkeypatch.setattr(price, "_fit", lambda name, x, y: (seen.append(len(x)), real(name, x, y))[1])
    data = first(planted, 2)
    trained = price.train(data, 1, ("ridge",))
    usable = np.isfinite(price.inputs(data)).all(axis=-1).sum()
    # Two weeks for each of both targets; each training set is 28 days short of at most what its start lacks.
    assert len(seen) == 4 + (trained.model is not None)
    assert seen[1] == 2 * (28 * SLOTS_A_DAY - 1)
    assert seen[3] == 2 * (28 * SLOTS_A_DAY - 2)
    assert seen[0] == usable - 2 * 14 * SLOTS_A_DAY - 2


def test_too_few_days_name_what_is_missing_and_persistence_serves() -> None:
    data = first(panel_of(walk(2, 4, (DAYS - 3) * SLOTS_A_DAY), scale=SIGMA), 1)
    trained = price.train(data, 12)
    assert trained.candidates == ()
    assert trained.model is None
    assert "needs 3 more days" in trained.metrics["missing"]
    assert "28 to train and 14 to evaluate" in trained.metrics["missing"]
    outcome = price.target(data.cut(data.slots - 28 * SLOTS_A_DAY, data.slots), 12)
    assert trained.scale.own == pytest.approx(tuple(np.nanquantile(outcome, [0.05, 0.5, 0.95])), rel=1e-12)
    assert (trained.name, trained.verdict) == ("persistence+own_sigma", "not evaluated")


def test_days_without_data_do_not_count() -> None:
    """A panel that spans 43 days of which two are missing has 41 days."""
    data = panel_of(walk(2, 4, (DAYS + 1) * SLOTS_A_DAY), scale=SIGMA)
    gap = hidden(first(data, 1), "price", 10 * SLOTS_A_DAY, 12 * SLOTS_A_DAY)
    assert "needs 1 more days" in price.train(gap, 1, ("ridge",)).metrics["missing"]
    two_coins = hidden(first(data, 2), "r5_market", 0, data.slots)
    assert f"needs {DAYS} more days" in price.train(two_coins, 1, ("ridge",)).metrics["missing"]


def test_a_gap_within_enough_days_is_stepped_over() -> None:
    data = panel_of(walk(2, 4, (DAYS + 3) * SLOTS_A_DAY), scale=SIGMA)
    trained = price.train(hidden(data, "rz", 35 * SLOTS_A_DAY, 37 * SLOTS_A_DAY), 1, ("ridge",))
    assert [c.skill.days for c in trained.candidates] == [price.EVALUATION_DAYS]


def test_no_outcomes_are_an_error_that_says_how_many_are_missing() -> None:
    with pytest.raises(NotEnoughData, match="needs 102 more outcomes: 398 of the 500"):
        price.train(first(panel_of(walk(1, 4, 399), scale=SIGMA), 1), 1)
    empty = panel(feature_rows(panel_of(walk(1, 3, 300), scale=SIGMA)), START)
    with pytest.raises(NotEnoughData, match="needs 500 more outcomes"):
        price.train(empty, 1)


def test_the_interval_of_a_model_is_that_of_its_errors(planted: Panel) -> None:
    trained = price.train(planted, 1, ("ridge",))
    assert trained.errors == np.isfinite(price.target(planted.cut(14 * SLOTS_A_DAY, planted.slots), 1)).sum()
    # Errors of the best forecast of a planted AR(1) are its noise: 90 % of a normal distribution.
    expected = 1.6449 * np.sqrt(1 - 0.2**2)
    lower, _, upper = trained.scale.own
    assert (-lower, upper) == pytest.approx((expected, expected), rel=0.03)
    found, drift = trained.intervals(planted), trained.drift(planted)
    outcome = price.outcomes(planted, 1)
    inside = (found.lower <= outcome) & (outcome <= found.upper)
    assert inside[np.isfinite(outcome) & np.isfinite(drift)].mean() == pytest.approx(0.9, abs=0.01)
    assert np.nanstd(drift) == pytest.approx(0.2 * SIGMA / np.sqrt(1 - 0.2**2), rel=0.2)


def test_an_unknown_algorithm_is_named(planted: Panel) -> None:
    with pytest.raises(ValueError, match="'oracle' is no algorithm"):
        price.train(first(planted, 2), 1, ("oracle",))
