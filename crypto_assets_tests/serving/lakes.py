"""Small lakes for the tests of the API, written by the product's own store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa

from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import DAY, Slice, floor_day
from crypto_assets.contracts.tables import TABLES
from crypto_assets.home import open_home
from crypto_assets.serving.access import Limits
from crypto_assets.serving.api import application
from crypto_assets.serving.service import Service
from crypto_assets.settings import Settings
from crypto_assets.storage.delta_rs import DeltaRsStore

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
SLOT = timedelta(minutes=5)
COINS = ("bitcoin", "shiba-inu")
TINY = Decimal("0.000000019")
"""A price that Arrow, and most encoders, spell 1.9E-8."""

_PLAIN: dict[str, Any] = {
    "string": "text",
    "bigint": 5,
    "int": 1,
    "double": 0.5,
    "boolean": True,
    "timestamp": NOON,
    "date": NOON.date(),
    "array<string>": [],
    "binary": b"",
}


def row(table: Table, **values: Any) -> dict[str, Any]:
    """A row with a plain value in every column that may not be null, and null in the others."""
    found: dict[str, Any] = {c.name: None for c in table.columns}
    for column in table.columns:
        if not column.nullable:
            found[column.name] = Decimal(1) if column.type.startswith("decimal") else _PLAIN[column.type]
    moment = values.get(table.time_column or "") or values.get("window_start") or values.get("window_end")
    if moment is not None and "hour" in found:
        found["hour"] = moment.replace(minute=0, second=0, microsecond=0)
    if moment is not None and "day" in found:
        found["day"] = moment.date()
    return {**found, **values}


def bar(coin: str, start: datetime, close: str | Decimal = "100.5", **values: Any) -> dict[str, Any]:
    """A 5-minute bar of one sample."""
    price = Decimal(close)
    times = {"window_start": start, "window_end": start + SLOT, "first_event_at": start, "last_event_at": start}
    prices = dict.fromkeys(("open", "high", "low", "close"), price)
    made = {"price_avg": float(price), "available_at": start + SLOT, "sample_count": 1, **times, **prices}
    return row(TABLES["gold.bars_5m"], coin_id=coin, symbol=coin[:3].upper(), **{**made, **values})


def anomaly(coin: str, end: datetime, score: float, **values: Any) -> dict[str, Any]:
    """A score, flagged above 5."""
    times = {"window_start": end - SLOT, "window_end": end, "scored_at": end}
    made = {"anomaly_score": score, "threshold": 5.0, "is_anomaly": score > 5, "latency_s": 1.0, **times}
    explanation = '[{"feature": "rz", "sigma": 8.4}]'
    return row(TABLES["gold.anomalies"], coin_id=coin, explanation=explanation, **{**made, **values})


def price(coin: str, usd: str | Decimal, at: datetime = NOON) -> dict[str, Any]:
    """A newest quote."""
    return row(
        TABLES["gold.latest_prices"],
        coin_id=coin,
        price_usd=Decimal(usd),
        last_updated_at=at,
        available_at=at,
        covered_offsets='{"0": 7}',
    )


class Client:
    """HTTP requests to an application in this process."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET a path."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """POST to a path."""
        return self.request("POST", path, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Any request."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:3001") as client:
                return await client.request(method, path, **options)

        return asyncio.run(ask())


class Lake:
    """A home with tables, its service without a following thread, and a client."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.settings = Settings(home_path=path, source="simulator", **settings)
        self.home = open_home(self.settings)
        self.store = DeltaRsStore(self.settings.lake, _no_engine)
        self.service = Service(self.settings, self.home)
        self.client = Client(application(self.service, Limits.of(self.settings)))

    def replace(self, table: str, rows: Sequence[Mapping[str, Any]], day: datetime = NOON) -> int:
        """Replace a day of a table; the version."""
        contract = TABLES[table]
        made = pa.Table.from_pylist([dict(r) for r in rows], schema=arrow_schema(contract))
        whole = Slice(floor_day(day), floor_day(day) + DAY)
        version = self.store.replace_slice(table, whole, lambda: made, now=NOON + DAY).version_after
        assert version is not None
        return version

    def merge(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Make a merged table equal to the rows; the version."""
        made = pa.Table.from_pylist([dict(r) for r in rows], schema=arrow_schema(TABLES[table]))
        version = self.store.merge(table, made, mode="replace_all").version_after
        assert version is not None
        return version

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows to a ledger."""
        made = pa.Table.from_pylist([dict(r) for r in rows], schema=arrow_schema(TABLES[table]))
        self.store.merge(table, made, mode="insert_if_absent")

    def look(self) -> None:
        """Take up what was committed."""
        self.service.follower.look()

    def get(self, path: str, status: int = 200, **options: Any) -> Any:
        """The JSON of an answer, numbers as decimals."""
        answer = self.client.get(path, **options)
        assert answer.status_code == status, answer.text
        return answer.json(parse_float=Decimal)


def _no_engine() -> Any:
    raise AssertionError("no engine is needed to write Arrow rows")


def shown(table: str, rows: pa.Table, names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a table as answers show them, with decimals for numbers."""
    return [{name: _shown(each[name]) for name in names} for each in rows.to_pylist()]


def _shown(value: Any) -> Any:
    if isinstance(value, datetime):
        text = value.isoformat().removesuffix("+00:00")
        return (text.rstrip("0").rstrip(".") if "." in text else text) + "Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return Decimal(repr(value))
    return value
