"""Volatility forecasts: the regression is promoted where volatility clusters, and nowhere else; no row sees ahead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crypto_assets.engine.base import NotEnoughData
from crypto_assets.ml import artifacts, volatility_card
from crypto_assets.ml import volatility_training as learning
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel
from crypto_assets.ml.volatility import EWMA, LOG_HAR, Volatility, ahead, capped, ewma, half_life, qlike, realised
from crypto_assets.ml.volatility_training import Trained
from crypto_assets_tests.ml.synthetic import SIGMA, START, panel_of, walk
from crypto_assets_tests.ml.test_intervals import clustered, rolling_scale

DAYS = 42
HORIZONS = (12, 288)


@pytest.fixture(scope="module")
def stormy() -> Panel:
    return rolling_scale(panel_of(clustered(1, 4, DAYS), scale=SIGMA))


@pytest.fixture(scope="module")
def trained(stormy: Panel) -> Trained:
    return learning.train(learning.Prepared.of(stormy), 12)


@pytest.mark.parametrize("slots", HORIZONS)
def test_on_a_random_walk_nothing_is_promoted_in_19_of_20_seeds(slots: int) -> None:
    promoted = []
    for seed in range(20):
        data = rolling_scale(panel_of(walk(seed, 3, DAYS * SLOTS_A_DAY), scale=SIGMA))
        found = learning.train(learning.Prepared.of(data), slots)
        assert found.days >= 14
        promoted += [seed] if found.version.algorithm != EWMA else []
    assert len(promoted) <= 1, promoted


def test_where_volatility_clusters_the_regression_is_promoted(trained: Trained) -> None:
    assert trained.version.algorithm == LOG_HAR
    assert all(gain.lower > 0 for gain in trained.gains.values())
    assert trained.loss[LOG_HAR] < 0.9 * min(trained.loss[name] for name in learning.BASELINES)
    assert trained.figures()["present"] == EWMA


def test_what_is_in_force_stays_until_something_is_surely_better(trained: Trained) -> None:
    def serves(present: str, lower: float, upper: float) -> str:
        gain = {"value": (lower + upper) / 2, "lower": lower, "upper": upper, "days": 14}
        return learning.by_rule(
            {**trained.figures(), "present": present, "gain": dict.fromkeys(learning.BASELINES, gain)}
        )

    assert serves(EWMA, 0.01, 0.02) == serves(LOG_HAR, 0.01, 0.02) == LOG_HAR
    assert (serves(EWMA, -0.01, 0.02), serves(LOG_HAR, -0.01, 0.02)) == (EWMA, LOG_HAR)
    assert serves(EWMA, -0.02, -0.01) == serves(LOG_HAR, -0.02, -0.01) == EWMA


def test_too_few_days_are_named(stormy: Panel) -> None:
    with pytest.raises(NotEnoughData, match=r"needs 10 more days with inputs and outcomes: 18 of 28") as error:
        learning.train(learning.Prepared.of(stormy.cut(0, 20 * SLOTS_A_DAY)), 12)
    assert error.value.metadata == {"days": 18, "days_needed": 28}
    with pytest.raises(NotEnoughData, match="needs 28 more days"):
        learning.train(learning.Prepared.of(stormy.cut(0, 0)), 12)


@pytest.mark.parametrize("algorithm", [LOG_HAR, EWMA])
def test_a_row_depends_on_its_7_days_and_on_nothing_else(trained: Trained, stormy: Panel, algorithm: str) -> None:
    """Bit for bit, wherever the slice begins and ends, and whatever comes before and later."""
    version = replace(trained.version, algorithm=algorithm)
    first, last = 30 * SLOTS_A_DAY, 31 * SLOTS_A_DAY
    whole = version.variance(stormy)[:, first:last]
    assert np.isfinite(whole).all()
    begin = first - 7 * SLOTS_A_DAY
    hurt = {n: v.copy() for n, v in stormy.values.items()}
    for values in hurt.values():
        values[:, :begin] = np.nan
        values[:, last:] *= 3.0
    for data in (stormy.cut(begin, last), stormy.cut(begin - 100, last + 50), replace(stormy, values=hurt)):
        at = stormy.first_slot + first - data.first_slot
        assert (version.variance(data)[:, at : at + SLOTS_A_DAY] == whole).all()
    one = version.variance(stormy.cut(first + 5 - 2015, first + 6))
    assert (one[:, -1] == whole[:, 5]).all()


@pytest.mark.parametrize("slots", HORIZONS)
def test_rows_after_the_cutoff_do_not_change_what_is_learnt(stormy: Panel, slots: int) -> None:
    cutoff = 40 * SLOTS_A_DAY
    changed = {n: v.copy() for n, v in stormy.values.items()}
    for values in changed.values():
        values[:, cutoff:] *= 2.0
    hashes = {
        artifacts.content_hash(learning.train(learning.Prepared.of(data.cut(0, cutoff)), slots).version.parameters())
        for data in (stormy, replace(stormy, values=changed))
    }
    assert len(hashes) == 1


def test_the_average_is_of_what_is_known(stormy: Panel) -> None:
    r5 = stormy["r5"][:, : 3 * SLOTS_A_DAY].copy()
    r5[0, 500:600] = np.nan
    r5[1, 600:750] = np.nan
    r5[0, 690] = 1.0
    s = np.full_like(r5, SIGMA)
    found = ewma(replace(stormy, values={"r5": r5, "s": s}), 12, half_life(12))
    past = np.flatnonzero(np.isfinite(r5[0, :701]))
    weights = 0.5 ** ((700 - past) / 24)
    squares = np.minimum(r5[0, past] ** 2, (6 * SIGMA) ** 2)
    assert found[0, 700] == pytest.approx(12 * (weights * squares).sum() / weights.sum(), rel=1e-12)
    assert np.isfinite(found[1, 743])
    assert np.isnan(found[1, 744]), "half of the last day's returns must be known"


def test_one_return_counts_for_four_own_sigmas(stormy: Panel) -> None:
    values = {n: v.copy() for n, v in stormy.values.items()}
    values["r5"][0, 1000] = 100 * values["s"][0, 1000]
    means = capped(replace(stormy, values=values))
    at_most = (np.minimum(values["r5"], 4 * values["s"])[0, 998:1001] ** 2).mean()
    assert means[3][0, 1000] <= at_most * (1 + 1e-12)


def test_the_loss_is_least_at_the_outcome(stormy: Panel) -> None:
    outcome = ahead(realised(stormy, 12), 12)
    known = np.isfinite(outcome)
    assert (qlike(outcome, outcome)[known] == 0).all()
    assert (qlike(outcome, 2 * outcome)[known] > 0.19).all()
    assert (qlike(outcome, outcome / 2)[known] > 0.3).all(), "too low costs more than too high"


def test_parameters_survive_being_stored(trained: Trained, stormy: Panel, tmp_path: Path) -> None:
    sha256 = artifacts.save(tmp_path / "v", trained.version.parameters())
    parameters, model = artifacts.load(tmp_path / "v", sha256)
    assert model is None
    assert Volatility.of(parameters, 12) == trained.version
    assert Volatility.of({"half_life_slots": 24.0}, 12) == Volatility(EWMA, 12, 24.0)


def test_a_card_has_the_figures_of_its_training(trained: Trained, stormy: Panel) -> None:
    files = volatility_card.card("2024-02-11-log-har", "1h", trained, stormy, cutoff=START, why="it was better")
    assert files.keys() == {"card.md", "gain.svg"}
    text = files["card.md"]
    assert text.startswith("# crypto_volatility_1h 2024-02-11-log-har\n")
    assert "it was better" in text
    for name, loss in trained.loss.items():
        assert f"| {name} | {loss:.3f} |" in text
    assert f"| variance of 60 minutes | {trained.version.weights[2]:+.3f} |" in text
    assert len(volatility_card.INPUTS) == len(trained.version.weights)
    assert "## Limits" in text
    assert "<svg" in files["gain.svg"]
