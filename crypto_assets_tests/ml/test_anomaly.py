"""The anomaly model: as many flags as were budgeted, faults found, and nothing learnt from what came later."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from crypto_assets.engine.base import NotEnoughData
from crypto_assets.ml import anomaly, artifacts, detectors, faults, scoring
from crypto_assets.ml.detectors import COMMON, MARKET, POOLED, ROBUST_Z, UNION
from crypto_assets.ml.panel import SLOT_S, SLOTS_A_DAY, Panel, anomaly_inputs, panel
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
    """28 days to calibrate and 7 that are scored."""
    return simulated(5, CALIBRATION + SCORED)


@pytest.fixture(scope="module")
def champion(quiet: Panel) -> detectors.Detector:
    """Calibrated on what lies before the seven scored days, at one flag per coin and day."""
    return anomaly.calibrate(quiet.cut(0, CALIBRATION * SLOTS_A_DAY), 1.0)


@pytest.fixture(scope="module")
def scored(quiet: Panel) -> Panel:
    """The days after the calibrated ones."""
    return quiet.cut(CALIBRATION * SLOTS_A_DAY, quiet.slots)


def flags(detector: detectors.Detector, data: Panel) -> np.ndarray:
    """What a version of the detector flags, by the rows of the table."""
    version = scoring.Version({"version": "x"}, detector.parameters(), detector.forest)
    rows = scoring.Scored(data, version)
    found = [[rows.row(c, t)["is_anomaly"] for t in range(data.slots)] for c in range(len(data.coins))]
    return np.array(found)


@pytest.mark.slow
def test_on_quiet_days_there_are_as_many_flags_as_budgeted_and_no_coin_has_most_of_them() -> None:
    """28 days calibrate and 7 are scored, in each of four simulated markets.

    Flags are counted in all four: a common move flags every coin at once, so that seven days hold three or so, too few
    to tell a rate from chance.
    """
    per_coin = []
    for seed in range(4):
        data = simulated(seed, CALIBRATION + SCORED)
        found = anomaly.calibrate(data.cut(0, CALIBRATION * SLOTS_A_DAY), 1.0)
        assert (found.algorithm, found.calibration_days, found.provisional) == (UNION, CALIBRATION, False)
        after = data.cut(CALIBRATION * SLOTS_A_DAY, data.slots)
        per_coin.append(found.flags(after).sum(axis=1) / SCORED)
        assert after.slots == SCORED * SLOTS_A_DAY
        assert not found.frozen(after).any()
    together = np.mean(per_coin, axis=0)
    assert 0.6 <= together.mean() <= 1.6, per_coin
    assert together.max() <= 2 * together.mean(), together


def test_each_score_has_its_share_of_the_budget_and_any_flags(quiet: Panel, champion: detectors.Detector) -> None:
    data = quiet.cut(0, CALIBRATION * SLOTS_A_DAY)
    levels = champion.thresholds
    market, common = detectors.market_scores(data), detectors.common_scores(data)
    for c, coin in enumerate(data.coins):
        assert levels[MARKET][coin] == np.quantile(market[c], 1 - 0.45 / 288)
        assert levels[COMMON][coin] == np.quantile(common[c], 1 - 0.45 / 288)
    rare = (detectors.z_scores(data) > np.array([levels[ROBUST_Z][c] for c in data.coins])[:, None]).sum()
    assert rare == pytest.approx(0.1 * CALIBRATION * len(data.coins), rel=0.35), "a tail pooled over the coins"
    fired = {n: detectors.scores(data)[n] > np.array([levels[n][c] for c in data.coins])[:, None] for n in levels}
    assert fired.keys() == {ROBUST_Z, MARKET, COMMON}
    assert (champion.flags(data) == np.logical_or.reduce([*fired.values()])).all()
    assert (fired[MARKET] & ~fired[COMMON]).any()
    assert (fired[COMMON] & ~fired[MARKET]).any(), "each finds what the other does not"


def test_scores_divide_by_what_has_been_usual() -> None:
    known = {
        "rz": -4.0,
        "s": 0.002,
        "s_market": 0.0005,
        "r5_market": -0.003,
        "rz_common": -6.0,
        "common_activity": 1.44,
    }
    data = Panel(("a",), 0, {n: np.array([[v]]) for n, v in known.items()})
    expected = 0.003 / (0.0005 * 0.0006) ** 0.5  # 0.3 of the own scale is above the market-relative one
    assert detectors.scores(data)[MARKET][0, 0] == pytest.approx(expected)
    data["s_market"][0, 0] = 0.001
    assert detectors.scores(data)[MARKET][0, 0] == pytest.approx(3.0)
    assert detectors.scores(data)[ROBUST_Z][0, 0] == 4.0
    assert detectors.scores(data)[COMMON][0, 0] == pytest.approx(5.0)
    data["common_activity"][0, 0] = 0.04
    assert detectors.scores(data)[COMMON][0, 0] == pytest.approx(6.0 / 0.5**0.5), (
        "no move is endless after a quiet hour"
    )
    data["common_activity"][0, 0] = 25.0
    assert detectors.scores(data)[COMMON][0, 0] == pytest.approx(6.0 / 2**0.5), "and none is nothing in a crash"
    data["common_activity"][0, 0] = np.nan
    assert np.isnan(detectors.scores(data)[COMMON][0, 0])


def test_a_version_from_before_activity_scores_the_common_move_alone(
    scored: Panel, champion: detectors.Detector
) -> None:
    stored = {name: value for name, value in champion.parameters().items() if name != "by_activity"}
    earlier = detectors.detector(stored)
    assert earlier.parameters() == stored
    assert detectors.detector(champion.parameters()).parameters() == champion.parameters()
    common = np.abs(scored["rz_common"])
    assert np.array_equal(earlier.scores(scored)[COMMON], common, equal_nan=True)
    assert not np.array_equal(champion.scores(scored)[COMMON], common, equal_nan=True)
    row = scoring.Scored(scored, scoring.Version({"version": "x"}, stored)).row(0, 5)
    assert row["common_score"] == common[0, 5]


def test_the_champion_finds_nine_of_ten_spikes_of_12_sigma(scored: Panel, champion: detectors.Detector) -> None:
    hurt = faults.inject(scored, "spike_12")
    assert len(hurt.starts) > 300
    assert faults.recall(flags(champion, hurt.data), hurt) >= 0.9
    assert faults.recall(flags(champion, scored), hurt) < 0.05


def test_a_coin_that_moves_alone_is_told_from_a_market_that_moves(scored: Panel, champion: detectors.Detector) -> None:
    version = scoring.Version({"version": "x"}, champion.parameters())
    for kind, scope, least in (("spike_12", "coin_specific", 0.9), ("market", "market_wide", 0.6)):
        hurt = faults.inject(scored, kind)
        rows = scoring.Scored(hurt.data, version)
        told = [r["scope"] for c, t in hurt.starts if (r := rows.row(c, t))["is_anomaly"]]
        assert len(told) > 200
        assert told.count(scope) / len(told) >= least, kind


def test_frozen_quotes_are_suspected_after_the_coins_own_longest_run() -> None:
    data = simulated(3, 9)
    data["unchanged_slots"][0, 500] = 9
    found = anomaly.calibrate(data, 1.0)
    assert found.frozen_slots[data.coins[0]] == 10
    assert set(found.frozen_slots.values()) == {6, 10}
    assert found.frozen_after("new") == found.frozen_after(None) == detectors.UNCALIBRATED_FROZEN
    for kind in ("freeze_12", "freeze_36"):
        hurt = faults.inject(data, kind)
        assert faults.recall(found.frozen(hurt.data), hurt) >= 0.99
    data["unchanged_slots"][1, 500] = 288
    assert anomaly.calibrate(data, 1.0).frozen_slots[data.coins[1]] == 288, "runs are cut there"
    data["unchanged_slots"][2] = np.nan
    assert data.coins[2] not in anomaly.calibrate(data, 1.0).frozen_slots


def test_rows_after_the_cutoff_do_not_change_what_is_learnt(quiet: Panel) -> None:
    data = quiet.cut(0, 15 * SLOTS_A_DAY)
    cutoff = START + DAY + 14 * DAY
    rows = feature_rows(data)
    spoilt = {n: v.copy() for n, v in data.values.items()}
    for name in ("rz", "r5", "r15", "r1h", "rv1h", "r5_market", "s_market", "rz_common", "unchanged_slots"):
        spoilt[name][:, 14 * SLOTS_A_DAY :] *= 50
    hashes = set()
    for table in (rows, feature_rows(replace(data, values=spoilt)), feature_rows(data.cut(0, 14 * SLOTS_A_DAY))):
        found = anomaly.train(panel(table, cutoff, known_at=cutoff), 1.0)
        assert found.champion.algorithm == UNION
        hashes.add(artifacts.content_hash(found.champion.parameters()))
    assert len(hashes) == 1
    # Changing a row before it does: the hash is of what was learnt.
    for name in ("rz", "r5_market", "rz_common", "unchanged_slots"):
        changed = {n: v.copy() for n, v in data.values.items()}
        changed[name][:, 13 * SLOTS_A_DAY : 14 * SLOTS_A_DAY] *= 50
        other = anomaly.train(panel(feature_rows(replace(data, values=changed)), cutoff, known_at=cutoff), 1.0)
        assert artifacts.content_hash(other.champion.parameters()) not in hashes


def test_a_row_that_became_known_after_the_cutoff_is_not_learnt_from() -> None:
    data = panel_of(walk(1, 3, 400)).cut(288, 400)
    rows = feature_rows(data, available_after=timedelta(hours=2))
    cutoff = START + 400 * SLOT
    assert panel(rows, cutoff).slots == panel(rows, cutoff, known_at=cutoff).slots == 112
    known = np.isfinite(panel(rows, cutoff, known_at=cutoff)["r5"])
    assert known[:, :-24].all()
    assert not known[:, -24:].any()
    assert np.isfinite(panel(rows, cutoff)["r5"]).all(), "scoring uses the newest rows too"


def test_a_slot_is_scored_alike_wherever_the_slice_begins(scored: Panel, champion: detectors.Detector) -> None:
    version = scoring.Version({"version": "x"}, champion.parameters())
    whole, hour = scoring.Scored(scored, version), scoring.Scored(scored.cut(500, 524), version)
    for c in range(len(scored.coins)):
        assert [whole.row(c, 500 + t) for t in range(12, 24)] == [hour.row(c, t) for t in range(12, 24)]


def test_thresholds_are_quantiles_per_coin_and_pooled_for_the_young() -> None:
    scores = np.random.default_rng(0).random((3, 10 * SLOTS_A_DAY))
    scores[1] *= 3
    scores[2, :-100] = np.nan
    found = detectors.thresholds(scores, ("a", "b", "c"), 2.0)
    assert found["a"] == np.quantile(scores[0], 1 - 2 / 288)
    assert found["b"] == np.quantile(scores[1], 1 - 2 / 288)
    assert "c" not in found
    assert found[POOLED] == np.nanquantile(scores, 1 - 2 / 288)
    version = scoring.Version({"version": "x"}, {"thresholds": found}).detector
    assert [version.threshold(c) for c in ("b", "c", None)] == [found["b"], found[POOLED], found[POOLED]]


def test_a_rare_flags_threshold_rests_on_the_tails_of_all_coins_in_their_own_units() -> None:
    rng = np.random.default_rng(2)
    scores = np.abs(rng.standard_t(4, (8, 28 * SLOTS_A_DAY)))
    scores[0] *= 10
    names = tuple("abcdefgh")
    pooled = detectors.thresholds(scores, names, 1 / 14, pooled=True)
    assert pooled["a"] == pytest.approx(10 * pooled["b"], rel=0.2)
    # The quantile of one coin rests on two of its scores, and differs more between equal coins.
    single = detectors.thresholds(scores, names, 1 / 14)
    spread = [np.std([np.log(found[c]) for c in names[1:]]) for found in (pooled, single)]
    assert spread[0] < 0.5 * spread[1]
    after = np.abs(rng.standard_t(4, (8, 200 * SLOTS_A_DAY)))
    after[0] *= 10
    rate = (after > np.array([pooled[c] for c in names])[:, None]).sum() / (8 * 200)
    assert rate == pytest.approx(1 / 14, rel=0.4)


@pytest.mark.parametrize("budget", [1.0, 1 / 7])
def test_a_crash_of_two_hours_does_not_blind_the_weeks_after_it(quiet: Panel, scored: Panel, budget: float) -> None:
    data = quiet.cut(0, CALIBRATION * SLOTS_A_DAY)
    hit = {n: v.copy() for n, v in data.values.items()}
    hour = slice(25 * SLOTS_A_DAY, 25 * SLOTS_A_DAY + 24)
    hit["rz"][:, hour], hit["r5_market"][:, hour] = 60.0, 0.05
    before, after = anomaly.calibrate(data, budget), anomaly.calibrate(replace(data, values=hit), budget)
    for name, levels in after.thresholds.items():
        ratio = [levels[c] / before.thresholds[name][c] for c in data.coins]
        assert max(ratio) < 1.4
        assert np.mean(ratio) < 1.25
    hurt = faults.inject(scored, "spike_12")
    assert faults.recall(after.flags(hurt.data), hurt) > faults.recall(before.flags(hurt.data), hurt) - 0.05
    # Without the bound the crash's own scores, 24 of each coin, are the threshold of 14 or 2 flags.
    assert np.quantile(hit["rz"][0], 1 - budget / 2 / 288) == 60


def test_a_price_that_never_moves_gives_no_infinite_score() -> None:
    data = simulated(4, 8)
    for name in ("rz", "r5_market"):
        data[name][0] = 0.0
    found = anomaly.calibrate(data, 1.0)
    data["rz"][0, 100] = 2.0
    assert np.isfinite(found.relative(data)[ROBUST_Z]).all()
    assert found.flags(data)[0, 100]


def test_fewer_than_28_days_are_provisional_and_fewer_than_seven_refused(quiet: Panel) -> None:
    ten = anomaly.calibrate(quiet.cut(0, 10 * SLOTS_A_DAY), 1.0)
    assert (ten.calibration_days, ten.provisional) == (10, True)
    with pytest.raises(NotEnoughData, match="needs 2 more days: 5 of the 7 days") as refused:
        anomaly.train(quiet.cut(0, 5 * SLOTS_A_DAY), 1.0)
    assert refused.value.metadata == {"days": 5, "days_needed": 7}
    with pytest.raises(NotEnoughData, match="needs 7 more days"):
        anomaly.train(panel(feature_rows(quiet.cut(0, 10)), START), 1.0)


def test_a_budget_below_one_is_refused_under_28_days(quiet: Panel, scored: Panel) -> None:
    with pytest.raises(NotEnoughData, match=r"needs 1 more days: a budget of 0\.142857 flags a day"):
        anomaly.train(quiet.cut(0, 27 * SLOTS_A_DAY), 1 / 7)
    found = anomaly.calibrate(quiet.cut(0, 28 * SLOTS_A_DAY), 1 / 7)
    assert (found.algorithm, found.provisional) == (UNION, False)
    assert 0.05 <= found.flags(scored).sum() / 70 <= 0.3


def test_where_coins_are_too_few_to_compare_robust_z_has_the_whole_budget(quiet: Panel) -> None:
    data = quiet.cut(0, CALIBRATION * SLOTS_A_DAY)
    alone = replace(data, values={**data.values, "r5_market": np.full_like(data["r5_market"], np.nan)})
    found = anomaly.calibrate(alone, 1.0)
    assert found.algorithm == ROBUST_Z
    level = found.thresholds[ROBUST_Z][data.coins[0]]
    assert level == np.quantile(detectors.z_scores(data)[0], 1 - 1 / 288)
    row = scoring.Scored(alone, scoring.Version({"version": "x"}, found.parameters())).row(0, 700)
    assert (row["threshold"], row["z_threshold"], row["market_threshold"]) == (level, level, None)
    assert (row["anomaly_score"], row["market_score"]) == (abs(data["rz"][0, 700]), None)


def test_days_without_scores_do_not_count(quiet: Panel) -> None:
    values = {n: v.copy() for n, v in quiet.cut(0, 9 * SLOTS_A_DAY).values.items()}
    values["rz"][:, 2 * SLOTS_A_DAY : 5 * SLOTS_A_DAY] = np.nan
    with pytest.raises(NotEnoughData, match="needs 1 more days: 6 of the 7"):
        anomaly.train(replace(quiet.cut(0, 9 * SLOTS_A_DAY), values=values), 1.0)


def test_versions_of_the_first_release_score_as_they_did(scored: Panel) -> None:
    """Their parameters have neither an algorithm's name nor limits of frozen quotes; the baseline has one threshold."""
    for parameters in ({"threshold": 3.0}, {"thresholds": {"*": 3.0}, "days": 28, "algorithm": "robust_z"}):
        version = scoring.Version({"version": "old"}, parameters)
        row = scoring.Scored(scored, version).row(2, 300)
        assert row["anomaly_score"] == row["size_sigma"] == abs(scored["rz"][2, 300])
        assert (row["threshold"], row["z_threshold"], row["market_threshold"]) == (3.0, 3.0, None)
        assert (row["is_anomaly"], row["similar_windows"]) == (row["anomaly_score"] > 3, None)
        assert (version.detector.flags(scored) == (np.abs(scored["rz"]) > 3)).all()


def test_a_flag_names_the_strongest_past_windows_that_are_most_alike(
    quiet: Panel, scored: Panel, champion: detectors.Detector
) -> None:
    version = scoring.Version({"version": "x"}, champion.parameters())
    rows, past = scoring.Scored(scored, version), quiet.cut(0, CALIBRATION * SLOTS_A_DAY)
    strength = np.max(list(champion.relative(past).values()), axis=0)
    c, t = next(zip(*np.nonzero(champion.flags(scored)), strict=True))
    windows = champion.windows[scored.coins[c]]
    assert len(windows) == anomaly.WINDOWS
    slots = [w["window_end"] // SLOT_S - past.first_slot for w in windows]
    assert min(abs(a - b) for a in slots for b in slots if a != b) > 6, "half an hour apart"
    assert strength[c, slots].min() >= np.sort(strength[c])[-20 * 13]
    assert strength[c, slots[0]] == strength[c].max()
    assert windows[0]["inputs"] == pytest.approx(anomaly_inputs(past)[c, slots[0]].tolist(), abs=6e-4)
    told = json.loads(rows.row(c, t)["similar_windows"])
    inputs = np.array([w["inputs"] for w in windows])
    away = np.sqrt(((inputs - anomaly_inputs(scored)[c, t]) ** 2).sum(axis=1))
    assert [w["distance"] for w in told] == pytest.approx(sorted(away)[: scoring.SIMILAR], abs=6e-4)
    nearest = datetime.fromtimestamp(windows[int(away.argmin())]["window_end"], UTC)
    assert datetime.fromisoformat(told[0]["window_end"]) == nearest
    calm = next(zip(*np.nonzero(~champion.flags(scored)), strict=True))
    assert rows.row(*calm)["similar_windows"] is None


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
