from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from crypto_assets.log.errors import LogUnavailable, PublishFailed
from crypto_assets.log.kafka.broker import EmbeddedBroker
from crypto_assets.log.kafka.publisher import Publisher, number_text, schema_problems
from crypto_assets.log.kafka.topic import ensure_topics
from crypto_assets.settings import Settings
from crypto_assets_tests.builders import published
from crypto_assets_tests.log.messages import T0, everything, ms, poll, price


@pytest.fixture
def virtual(kafka_broker, topic_factory):
    with Publisher(
        kafka_broker.config, prices_topic=topic_factory(), polls_topic=topic_factory(), source="replay", virtual=True
    ) as publisher:
        yield publisher


def test_prices_carry_key_headers_and_arrival(kafka_broker, virtual):
    coins = ["bitcoin", "ethereum", "litecoin"]
    sent = [price(coin) for coin in coins]
    extra = {"recorded_at": "2018-04-04T10:00:00Z", "shift_days": "2127"}
    before = datetime.now(UTC)
    assert published(virtual, sent, poll_id="p7", cadence_s=60, headers=extra, arrival=T0) == 3
    rows = everything(kafka_broker.config, virtual.prices_topic)
    assert sorted(row[2]["coin_id"] for row in rows) == coins
    assert [row[2] for row in rows if row[2]["coin_id"] == "bitcoin"] == [sent[0]]
    for row in rows:
        sent_at = datetime.fromisoformat(row[3].pop("sent_at"))
        assert before <= sent_at + timedelta(milliseconds=1)
        assert sent_at <= datetime.now(UTC)
        assert row[3] == {"schema_version": "1", "source": "replay", "poll_id": "p7", "cadence_s": "60", **extra}
        assert row[4] == ms(T0)
    virtual.enqueue_poll(poll("p7"), arrival=T0)
    virtual.flush()
    (record,) = everything(kafka_broker.config, virtual.polls_topic)
    assert record[2] == poll("p7")
    assert record[3] == {"schema_version": "2", "source": "replay", "poll_id": "p7"}


def test_a_coin_keeps_its_partition(kafka_broker, virtual):
    for i in range(5):
        virtual.enqueue_prices([price("bitcoin")], poll_id=f"p{i}", cadence_s=60, arrival=T0 + timedelta(minutes=i))
    assert virtual.flush() == 5
    rows = everything(kafka_broker.config, virtual.prices_topic)
    assert len({row[0] for row in rows}) == 1
    assert [row[3]["poll_id"] for row in rows] == ["p0", "p1", "p2", "p3", "p4"]


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (price(price_usd="1e5"), "price_usd: breaks pattern"),
        (price(price_usd=43000.5), "price_usd: breaks type"),
        (price(last_updated_at="2024-01-31 10:00"), "last_updated_at: breaks pattern"),
        (price(surprise=1), "Additional properties"),
        ({k: v for k, v in price().items() if k != "change_7d_pct"}, "'change_7d_pct' is a required property"),
    ],
)
def test_a_message_that_breaks_the_schema_stops_its_poll_before_anything_is_sent(
    kafka_broker, virtual, message, problem
):
    with pytest.raises(PublishFailed, match=problem) as caught:
        published(virtual, [price("ethereum"), message], poll_id="p", cadence_s=60, arrival=T0)
    assert str(caught.value).startswith("1 messages break the price schema")
    assert "(bitcoin)" in str(caught.value)
    assert everything(kafka_broker.config, virtual.prices_topic) == []
    assert schema_problems("price", price()) == []


def test_virtual_time_never_runs_back_also_after_a_restart(kafka_broker, virtual):
    assert virtual.floor(virtual.prices_topic) is None
    published(virtual, [price()], poll_id="p1", cadence_s=60, arrival=T0)
    published(virtual, [price()], poll_id="p2", cadence_s=60, arrival=T0)
    with pytest.raises(ValueError, match="earlier than its newest record"):
        published(virtual, [price()], poll_id="p3", cadence_s=60, arrival=T0 - timedelta(seconds=1))
    with pytest.raises(ValueError, match="needs the virtual arrival"):
        published(virtual, [price()], poll_id="p3", cadence_s=60)
    with Publisher(
        kafka_broker.config,
        prices_topic=virtual.prices_topic,
        polls_topic=virtual.polls_topic,
        source="replay",
        virtual=True,
    ) as restarted:
        assert restarted.floor(virtual.prices_topic) == T0
        with pytest.raises(ValueError, match="earlier than its newest record"):
            published(restarted, [price()], poll_id="p3", cadence_s=60, arrival=T0 - timedelta(seconds=1))


def test_a_live_home_takes_no_arrival(kafka_broker, topic_factory):
    live = {"message.timestamp.type": "LogAppendTime"}
    with Publisher(
        kafka_broker.config,
        prices_topic=topic_factory(config=live),
        polls_topic=topic_factory(config=live),
        source="coingecko",
        virtual=False,
    ) as publisher:
        with pytest.raises(ValueError, match="the broker stamps"):
            published(publisher, [price()], poll_id="p", cadence_s=60, arrival=T0)
        assert published(publisher, [price()], poll_id="p", cadence_s=60) == 1
        assert everything(kafka_broker.config, publisher.prices_topic)[0][4] > ms(T0)


def test_a_full_queue_waits_instead_of_losing(kafka_broker, topic_factory):
    topic = topic_factory()
    with Publisher(
        kafka_broker.config, prices_topic=topic, polls_topic=topic, source="replay", virtual=True, queue_limit=50
    ) as publisher:
        for i in range(40):
            publisher.enqueue_prices([price()] * 25, poll_id=f"p{i}", cadence_s=60, arrival=T0)
        assert publisher.flush() == 1000
    assert len(everything(kafka_broker.config, topic)) == 1000


def test_what_the_broker_refuses_is_listed(kafka_broker, topic_factory):
    strict = {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": "60000"}
    topic = topic_factory(config=strict)
    publisher = Publisher(kafka_broker.config, prices_topic=topic, polls_topic=topic, source="replay", virtual=True)
    future = T0.replace(year=T0.year + 50)
    with pytest.raises(PublishFailed) as caught:
        published(publisher, [price("bitcoin"), price("ethereum")], poll_id="p", cadence_s=60, arrival=future)
    assert sorted(re.findall(r"(\w+): KafkaError", str(caught.value))) == ["bitcoin", "ethereum"]
    publisher.close()


@pytest.mark.slow
def test_a_stopped_broker_fails_every_message_and_the_next_try_succeeds(tmp_path, impatient):
    settings = Settings(source="replay", home_path=tmp_path)
    broker = EmbeddedBroker(tmp_path)
    broker.start(timeout_s=120)
    try:
        prices, polls = ensure_topics(settings, T0)
        publisher = Publisher(
            {"bootstrap.servers": broker.bootstrap_servers, "log_level": 0},
            prices_topic=prices.topic,
            polls_topic=polls.topic,
            source="replay",
            virtual=True,
            timeout_s=3,
        )
        published(publisher, [price()], poll_id="p1", cadence_s=60, arrival=T0)
        broker.stop()
        with pytest.raises(PublishFailed, match="crypto-assets broker start") as caught:
            published(publisher, [price("bitcoin"), price("ethereum")], poll_id="p2", cadence_s=60, arrival=T0)
        assert str(caught.value).startswith("2 messages were not published")
        with pytest.raises(LogUnavailable):
            publisher.floor("another-topic")
        broker.start(timeout_s=120)
        assert published(publisher, [price()], poll_id="p3", cadence_s=60, arrival=T0) == 1
        publisher.close()
    finally:
        broker.stop()


def test_seconds_are_written_plainly():
    assert [number_text(v) for v in (60, 60.0, 2.5, 86400, 0.125, 1e-9)] == ["60", "60", "2.5", "86400", "0.125", "0"]
