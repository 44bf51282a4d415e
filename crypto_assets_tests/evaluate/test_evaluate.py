"""The command `evaluate` on small files of bars, and the walk-forward behind it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from crypto_assets.cli.main import app
from crypto_assets.contracts.arrow import conform, spark_schema
from crypto_assets.contracts.slices import DAY, Slice
from crypto_assets.contracts.tables import BARS_5M, PRICE_FEATURES
from crypto_assets.engine.base import NotEnoughData
from crypto_assets.engine.sail import SailEngine
from crypto_assets.evaluate import bars as reading
from crypto_assets.evaluate import detection, intervals, splice
from crypto_assets.evaluate.features import panel_of
from crypto_assets.ml import faults
from crypto_assets.ml.panel import FIELDS, SLOTS_A_DAY, Panel, panel
from crypto_assets.transforms.features import features
from crypto_assets_tests.evaluate.synthetic_file import COINS, SIGMAS, START, closes, day, frame, written
from crypto_assets_tests.ml.synthetic import bar, bar_rows, registry_of

DAYS, FIRST = 11, 8
"""Days of the file, and the first that is evaluated: before it lie a day of scale and seven of calibration."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("bars") / "bars.parquet", closes(DAYS))


@pytest.fixture(scope="module")
def data(file: Path) -> Panel:
    """Features of the whole file, computed once."""
    return panel_of(SailEngine(""), reading.of_file(file), START, START + DAYS * DAY)


def evaluated(path: Path, *more: str, days: str = f"{day(FIRST)}..{day(DAYS - 1)}") -> Any:
    return CliRunner().invoke(app, ["evaluate", "--from", str(path), "--days", days, *more])


def of_json(path: Path, *more: str) -> dict[str, Any]:
    """Tables by title, and the rest of the JSON."""
    done = evaluated(path, "--budget", "1", "--horizon", "5m", "--json", *more)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    return {**found, "tables": {t["title"]: t["rows"] for t in found["tables"]}}


@pytest.fixture(scope="module")
def small(file: Path) -> dict[str, Any]:
    """All that the command can print of the file."""
    return of_json(file, "--splice", "--plot", str(file.parent / "pictures"))


@pytest.mark.slow
def test_the_tables_of_a_small_file(small: dict[str, Any]) -> None:
    tables = small["tables"]
    assert small["coins"] == list(COINS)
    assert small["days"] == [day(FIRST), day(DAYS - 1)]
    flags = {r["detector"]: r for r in tables["Flags at 1 a day, by detector"]}
    assert flags.keys() == {"robust z", "market", "union"}
    assert all(r["days"] == 3 and 0.2 <= r["measured / budget"] <= 3 for r in flags.values())
    recall = {r["fault"]: r for r in tables["Faults found at 1 a day, %"]}
    assert recall.keys() == faults.KINDS.keys()
    assert recall["spike_12"]["union"] >= recall["spike_6"]["union"] >= recall["spike_3"]["union"]
    assert recall["market"]["robust z"] > recall["market"]["market"], "a market-relative score misses a crash"
    (frozen,) = tables["Frozen quotes"]
    assert frozen["freeze_12 found, %"] == frozen["freeze_36 found, %"] == 100
    assert frozen["false slots per coin and day"] == 0
    for row in tables["90 % intervals: coverage"]:
        assert 80 <= row["coverage, %"] <= 98
    product, first = tables["90 % intervals: sharpness"]
    assert first["Winkler / first"] == 1
    # The last slot's outcome lies after the file.
    assert product["forecasts"] == first["forecasts"] == len(COINS) * (3 * SLOTS_A_DAY - 1)
    assert len(tables["Coverage by UTC hour, %"]) == 24
    (skill,) = tables["Skill of the point forecast over no change"]
    assert skill["verdict"] == "no skill"


@pytest.mark.slow
def test_pictures_are_written_and_named(small: dict[str, Any], file: Path) -> None:
    found = sorted((file.parent / "pictures").iterdir())
    assert [p.name for p in found] == ["coverage_5m.svg", "flags_1_a_day.svg", "recall_1_a_day.svg", "winkler_5m.svg"]
    assert sorted(small["pictures"]) == [str(p) for p in found]
    assert all("<svg" in p.read_text(encoding="utf-8") for p in found)


@pytest.mark.slow
def test_planted_faults_are_found(small: dict[str, Any], tmp_path: Path) -> None:
    """A spike of 20 sigma in one coin and a quote that stands still for two hours, both on the last day."""
    prices = closes(DAYS)
    at = (DAYS - 1) * SLOTS_A_DAY + 100
    # At the day's end, where the scale that the spike raises hides no later flag.
    prices[3, DAYS * SLOTS_A_DAY - 3] *= np.exp(20 * SIGMAS[3])
    prices[2, at : at + 24] = prices[2, at - 1]
    planted = of_json(written(tmp_path / "planted.parquet", prices))["tables"]
    counts = [
        {r["coin"]: r["union / budget"] for r in tables["Flags at 1 a day, by coin"]}
        for tables in (small["tables"], planted)
    ]
    assert counts[1]["gamma"] >= counts[0]["gamma"] + 1 / 3, "a flag more in three days"
    assert counts[1]["alpha"] == counts[0]["alpha"]
    (frozen,) = planted["Frozen quotes"]
    assert frozen["false runs per coin and day"] == 1 / (3 * len(COINS))


def test_the_tables_are_printed_for_people(file: Path) -> None:
    done = evaluated(file, "--budget", "2", "--budget", "1/7", "--horizon", "1h", days=day(FIRST))
    assert done.exit_code == 0, done.output
    assert "days left out at 1 a week: needs 21 more days" in done.stderr
    assert "Flags at 1 a week" not in done.stdout
    assert "4 coins: alpha, beta, delta, gamma; bars 2024-03-01 00:00 to 2024-03-12 00:00 UTC" in done.stdout
    for title in ("Flags at 2 a day, by coin", "Faults found at 2 a day, %", "Frozen quotes", "Coverage by coin, %"):
        assert title in done.stdout


def test_too_few_days_before_the_first_are_named(data: Panel) -> None:
    with pytest.raises(NotEnoughData, match=r"needs 21 more days: a budget of 0\.142857 flags a day"):
        detection.walk(data.cut(0, (FIRST + 1) * SLOTS_A_DAY), FIRST * SLOTS_A_DAY, 1 / 7, {})
    with pytest.raises(NotEnoughData, match="needs 6 more days"):
        detection.walk(data.cut(0, 3 * SLOTS_A_DAY), 2 * SLOTS_A_DAY, 1.0, {})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--days", "2024-03-05..2024-04-01"], "the bars have whole days from 2024-03-01 to 2024-03-11 only"),
        (["--days", "2024-03-05..2024-03-04"], "the last day lies before the first"),
        (["--days", "March"], "'March' is not a day"),
        (["--budget", "often"], "--budget often: give flags per coin and day, as 1 or 1/7"),
        (["--budget", "0"], "--budget 0: it must lie between 0 and 144"),
        (["--horizon", "2h"], "--horizon 2h: choose 5m or 1h"),
        (["--from", "nowhere.parquet"], "--from nowhere.parquet: there is no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_options_are_named(file: Path, options: list[str], text: str) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--from", str(file), "--days", day(11), *options])
    assert done.exit_code == 2, done.output
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_features_are_those_of_the_transform_in_one_piece(data: Panel, spark: Any) -> None:
    """Every feature that models read, to the last bit, although `evaluate` computes a few days at a time."""
    prices = closes(DAYS)[:, : 9 * SLOTS_A_DAY]
    starts = [START + t * timedelta(minutes=5) for t in range(prices.shape[1])]
    table = bar_rows(
        [
            bar(coin, start, float(price), expected_count=1, sample_count=1, last_event_at=start + timedelta(minutes=5))
            for coin, of_coin in zip(COINS, prices, strict=True)
            for start, price in zip(starts, of_coin, strict=True)
        ]
    )
    slice_ = Slice(START + 6 * DAY, START + 9 * DAY)
    bars_5m = spark.createDataFrame(table, spark_schema(BARS_5M))
    whole = conform(PRICE_FEATURES, features(bars_5m, slice_, registry_of(COINS), START + 30 * DAY).toArrow())
    expected = panel(whole, slice_.end)
    found = data.cut(expected.first_slot - data.first_slot, expected.first_slot - data.first_slot + expected.slots)
    assert found.coins == expected.coins
    for field in FIELDS:
        assert found[field] == pytest.approx(expected[field], rel=1e-9, abs=1e-11, nan_ok=True), field
        assert np.isfinite(found[field]).all() or field in {"rv24h"}, field


def test_what_comes_later_changes_no_earlier_day(data: Panel) -> None:
    start = FIRST * SLOTS_A_DAY
    values = {name: rows.copy() for name, rows in data.values.items()}
    for name in ("rz", "r5", "r5_market", "rv1h"):
        values[name][:, (DAYS - 1) * SLOTS_A_DAY :] *= 50
    values["price"][:, (DAYS - 1) * SLOTS_A_DAY + 24 :] *= 1.5
    found = []
    for given in (data, replace(data, values=values)):
        one = detection.walk(given, start, 1.0, detection.injected(given, start))
        held = intervals.walk(given, start, data.slots, "5m", 1)
        found.append((one, held))
    span = slice(0, 2 * SLOTS_A_DAY)
    (one, held), (other, later) = found
    for arm, flags in one.flags.items():
        assert (flags[:, span] == other.flags[arm][:, span]).all(), arm
        assert (flags != other.flags[arm]).any() or arm == detection.FROZEN, "the last day itself differs"
    for arm, i in held.arms.items():
        assert i.lower[:, span].tolist() == later.arms[arm].lower[:, span].tolist()


def test_each_day_is_scored_by_what_was_known_before_it(data: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[tuple[str, int]] = []
    calibrate, train = detection.anomaly.calibrate, intervals.price.train

    def calibrated(given: Panel, budget: float) -> Any:
        ends.append(("anomaly", given.first_slot + given.slots - data.first_slot))
        return calibrate(given, budget)

    def trained(given: Panel, slots: int, **more: Any) -> Any:
        ends.append(("price", given.first_slot + given.slots - data.first_slot))
        return train(given, slots, **more)

    monkeypatch.setattr(detection.anomaly, "calibrate", calibrated)
    monkeypatch.setattr(intervals.price, "train", trained)
    start = 9 * SLOTS_A_DAY
    detection.walk(data, start, 1.0, {})
    intervals.walk(data, start, data.slots, "5m", 1)
    assert ends == [("anomaly", 2592), ("anomaly", 2880), ("price", 2592), ("price", 2880)]


def test_a_spliced_crash_is_the_worst_hour_five_fold_with_features_of_its_own(file: Path, data: Panel) -> None:
    engine, bars = SailEngine(""), reading.of_file(file)
    start = 8 * SLOTS_A_DAY
    found = splice.splice(engine, bars, data, start)
    copied = int((found.recorded_at - START).total_seconds()) // 300
    returns = np.diff(np.log(data["price"]), axis=1, prepend=np.nan)
    assert np.diff(np.log(found.data["price"]), axis=1)[:, found.first - 1 : found.first + 11] == pytest.approx(
        5 * returns[:, copied : copied + 12], abs=1e-9
    )
    assert found.first == start + 144
    after = found.first + 12
    assert np.diff(np.log(found.data["price"][:, after:])) == pytest.approx(np.diff(np.log(data["price"][:, after:])))
    # As if the file had held the crash.
    crashed = frame(found.data["price"])
    path = file.parent / "crashed.parquet"
    crashed.to_parquet(path)
    whole = panel_of(engine, reading.of_file(path), START + 7 * DAY, START + DAYS * DAY)
    for field in ("r5", "rz", "s", "s_market", "r5_market", "rz_common", "common_activity", "rv1h", "unchanged_slots"):
        span = slice(start, data.slots)
        assert found.data[field][:, span] == pytest.approx(
            whole[field][:, span.start - 7 * SLOTS_A_DAY :], rel=1e-6, abs=1e-9
        ), field


def test_through_the_crash(small: dict[str, Any], file: Path) -> None:
    tables = small["tables"]
    (about,) = tables["The spliced crash"]
    assert about["to"] == f"{day(FIRST + 1)} 12:00"
    flagged = {r["detector"]: r["crash bars flagged, %"] for r in tables["The crash at 1 a day"]}
    assert flagged["union"] > flagged["market"] > 0, "a market-relative score alone loses a crash"
    after = [r for r in tables["After the crash at 1 a day"] if r["detector"] == "union"]
    assert [r["days after"] for r in after] == [0, 1]
    assert after[0]["flags per coin"] > after[0]["flags per coin without it"]
    assert all(0 <= r["spike_6 found, %"] <= 100 for r in after)
    assert {r["version"] for r in tables["Coverage through the crash"]} == {"product", "first version"}
    recovery = {r["quantity"]: r for r in next(v for k, v in tables.items() if k.startswith("Recovery"))}
    assert recovery["s_market"]["highest ratio"] > recovery["s"]["highest ratio"]


def test_a_crash_needs_days_to_recover_from(file: Path) -> None:
    done = evaluated(file, "--splice", "--budget", "1", days=day(DAYS - 1))
    assert done.exit_code == 2
    assert "--splice needs at least 3 days" in done.stderr
