"""Dimensions derived from the registry and the calendar alone: coins over time, and days."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from crypto_assets.market.coins import CoinRegistry


def dim_coin(coins: CoinRegistry) -> list[dict[str, Any]]:
    """Versions of every coin (SCD 2) as rows of `gold.dim_coin`.

    A coin changes identity when an alias ends (until then it has the alias's symbol), begins when it becomes active,
    and ends when it is retired; the span after retirement is a separate, inactive version.

    Args:
        coins: The registry.
    """
    rows = []
    for coin in coins:
        begins, ends = coin.active_from, coin.active_to
        changes = sorted(
            ((datetime.combine(a.until, time(), UTC), a) for a in coin.aliases), key=lambda change: change[0]
        )
        within = {at for at, _ in changes if begins < at and (ends is None or at < ends)}
        edges = [begins, *sorted(within), *([ends] if ends else [])]
        for i, start in enumerate(edges):
            end = edges[i + 1] if i + 1 < len(edges) else None
            named = next((a for at, a in changes if start < at), None)
            rows.append(
                {
                    "coin_key": f"{coin.coin_id}@{start:%Y-%m-%dT%H:%M:%SZ}",
                    "coin_id": coin.coin_id,
                    "symbol": ((named and named.old_symbol) or coin.symbol).upper(),
                    "name": coin.name,
                    "aliases": [a.old_id for _, a in changes],
                    "valid_from": start,
                    "valid_to": end,
                    "is_current": end is None,
                    "is_active": ends is None or start < ends,
                }
            )
    return rows


def dim_date(first: date, last: date) -> list[dict[str, Any]]:
    """Days first..last as rows of `gold.dim_date`; weeks by ISO 8601."""
    days = (first + timedelta(days=i) for i in range((last - first).days + 1))
    return [
        {
            "date_key": int(f"{d:%Y%m%d}"),
            "day": d,
            "year": d.year,
            "quarter": (d.month + 2) // 3,
            "month": d.month,
            "day_of_month": d.day,
            "iso_week": d.isocalendar().week,
            "iso_weekday": d.isoweekday(),
            "is_weekend": d.isoweekday() >= 6,
        }
        for d in days
    ]
