"""What the real steps write keeps every law."""

from __future__ import annotations

from datetime import timedelta

import pytest

from crypto_assets.assets import bars, bronze, silver
from crypto_assets.contracts.slices import day_key, hour_key
from crypto_assets.market.coins import default_registry
from crypto_assets.verify.audit import audit
from crypto_assets_tests.assets import log_tools
from crypto_assets_tests.verify import honest_lake as honest

pytestmark = pytest.mark.kafka


def test_the_pipeline_keeps_every_law(kafka_broker, kafka_engine, topic_factory):
    topic = topic_factory()
    sent = honest.messages()
    honest.publish(kafka_broker.config, topic, sent)
    keys = [hour_key(honest.START + timedelta(hours=h)) for h in range(honest.HOURS)]
    coins = default_registry("simulator")
    inputs = log_tools.inputs(kafka_broker, topic, keys, now=honest.NOW, coins=coins)
    bronze.work(kafka_engine, keys, inputs)
    silver.work(kafka_engine, keys, inputs)
    silver.work_quarantine(kafka_engine, keys, inputs)
    bars.work(kafka_engine, keys, inputs)
    bars.work_day(kafka_engine, [day_key(honest.START)], inputs)

    report = audit(
        kafka_engine.lake,
        lambda: kafka_broker.config,
        topics={"bronze.raw_prices": topic},
        coins=coins.to_records(),
        now=honest.NOW,
    )
    assert report.broken == [], report.rows()
    held = {f.law: f.checked for f in report.findings if f.outcome == "holds"}
    assert held["bronze_holds_the_topic"] == held["bronze_is_valid_plus_quarantined"] == len(sent)
    assert held["quarantine_is_deserved"] == sum(bool(m.reasons) for m in sent)
    assert {f"bars_{width}_are_silver_recomputed" for width in honest.WIDTHS} <= set(held)
