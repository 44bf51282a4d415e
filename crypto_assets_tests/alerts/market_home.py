"""A home whose features are written slot by slot, for tests of market rules: no Kafka, no Spark, real Delta tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from crypto_assets.alerts.market import Enabled, MarketAlerts
from crypto_assets.alerts.rules import Rule
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import HOUR, Slice, floor_hour
from crypto_assets.contracts.tables import PRICE_FEATURES
from crypto_assets.settings import Settings
from crypto_assets.storage.delta_rs import DeltaRsStore

TABLE = PRICE_FEATURES.full_name
DAY = datetime(2026, 11, 28, tzinfo=UTC)
SLOT = timedelta(minutes=5)
COINS = ("bitcoin", "ethereum", "litecoin")
MOVE: dict[str, Any] = {
    "name": "move", "description": "it moved", "table": TABLE, "when": "abs(r5) >= 0.02", "value": "r5",
}  # fmt: skip
STALE: dict[str, Any] = {
    "name": "stale", "description": "no price", "table": TABLE, "when": "price IS NULL", "for": "15m",
    "severity": "error",
}  # fmt: skip


def rule(values: Mapping[str, Any], **changed: Any) -> Rule:
    return Rule.model_validate({**values, **changed})


def row(coin: str, slot: int, *, r5: float | None = 0.0, price: float | None = 100.0) -> dict[str, Any]:
    """A row of `features.price_features`: the slot of that number of `DAY`, from 1."""
    end = DAY + slot * SLOT
    start = end - SLOT
    return {
        "coin_id": coin, "window_start": start, "window_end": end, "price": price, "sample_count": 30, "r5": r5,
        "basket_hash": "b", "null_reason": "short_history", "is_complete": True, "day": start.date(),
        "hour": floor_hour(start),
    }  # fmt: skip


def table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([dict(r) for r in rows], schema=arrow_schema(PRICE_FEATURES))


def eventful_day() -> list[dict[str, Any]]:
    """A day of three coins with moves, spells without a price, and seven hours in which nothing was recorded.

    On both sides of those hours prices differ by half, and the first slot after them has no return, as in the table.
    """
    rows = []
    for number in range(1, 289):
        if 120 < number <= 204:
            continue
        for i, coin in enumerate(COINS):
            moved = (number * 7 + i * 13) % 61 == 0 or number == 250
            dark = 40 + i <= number < 46 + 2 * i
            r5 = None if dark or number in (1, 205) else 0.03 if moved else 0.001
            level = 50.0 if number > 204 else 100.0
            rows.append(row(coin, number, r5=r5, price=None if dark else level + number / 100))
    return rows


def no_session() -> Any:
    raise AssertionError("market alerts need no Spark session")


class MarketHome:
    """A home with features, rules and a webhook."""

    def __init__(self, path: Path, url: str | None, *, source: str = "replay", **more: Any) -> None:
        self.path = path
        self.settings = Settings(source=source, home_path=path, alert_webhook_url=url, **more)  # type: ignore[arg-type]
        self.store = DeltaRsStore(self.settings.lake, no_session)
        self.market = MarketAlerts(self.settings, self.store)

    def rules_file(self, text: str) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "alerts.yaml").write_text(text, encoding="utf-8")

    def use(self, *rules: Rule, since: datetime | None = None) -> None:
        """Enable rules as they are, without back-test."""
        self.market.rules = lambda: list(rules)  # type: ignore[method-assign]
        with self.market.changing() as state:
            state.enabled = {r.name: Enabled(r.content_hash, since.isoformat() if since else None) for r in rules}

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows to their hours, as the refresh does: each hour is one commit that replaces it."""
        held = self.store.read_arrow(TABLE).to_pylist()
        for hour in sorted({r["hour"] for r in rows}):
            keys = {(r["coin_id"], r["window_end"]) for r in rows}
            kept = [r for r in held if r["hour"] == hour and (r["coin_id"], r["window_end"]) not in keys]
            whole = table([*kept, *(r for r in rows if r["hour"] == hour)])
            self.store.replace_slice(TABLE, Slice(hour, hour + HOUR), lambda whole=whole: whole, now=DAY)

    def rows(self) -> list[dict[str, Any]]:
        """Stored alerts, oldest first."""
        return sorted(self.store.read_arrow("ops.alerts").to_pylist(), key=lambda r: (r["at"], r["alert_id"]))

    def fired(self) -> list[tuple[str, str, datetime]]:
        return [(r["rule"], r["coin_id"], r["at"]) for r in self.rows() if r["state"] == "firing"]
