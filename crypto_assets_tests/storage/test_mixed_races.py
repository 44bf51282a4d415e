"""Writers on delta-rs and on JVM Spark that race on one lake and are killed: the short form of the bench's race."""

from __future__ import annotations

import pytest

from bench.races import race


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.engine("local")
def test_killed_writers_on_both_engines_double_and_lose_nothing():
    figures, problems = race(("local", "local", "spark"), kills=2)
    print(figures)
    assert problems == []
    assert figures["kills"] == 2
    assert figures["records stored"] == figures["records produced"] > 0
    assert figures["commits by sail+delta-rs"] > 0
    assert figures["commits by spark"] > 0
