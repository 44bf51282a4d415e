"""docs/serving.md names every route with a request for curl; what it shows of the answer is in the answer."""

from __future__ import annotations

import json
import re
import shlex
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from crypto_assets.contracts.slices import DAY
from crypto_assets.contracts.tables import PRICE_FEATURES, PROMOTIONS, TABLES
from crypto_assets.ml.baselines import v0_rows
from crypto_assets.serving import routes
from crypto_assets.serving.state import FILE
from crypto_assets_tests.serving.lakes import NOON, SLOT, Lake, anomaly, bar, price, row

TEXT = (Path(__file__).parents[2] / "docs/serving.md").read_text(encoding="utf-8")
COINS = ("bitcoin", "ethereum", "litecoin")
STREAM = "/v1/stream"


class Shown(NamedTuple):
    """A request of the documentation, and what it shows of the answer."""

    method: str
    target: str
    headers: dict[str, str]
    body: str | None
    answer: str


def _shown() -> list[Shown]:
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE):
        for entry in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, answer = entry.replace("\\\n", "").partition("\n")
            words = [word for word in shlex.split(command) if word not in ("-N", "-i")]
            assert words[0] == "curl", command
            options = dict(zip(words[2::2], words[3::2], strict=True))
            headers = dict([options["-H"].split(": ")]) if "-H" in options else {}
            url = urlsplit(f"http://{words[1]}")
            target = url.path + (f"?{url.query}" if url.query else "")
            found.append(Shown("POST" if "-d" in options else "GET", target, headers, options.get("-d"), answer))
    return found


SHOWN = _shown()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake in which every documented request has an answer."""
    lake = Lake(Path(tmp_path_factory.mktemp("documented")) / "home")
    lake.merge("gold.latest_prices", [price(coin, "0.000000019") for coin in COINS])
    lake.replace("gold.bars_5m", [bar(c, NOON + i * SLOT) for c in COINS for i in range(5)])
    hours = [
        {**bar(c, NOON + i * timedelta(hours=1)), "window_end": NOON + (i + 1) * timedelta(hours=1)}
        for c in COINS
        for i in range(5)
    ]
    columns = TABLES["gold.bars_1h"].column_names
    lake.replace("gold.bars_1h", [{k: v for k, v in hour.items() if k in columns} for hour in hours])
    lake.replace("gold.anomalies", [anomaly(c, NOON + i * SLOT, 3.0 * i) for c in COINS for i in range(1, 4)])
    lake.merge("gold.leaderboard_24h", [row(TABLES["gold.leaderboard_24h"], coin_id="bitcoin", rank=1)])
    features = [
        row(PRICE_FEATURES, coin_id=coin, window_end=NOON, null_reason="x", price=1.0, s=1e-3) for coin in COINS
    ]
    lake.replace("features.price_features", features)
    lake.insert("ml.promotions", [row(PROMOTIONS, **values) for values in v0_rows(NOON - DAY, NOON - DAY)])
    made = {"coin_id": "bitcoin", "horizon": "1h", "mode": "live"}
    ahead = {**made, "horizon": "24h"}
    lake.insert("gold.price_predictions", [row(TABLES["gold.price_predictions"], window_end=NOON, **made)])
    lake.replace(
        "gold.prediction_accuracy",
        [row(TABLES["gold.prediction_accuracy"], day_start=NOON.replace(hour=0), **made)],
    )
    lake.insert("gold.volatility_forecasts", [row(TABLES["gold.volatility_forecasts"], window_end=NOON, **ahead)])
    scored = row(TABLES["gold.volatility_accuracy"], day_start=NOON.replace(hour=0), **ahead)
    lake.replace("gold.volatility_accuracy", [scored])
    hour = NOON.replace(minute=0)
    metric = row(TABLES["ops.pipeline_metrics"], metric="messages_produced", value=180.0, hour=hour)
    lake.replace("ops.pipeline_metrics", [metric])
    report = {"written_at": NOON.isoformat(), "verdict": "ok", "lag_s": 6.0, "assets": []}
    (lake.home.state / FILE).write_text(json.dumps(report), encoding="utf-8")
    lake.look()
    return lake


def test_every_route_has_a_request() -> None:
    modules = [import_module(f"{routes.__name__}.{found.name}") for found in iter_modules(routes.__path__)]
    declared = [route for module in modules for route in module.router.routes]
    assert len(declared) > 15
    missing = {
        f"{method} {route.path}"
        for route in declared
        for method in route.methods
        if not any(method == each.method and route.path_regex.match(each.target.partition("?")[0]) for each in SHOWN)
    }
    assert missing == set()


@pytest.mark.parametrize(
    "shown", [each for each in SHOWN if not each.target.startswith(STREAM)], ids=lambda s: f"{s.method} {s.target}"
)
def test_an_answer_is_as_documented(lake: Lake, shown: Shown) -> None:
    status = re.search(r'"status":(\d+)|HTTP/1.1 (\d+)', shown.answer)
    options = {"headers": shown.headers, "content": shown.body} if shown.body else {}
    answer = lake.client.request(shown.method, shown.target, **options)
    assert answer.status_code == int((status and (status[1] or status[2])) or 200), answer.text
    names = re.findall(r'"(\w+)":', shown.answer)
    assert {name for name in names if f'"{name}":' not in answer.text} == set()
    headers = {name.lower() for name in re.findall(r"^([\w-]+): ", shown.answer, re.MULTILINE)}
    assert headers <= set(answer.headers)
    samples = re.findall(r"^(crypto_assets_\w+)", shown.answer, re.MULTILINE)
    assert set(samples) <= set(answer.text.split())
    assert names or headers or samples or shown.answer.strip() == answer.text.strip()
