"""A small file of bars for tests of `evaluate`: walks with own volatilities and a common part, and what is planted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

START = datetime(2024, 3, 1, tzinfo=UTC)
SLOTS_A_DAY = 288
COINS = ("alpha", "beta", "delta", "gamma")
SIGMAS = np.array([0.0007, 0.001, 0.0015, 0.002])


def closes(days: int, seed: int = 3) -> np.ndarray:
    """Prices of four coins by slot: heavy-tailed returns, half of them the market's."""
    rng = np.random.default_rng(seed)
    market = rng.standard_t(4, days * SLOTS_A_DAY)
    own = rng.standard_t(4, (len(COINS), days * SLOTS_A_DAY))
    returns = SIGMAS[:, None] * (0.7 * market + 0.7 * own) / np.sqrt(2)
    return 100.0 * np.exp(np.cumsum(returns, axis=1))


def frame(prices: np.ndarray) -> pd.DataFrame:
    """Bars whose open is the close before."""
    slots = prices.shape[1]
    before = np.concatenate([prices[:, :1], prices[:, :-1]], axis=1)
    return pd.DataFrame(
        {
            "coin": np.repeat(COINS, slots),
            "ts": [START + i * timedelta(minutes=5) for i in range(slots)] * len(COINS),
            "open": before.ravel(),
            "high": np.maximum(prices, before).ravel(),
            "low": np.minimum(prices, before).ravel(),
            "close": prices.ravel(),
        }
    )


def written(path: Path, prices: np.ndarray) -> Path:
    """Write the bars as Parquet."""
    frame(prices).to_parquet(path)
    return path


def day(number: int) -> str:
    """A day of the file as text, the first 0."""
    return f"{START + timedelta(days=number):%Y-%m-%d}"
