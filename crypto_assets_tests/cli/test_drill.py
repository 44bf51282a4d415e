"""The drill itself: real broker, real sensors, real webhook; and that it can fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crypto_assets.cli import drill
from crypto_assets.settings import Settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    with drill.pipeline(Settings(_env_file=None), tmp_path_factory.mktemp("drill")) as found:
        for _ in range(drill.WARM_UP_POLLS):
            found.poll(refresh=False)
        found.refresh()
        yield found


def fault(pipeline: drill.Drill, name: str) -> drill.Fault:
    return next(f for f in drill.faults(pipeline) if f.name == name)


def test_there_are_six_faults(pipeline):
    assert len({f.name for f in drill.faults(pipeline)}) == 6


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("malformed record in the topic", "quarantine_rate"),
        ("null price", "ethereum: null price"),
        ("missing coin", "solana: not in 3 polls"),
        ("429 storm", "rate_limited"),
    ],
)
def test_a_fault_is_noticed_alerted_and_over(pipeline, name, text):
    row = pipeline.run(fault(pipeline, name))
    assert row["ok"], row
    assert text in row["alert"]


def test_frozen_quotes_are_noticed_only_after_the_bound(pipeline):
    row = pipeline.run(fault(pipeline, "frozen quotes"))
    assert row["ok"], row
    assert row["red after (s)"] >= 360


def test_a_fault_that_nothing_notices_is_silent(pipeline):
    nothing = replace(fault(pipeline, "null price"), begin=lambda: None)
    row = pipeline.run(nothing)
    assert row["ok"] is False
    assert row["alert received"] == "NO"
