"""Bars in plain Python, and the package's recording as records: what tests of Silver and bars compare with.

Nothing here uses the engine or the code under test.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

import pyarrow as pa

from crypto_assets.market.coins import default_registry
from crypto_assets.market.payload import tick_to_message
from crypto_assets.settings import Settings
from crypto_assets.sources.registry import source_of
from crypto_assets_tests.builders import Record

Width = Literal["1m", "5m", "1h", "1d"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WIDTHS: dict[Width, timedelta] = {
    "1m": timedelta(minutes=1),
    "5m": timedelta(minutes=5),
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
}
ORDER = ("tick", "5m", "1h", "1d")
"""Granularities, finest first."""
FEEDS: dict[Width, set[str]] = {
    "1m": {"tick", "5m"},
    "5m": {"tick", "5m"},
    "1h": {"tick", "5m", "1h"},
    "1d": set(ORDER),
}
GRACE = timedelta(seconds=60)


def recorded(start: datetime, minutes: int) -> list[Record]:
    """One poll a minute of the recording through the stand-in, as the producer's messages; in order of arrival."""
    records = []
    coins = [c.coin_id for c in default_registry("replay").coins]
    settings = Settings(_env_file=None, source="replay")  # type: ignore[call-arg]
    with source_of(settings).open(settings, anchor=start.date()) as source:
        for minute in range(minutes):
            now = start + timedelta(minutes=minute, seconds=59, milliseconds=500)
            poll = source.poll(coins, now)
            assert poll.outcome == "ok"
            records += [Record(now, tick_to_message(tick, now), 60) for tick in poll.ticks]
    return records


def rows_by(frame: Any, *key: str) -> dict[tuple, dict[str, Any]]:
    """Rows of a frame or table by key; no key may occur twice."""
    table = frame if isinstance(frame, pa.Table) else frame.toArrow()
    rows = table.to_pylist()
    found = {tuple(row[k] for k in key): row for row in rows}
    assert len(found) == len(rows), "a key occurs twice"
    return found


def without(rows: Mapping[tuple, Mapping[str, Any]], *names: str) -> dict[tuple, dict[str, Any]]:
    """The rows without some columns."""
    return {key: {n: v for n, v in row.items() if n not in names} for key, row in rows.items()}


def bars_of(silver: Iterable[Mapping[str, Any]], width: Width, as_of: datetime | None) -> dict[tuple, dict[str, Any]]:
    """Bars of one width by (coin_id, window_start), from rows of Silver in any order."""
    windows: dict[tuple[str, datetime], list[Mapping[str, Any]]] = defaultdict(list)
    for row in silver:
        if row["granularity"] in FEEDS[width]:
            start = EPOCH + (row["last_updated_at"] - EPOCH) // WIDTHS[width] * WIDTHS[width]
            windows[row["coin_id"], start].append(row)
    return {
        key: _bar(key, sorted(samples, key=lambda s: s["last_updated_at"]), width, as_of)
        for key, samples in windows.items()
    }


def _bar(
    key: tuple[str, datetime], samples: Sequence[Mapping[str, Any]], width: Width, as_of: datetime | None
) -> dict[str, Any]:
    coin, start = key
    prices: list[Decimal] = [s["price_usd"] for s in samples]
    exact = [Fraction(p) for p in prices]
    last, count = samples[-1], len(samples)
    coarsest = max(ORDER.index(s["granularity"]) for s in samples)
    expected = None
    if coarsest == 0 and last["cadence_s"] is not None:
        expected = max(1, round(WIDTHS[width].total_seconds() / last["cadence_s"]))
    is_closed = as_of is not None and start + WIDTHS[width] + GRACE <= as_of
    enough = coarsest > 0 or (expected is not None and Fraction(count, expected) >= Fraction(8, 10))
    day = {"day_start": datetime.combine(start.date(), datetime.min.time(), UTC)}
    hour = {"hour": start.replace(minute=0, second=0, microsecond=0)}
    return {
        "coin_id": coin,
        "symbol": last["symbol"],
        "window_start": start,
        "window_end": start + WIDTHS[width],
        "open": prices[0],
        "high": max(prices),
        "low": min(prices),
        "close": prices[-1],
        "price_avg": float(sum(exact) / count),
        "price_vol": statistics.stdev(exact) if count > 1 else None,
        "range": float(Fraction(max(prices)) / Fraction(min(prices)) - 1) if count > 1 else None,
        "volume_24h_usd": last["volume_24h_usd"],
        "market_cap_usd": last["market_cap_usd"],
        "sample_count": count,
        "expected_count": expected,
        "granularity": ORDER[coarsest],
        "is_closed": is_closed,
        "is_complete": is_closed and enough,
        "first_event_at": samples[0]["last_updated_at"],
        "last_event_at": last["last_updated_at"],
        "available_at": max(s["available_at"] for s in samples),
        "day": date(start.year, start.month, start.day),
        **(day if width == "1d" else hour),
    }
