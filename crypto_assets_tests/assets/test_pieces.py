"""How a range of partitions is cut into slices, and that the cuts do not show in the tables."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from crypto_assets.assets import bars, silver
from crypto_assets.assets.publishing import LONGEST_SLICE, MOST_ROWS, pieces
from crypto_assets.contracts.slices import DAY, HOUR, Slice, day_key, hour_keys
from crypto_assets.engine.sail import SailEngine
from crypto_assets.market.coins import default_registry
from crypto_assets_tests.builders import Record, at, message, step_inputs, write_bronze

TEN = at("2024-05-01 10:00:00")
FIRST_ROWS = 5
"""Records of every hour of the lake below but the second, which has none."""


def test_a_piece_ends_at_a_hole_at_the_longest_slice_and_before_too_many_rows():
    hours = hour_keys(Slice(TEN, TEN + LONGEST_SLICE + 2 * HOUR))
    cut = pieces(hours, "hour")
    assert [(s.start, s.end, len(keys)) for s, keys in cut] == [
        (TEN, TEN + LONGEST_SLICE, LONGEST_SLICE // HOUR),
        (TEN + LONGEST_SLICE, TEN + LONGEST_SLICE + 2 * HOUR, 2),
    ]
    holed = pieces([hours[5], hours[0], hours[1]], "hour")
    assert [keys for _, keys in holed] == [[hours[0], hours[1]], [hours[5]]]
    sizes = {TEN + n * HOUR: rows for n, rows in enumerate((1, MOST_ROWS - 1, 1, MOST_ROWS * 3, 0, MOST_ROWS))}
    sized = pieces(hours[:6], "hour", lambda slice_: sizes[slice_.start])
    assert [keys for _, keys in sized] == [hours[:2], hours[2:3], hours[3:4], hours[4:6]]
    assert [k for _, keys in sized for k in keys] == hours[:6]
    assert all(s.end == after.start for (s, _), (after, _) in pairwise(sized))


def test_days_are_cut_too():
    days = [day_key(at("2024-05-01 00:00:00") + n * DAY) for n in range(12)]
    assert [len(keys) for _, keys in pieces(days, "day")] == [8, 4]
    assert [len(keys) for _, keys in pieces(days, "day", lambda _day: MOST_ROWS / 3)] == [3, 3, 3, 3]


@pytest.mark.parametrize("most", [1, 2 * FIRST_ROWS])
def test_tables_and_reports_are_the_same_however_a_range_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
):
    hours = hour_keys(Slice(TEN - HOUR, TEN + 5 * HOUR))
    moments = [TEN + hour * HOUR + timedelta(minutes=11 * n) for hour in (0, 2, 3, 4) for n in range(FIRST_ROWS)]
    records = [Record(t, message("bitcoin", t, f"{100 + i}")) for i, t in enumerate(moments)]
    records.append(Record(TEN + 3 * HOUR + timedelta(minutes=1), "{no quote"))

    def made(name: str) -> tuple[dict[str, Any], int]:
        engine = SailEngine(str(tmp_path / name))
        write_bronze(engine.store, records)
        given = step_inputs(TEN + 2 * DAY, coins=default_registry("replay"))
        results = [work(engine, hours, given) for work in (silver.work, silver.work_quarantine, bars.work)]
        tables = {name: table for result in results for name, table in result.tables.items()}
        stored = {name: sorted(map(str, engine.store.read_arrow(name).to_pylist())) for name in tables}
        shown = {
            name: [(k, p.rows, p.data_version, [(c.name, c.passed) for c in p.checks]) for k, p in t.partitions.items()]
            for name, t in tables.items()
        }
        return {"shown": shown, "stored": stored}, engine.store.version("silver.prices") or 0

    whole, few = made("whole")
    monkeypatch.setattr("crypto_assets.assets.publishing.MOST_ROWS", most)
    cut, many = made("cut")
    assert cut == whole
    assert many > few, "it was cut"
