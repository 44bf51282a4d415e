"""The streaming drill of the bench, in its short form: two SIGKILLs, then equal to batch and verified."""

import re

import pytest

from crypto_assets_tests.test_bench import bench


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.engine("local")
@pytest.mark.timeout(600)
def test_killed_twice_and_equal_to_batch():
    done = bench("--quick", "--only", "streaming", timeout_s=540)
    assert done.returncode == 0, done.stdout + done.stderr
    row = re.search(r"^local +(?P<records>[\d,]+) +\d+ +(?P<kills>\d+) .* yes +passed ", done.stdout, re.MULTILINE)
    assert row, done.stdout
    assert row["kills"] == "2"
    assert int(row["records"].replace(",", "")) >= 10 * 200
