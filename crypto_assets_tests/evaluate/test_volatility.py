"""The walk-forward of volatility forecasts, by the code that serves."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from crypto_assets.engine.base import NotEnoughData
from crypto_assets.evaluate import pictures, volatility
from crypto_assets.ml import volatility_training as learning
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel
from crypto_assets.ml.volatility import ahead, qlike, realised
from crypto_assets_tests.ml.synthetic import SIGMA, panel_of
from crypto_assets_tests.ml.test_intervals import clustered, rolling_scale

DAYS, FIRST = 36, 29
START, END = FIRST * SLOTS_A_DAY, 35 * SLOTS_A_DAY


@pytest.fixture(scope="module")
def data() -> Panel:
    return rolling_scale(panel_of(clustered(1, 3, DAYS), scale=SIGMA))


@pytest.fixture(scope="module")
def found(data: Panel) -> volatility.Outlooks:
    return volatility.walk(data, START, END, "1h", 12)


def test_each_day_is_forecast_by_a_version_of_the_days_before(data: Panel, found: volatility.Outlooks) -> None:
    assert found.served == [None, *["log_har"] * 5]
    assert found.missing == "needs 1 more days with inputs and outcomes: 27 of 28"
    assert np.isnan(found.losses["ewma"][:, :SLOTS_A_DAY]).all(), "arms are compared on the same slots"
    cutoff = 33 * SLOTS_A_DAY
    version = learning.train(learning.Prepared.of(data.cut(0, cutoff)), 12).version
    wanted = qlike(ahead(realised(data, 12), 12), version.variance(data))[:, cutoff : cutoff + SLOTS_A_DAY]
    assert (found.losses["product"][:, cutoff - START : cutoff - START + SLOTS_A_DAY] == wanted).all()


def test_tables_have_every_arm(data: Panel, found: volatility.Outlooks) -> None:
    losses, months, coins = volatility.tables([found])
    by_arm = {row["forecast"]: row for row in losses.rows}
    assert by_arm.keys() == {"product", "ewma", "last_value"}
    assert by_arm["product"]["QLIKE"] < by_arm["ewma"]["QLIKE"] < by_arm["last_value"]["QLIKE"]
    assert by_arm["product"]["days by log_har"] == by_arm["product"]["of days"] == 5
    assert {row["forecasts"] for row in losses.rows} == {3 * 5 * SLOTS_A_DAY}
    assert [row["month"] for row in months.rows] == ["2024-01", "2024-02"]
    assert [row["coin"] for row in coins.rows] == list(data.coins)
    after = volatility.after_crash([found], [found], SLOTS_A_DAY)
    assert all(row["QLIKE"] == row["without the crash"] for row in after.rows)
    assert volatility.tables([]) == []


def test_pictures_show_losses_by_day_and_the_forecast_against_the_outcome(
    found: volatility.Outlooks, tmp_path: Path
) -> None:
    losses, values = pictures.draw(tmp_path / "pictures", [], [], [found])
    assert (losses.name, values.name) == ("qlike_1h.svg", "volatility_1h.svg")
    # One point a day and method, none on the day that no version served.
    assert _points(losses) == [5, 5, 5]
    # Days of a point an hour; the first has no forecast.
    assert [points // 24 for points in _points(values)] == [6, 5]
    text = values.read_text(encoding="utf-8")
    assert all(word in text for word in ("realised", "product", f"Volatility of {found.data.coins[0]}, 1h ahead"))


def _points(picture: Path) -> list[int]:
    """Number of points of each line that is drawn within the axes."""
    lines = re.findall(r'<path d="([^"]*)" clip-path', picture.read_text(encoding="utf-8"))
    return [len(re.findall("[ML] ", line)) for line in lines]


def test_without_enough_days_nothing_is_evaluated(data: Panel) -> None:
    with pytest.raises(NotEnoughData, match="needs 2 more days"):
        volatility.walk(data, START - SLOTS_A_DAY, START, "1h", 12)
