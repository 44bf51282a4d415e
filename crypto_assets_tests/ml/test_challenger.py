"""The weekly forest: fitted on the past alone, compared at an equal rate, and promoted only by the rule."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from crypto_assets.ml import anomaly, artifacts, challenger, detectors
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel, slot_of
from crypto_assets_tests.ml.synthetic import START, panel_of, walk

DAY = timedelta(days=1)
WEEK = 7 * SLOTS_A_DAY
DAYS = 21


@pytest.fixture(scope="module")
def data() -> Panel:
    """Three weeks of four coins that end with a UTC week: START is a Monday, and a day before has made the scale."""
    return panel_of(walk(5, 4, (DAYS + 1) * SLOTS_A_DAY), START - DAY).cut(SLOTS_A_DAY, (DAYS + 1) * SLOTS_A_DAY)


@pytest.fixture(scope="module")
def trained(data: Panel) -> anomaly.Training:
    return anomaly.train(data, 1.0)


def test_a_forest_is_compared_at_the_end_of_a_utc_week_alone(data: Panel, trained: anomaly.Training) -> None:
    assert trained.comparison is not None
    assert (data.first_slot + data.slots - 1) == slot_of(START + DAYS * DAY)
    for days in (1, 2, 3, 4, 5, 6):
        found = anomaly.train(data.cut(0, data.slots - days * SLOTS_A_DAY), 1.0)
        assert found.comparison is None
        assert "at the end of every UTC week" in found.why
    assert challenger.ends_week(data.cut(0, data.slots - WEEK))
    assert not challenger.ends_week(data.cut(0, data.slots - 1))


def test_each_week_is_scored_by_a_forest_of_the_week_before_it(data: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[tuple[int, int]] = []

    class Forest:
        def __init__(self, part: Panel) -> None:
            fitted.append((part.first_slot, part.slots))
            self.end = part.first_slot + part.slots

        def score_samples(self, inputs: np.ndarray) -> np.ndarray:
            return -(inputs[:, 0] ** 2)

    monkeypatch.setattr(challenger, "fit_forest", Forest)
    comparison = anomaly.train(data, 1.0).comparison
    assert comparison is not None
    first = data.first_slot
    assert fitted == [(first, WEEK), (first + WEEK, WEEK), (first + 2 * WEEK, WEEK)]
    assert comparison.challenger.calibration_days == 14
    assert comparison.challenger.forest.end == first + 3 * WEEK, "what serves was fitted on the newest week"


def test_what_a_comparison_lacks_is_named(data: Panel) -> None:
    short = anomaly.train(data.cut(data.slots - 9 * SLOTS_A_DAY, data.slots), 1.0)
    assert short.comparison is None
    assert "needs 14 days of features (7 to fit and 7 to calibrate), and there are 9" in short.why
    values = {n: v.copy() for n, v in data.values.items()}
    values["rv1h"][:, -WEEK:] = np.nan
    blind = anomaly.train(replace(data, values=values), 1.0)
    assert blind.comparison is None
    assert "the inputs of the last 7 days are mostly unknown" in blind.why


def test_both_flag_equally_often_and_are_compared_on_every_kind(trained: anomaly.Training) -> None:
    assert trained.comparison is not None
    figures = trained.comparison.figures
    rates = figures["flag_rate"]
    assert rates["champion"] == rates["challenger"] > 0.5
    kinds = {*challenger.INJECTED, *challenger.EVERYWHERE}
    assert figures["recall"]["champion"].keys() == figures["recall"]["challenger"].keys() == kinds
    assert set(figures["difference"]) == {k for k in kinds if figures["informative"][k]} | {challenger.ALL_INJECTED}
    for found in figures["difference"].values():
        assert found["lower"] <= found["value"] <= found["upper"]
    assert not trained.comparison.wins, "the forest finds fewer spikes of 3 and 6 sigma"
    recall = figures["recall"]
    assert f"spike_6 {recall['challenger']['spike_6']:.0%} against {recall['champion']['spike_6']:.0%}" in (
        trained.comparison.why
    )
    assert json.loads(json.dumps(figures)) == figures, "figures are stored as JSON"


def test_the_forests_own_flags_keep_the_budget(data: Panel, trained: anomaly.Training) -> None:
    assert trained.comparison is not None
    after = panel_of(walk(6, 4, 8 * SLOTS_A_DAY), START + DAYS * DAY).cut(SLOTS_A_DAY, 8 * SLOTS_A_DAY)
    assert 0.5 <= trained.comparison.challenger.flags(after).sum() / (4 * 7) <= 2


def difference(value: float, lower: float, upper: float) -> dict[str, float]:
    return {"value": value, "lower": lower, "upper": upper}


BETTER: dict[str, Any] = {
    "injected": difference(0.05, 0.02, 0.08),
    "spike_6": difference(0.1, 0.05, 0.15),
    "drop": difference(-0.01, -0.03, 0.01),
    "market": difference(0.0, -0.01, 0.01),
}


@pytest.mark.parametrize(
    ("changed", "wins"),
    [
        ({}, True),
        ({"injected": difference(0.05, 0.01, 0.08)}, False),
        ({"injected": None}, False),
        ({"drop": difference(-0.05, -0.08, -0.02)}, False),
        ({"market": difference(-0.02, -0.04, 0.0)}, False),
        ({"market": None}, True),
        ({"market_6": difference(0.0, -0.021, 0.03)}, False),
    ],
)
def test_the_rule_needs_evidence_and_allows_no_loss(changed: dict[str, Any], wins: bool) -> None:
    found = {k: v for k, v in {**BETTER, **changed}.items() if v is not None}
    assert challenger.wins({"difference": found}) is wins


def test_evidence_is_needed_and_suffices(data: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in forest that sees what robust z sees ties with it, and beats a champion that guesses."""

    class Same:
        def score_samples(self, inputs: np.ndarray) -> np.ndarray:
            return -np.abs(inputs[:, 0])

    def guessed(part: Panel, **_kind: bool) -> dict[str, np.ndarray]:
        none = np.full(part["r5"].shape, np.nan)
        return {
            detectors.ROBUST_Z: np.random.default_rng(1).random(part["r5"].shape),
            detectors.MARKET: none,
            detectors.COMMON: none,
        }

    monkeypatch.setattr(challenger, "fit_forest", lambda _: Same())
    alone = replace(data, values={**data.values, "s_market": np.full_like(data["s_market"], np.nan)})
    tie = anomaly.train(alone, 1.0).comparison
    assert tie is not None
    assert max(abs(d["value"]) for d in tie.figures["difference"].values()) < 0.02
    assert not tie.wins
    for module in (detectors, anomaly):
        monkeypatch.setattr(module, "scores", guessed)
    against_guesses = anomaly.train(alone, 1.0).comparison
    assert against_guesses is not None
    assert against_guesses.figures["difference"]["spike_12"]["lower"] > 0.5
    assert against_guesses.wins


def test_equal_data_give_an_equal_forest_and_picture(data: Panel, trained: anomaly.Training) -> None:
    again = anomaly.train(data, 1.0).comparison
    assert again is not None
    assert trained.comparison is not None
    first, second = (c.challenger for c in (trained.comparison, again))
    assert artifacts.content_hash(first.parameters(), first.forest) == artifacts.content_hash(
        second.parameters(), second.forest
    )
    assert challenger.picture(again.figures) == challenger.picture(trained.comparison.figures)
    assert ">spike_12</text>" in challenger.picture(again.figures)
