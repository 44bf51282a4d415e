from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crypto_assets.settings import environment
from crypto_assets_tests.sources import toy_exchange
from crypto_assets_tests.sources.raw_server import RawServer, reply

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_an_exchange_is_added_in_the_places_that_the_table_names(server: RawServer, kafka_broker, tmp_path):
    """Through Kafka and through files, with the product's own registry and no other change of it."""
    at = int(datetime.now(UTC).timestamp())
    server.answer(reply({"XBT": ["64000.5", at], "LTC": ["71.25", at - 1], "DOGE": ["0.1", at]}))
    program = [sys.executable, "-m", toy_exchange.__name__, server.url, str(tmp_path), kafka_broker.bootstrap_servers]
    env = {**environment(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, capture_output=True, text=True, timeout=180, cwd=tmp_path, env=env, check=False)
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout.splitlines()[-1]):
        assert found == {
            "tick": ["ok", 2, []],
            "cadence_s": 60.0,
            "banner": "LIVE toy exchange",
            "silver": [["bitcoin", "XBT", "toy", "64000.5"], ["litecoin", "LTC", "toy", "71.25"]],
        }


def test_the_table_names_the_places_of_the_toy_exchange():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if line.startswith("| an exchange |")]
    code = Path(toy_exchange.__file__).read_text(encoding="utf-8")
    used = re.findall(r"# ---- (\S+)", code)
    assert [p.replace("<name>", "toy") for p in re.findall(r"`([\w/<>]+\.py)`", row.split("; with")[0])] == used
