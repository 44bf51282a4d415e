"""Files of bars: accepted names and times, what is tolerated with a count, and what is refused by name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crypto_assets.contracts.slices import DAY, Slice
from crypto_assets.evaluate.bars import USED, BarsRefused, of_file, of_home
from crypto_assets_tests.ml.synthetic import SLOT, bar, bar_rows

START = datetime(2024, 1, 1, tzinfo=UTC)


def bars(count: int = 24, minutes: int = 5, coins: tuple[str, ...] = ("a", "b"), **renamed: str) -> pd.DataFrame:
    """Rising bars of each coin from START, in order."""
    rows = [
        {
            "coin": coin,
            "time": START + i * timedelta(minutes=minutes),
            "open": 100.0 + i,
            "high": 102.0 + i,
            "low": 99.0 + i,
            "close": 101.0 + i,
        }
        for coin in coins
        for i in range(count)
    ]
    return pd.DataFrame(rows).rename(columns=renamed)


def written(folder: Path, frame: pd.DataFrame) -> Path:
    path = folder / "bars.parquet"
    frame.to_parquet(path)
    return path


def refused(folder: Path, frame: pd.DataFrame, *texts: str) -> None:
    with pytest.raises(BarsRefused) as error:
        of_file(written(folder, frame))
    for text in texts:
        assert text in str(error.value)
    assert "--from" in str(error.value)


def test_a_bar_is_known_at_its_end(tmp_path: Path) -> None:
    found = of_file(written(tmp_path, bars()))
    assert found.coins == ("a", "b")
    assert (found.start, found.end) == (START, START + timedelta(hours=2))
    assert found.notes == ()
    first = found.rows.slice(0, 1).to_pylist()[0]
    assert first["coin_id"] == "a"
    assert first["close"] == 101.0
    assert {first[n] for n in ("window_end", "last_event_at", "available_at")} == {START + timedelta(minutes=5)}
    assert (first["sample_count"], first["expected_count"], first["is_complete"]) == (1, 1, True)
    assert found.rows.num_rows == 48


@pytest.mark.parametrize("names", [("coin_id", "ts"), ("symbol", "timestamp"), ("COIN", "Window_Start")])
def test_usual_names_are_accepted(tmp_path: Path, names: tuple[str, str]) -> None:
    found = of_file(written(tmp_path, bars(coin=names[0], time=names[1], close="Close")))
    assert found.rows.num_rows == 48


def test_times_without_a_zone_are_utc_and_others_are_converted(tmp_path: Path) -> None:
    naive, east = bars(), bars()
    naive["time"] = naive["time"].dt.tz_localize(None)
    east["time"] = east["time"].dt.tz_convert("Asia/Tokyo")
    for frame in (naive, east):
        assert of_file(written(tmp_path, frame)).start == START


def test_minutes_are_aggregated(tmp_path: Path) -> None:
    frame = bars(30, minutes=1, coins=("a",))
    frame = frame.drop(index=[3, *range(10, 15), 19])
    found = of_file(written(tmp_path, frame))
    rows = found.rows.to_pylist()
    assert [r["close"] for r in rows] == [105.0, 110.0, 119.0, 125.0, 130.0]
    assert [r["sample_count"] for r in rows] == [4, 5, 4, 5, 5]
    assert rows[2]["last_event_at"] == START + timedelta(minutes=19), "its last minute is missing"
    assert rows[2]["window_end"] == START + timedelta(minutes=20)
    assert found.notes == (
        "bars of 60 s were aggregated to 5 minutes",
        "missing 5-minute bars: a 1; longest gap 5 minutes",
    )


def test_disorder_repetitions_and_gaps_are_counted(tmp_path: Path) -> None:
    frame = bars()
    frame.loc[frame.index[5], "close"] = np.nan
    mixed = pd.concat([frame.iloc[::-1], frame.iloc[:3]])
    found = of_file(written(tmp_path, mixed))
    assert found.notes == (
        "1 bars without a close count as gaps",
        "45 rows came after a later one of their coin and were sorted",
        "3 repeated rows were dropped",
        "missing 5-minute bars: a 1; longest gap 5 minutes",
    )
    assert found.rows.num_rows == 47
    times = [r["window_end"] for r in found.rows.to_pylist() if r["coin_id"] == "a"]
    assert times == sorted(times)


def test_every_missing_column_is_named_with_the_names_it_may_have(tmp_path: Path) -> None:
    frame = bars(coin="asset").drop(columns="low")
    refused(tmp_path, frame, "coin or coin_id or symbol", "none named low", "It has: asset, time, open", "Rename")


def test_coarser_bars_are_refused_by_their_length(tmp_path: Path) -> None:
    refused(tmp_path, bars(minutes=60), "its bars are 60 minutes long; the models need 5 minutes or less")
    refused(tmp_path, bars(minutes=2), "its bars are 120 s long, which does not divide 5 minutes")


def test_bars_off_the_grid_are_refused(tmp_path: Path) -> None:
    frame = bars()
    frame["time"] += timedelta(seconds=7)
    refused(
        tmp_path, frame, "48 bars do not begin at a multiple of their 300 s (a 2024-01-01 00:00", "start of each bar"
    )


@pytest.mark.parametrize("price", [0.0, -1.0, np.inf])
def test_impossible_prices_are_refused_with_their_coin_and_time(tmp_path: Path, price: float) -> None:
    frame = bars()
    frame.loc[frame.index[25], ["low", "close"]] = price
    refused(
        tmp_path, frame, "1 bars have a price that is zero, negative or infinite (b 2024-01-01 00:05)", "remove them"
    )


def test_a_close_outside_the_bar_is_refused(tmp_path: Path) -> None:
    frame = bars()
    frame["high"] = 90.0
    refused(tmp_path, frame, "48 bars close outside their low and high", "check which columns hold what", ", ...")


def test_contradicting_repetitions_are_refused(tmp_path: Path) -> None:
    frame = bars()
    again = frame.iloc[[30]].assign(close=107.5)
    refused(tmp_path, pd.concat([frame, again]), "1 bars are given more than once with different prices (b 2024-01-01")


def test_columns_of_the_wrong_type_are_refused(tmp_path: Path) -> None:
    texts = bars()
    texts["time"] = texts["time"].astype(str)
    refused(tmp_path, texts, "time is", "must be a timestamp", "pandas.to_datetime")
    refused(tmp_path, bars().assign(open="high"), "open is", "must be a number")
    refused(tmp_path, bars().assign(coin=None).astype({"coin": "string"}), "48 rows have no coin or no time")


def test_what_is_no_file_of_bars_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BarsRefused, match="there is no such file; give a Parquet file of bars, or home"):
        of_file(tmp_path / "nowhere.parquet")
    (tmp_path / "text.parquet").write_text("coin,time")
    with pytest.raises(BarsRefused, match="not a Parquet file"):
        of_file(tmp_path / "text.parquet")
    refused(tmp_path, bars(0).reindex(columns=["coin", "time", "open", "high", "low", "close"]), "it has no rows")
    refused(tmp_path, bars(1), "no coin has two bars")
    refused(tmp_path, bars().assign(close=np.nan), "no bar has a close")


def test_a_home_without_bars_says_what_to_run(engine: Any) -> None:
    with pytest.raises(BarsRefused, match=r"gold\.bars_5m of this home has no rows yet: run crypto-assets demo"):
        of_home(engine)


def test_a_home_gives_its_own_bars(engine: Any) -> None:
    rows = [bar(coin, START + i * SLOT, 100.0 + i) for coin in ("b", "a") for i in range(12)]
    engine.store.replace_slice("gold.bars_5m", Slice(START, START + DAY), lambda: bar_rows(rows), now=START + DAY)
    found = of_home(engine)
    assert found.coins == ("a", "b")
    assert (found.start, found.end) == (START, START + timedelta(hours=1))
    assert set(found.rows.column_names) == set(USED)
    assert found.rows.num_rows == 24
