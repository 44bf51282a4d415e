"""`ops.polls`: every record of the topic becomes a row, whatever it holds."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from bench.mutations import mutated
from crypto_assets.assets import bronze
from crypto_assets.verify.audit import audit
from crypto_assets_tests.assets.log_tools import TEN, inputs, key, publish
from crypto_assets_tests.market.test_polls import POLL, text

pytestmark = pytest.mark.kafka

TABLE = "ops.polls"
POISON = {
    "an integer of 401 digits": text(age_s="1" + "0" * 400),
    "a lone surrogate": text(poll_id='"\\ud800"'),
    "one in a list": text(coins_missing='["x\\udc00"]'),
    "one in an optional text": text(detail='"\\udfff"'),
    "an integer that Python refuses to read": text(coins_asked="7" * 5000),
    "one in a name": '{"\\ud800":1,' + text()[1:],
    "too deep": text(detail="[" * 100_000),
}


def test_no_record_stops_the_polls_of_its_hour(kafka_broker, kafka_engine, topic_factory):
    topic = topic_factory(partitions=1)
    values = [text().encode(), *(v.encode() for v in POISON.values()), None, *mutated([POLL], 300, seed=8)]
    sent = [(0, TEN + i * timedelta(seconds=2), value) for i, value in enumerate(values)]
    publish(kafka_broker, topic, sent)

    given = inputs(kafka_broker, topic, [key(TEN)])
    partition = bronze.work_polls(kafka_engine, [key(TEN)], given).tables[TABLE].partitions[key(TEN)]

    rows = kafka_engine.store.read_arrow(TABLE).sort_by("offset").to_pylist()
    assert [r["offset"] for r in rows] == list(range(len(values)))
    for row, value in zip(rows, values, strict=True):
        assert value in ((row["raw_json"] or "").encode(), row["raw_bytes"], None)
    assert (rows[0]["poll_id"], rows[0]["age_s"], rows[0]["coins_missing"]) == ("p", 1.0, ["x"])
    nulls = [n for row, n in zip(rows[1:6], ("age_s", "poll_id", "coins_missing", "detail", "coins_asked"), strict=True)
             if row[n] is None and row["outcome"] == "ok" and row["delivered"] == 3]  # fmt: skip
    assert nulls == ["age_s", "poll_id", "coins_missing", "detail", "coins_asked"]
    assert (rows[6]["poll_id"], rows[7]["poll_id"]) == ("p", None)

    readable = next(c for c in partition.checks if c.name == "readable")
    assert not readable.passed
    assert readable.metadata["violations"] >= 4
    report = audit(
        kafka_engine.lake, lambda: kafka_broker.config, topics={TABLE: topic}, coins=(), now=TEN + timedelta(hours=2)
    )
    assert report.broken == [], json.dumps(report.rows(), indent=1)
