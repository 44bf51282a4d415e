"""The features step on a lake: which hours it fills, and what its checks say. What a row holds: `transforms`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

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
