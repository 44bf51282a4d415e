"""Recorded bars that are not part of the product: tests of models on them are skipped where they are absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "RECORDED_BARS"
"""Path of a Parquet file of 5-minute bars (ts, coin, open, high, low, close): nine coins, July to September 2025."""


def recorded_bars() -> Path:
    """The file; skips the test where there is none."""
    given = os.environ.get(VARIABLE)
    if not given or not Path(given).exists():
        pytest.skip(f"{VARIABLE} names no file: recorded bars of nine coins, which are not part of the product")
    return Path(given)
