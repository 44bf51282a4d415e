"""Every route does what the OpenAPI document says, with generated requests, good and bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from crypto_assets.contracts.slices import DAY
from crypto_assets.contracts.tables import PRICE_FEATURES, PROMOTIONS, TABLES
from crypto_assets.ml.baselines import v0_rows
from crypto_assets_tests.serving.lakes import COINS, NOON, SLOT, Lake, anomaly, bar, price, row

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def api_schema(tmp_path_factory: pytest.TempPathFactory) -> Any:
    lake = Lake(Path(tmp_path_factory.mktemp("api")) / "home")
    lake.merge("gold.latest_prices", [price(coin, "0.000000019") for coin in COINS])
    lake.replace("gold.bars_5m", [bar(c, NOON + i * SLOT) for c in COINS for i in range(5)])
    lake.replace("gold.anomalies", [anomaly(c, NOON + i * SLOT, 3.0 * i) for c in COINS for i in range(1, 4)])
    lake.merge("gold.leaderboard_24h", [row(TABLES["gold.leaderboard_24h"], coin_id="bitcoin", rank=1)])
    lake.replace("features.price_features", [row(PRICE_FEATURES, coin_id="bitcoin", window_end=NOON, null_reason="x")])
    lake.insert("ml.promotions", [row(PROMOTIONS, **values) for values in v0_rows(NOON - DAY, NOON - DAY)])
    lake.look()
    return schemathesis.openapi.from_asgi("/openapi.json", lake.client.app, headers={"Host": "127.0.0.1"})


schema = schemathesis.pytest.from_fixture("api_schema")


@schema.exclude(path=["/v1/stream"]).parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_route_does_what_it_declares(case: schemathesis.Case) -> None:
    case.call_and_validate(headers={"Host": "127.0.0.1"}, checks=CHECKS)
