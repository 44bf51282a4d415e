"""Inputs on their way to a launched step: small, complete, and only for the step they were made for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from crypto_assets.contracts.slices import hour_key
from crypto_assets.engine import inputs as module
from crypto_assets.engine.base import StepFailed, StepInputs
from crypto_assets.engine.inputs import Shipment, StepInputBuilder, receive
from crypto_assets.market.coins import default_registry
from crypto_assets.settings import Settings
from crypto_assets.storage.base import LogBounds, PartitionBounds

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nothing_received(monkeypatch):
    monkeypatch.setattr(module._Received, "shipment", None)


def shipment(hours: int, partitions: int = 3) -> Shipment:
    keys = tuple(hour_key(START + timedelta(hours=i)) for i in range(hours))
    bounds = {
        key: LogBounds(
            "crypto-prices-raw",
            "kXo1b0eWQd6m4bBqJ7Yx1A",
            tuple(
                PartitionBounds(p, 12_345_678 + i, 12_349_999 + i, i == hours - 1, 1_000_000) for p in range(partitions)
            ),
        )
        for i, key in enumerate(keys)
    }
    coins = default_registry("coingecko")
    return Shipment("run", keys, StepInputs(START, "run", "coingecko", START, bounds, coins, as_of=START, rebuild=True))


def remote() -> StepInputBuilder:
    return StepInputBuilder(Settings(role="remote", target="databricks"))


def test_what_arrives_is_what_was_sent():
    sent = shipment(5)
    receive(sent.to_json())
    assert remote().build(now=START, run_id="run", keys=list(sent.keys)) == sent.inputs


def test_several_days_fit():
    assert len(shipment(7 * 24).to_json().encode()) < 40 * 1024


def test_too_long_a_range_is_refused_with_its_size():
    with pytest.raises(StepFailed, match=r"[\d,]+ bytes of JSON .* take a shorter range"):
        shipment(60 * 24).to_json()


def test_inputs_of_another_step_are_refused():
    receive(shipment(3).to_json())
    with pytest.raises(StepFailed, match=r"run run instead of other and partitions .* instead of 2026-01-01-00:00"):
        remote().build(now=START, run_id="other", keys=[hour_key(START)])


def test_a_remote_step_without_inputs_fails_and_opens_no_home(tmp_path):
    builder = StepInputBuilder(Settings(role="remote", target="databricks", home_path=tmp_path / "home"))
    with pytest.raises(StepFailed, match="no inputs were shipped"):
        builder.build(now=START, run_id="run")
    assert not (tmp_path / "home").exists()
