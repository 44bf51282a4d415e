"""Synthetic markets for tests of features and models: seeded walks, their features in numpy, and rows of tables.

The features here are an independent vectorised reading of the contract for markets without gaps; the engine's own are
compared with them in `transforms/test_features.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import floor_hour
from crypto_assets.contracts.tables import BARS_5M, PRICE_FEATURES
from crypto_assets.market.coins import Coin, CoinRegistry
from crypto_assets.ml.panel import SLOT_S, SLOTS_A_DAY, Panel, slot_of

SLOT = timedelta(minutes=5)
START = datetime(2024, 1, 1, tzinfo=UTC)
SIGMA = 0.001
"""Standard deviation of a walk's 5-minute log returns."""


def names(count: int) -> tuple[str, ...]:
    """Coin ids in sorted order."""
    return tuple(f"coin-{i:02d}" for i in range(count))


def walk(seed: int, coins: int, slots: int, phi: float = 0.0, sigma: float = SIGMA) -> np.ndarray:
    """Prices, coins x slots, whose log returns are independent, or AR(1) with coefficient `phi`."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((coins, slots)) * sigma
    returns = noise.copy()
    if phi:
        for t in range(1, slots):
            returns[:, t] = phi * returns[:, t - 1] + noise[:, t]
    return 100.0 * np.exp(np.cumsum(returns, axis=1))


def panel_of(prices: np.ndarray, start: datetime = START, *, scale: float | None = None) -> Panel:
    """Features of complete prices, whose first column is the slot that begins at `start`.

    Args:
        prices: Coins x slots.
        start: Start of the first slot.
        scale: Known sigma of the returns, used instead of the MAD of the last day (much faster).
    """
    logs = np.log(prices)
    r5 = _back(logs, 1)
    if scale is None:
        median, s = _mad(r5)
    else:
        median, s = np.zeros_like(r5), np.full_like(r5, scale)
    macd = _filtered(logs, _ema(12) - _ema(26))
    values = {
        "price": prices,
        "r5": r5,
        "r15": _back(logs, 3),
        "r1h": _back(logs, 12),
        "r24h": _back(logs, 288),
        "r5_median": median,
        "s": s,
        "rz": (r5 - median) / s,
        "rv15m": np.sqrt(_rolling(r5**2, 3)),
        "rv1h": np.sqrt(_rolling(r5**2, 12)),
        "rv4h": np.sqrt(_rolling(r5**2, 48)),
        "rv24h": _day_volatility(r5),
        "r5_market": _market(r5),
        "s_market": _market_scale(_market(r5)),
        "rz_common": _common((r5 - median) / s),
        "common_activity": _activity(r5 - _market(r5)),
        "unchanged_slots": _unchanged(prices),
        "rsi14": _rsi(prices),
        "macd": macd,
        "macd_signal": _filtered(macd, _ema(9)),
        "bollinger_b": _bollinger(prices),
    }
    values["macd_hist"] = values["macd"] - values["macd_signal"]
    return Panel(names(len(prices)), slot_of(start) + 1, values)


def _common(rz: np.ndarray) -> np.ndarray:
    """Median over the coins, where three have a value; for those that have one."""
    known = np.isfinite(rz)
    enough = known.sum(axis=0) >= 3
    middle = np.full(rz.shape[1], np.nan)
    middle[enough] = np.nanmedian(rz[:, enough], axis=0)
    return np.where(known, middle, np.nan)


def _back(logs: np.ndarray, slots: int) -> np.ndarray:
    found = np.full_like(logs, np.nan)
    found[:, slots:] = logs[:, slots:] - logs[:, :-slots]
    return found


def _day_volatility(r5: np.ndarray) -> np.ndarray:
    """Of the last 288 slots, of which half must be known: the first slots of a walk have none."""
    squares = np.cumsum(np.pad(np.nan_to_num(r5**2), ((0, 0), (288, 0))), axis=1)
    counts = np.cumsum(np.pad(np.isfinite(r5), ((0, 0), (288, 0))), axis=1)
    n = counts[:, 288:] - counts[:, :-288]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.sqrt(288 * (squares[:, 288:] - squares[:, :-288]) / n)
    return np.where(n >= 144, found, np.nan)


def _windows(values: np.ndarray, slots: int) -> np.ndarray:
    """Coins x (T - slots + 1) x slots."""
    return np.lib.stride_tricks.sliding_window_view(values, slots, axis=1)


def _rolling(values: np.ndarray, slots: int) -> np.ndarray:
    found = np.full_like(values, np.nan)
    found[:, slots - 1 :] = _windows(values, slots).sum(axis=-1)
    return found


def _mad(r5: np.ndarray, slots: int = 288, least: int = 144) -> tuple[np.ndarray, np.ndarray]:
    """Median and 1.4826 MAD of the slots before each; the young ones one by one."""
    median, s = np.full_like(r5, np.nan), np.full_like(r5, np.nan)
    for c, row in enumerate(r5):
        for t in range(least + 1, min(slots + 1, len(row))):
            past = row[1:t]
            median[c, t] = np.median(past)
            s[c, t] = 1.4826 * np.median(np.abs(past - median[c, t]))
        if len(row) > slots + 1:
            past = np.lib.stride_tricks.sliding_window_view(row[1:-1], slots)
            middle = np.median(past, axis=-1)
            median[c, slots + 1 :] = middle
            s[c, slots + 1 :] = 1.4826 * np.median(np.abs(past - middle[:, None]), axis=-1)
    return median, np.maximum(s, 1e-5)


def _ema(n: int, slots: int = 130) -> np.ndarray:
    raw = (1 - 2 / (n + 1)) ** np.arange(slots)
    return raw / raw.sum()


def _filtered(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    found = np.full_like(values, np.nan)
    for c, row in enumerate(values):
        known = np.flatnonzero(np.isfinite(row))
        if len(known) >= len(kernel):
            found[c, known[0] + len(kernel) - 1 :] = np.convolve(row[known[0] :], kernel, mode="valid")
    return found


def _market(r5: np.ndarray) -> np.ndarray:
    if len(r5) < 3:
        return np.full_like(r5, np.nan)
    return r5 - np.stack([np.median(np.delete(r5, c, axis=0), axis=0) for c in range(len(r5))])


def _market_scale(market: np.ndarray, slots: int = 288, least: int = 144) -> np.ndarray:
    """Root of the mean of squares before each slot, weighted by 0.5^(age / 72)."""
    return np.maximum(np.sqrt(_mean_square(market, 72.0, slots, least)), 1e-5)


def _activity(others: np.ndarray) -> np.ndarray:
    """Root of the mean of squares of the last hour over that of the day."""
    hour, day = (np.maximum(_mean_square(others, half_life), 1e-10) for half_life in (12.0, np.inf))
    return np.sqrt(hour / day)


def _mean_square(market: np.ndarray, half_life: float, slots: int = 288, least: int = 144) -> np.ndarray:
    known = np.isfinite(market)
    weights = 0.5 ** (np.arange(slots + 1) / half_life)
    weights[0] = 0.0

    def weighted(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        return np.stack([np.convolve(row, kernel)[: len(row)] for row in values])

    squares = weighted(np.where(known, market, 0.0) ** 2, weights)
    weight = weighted(known.astype(float), weights)
    present = weighted(known.astype(float), (weights > 0).astype(float))
    return np.where(present > least - 0.5, squares / np.maximum(weight, 1e-300), np.nan)


def _unchanged(prices: np.ndarray) -> np.ndarray:
    """Length of the run of equal prices that ends at each slot, at most 288."""
    runs = np.ones_like(prices)
    for t in range(1, prices.shape[1]):
        runs[:, t] = np.where(prices[:, t] == prices[:, t - 1], np.minimum(runs[:, t - 1] + 1, 288), 1)
    return runs


def _rsi(prices: np.ndarray) -> np.ndarray:
    step = np.full_like(prices, np.nan)
    step[:, 1:] = np.diff(prices, axis=1)
    gain, loss = _rolling(np.maximum(step, 0), 14), _rolling(np.maximum(-step, 0), 14)
    return 100 * gain / (gain + loss)


def _bollinger(prices: np.ndarray) -> np.ndarray:
    found = np.full_like(prices, np.nan)
    windows = _windows(prices, 20)
    mean, sigma = windows.mean(axis=-1), windows.std(axis=-1)
    found[:, 19:] = (prices[:, 19:] - (mean - 2 * sigma)) / (4 * sigma)
    return found


def feature_rows(data: Panel, available_after: timedelta = timedelta(seconds=1)) -> pa.Table:
    """Rows of `features.price_features` from a panel; a row was available shortly after its slot."""
    ends = [datetime.fromtimestamp((data.first_slot + t) * SLOT_S, UTC) for t in range(data.slots)]
    starts = [e - SLOT for e in ends]
    coins, slots = len(data.coins), data.slots
    columns: dict[str, Any] = {
        "coin_id": [c for c in data.coins for _ in range(slots)],
        "window_start": starts * coins,
        "window_end": ends * coins,
        "price_at": [e - timedelta(seconds=5) for e in ends] * coins,
        "available_at": [e + available_after for e in ends] * coins,
        "day": [s.date() for s in starts] * coins,
        "hour": [floor_hour(s) for s in starts] * coins,
        "staleness_s": [5.0] * (coins * slots),
        "sample_count": [5] * (coins * slots),
        "basket_hash": ["basket"] * (coins * slots),
        "is_complete": [True] * (coins * slots),
        "volume_change": [0.0] * (coins * slots),
    }
    schema = arrow_schema(PRICE_FEATURES)
    missing = np.zeros((coins, slots), dtype=bool)
    for name in (c.name for c in PRICE_FEATURES.columns if c.type == "double" and c.name not in columns):
        values = data.values[name]
        missing |= ~np.isfinite(values)
        columns[name] = pa.array(values.ravel(), pa.float64(), from_pandas=True)
    columns["unchanged_slots"] = data["unchanged_slots"].ravel().astype(int)
    columns["null_reason"] = ["short_history" if m else None for m in missing.ravel()]
    return pa.table([pa.array(columns[f.name], f.type, from_pandas=True) for f in schema], schema=schema)


def bar(coin: str, window_start: datetime, close: float | Decimal, **changed: Any) -> dict[str, Any]:
    """A row of `gold.bars_5m` with one price, polled every minute; `changed` replaces columns."""
    price = Decimal(repr(float(close))) if not isinstance(close, Decimal) else close
    last = window_start + SLOT - timedelta(seconds=5)
    plain = {
        "coin_id": coin,
        "symbol": coin.upper(),
        "window_start": window_start,
        "window_end": window_start + SLOT,
        **dict.fromkeys(("open", "high", "low", "close"), price.quantize(Decimal(1).scaleb(-18))),
        "price_avg": float(price),
        "price_vol": 0.0,
        "range": 0.0,
        "volume_24h_usd": Decimal(5000),
        "market_cap_usd": None,
        "sample_count": 5,
        "expected_count": 5,
        "granularity": "tick",
        "first_event_at": window_start + timedelta(seconds=5),
        "last_event_at": last,
        "available_at": last + timedelta(seconds=1),
        "is_closed": True,
        "is_complete": True,
        "day": window_start.date(),
        "hour": floor_hour(window_start),
    }
    return {**plain, **changed}


def bar_rows(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows of `gold.bars_5m`."""
    return pa.Table.from_pylist(list(rows), schema=arrow_schema(BARS_5M))


def bars_of(prices: np.ndarray, start: datetime = START) -> list[dict[str, Any]]:
    """Bars of complete prices, coins x slots."""
    return [
        bar(coin, start + t * SLOT, float(f"{prices[c, t]:.8g}"))
        for c, coin in enumerate(names(len(prices)))
        for t in range(prices.shape[1])
    ]


def registry_of(ids: Sequence[str], spans: dict[str, tuple[datetime, datetime | None]] | None = None) -> CoinRegistry:
    """Coins that are active since long ago, or in the spans given."""
    always = (datetime(2000, 1, 1, tzinfo=UTC), None)
    return CoinRegistry(Coin(coin, coin.upper(), coin, (), *(spans or {}).get(coin, always)) for coin in ids)


__all__ = [
    "SIGMA", "SLOT", "SLOTS_A_DAY", "START", "bar", "bar_rows", "bars_of", "feature_rows", "names",
    "panel_of", "registry_of", "walk",
]  # fmt: skip
