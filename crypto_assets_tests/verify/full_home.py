"""A home with rows in every table of the pipeline, made by its own steps from simulated prices.

Sixty hours of four coins, polled every five minutes through the stand-in and Kafka, with records that end in
quarantine and one that comes late. Both days are trained: the second is scored again by two scores and the hours after
it by a forest, and forecast by a calibrated version. Seven days calibrate, and fourteen fit a forest; here one and two.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crypto_assets.contracts.slices import DAY, HOUR, Slice, day_key, floor_day, hour_key
from crypto_assets.market.coins import CoinRegistry, default_registry
from crypto_assets.settings import Settings
from crypto_assets.verify import coverage
from crypto_assets.verify.audit import Report, audit
from crypto_assets_tests.home_fixtures import SmallHome, moments, opened, settings_of
from crypto_assets_tests.kafka_fixtures import RunningBroker

FEW = ("bitcoin", "ethereum", "solana", "polygon-ecosystem-token")
SCORED = 3
"""Hours after the trained days."""


@dataclass(frozen=True)
class FullHome:
    """Where the home lies, and with which settings it was filled."""

    settings: Settings
    begin: datetime
    topics: dict[str, str]

    def audit(self, home: Path, *, only: str | None = None, **changed: Any) -> Report:
        """Audit a copy of the home as `verify` does, without the broker; `only` is the one law on tables to judge."""
        arguments: dict[str, Any] = {
            "lake": home / "lake",
            "kafka": None,
            "topics": self.topics,
            "home": home,
            "now": datetime.now(UTC),
        }
        laws = [law for law in coverage.all_laws() if only in (None, law.name)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(coverage, "all_laws", lambda: laws)
            return audit(**(arguments | changed))

    def with_broker(self) -> dict[str, Any]:
        """Arguments of `audit` that let it read the topics too."""
        from crypto_assets.log.kafka.client import client_config

        return {"kafka": lambda: client_config(self.settings)}


@contextmanager
def short_calibration(end: datetime) -> Iterator[None]:
    """A day calibrates; at the end a day fits a forest, another calibrates it, and the forest wins."""
    from crypto_assets.ml import anomaly, challenger, detectors
    from crypto_assets.ml.panel import slot_of

    better = {"value": 0.3, "lower": 0.2, "upper": 0.4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anomaly, "LEAST_CALIBRATION_DAYS", 1)
        patch.setattr(detectors, "LEAST_CALIBRATION_DAYS", 1)
        patch.setattr(challenger, "FIT_DAYS", 1)
        patch.setattr(challenger, "TREES", 20)
        patch.setattr(challenger, "ends_week", lambda data: data.first_slot + data.slots - 1 == slot_of(end))
        patch.setattr(challenger, "_figures", lambda *_: better)
        yield


def build(path: Path, broker: RunningBroker) -> FullHome:
    """Fill a home."""
    from crypto_assets.producer.loop import open_producer

    day = floor_day(datetime.now(UTC)) - 4 * DAY
    begin, end = day + 12 * HOUR, day + 3 * DAY
    settings = settings_of(
        path, broker, source="simulator", partitions_start=day.date(), poll_interval_s=300, anomaly_budget=4
    )
    path.mkdir(parents=True)
    basket = CoinRegistry(c for c in default_registry("simulator").coins if c.coin_id in FEW)
    (path / "coins.toml").write_text(basket.to_toml(), encoding="utf-8")
    trained, scored = Slice(begin, end), Slice(end, end + SCORED * HOUR)
    with opened(settings, begin, []) as home:
        with open_producer(settings, anchor=day.date()) as producer:
            producer.catch_up(moments(trained))
            publish_odd(home, begin + 30 * HOUR, end)
            producer.catch_up(moments(scored))
        keys = [hour_key(h) for h in Slice(begin, scored.end).hours()]
        home.run("bronze/raw_prices", keys)
        home.run("refresh", keys[:-SCORED])
        with short_calibration(end):
            home.run("daily", [day_key(day + i * DAY) for i in range(3)])
        home.run("gold/anomalies", keys[-SCORED - 24 : -SCORED])
        home.run("refresh", keys[-SCORED:])
        home.run("daily", [day_key(end)])
        home.run("gold/leaderboard_24h", [])
        raise_alerts(home)
    return FullHome(settings, begin, {"bronze.raw_prices": settings.prices_topic, "ops.polls": settings.polls_topic})


def publish_odd(home: SmallHome, event: datetime, arrival: datetime) -> None:
    """Records that are no quotes, a quote a second time, and a late one that opens the price of its slot anew."""
    from confluent_kafka import Producer

    from crypto_assets.log.kafka.client import client_config
    from crypto_assets_tests.builders import message

    late = message("bitcoin", event + timedelta(minutes=7), "59999.5")
    odd = [b"{not json", b"\xff\xfe", json.dumps(late | {"price_usd": "0"}).encode(), json.dumps(late).encode()]
    odd += [json.dumps(late).encode(), json.dumps(late | {"coin_id": "dogecoin"}).encode()]
    headers = [("schema_version", b"1"), ("source", b"simulator"), ("poll_id", uuid.uuid4().hex.encode()),
               ("cadence_s", b"300")]  # fmt: skip
    producer = Producer({**client_config(home.settings), "acks": "all"})
    for value in odd:
        producer.produce(
            home.settings.prices_topic, value, b"bitcoin", 0, timestamp=int(arrival.timestamp() * 1000), headers=headers
        )
    assert producer.flush(30) == 0


def raise_alerts(home: SmallHome) -> None:
    """A check and a market rule that turned red and green again, and another check that is still red."""
    from crypto_assets.alerts import alerts, outbox

    at = datetime.now(UTC).replace(microsecond=250_000) - HOUR
    state = alerts.State()
    seen = [
        alerts.Evaluation("silver/prices", "price_positive", None, False, "error", at, "1 of 60 rows"),
        alerts.Evaluation("gold/bars_5m", "ohlc_ordered", hour_key(at), False, "error", at, "low above high"),
    ]
    hit = alerts.Hit("move", "bitcoin", "features/price_features", True, at, "r5 = 0.031", "warn", 0.031)
    first = alerts.route(state, evaluations=seen, hits=[hit], ancestors=lambda _: frozenset(), now=at)
    later = at + timedelta(minutes=5)
    green = alerts.Evaluation("silver/prices", "price_positive", None, True, "error", later, "60 rows")
    over = alerts.Hit("move", "bitcoin", "features/price_features", False, later, "r5 = 0.001")
    second = alerts.route(state, evaluations=[green], hits=[over], ancestors=lambda _: frozenset(), now=later)
    stored = outbox.store_transitions(home.engine.store, [*first.transitions, *second.transitions])
    assert stored == 5


@pytest.fixture(scope="session")
def full_home(kafka_broker: RunningBroker, tmp_path_factory: pytest.TempPathFactory) -> FullHome:
    """A home with rows in every table that the pipeline fills; to be copied, not changed."""
    return build(tmp_path_factory.mktemp("full") / "home", kafka_broker)
