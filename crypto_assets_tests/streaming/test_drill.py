"""The streaming drill of the bench, in its short form: two SIGKILLs, then equal to batch and verified."""

import re

import pytest

from crypto_assets_tests.test_bench import bench


@pytest.mark.acceptance
@pytest.mark.kafka
@pytest.mark.engine("local")
@pytest.mark.timeout(600)
def test_killed_twice_and_equal_to_batch():
    done = bench("--quick", "--only", "streaming", timeout_s=540)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = dict(re.findall(r"^([a-z].*?) {2,}(\S+) *$", done.stdout, re.MULTILINE))
    assert (facts["kills"], facts["equal to batch"], facts["verify"]) == ("2", "yes", "passed"), done.stdout
    assert int(facts["records"].replace(",", "")) >= 10 * 200
