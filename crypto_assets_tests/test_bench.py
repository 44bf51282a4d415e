"""The bench as people start it: its cheapest part prints what it measured."""

import re
import subprocess
import sys
from pathlib import Path

from bench.report import Measure, Part

CHECKOUT = Path(__file__).parent.parent


def bench(*arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=timeout_s, check=False)


def test_the_cheap_part_prints_measured_values():
    done = bench("--quick", "--only", "import", "--repeats", "1")
    assert done.returncode == 0, done.stderr
    assert re.search(r"machine: \d+ cores .* GB memory", done.stdout)
    measured = dict(re.findall(r"^import (\S+) +(\d+\.\d+) +s ", done.stdout, re.MULTILINE))
    assert set(measured) == {"crypto_assets.definitions", "dagster"}
    # The definitions import Dagster first, so both figures can only be right together.
    assert all(0.05 < float(seconds) < 120 for seconds in measured.values())
    assert "heavy libraries loaded by it: none" in done.stdout


def test_an_unknown_part_is_refused_with_the_names_that_exist():
    done = bench("--only", "speed")
    assert done.returncode == 2
    for name in ("import", "throughput", "refresh", "ranges", "growth", "streaming"):
        assert name in done.stderr


def test_a_target_is_judged_in_its_own_direction(tmp_path):
    floor = Measure("rate", 150.0, "rows/s", 200.0, more_is_better=True)
    ceiling = Measure("time", 2.4, "s", 3.0)
    assert (floor.met, floor.margin) == (False, "25% worse")
    assert (ceiling.met, ceiling.margin) == (True, "20% better")
    assert floor.row()["met"] == "NO"
    assert Measure("runs", 3, "runs").met is None
    Part("title", [floor, ceiling], {"t": [{"a": 1}]}, ["n"]).save(tmp_path / "part.json")
    assert Part.load(tmp_path / "part.json") == Part("title", [floor, ceiling], {"t": [{"a": 1}]}, ["n"])
