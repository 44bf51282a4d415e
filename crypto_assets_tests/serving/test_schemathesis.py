"""Every route does what the OpenAPI document says, with generated requests, good and bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
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
THERE = {"coin": "bitcoin", "name": "alerts_open", "model": "anomaly"}
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
    made = {"coin_id": "bitcoin", "horizon": "5m", "mode": "live"}
    lake.insert("gold.price_predictions", [row(TABLES["gold.price_predictions"], window_end=NOON, **made)])
    accuracy = row(TABLES["gold.prediction_accuracy"], day_start=NOON.replace(hour=0), **made)
    lake.replace("gold.prediction_accuracy", [accuracy])
    made["horizon"] = "1h"
    lake.insert("gold.volatility_forecasts", [row(TABLES["gold.volatility_forecasts"], window_end=NOON, **made)])
    accuracy = row(TABLES["gold.volatility_accuracy"], day_start=NOON.replace(hour=0), **made)
    lake.replace("gold.volatility_accuracy", [accuracy])
    lake.look()
    return schemathesis.openapi.from_asgi("/openapi.json", lake.client.app, headers={"Host": "127.0.0.1"})


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_route_does_what_it_declares(api_schema: Any, mode: GenerationMode) -> None:
    failed: list[str] = []
    answered: dict[str, set[int]] = {}
    for found in api_schema.exclude(path="/v1/stream").get_all_operations():
        operation = found.ok()
        seen = answered.setdefault(operation.label, set())
        try:
            _call(operation, mode, seen)
        except Unsatisfiable:  # a route without parameters has no bad request
            assert mode is GenerationMode.NEGATIVE
        except Exception as error:  # noqa: BLE001 - all faults of all routes are shown
            failed.append(f"{operation.label}: {error}")
    assert failed == []
    if mode is GenerationMode.POSITIVE:
        assert {label for label, seen in answered.items() if 200 not in seen} == set()
        assert len(answered) > 15


def _call(operation: Any, mode: GenerationMode, seen: set[int]) -> None:
    """Generated requests to a route; every second path leads to something that is there."""

    @given(operation.as_strategy(generation_mode=mode))
    @settings(max_examples=15, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def call(case: schemathesis.Case) -> None:
        for name in THERE.keys() & (case.path_parameters or {}).keys():
            if not seen or 404 in seen:
                case.path_parameters[name] = THERE[name]
        response = case.call(headers={"Host": "127.0.0.1"})
        seen.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    call()
