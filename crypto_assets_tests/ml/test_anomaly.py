"""Anomaly detectors: as many flags as were budgeted, faults found, and a challenger that has to be better."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from crypto_assets.engine.base import NotEnoughData
from crypto_assets.ml import anomaly, artifacts, faults, scoring
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel, anomaly_inputs, panel
from crypto_assets.sources.simulator import SimulatorFeed
from crypto_assets_tests.ml.synthetic import SLOT, START, feature_rows, panel_of, walk

DAY = timedelta(days=1)
CALIBRATION, SCORED = 28, 7


def simulated(seed: int, days: int) -> Panel:
    """Features of the simulator's ten coins over so many days; a day before them has made the scale known."""
    feed = SimulatorFeed(seed, steady=True)
    times = [START + i * SLOT for i in range((days + 1) * SLOTS_A_DAY)]
    prices = np.array([[float(price) for _, price in feed.history(coin.coin_id, times)] for coin in feed.coins])
    return panel_of(prices, START).cut(SLOTS_A_DAY, (days + 1) * SLOTS_A_DAY)


@pytest.fixture(scope="module")
def quiet() -> Panel:
    """7 days to fit, 28 to calibrate and 7 that are scored."""
    return simulated(5, anomaly.FIT_DAYS + CALIBRATION + SCORED)


@pytest.fixture
def small_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer trees, where it does not matter how well the forest sees."""
    monkeypatch.setattr(anomaly, "TREES", 15)


@pytest.fixture(scope="module")
def trained(quiet: Panel) -> anomaly.Training:
    """Trained on what lies before the seven scored days, at one flag per coin and day."""
    return anomaly.train(quiet.cut(0, quiet.slots - SCORED * SLOTS_A_DAY), 1.0)


def flags(detector: anomaly.Detector, data: Panel) -> np.ndarray:
    """What scoring flags with a detector."""
    version = scoring.Version({"version": "x"}, {"thresholds": detector.thresholds}, detector.forest)
    limits = np.array([scoring.threshold(version, c) for c in data.coins])[:, None]
    return np.nan_to_num(scoring.scores(data, version), nan=-np.inf) > limits


def test_on_quiet_days_there_are_as_many_flags_as_budgeted_and_no_coin_has_most_of_them() -> None:
    """28 days calibrate and 7 are scored, in each of four simulated markets.

    The share of a coin is that in all four: seven flags in seven days are too few to tell a coin from chance.
    """
    per_coin = []
    for seed in range(4):
        data = _without_forest(simulated(seed, CALIBRATION + SCORED))
        champion = anomaly.train(data.cut(0, CALIBRATION * SLOTS_A_DAY), 1.0).champion
        assert champion.calibration_days == CALIBRATION
        assert not champion.provisional
        scored = data.cut(CALIBRATION * SLOTS_A_DAY, data.slots)
        per_coin.append(flags(champion, scored).sum(axis=1) / SCORED)
        assert scored.slots == SCORED * SLOTS_A_DAY
        assert 0.5 <= per_coin[-1].mean() <= 2, per_coin
    together = np.mean(per_coin, axis=0)
    assert together.max() <= 2 * together.mean(), together


def test_the_forest_keeps_the_budget_too(quiet: Panel, trained: anomaly.Training) -> None:
    assert trained.challenger is not None
    assert trained.challenger.calibration_days == CALIBRATION
    assert not trained.challenger.provisional
    scored = quiet.cut(quiet.slots - SCORED * SLOTS_A_DAY, quiet.slots)
    assert 0.5 <= flags(trained.challenger, scored).sum() / (10 * SCORED) <= 2


def test_the_champion_finds_nine_of_ten_spikes_of_12_sigma(quiet: Panel, trained: anomaly.Training) -> None:
    hurt = faults.inject(quiet.cut(quiet.slots - SCORED * SLOTS_A_DAY, quiet.slots), "spike_12")
    assert len(hurt.starts) > 300
    assert faults.recall(flags(trained.champion, hurt.data), hurt) >= 0.9
    assert (
        faults.recall(flags(trained.champion, quiet.cut(quiet.slots - SCORED * SLOTS_A_DAY, quiet.slots)), hurt) < 0.05
    )


@pytest.mark.usefixtures("small_forest")
def test_rows_after_the_cutoff_do_not_change_what_is_learnt(quiet: Panel) -> None:
    data = quiet.cut(0, 15 * SLOTS_A_DAY)
    cutoff = START + DAY + 14 * DAY
    rows = feature_rows(data)
    spoilt = {n: v.copy() for n, v in data.values.items()}
    for name in ("rz", "r5", "r15", "r1h", "rv1h", "r5_market"):
        spoilt[name][:, 14 * SLOTS_A_DAY :] *= 50
    hashes = set()
    for table in (rows, feature_rows(replace(data, values=spoilt)), feature_rows(data.cut(0, 14 * SLOTS_A_DAY))):
        found = anomaly.train(panel(table, cutoff, known_at=cutoff), 1.0)
        assert found.challenger is not None
        hashes.add(
            tuple(
                artifacts.content_hash({"thresholds": d.thresholds}, d.forest)
                for d in (found.champion, found.challenger)
            )
        )
    assert len(hashes) == 1
    # Changing a row before it does: the hash is of what was learnt.
    spoilt["rz"][:, 13 * SLOTS_A_DAY :] *= 50
    other = anomaly.train(panel(feature_rows(replace(data, values=spoilt)), cutoff, known_at=cutoff), 1.0)
    assert artifacts.content_hash({"thresholds": other.champion.thresholds}) not in {champion for champion, _ in hashes}


def test_a_row_that_became_known_after_the_cutoff_is_not_learnt_from() -> None:
    data = panel_of(walk(1, 3, 400)).cut(288, 400)
    rows = feature_rows(data, available_after=timedelta(hours=2))
    cutoff = START + 400 * SLOT
    assert panel(rows, cutoff).slots == panel(rows, cutoff, known_at=cutoff).slots == 112
    known = np.isfinite(panel(rows, cutoff, known_at=cutoff)["r5"])
    assert known[:, :-24].all()
    assert not known[:, -24:].any()
    assert np.isfinite(panel(rows, cutoff)["r5"]).all(), "scoring uses the newest rows too"


def test_each_day_is_scored_by_a_forest_of_the_seven_days_before_it(
    quiet: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, scored = [], []
    monkeypatch.setattr(anomaly, "fit_forest", lambda d: fitted.append((d.first_slot, d.slots)) or "forest")
    monkeypatch.setattr(
        anomaly, "forest_scores", lambda _, d: (scored.append((d.first_slot, d.slots)), np.zeros(d["r5"].shape))[1]
    )
    data = quiet.cut(0, 15 * SLOTS_A_DAY)
    anomaly.train(data, 1.0)
    for (start, slots), (day, length) in zip(fitted[:8], scored[:8], strict=True):
        assert slots == 7 * SLOTS_A_DAY
        assert length == SLOTS_A_DAY
        assert start + slots == day
    assert [d for d, _ in scored[:8]] == [data.first_slot + k * SLOTS_A_DAY for k in range(7, 15)]


def test_the_challenger_is_promoted_only_if_it_misses_nothing_the_champion_finds(trained: anomaly.Training) -> None:
    assert trained.challenger is not None
    recall = trained.challenger.metrics["recall"]
    assert recall["champion"].keys() == recall["challenger"].keys() == set(anomaly.COMPARED)
    assert trained.challenger_wins == all(recall["challenger"][k] >= recall["champion"][k] for k in anomaly.COMPARED)
    assert not trained.challenger_wins, "the forest finds fewer spikes of 6 sigma"
    for kind in anomaly.COMPARED:
        assert f"{kind} {recall['challenger'][kind]:.0%} against {recall['champion'][kind]:.0%}" in trained.why


def test_a_challenger_that_is_as_good_at_every_fault_is_promoted(quiet: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in forest that scores like the robust z ties everywhere; one that sees less in one fault loses."""
    data = quiet.cut(0, 14 * SLOTS_A_DAY)
    monkeypatch.setattr(anomaly, "fit_forest", lambda _: None)
    monkeypatch.setattr(anomaly, "forest_scores", lambda _, d: anomaly.z_scores(d) * 0.5)
    assert anomaly.train(data, 1.0).challenger_wins
    blind = np.random.default_rng(1)
    monkeypatch.setattr(anomaly, "forest_scores", lambda _, d: blind.random(d["r5"].shape))
    found = anomaly.train(data, 1.0)
    assert found.challenger is not None
    assert not found.challenger_wins


@pytest.mark.usefixtures("small_forest")
def test_both_are_compared_at_the_same_measured_flag_rate(quiet: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    real = faults.recall

    def recall(found: np.ndarray, hurt: faults.Injected) -> float:
        rates.append(found)
        return real(found, hurt)

    # Without a fault injected, what is flagged is what each detector flags by itself.
    monkeypatch.setattr(anomaly.faults, "inject", lambda d, _kind: faults.Injected(d, [(0, 50)], 1))
    monkeypatch.setattr(anomaly.faults, "recall", recall)
    anomaly.train(quiet.cut(0, 14 * SLOTS_A_DAY), 1.0)
    counts = np.array([f.sum() for f in rates])
    assert (np.abs(counts - 10 * anomaly.FIT_DAYS) <= 10).all(), counts


def test_thresholds_are_quantiles_per_coin_and_pooled_for_the_young() -> None:
    scores = np.random.default_rng(0).random((3, 10 * SLOTS_A_DAY))
    scores[1] *= 3
    scores[2, :-100] = np.nan
    found = anomaly.thresholds(scores, ("a", "b", "c"), 2.0)
    assert found["a"] == np.quantile(scores[0], 1 - 2 / 288)
    assert found["b"] == np.quantile(scores[1], 1 - 2 / 288)
    assert "c" not in found
    assert found["*"] == np.nanquantile(scores, 1 - 2 / 288)
    version = scoring.Version({"version": "x"}, {"thresholds": found})
    assert [scoring.threshold(version, c) for c in ("b", "c", "new")] == [found["b"], found["*"], found["*"]]


def test_fewer_than_28_days_are_provisional_and_fewer_than_seven_refused(quiet: Panel) -> None:
    ten = anomaly.train(quiet.cut(0, 10 * SLOTS_A_DAY), 1.0)
    assert ten.champion.calibration_days == 10
    assert ten.champion.provisional
    assert ten.challenger is None
    assert not ten.challenger_wins
    assert ten.missing is not None
    assert "needs 4 more days (7 to fit and 7 to calibrate)" in ten.missing
    with pytest.raises(NotEnoughData, match="needs 2 more days: 5 of the 7 days") as refused:
        anomaly.train(quiet.cut(0, 5 * SLOTS_A_DAY), 1.0)
    assert refused.value.metadata == {"days": 5, "days_needed": 7}
    with pytest.raises(NotEnoughData, match="needs 7 more days"):
        anomaly.train(panel(feature_rows(quiet.cut(0, 10)), START), 1.0)


def test_a_budget_below_one_is_refused_under_28_days(quiet: Panel) -> None:
    with pytest.raises(NotEnoughData, match=r"needs 1 more days: a budget of 0\.142857 flags a day"):
        anomaly.train(quiet.cut(0, 27 * SLOTS_A_DAY), 1 / 7)
    found = anomaly.train(_without_forest(quiet.cut(0, 28 * SLOTS_A_DAY)), 1 / 7)
    assert not found.champion.provisional
    assert 0.05 <= flags(found.champion, quiet.cut(28 * SLOTS_A_DAY, quiet.slots)).sum() / 140 <= 0.3


def _without_forest(data: Panel) -> Panel:
    """As with two coins: no market-relative return, so that only the robust z can be trained."""
    return replace(data, values={**data.values, "r5_market": np.full_like(data["r5_market"], np.nan)})


def test_days_without_scores_do_not_count(quiet: Panel) -> None:
    values = {n: v.copy() for n, v in quiet.cut(0, 9 * SLOTS_A_DAY).values.items()}
    values["rz"][:, 2 * SLOTS_A_DAY : 5 * SLOTS_A_DAY] = np.nan
    with pytest.raises(NotEnoughData, match="needs 1 more days: 6 of the 7"):
        anomaly.train(replace(quiet.cut(0, 9 * SLOTS_A_DAY), values=values), 1.0)


def test_after_a_week_without_data_the_champion_serves(quiet: Panel) -> None:
    values = {n: v.copy() for n, v in quiet.values.items()}
    for v in values.values():
        v[:, -8 * SLOTS_A_DAY :] = np.nan
    found = anomaly.train(replace(quiet, values=values), 1.0)
    assert found.challenger is None
    assert found.missing == "the inputs of the last 7 days are mostly unknown"


def test_inputs_are_in_own_sigmas(quiet: Panel) -> None:
    at = 3, 1000
    s = quiet["s"][at]
    expected = [
        quiet["rz"][at],
        quiet["r15"][at] / (s * 3**0.5),
        quiet["r1h"][at] / (s * 12**0.5),
        np.log(quiet["rv1h"][at] / s),
        quiet["r5_market"][at] / s,
    ]
    assert anomaly_inputs(quiet)[at] == pytest.approx(expected)
