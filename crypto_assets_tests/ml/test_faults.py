"""Injected faults: they move prices as named, and every feature that a detector reads with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crypto_assets.ml import faults
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel
from crypto_assets_tests.ml.synthetic import START, panel_of, walk

CUT = 300


@pytest.fixture(scope="module")
def prices() -> np.ndarray:
    return walk(4, 4, 1100)


@pytest.fixture(scope="module")
def calm(prices: np.ndarray) -> Panel:
    return panel_of(prices).cut(CUT, 1100)


@pytest.mark.parametrize("kind", faults.KINDS)
def test_every_feature_that_a_detector_reads_moves_as_moved_prices_would(
    kind: str, prices: np.ndarray, calm: Panel
) -> None:
    hurt = faults.inject(calm, kind)
    assert hurt.starts
    whole = prices.copy()
    whole[:, CUT:] = hurt.data["price"]
    with np.errstate(invalid="ignore"):  # a frozen price has no RSI there
        expected = panel_of(whole).cut(CUT, 1100)
    for name in ("r5", "r15", "r1h", "rv1h", "r5_market"):
        assert hurt.data[name][:, 13:] == pytest.approx(expected[name][:, 13:], abs=1e-9), name
    assert (hurt.data["s"] == calm["s"]).all(), "the scale is of the past"
    assert hurt.data["rz"] == pytest.approx((hurt.data["r5"] - calm["r5_median"]) / calm["s"], nan_ok=True)
    assert not {"macd_hist", "rsi14", "bollinger_b"} & hurt.data.values.keys(), "none is left as it was"


def moves(hurt: faults.Injected, calm: Panel) -> list[np.ndarray]:
    """How far each fault moves the price while it lasts, in own sigmas of its first slot."""
    moved = np.log(hurt.data["price"] / calm["price"])
    return [moved[c, t : t + hurt.lasting] / calm["s"][c, t] for c, t in hurt.starts]


def test_faults_have_the_sizes_of_their_names(calm: Panel) -> None:
    for size in (3, 6, 12):
        for moved in moves(faults.inject(calm, f"spike_{size}"), calm):
            assert abs(moved) == pytest.approx([size])
    for moved in moves(faults.inject(calm, "drop"), calm):
        assert moved == pytest.approx([-2.5, -5.0, -7.5])
    drifts = moves(faults.inject(calm, "drift"), calm)
    assert {float(np.sign(moved[0])) for moved in drifts} == {-1.0, 1.0}
    for moved in drifts:
        assert abs(moved) == pytest.approx(0.75 * np.arange(1, 25))


def test_a_market_wide_move_hits_all_coins_in_one_slot_and_direction(calm: Panel) -> None:
    hurt = faults.inject(calm, "market")
    slots = sorted({t for _, t in hurt.starts})
    assert sorted(hurt.starts, key=lambda s: (s[1], s[0])) == [(c, t) for t in slots for c in range(4)]
    moved = np.log(hurt.data["price"] / calm["price"])
    for t in slots:
        assert abs(moved[:, t] / calm["s"][:, t]) == pytest.approx([12.0] * 4)
        assert len(set(np.sign(moved[:, t]))) == 1
        assert abs(hurt.data["r5_market"][:, t]).max() < abs(hurt.data["r5"][:, t]).min(), "the others move too"


@pytest.mark.parametrize("slots", [12, 36])
def test_a_freeze_repeats_the_price_before_it_and_its_run_grows(slots: int, calm: Panel) -> None:
    with_runs = replace(calm, values={**calm.values, "unchanged_slots": np.ones_like(calm["price"])})
    hurt = faults.inject(with_runs, f"freeze_{slots}")
    for c, t in hurt.starts:
        assert (hurt.data["price"][c, t : t + slots] == calm["price"][c, t - 1]).all()
        assert (hurt.data["r5"][c, t : t + slots] == 0).all()
        assert hurt.data["unchanged_slots"][c, t - 1 : t + slots + 1].tolist() == [*range(1, slots + 2), 1]


def test_runs_continue_those_before_the_panel_and_are_cut(calm: Panel) -> None:
    flat = np.full((1, 400), 5.0)
    flat[0, 350], flat[0, 380:] = np.nan, 6.0
    values = {name: np.zeros_like(flat) for name in ("r5", "r5_median", "s")} | {"price": flat}
    values["unchanged_slots"] = np.full_like(flat, 100.0)
    still = Panel(("a",), calm.first_slot, values)
    still["s"][:] = np.nan  # no scale, no fault
    found = faults.inject(still, "spike_6")
    assert found.starts == []
    runs = found.data["unchanged_slots"][0]
    assert runs[:189].tolist() == list(range(100, 289))
    assert (runs[189:350] == 288).all()
    assert runs[350:353].tolist() == [0, 1, 2]
    assert runs[379:382].tolist() == [29, 1, 2]


def test_hits_are_by_fault_and_know_their_day(calm: Panel) -> None:
    hurt = faults.inject(calm, "freeze_12")
    flags = np.zeros(calm["price"].shape, dtype=bool)
    (c, t), (c2, t2) = hurt.starts[0], hurt.starts[-1]
    flags[c, t + 11] = flags[c2, t2 + 12] = flags[c2, t2 - 1] = True
    found = faults.hits(flags, hurt)
    assert found.sum() == found[0] == 1.0
    assert faults.recall(flags, hurt) == pytest.approx(1 / len(hurt.starts))
    first = int(START.timestamp()) // 86_400
    assert hurt.day[0] == first + (CUT + t) // SLOTS_A_DAY
    assert len(hurt.day) == len(hurt.starts)


def test_unknown_faults_are_named(calm: Panel) -> None:
    with pytest.raises(ValueError, match="'flood' is no fault"):
        faults.inject(calm, "flood")


def test_volatility_stays_unknown_where_a_return_is(prices: np.ndarray) -> None:
    calm = panel_of(prices).cut(CUT, 900)
    calm["price"][1, 400] = np.nan
    hurt = faults.inject(calm, "drift").data
    assert np.isnan(hurt["rv1h"][1, 400:413]).all()
    assert np.isfinite(hurt["rv1h"][1, 413])
