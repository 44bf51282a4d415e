"""The features step on a lake: which hours it fills, and what its checks say. What a row holds: `transforms`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from crypto_assets.assets import features
from crypto_assets.contracts.slices import DAY, HOUR, Slice, hour_key
from crypto_assets.engine.sail import SailEngine
from crypto_assets_tests.builders import START, sample, step_inputs, write_bronze
from crypto_assets_tests.ml.synthetic import SLOT, bar_rows, bars_of, names, registry_of, walk

NOW = START + 60 * DAY


def test_features_are_written_for_closed_slots_alone(engine: SailEngine) -> None:
    begin = START + 26 * HOUR
    bars = bars_of(walk(1, 3, 28 * 12))
    engine.store.replace_slice("gold.bars_5m", Slice(START, START + 28 * HOUR), lambda: bar_rows(bars), now=NOW)
    reached = begin + HOUR + 4 * SLOT + timedelta(seconds=60)
    write_bronze(engine.store, [sample("bitcoin", reached, delay=timedelta(0))])
    keys = [hour_key(begin), hour_key(begin + HOUR), hour_key(begin + 2 * HOUR)]
    inputs = step_inputs(NOW, coins=registry_of(names(3)))
    done = features.work(engine, keys, inputs).tables["features.price_features"]
    assert [done.partitions[k].rows for k in keys] == [36, 12, 0]
    empty = {c.name: c for c in done.partitions[keys[2]].checks}["has_rows"]
    assert not empty.passed
    assert reached.isoformat() in empty.description
    assert {c.name: c.passed for c in done.partitions[keys[0]].checks}["scale_known"]
    # Cut at an earlier time, the log reaches less far.
    early = features.work(
        engine, keys[:1], replace(inputs, as_of=begin + 2 * SLOT + timedelta(seconds=60), rebuild=True)
    )
    assert early.tables["features.price_features"].partitions[keys[0]].rows == 6


def test_a_young_home_is_told_that_the_scale_is_not_known_yet(engine: SailEngine) -> None:
    bars = bars_of(walk(1, 3, 12))
    engine.store.replace_slice("gold.bars_5m", Slice(START, START + HOUR), lambda: bar_rows(bars), now=NOW)
    write_bronze(engine.store, [sample("bitcoin", START + 2 * HOUR)])
    result = features.work(engine, [hour_key(START)], step_inputs(NOW, coins=registry_of(names(3))))
    done = result.tables["features.price_features"].partitions[hour_key(START)]
    check = {c.name: c for c in done.checks}["scale_known"]
    assert (check.passed, check.severity) == (False, "warn")
    assert "0% of 36 rows" in check.description


def test_features_are_computed_again_only_when_something_they_follow_from_has_changed(
    engine: SailEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, hour = hour_key(START + 3 * HOUR), Slice(START + 3 * HOUR, START + 4 * HOUR)
    reached = hour.start + 7 * SLOT + timedelta(seconds=90)
    write_bronze(engine.store, [sample("bitcoin", reached, delay=timedelta(0))])
    prices, computed = walk(1, 3, 4 * 12), []

    def bars_are(prices: np.ndarray) -> None:
        rows = bars_of(prices)
        newest = max(r["window_end"] for r in rows)
        stored = bar_rows([r | {"is_closed": r["window_end"] < newest} for r in rows])
        engine.store.replace_slice("gold.bars_5m", Slice(START, hour.end), lambda: stored, now=NOW)

    original = features.features
    monkeypatch.setattr(features, "features", lambda *given: (computed.append(1), original(*given))[1])
    inputs = step_inputs(NOW, coins=registry_of(names(3)))
    inputs = replace(inputs, params={**inputs.params, "code_version": "a"})

    def made(inputs: Any = inputs) -> tuple[int, str, int]:
        computed.clear()
        done = features.work(engine, [key], inputs).tables["features.price_features"].partitions[key]
        return len(computed), done.data_version, done.metadata["delta_version"]

    bars_are(prices)
    first = made()
    assert first[0] == 1
    prices[:, -1] *= 2  # the bar that is open
    bars_are(prices)
    assert made() == (0, *first[1:])
    prices[:, -8] *= 2
    bars_are(prices)
    changed = made()
    assert (changed[0], changed[1] != first[1], changed[2]) == (1, True, first[2] + 1)
    assert made() == (0, *changed[1:])
    assert made(replace(inputs, rebuild=True)) == (1, *changed[1:])
    assert made(replace(inputs, params={**inputs.params, "code_version": "b"})) == (1, *changed[1:])
    assert made(replace(inputs, coins=registry_of(names(2))))[0] == 1
    assert made() == (1, changed[1], changed[2] + 2)
    assert made(replace(inputs, as_of=reached - SLOT))[0] == 1
    assert made()[:2] == (1, changed[1])
