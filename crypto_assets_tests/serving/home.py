"""A home of 30 hours of real Delta tables, small enough to know by heart, for tests of what is read from one.

Three coins with a bar every five minutes, of which bitcoin lacks the seven hours that end just after 24 h before the
newest one. Litecoin has no volume.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import floor_hour
from crypto_assets.contracts.tables import TABLES
from crypto_assets.home import open_home
from crypto_assets.settings import Settings

END = datetime(2024, 5, 2, 6, tzinfo=UTC)
"""End of the newest bar."""
SLOT, HOUR, DAY = timedelta(minutes=5), timedelta(hours=1), timedelta(days=1)
COINS = {"bitcoin": "BTC", "ethereum": "ETH", "litecoin": "LTC"}
SLOTS = 30 * 12
HOLE = (END - DAY - 7 * HOUR, END - DAY + SLOT)
"""Times without a bitcoin bar: it ends five minutes after the instant 24 h before the newest bar's end."""
PLAIN: dict[str, Any] = {
    "string": "x", "int": 1, "bigint": 1, "double": 1.0, "boolean": True, "binary": b"x", "date": date(2024, 5, 1),
    "timestamp": END, "array<string>": ["x"], "decimal(38,18)": Decimal(1),
}  # fmt: skip


def row(table: str, **values: Any) -> dict[str, Any]:
    """A row with the values given; of the other columns nullable ones are null, the others have one plain value."""
    plain = {c.name: None if c.nullable else PLAIN[c.type] for c in TABLES[table].columns}
    assert plain.keys() >= values.keys(), values.keys() - plain.keys()
    return plain | values


def write(lake: Path, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to a table of a lake, one commit."""
    contract = TABLES[table]
    write_deltalake(
        lake / contract.schema / contract.name,
        pa.Table.from_pylist(list(rows), schema=arrow_schema(contract)),
        mode="append",
        partition_by=list(contract.partition_by) or None,
    )


def _bars(table: str, step: timedelta) -> Iterator[dict[str, Any]]:
    for c, (coin, symbol) in enumerate(COINS.items()):
        for n in range(int(SLOTS * SLOT / step)):
            end = END - n * step
            start = end - step
            if coin == "bitcoin" and HOLE[0] <= start < HOLE[1] and step == SLOT:
                continue
            close = Decimal(f"{(c + 1) * 100 + n % 7}.5")
            volume = None if coin == "litecoin" else Decimal(1000 + n)
            yield row(
                table, coin_id=coin, symbol=symbol, window_start=start, window_end=end, open=close - 1, high=close + 2,
                low=close - 2, close=close, price_avg=float(close), volume_24h_usd=volume, granularity="tick",
                first_event_at=start + timedelta(seconds=30), last_event_at=end - timedelta(seconds=30),
                available_at=end, is_closed=n > 0, day=start.date(), hour=floor_hour(start),
            )  # fmt: skip


def _latest() -> Iterator[dict[str, Any]]:
    for c, (coin, symbol) in enumerate(COINS.items()):
        yield row(
            "gold.latest_prices", coin_id=coin, symbol=symbol, name=coin.title(),
            price_usd=Decimal(f"{(c + 1) * 100}.5"),
            market_cap_usd=Decimal(10) ** (9 - c) if coin != "litecoin" else None,
            volume_24h_usd=None if coin == "litecoin" else Decimal("1.9e-8"),
            change_1h_pct=Decimal("-0.5") if coin != "litecoin" else None,
            change_24h_pct=Decimal("2.25") if coin == "ethereum" else None,
            last_updated_at=END - timedelta(seconds=1 + c), available_at=END, source="replay", covered_until=END,
            covered_offsets="{}", refreshed_at=END,
        )  # fmt: skip


def _board() -> Iterator[dict[str, Any]]:
    of = {"bitcoin": (1, 0.1, END), "ethereum": (2, 0.05, END), "litecoin": (3, None, END)}
    for coin, (rank, change, end) in of.items():
        yield row(
            "gold.leaderboard_24h", rank=rank, coin_id=coin, symbol=COINS[coin], price_usd=Decimal(110),
            price_24h_ago_usd=None if change is None else Decimal(100), change_24h=change,
            price_24h_ago_at=None if change is None else HOLE[1], high_24h=Decimal(120), low_24h=Decimal(90),
            window_end=end,
        )  # fmt: skip


SIMILAR = json.dumps([{"window_end": "2024-04-12T08:35:00Z", "distance": 1.5}])


def _anomalies() -> Iterator[dict[str, Any]]:
    for coin, symbol in COINS.items():
        for n in range(SLOTS):
            end = END - n * SLOT
            score = None if coin == "litecoin" else (n % 40) / 8 + (n in (12, 60)) * 5
            # The newest flag is of two scores; older rows are from before there were two.
            two = {"detectors": ["market"], "size_sigma": 3.1, "size_market_sigma": 9.25, "similar_windows": SIMILAR}
            yield row(
                "gold.anomalies", coin_id=coin, symbol=symbol, window_start=end - SLOT, window_end=end,
                anomaly_score=score, threshold=5.5, is_anomaly=score is not None and score > 5.5,
                explanation=json.dumps([{"feature": "rz", "sigma": 6.1}]), price=100.0, model_name="anomaly",
                model_version="v0" if n > 100 else "1", scored_at=end, revision=0, day=(end - SLOT).date(),
                hour=floor_hour(end - SLOT), suspicion="frozen" if coin == "bitcoin" and 20 <= n < 23 else None,
                **(two if n == 12 else {}),
            )  # fmt: skip


def _forecasts() -> Iterator[dict[str, Any]]:
    for c, coin in enumerate(COINS):
        for n in range(60):
            end = END - n * SLOT
            for horizon, ahead in (("5m", SLOT), ("1h", HOUR)):
                price = (c + 1) * 100.0
                yield row(
                    "gold.price_predictions", coin_id=coin, window_end=end, horizon=horizon, target_at=end + ahead,
                    price=price, predicted_return=0.0, predicted_price=price, lower_90=price - 2, upper_90=price + 4,
                    model_name=f"price_{horizon}", model_version="v0", mode="backfill", predicted_at=END + DAY,
                    day=(end - SLOT).date(), hour=floor_hour(end - SLOT),
                )  # fmt: skip


def _accuracy() -> Iterator[dict[str, Any]]:
    for n in range(10):
        day = datetime(2024, 5, 1, tzinfo=UTC) - n * DAY
        for coin in COINS:
            yield row(
                "gold.prediction_accuracy", day=day.date(), day_start=day, coin_id=coin, horizon="1h",
                model_name="price_1h", model_version="v0", mode="live", forecasts=n, without_outcome=0,
                **({} if n == 0 else {"skill": 0.01, "rmse_pct": 1.0}),
            )  # fmt: skip


def _outlook() -> Iterator[dict[str, Any]]:
    for c, coin in enumerate(COINS):
        for n in range(24):
            end = END - n * SLOT
            for horizon, ahead in (("1h", HOUR), ("24h", DAY)):
                if horizon == "24h" and end != floor_hour(end):
                    continue
                yield row(
                    "gold.volatility_forecasts", coin_id=coin, window_end=end, horizon=horizon, target_at=end + ahead,
                    volatility_pct=c + 1.25, ewma_pct=c + 1.5, last_value_pct=None if coin == "litecoin" else c + 1.0,
                    model_name=f"volatility_{horizon}", model_version="v0", mode="live", predicted_at=end,
                    day=(end - SLOT).date(), hour=floor_hour(end - SLOT),
                )  # fmt: skip


def _outlook_accuracy() -> Iterator[dict[str, Any]]:
    for n in range(3):
        day = datetime(2024, 5, 1, tzinfo=UTC) - n * DAY
        for coin in COINS:
            yield row(
                "gold.volatility_accuracy", day=day.date(), day_start=day, coin_id=coin, horizon="1h",
                model_name="volatility_1h", model_version="2024-04-29-log-har", mode="live", forecasts=n,
                without_outcome=0,
                **({} if n == 0 else {"qlike": 0.3, "qlike_ewma": 0.4, "qlike_last_value": 0.6, "qlike_ratio": 0.75}),
            )  # fmt: skip


def _polls() -> Iterator[dict[str, Any]]:
    for n in range(40):
        at = END - n * HOUR
        yield row(
            "ops.polls", offset=n, topic_id="t", arrival_hour=floor_hour(at), kind="record", finished_at=at,
            source="replay", outcome="ok", credits_used=2, credits_left=500 + n if n % 2 == 0 else None,
        )  # fmt: skip
    yield row("ops.polls", offset=99, arrival_hour=END, kind="gap")


def _metrics() -> Iterator[dict[str, Any]]:
    for n in range(30):
        hour = END - n * HOUR
        for metric, value in (("messages_produced", None if n == 0 else 180.0 - n), ("dedup_rate", None)):
            yield row(
                "ops.pipeline_metrics", metric=metric, value=value, unit="u", measured_over=0 if value is None else 180,
                day=hour.date(), hour=hour,
            )  # fmt: skip


def _alerts() -> Iterator[dict[str, Any]]:
    changes = [
        ("old", None, "firing", 5), ("old", None, "resolved", 4), ("open", None, "firing", 3),
        ("parted", "h1", "firing", 3), ("parted", "h2", "firing", 3), ("parted", "h1", "resolved", 2),
        ("again", None, "resolved", 1), ("again", None, "firing", 1),
    ]  # fmt: skip
    for n, (cause, partition, state, ago) in enumerate(changes):
        yield row(
            "ops.alerts", alert_id=f"a{n}", cause=cause, partition_key=partition, state=state, severity="error",
            summary=f"{cause} is wrong", at=END - ago * HOUR, attempts=1,
        )  # fmt: skip


def fill(lake: Path) -> None:
    """Write every table that the catalogue reads, the partitioned ones by several commits."""
    for table, rows in {
        "gold.bars_5m": _bars("gold.bars_5m", SLOT),
        "gold.bars_1h": _bars("gold.bars_1h", HOUR),
        "gold.latest_prices": _latest(),
        "gold.leaderboard_24h": _board(),
        "gold.anomalies": _anomalies(),
        "gold.price_predictions": _forecasts(),
        "gold.prediction_accuracy": _accuracy(),
        "gold.volatility_forecasts": _outlook(),
        "gold.volatility_accuracy": _outlook_accuracy(),
        "ops.polls": _polls(),
        "ops.pipeline_metrics": _metrics(),
        "ops.alerts": _alerts(),
    }.items():
        listed = list(rows)
        write(lake, table, listed[: len(listed) // 2])
        write(lake, table, listed[len(listed) // 2 :])


def served_home(folder: Path, source: str = "replay") -> Settings:
    """Settings of a new home with filled tables."""
    settings = Settings(source=source, home_path=folder, partitions_start=date(2024, 4, 1))
    open_home(settings)
    fill(Path(settings.lake))
    return settings
