"""Model cards: they state what a version is, how it did and what it cannot, with the figures of its training."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from crypto_assets.ml import anomaly, card, faults, price
from crypto_assets.ml.bootstrap import Difference
from crypto_assets.ml.calibration import Calibration, Trial
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel
from crypto_assets_tests.ml.synthetic import START, panel_of, walk

DAYS = 9
CUTOFF = START + timedelta(days=DAYS)


@pytest.fixture(scope="module")
def data() -> Panel:
    return panel_of(walk(3, 4, DAYS * SLOTS_A_DAY))


def cells(text: str, first: str) -> list[str]:
    """Cells of the row of a card's tables that begins with a text."""
    (line,) = [row for row in text.splitlines() if row.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_an_anomaly_card_has_the_figures_of_its_training(data: Panel) -> None:
    detector = anomaly.calibrate(data, 1.0)
    files = card.anomaly("2024-01-09-union", detector, data, cutoff=CUTOFF, budget=1.0, why="no challenger today")
    assert files.keys() == {"card.md", "flags.svg", "recall.svg"}
    text = files["card.md"]
    assert text.startswith("# crypto_anomaly 2024-01-09-union\n")
    assert "provisional" in text
    assert "cut-off 2024-01-10 00:00 UTC" in text
    assert "no challenger today" in text
    for coin in data.coins:
        assert f"{detector.level('market', coin):.2f}" in cells(text, coin)
    flagged = detector.flags(data)[:, -detector.calibration_days * SLOTS_A_DAY :]
    assert f"measured on the calibration days: {flagged.sum() / detector.calibration_days / 4:.2f}." in text
    assert all(cells(text, kind) for kind in faults.KINDS)
    assert cells(text, "freeze_36")[2] == "100.0"
    assert float(cells(text, "spike_12")[1]) > 90
    assert "## Limits" in text
    assert all("<svg" in files[name] for name in ("flags.svg", "recall.svg"))
    again = card.anomaly("2024-01-09-union", detector, data, cutoff=CUTOFF, budget=1.0, why="no challenger today")
    assert again == files, "a rebuilt card is the same"


def test_a_price_card_says_no_skill_and_shows_coverage_where_it_is_known(data: Panel) -> None:
    forecaster = price.train(data, 1, ())
    files = card.price("2024-01-09", "5m", forecaster, data, cutoff=CUTOFF, why="persistence serves")
    text = files["card.md"]
    assert text.startswith("# crypto_price_5m 2024-01-09\n")
    assert f"Point forecast: {forecaster.verdict}." in text
    assert "persistence serves" in text
    assert "`no skill` means" in text
    known = [c for c in data.coins if forecaster.scale.coverage.get(c, (None,))[0] is not None]
    assert ("coverage.svg" in files) == bool(known)
    for coin in known:
        share = forecaster.scale.coverage[coin][0]
        assert share is not None
        assert cells(text, coin)[1] == f"{100 * share:.1f}"


def test_the_scales_compared_have_a_table_and_a_picture(data: Panel) -> None:
    gain = Difference(6e-4, 4e-4, 8e-4, 14)
    trial = Trial("har", 86e-4, gain, gain, dict.fromkeys(data.coins, 0.9))
    forecaster = price.first_version(data, 1)
    compared = Calibration(forecaster.scale, "own_sigma", 92e-4, 14, (trial,))
    files = card.price("v", "5m", replace(forecaster, calibration=compared), data, cutoff=CUTOFF, why="compared")
    assert cells(files["card.md"], "har") == ["har", "86.0", "6.0 [4.0, 8.0]", "yes"]
    assert "har" in files["gain.svg"]


def test_a_version_without_known_coverage_has_a_card_without_pictures() -> None:
    young = panel_of(walk(3, 4, 2 * SLOTS_A_DAY))
    files = card.price("v", "1h", price.first_version(young, 12), young, cutoff=START, why="first day")
    assert files.keys() == {"card.md"}
    assert np.char.find(files["card.md"], "coverage.svg") == -1
