"""A broker that lost its newest records: the error stays until a person adopts the log, and then nothing is lost."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer

from crypto_assets.assets import bronze
from crypto_assets.cli import adopt_log
from crypto_assets.contracts.slices import HOUR, floor_hour, hour_key
from crypto_assets.engine.base import StepFailed
from crypto_assets.engine.engines import make_engine
from crypto_assets.engine.inputs import StepInputBuilder
from crypto_assets.home import open_home
from crypto_assets.log.kafka.broker import EmbeddedBroker
from crypto_assets.log.kafka.client import client_config
from crypto_assets.log.kafka.topic import require_topics
from crypto_assets.settings import Settings
from crypto_assets.verify.audit import audit
from crypto_assets_tests.assets.log_tools import price

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

NOW = datetime.now(UTC)
HOURS = [hour_key(floor_hour(NOW) - n * HOUR) for n in (2, 1)]
"""The older hour is stored before the cut; the newer one is the first that is asked for after it."""


class CutHome:
    """A replay home whose broker's folder can be put back to an older copy."""

    def __init__(self, path: Path) -> None:
        self.settings = Settings(_env_file=None, source="replay", home_path=path)
        self.home = open_home(self.settings)
        self.broker = EmbeddedBroker(path)
        self.engine = make_engine(self.settings)

    def produce(self, minutes: range, value: int) -> None:
        producer = Producer(client_config(self.settings))
        for minute in minutes:
            moment = floor_hour(NOW) - 2 * HOUR + timedelta(minutes=minute)
            for topic in (self.settings.prices_topic, self.settings.polls_topic):
                stamp = int(moment.timestamp() * 1000)
                body = price(moment, price_usd=str(value + minute))
                producer.produce(topic, body, "bitcoin", partition=1, timestamp=stamp)
        assert producer.flush(30) == 0

    def ingest(self, key: str) -> None:
        build = StepInputBuilder(self.settings).build
        for logical, work in (("prices", bronze.work), ("polls", bronze.work_polls)):
            work(self.engine, [key], build(now=NOW, run_id="r", keys=[key], reads_log=logical))

    def prices(self, table: str = "bronze.raw_prices") -> list[int]:
        rows = self.engine.store.read_arrow(table, columns=["raw_json"]).to_pylist()
        return sorted(int(json.loads(r["raw_json"])["price_usd"]) for r in rows)

    def broken(self) -> list[str]:
        topics = {"bronze.raw_prices": self.settings.prices_topic, "ops.polls": self.settings.polls_topic}
        report = audit(
            self.settings.lake, lambda: client_config(self.settings), now=NOW, topics=topics, home=self.home.path
        )
        return [f.law for f in report.broken if "holds" in f.law or f.law.startswith(("bronze_off", "bronze_ran"))]


def test_a_log_that_was_cut_and_has_grown_again_is_refused_until_it_is_adopted(tmp_path, capsys):
    lake = CutHome(tmp_path / "home")
    try:
        lake.broker.start(timeout_s=120)
        require_topics(lake.settings, NOW)
        lake.produce(range(5), 500)
        lake.broker.stop()
        shutil.copytree(lake.home.path / "kafka" / "data", tmp_path / "older")
        lake.broker.start(timeout_s=120)
        lake.produce(range(5, 20), 1000)
        lake.ingest(HOURS[0])
        lake.broker.stop()
        shutil.rmtree(lake.home.path / "kafka" / "data")
        shutil.copytree(tmp_path / "older", lake.home.path / "kafka" / "data")
        lake.broker.start(timeout_s=120)
        lake.produce(range(20, 45), 2000)
        before = [*range(500, 505), *range(1005, 1020)]
        for key in (*HOURS, HOURS[0]):
            with pytest.raises(StepFailed, match=r"log was cut and has grown again.*adopt-log"):
                lake.ingest(key)
        assert lake.prices() == before
        assert {"bronze_holds_the_topic", "polls_holds_the_topic"} <= set(lake.broken())

        assert adopt_log.run(lake.settings, now=NOW, apply=False, as_json=True) == 0
        planned = [(r["partition"], r["adopted from"]) for r in json.loads(capsys.readouterr().out)]
        assert planned == [(0, 0), (1, 5), (2, 0)] * 2
        with pytest.raises(StepFailed, match="log was cut and has grown again"):
            lake.ingest(HOURS[1])
        assert adopt_log.run(lake.settings, now=NOW, apply=True, as_json=True) == 0
        lake.produce(range(61, 63), 3000)
        for _ in range(2):
            lake.ingest(HOURS[1])
        after = sorted([*before, *range(2020, 2045), 3061, 3062])
        assert lake.prices() == after
        assert lake.prices("ops.polls") == after
        assert lake.broken() == []
        assert adopt_log.run(lake.settings, now=NOW, apply=True, as_json=False) == 0
        assert "nothing to adopt" in capsys.readouterr().out
    finally:
        lake.broker.stop()
