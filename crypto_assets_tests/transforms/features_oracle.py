"""The definitions of the features once more, in plain Python, slot by slot: slow, and not made from the engine's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import fmean, median, pstdev
from typing import Any

from crypto_assets.market.coins import CoinRegistry

SLOT = timedelta(minutes=5)


def weights(n: int) -> list[float]:
    """A finite exponential kernel of 130 slots, newest first."""
    raw = [(1 - 2 / (n + 1)) ** k for k in range(130)]
    return [w / math.fsum(raw) for w in raw]


FAST, SLOW, SIGNAL = weights(12), weights(26), weights(9)


@dataclass
class Oracle:
    """Answers for any coin and slot (named by its window_end).

    Args:
        bars: Rows of `gold.bars_5m`.
        coins: The registry.
    """

    bars: Sequence[Mapping[str, Any]]
    coins: CoinRegistry
    _memory: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        used = [b for b in self.bars if b["is_closed"] and b["granularity"] in ("tick", "5m")]
        self.by_slot = {(b["coin_id"], b["window_end"]): b for b in used}
        self.spans = {c.coin_id: (c.active_from, c.active_to) for c in self.coins}

    def active(self, coin: str, end: datetime) -> bool:
        """Whether the coin has a row at the slot."""
        begin, stop = self.spans[coin]
        return begin <= end - SLOT and (stop is None or end - SLOT < stop)

    def sample(self, coin: str, end: datetime) -> tuple[float, datetime] | None:
        """Newest sample not older than two cadences or ten minutes, with its time."""
        for slot in (end, end - SLOT):
            bar = self.by_slot.get((coin, slot)) if self.active(coin, slot) else None
            if bar is not None:
                cadence = 300 / bar["expected_count"] if bar["expected_count"] else 300
                fresh = (end - bar["last_event_at"]).total_seconds() <= min(2 * cadence, 600)
                return (float(bar["close"]), bar["last_event_at"]) if fresh else None
        return None

    def price(self, coin: str, end: datetime) -> float | None:
        key = (coin, end)
        if key not in self._memory:
            found = self.sample(coin, end)
            self._memory[key] = found[0] if found else None
        return self._memory[key]

    def prices(self, coin: str, end: datetime, slots: int) -> list[float] | None:
        """Prices of so many slots up to the given one, newest first; None when one is unknown."""
        found = [self.price(coin, end - k * SLOT) for k in range(slots)]
        return None if None in found else [p for p in found if p is not None]

    def back(self, coin: str, end: datetime, slots: int) -> float | None:
        now, then = self.price(coin, end), self.price(coin, end - slots * SLOT)
        return None if now is None or then is None else math.log(now) - math.log(then)

    def row(self, coin: str, end: datetime) -> dict[str, float | None]:
        """All figures of one row."""
        r5 = self.back(coin, end, 1)
        past = [self.back(coin, end - k * SLOT, 1) for k in range(1, 288)]
        middle, s, rz = self.scaled(coin, end)
        all_rz = [z for c in self.spans if self.active(c, end) and (z := self.scaled(c, end)[2]) is not None]
        recent = [r for r in (r5, *past) if r is not None]
        macd, signal = self.macd(coin, end)
        market = [
            (0.5 ** (k / 72), r) for k in range(1, 289) if (r := self.to_market(coin, end - k * SLOT)) is not None
        ]
        s_market = None
        if len(market) >= 144:
            square = math.fsum(w * r * r for w, r in market) / math.fsum(w for w, _ in market)
            s_market = max(math.sqrt(square), 1e-5)
        others = [
            (0.5 ** (k / 12), r) for k in range(1, 289) if (r := self.of_others(coin, end - k * SLOT)) is not None
        ]
        activity = None
        if len(others) >= 144:
            hour = math.fsum(w * r * r for w, r in others) / math.fsum(w for w, _ in others)
            day = math.fsum(r * r for _, r in others) / len(others)
            activity = math.sqrt(max(hour, 1e-10) / max(day, 1e-10))
        sample = self.sample(coin, end)
        return {
            "price": sample[0] if sample else None,
            "staleness_s": (end - sample[1]).total_seconds() if sample else None,
            "r5": r5,
            "r15": self.back(coin, end, 3),
            "r1h": self.back(coin, end, 12),
            "r24h": self.back(coin, end, 288),
            "r5_median": middle,
            "s": s,
            "rz": rz,
            "rv15m": self.volatility(coin, end, 3),
            "rv1h": self.volatility(coin, end, 12),
            "rv4h": self.volatility(coin, end, 48),
            "rv24h": None if len(recent) < 144 else math.sqrt(288 * math.fsum(r * r for r in recent) / len(recent)),
            "rsi14": self.rsi(coin, end),
            "macd": macd,
            "macd_signal": signal,
            "macd_hist": None if macd is None or signal is None else macd - signal,
            "bollinger_b": self.bollinger(coin, end),
            "r5_market": self.to_market(coin, end),
            "s_market": s_market,
            "rz_common": median(all_rz) if rz is not None and len(all_rz) >= 3 else None,
            "common_activity": activity,
            "unchanged_slots": self.unchanged(coin, end),
            "volume_change": self.volume_change(coin, end),
        }

    def scaled(self, coin: str, end: datetime) -> tuple[float | None, float | None, float | None]:
        """Median and scale of the 288 returns before a slot, and the slot's own return by them."""
        key = ("scaled", coin, end)
        if key not in self._memory:
            past = [self.back(coin, end - k * SLOT, 1) for k in range(1, 289)]
            known = [r for r in past if r is not None]
            found = (None, None, None)
            if len(known) >= 144:
                middle, r5 = median(known), self.back(coin, end, 1)
                s = max(1.4826 * median(abs(r - middle) for r in known), 1e-5)
                found = (middle, s, None if r5 is None else (r5 - middle) / s)
            self._memory[key] = found
        return self._memory[key]

    def volatility(self, coin: str, end: datetime, slots: int) -> float | None:
        """Root of the sum of squared 5-minute returns; None when one is unknown."""
        returns = [self.back(coin, end - k * SLOT, 1) for k in range(slots)]
        return None if None in returns else math.sqrt(math.fsum(r * r for r in returns if r is not None))

    def to_market(self, coin: str, end: datetime) -> float | None:
        """r5 less the median of the other coins' r5."""
        others = self.of_others(coin, end)
        return None if others is None else self.back(coin, end, 1) - others

    def of_others(self, coin: str, end: datetime) -> float | None:
        """Median of the other coins' r5, of which two must be known, where the coin has one."""
        key = ("others", coin, end)
        if key not in self._memory:
            others = [self.back(c, end, 1) for c in self.spans if c != coin and self.active(c, end)]
            known = [r for r in others if r is not None]
            self._memory[key] = None if self.back(coin, end, 1) is None or len(known) < 2 else median(known)
        return self._memory[key]

    def unchanged(self, coin: str, end: datetime) -> int:
        """Number of slots up to the given one with its price; 0 without one."""
        price = self.price(coin, end)
        slots = 0
        while price is not None and slots < 288 and self.price(coin, end - slots * SLOT) == price:
            slots += 1
        return slots

    def rsi(self, coin: str, end: datetime) -> float | None:
        """Cutler: plain means of gains and losses of 14 slots; 50 where nothing moved."""
        prices = self.prices(coin, end, 15)
        if prices is None:
            return None
        moves = [newer - older for newer, older in pairwise(prices)]
        gain, loss = fmean(max(m, 0) for m in moves), fmean(max(-m, 0) for m in moves)
        return 50.0 if gain == loss == 0 else 100 - 100 / (1 + gain / loss) if loss else 100.0

    def bollinger(self, coin: str, end: datetime) -> float | None:
        """(price - lower) / (upper - lower) of mean +- 2 sigma; the middle where nothing moved."""
        prices = self.prices(coin, end, 20)
        if prices is None:
            return None
        if len(set(prices)) == 1:
            return 0.5
        mean, sigma = fmean(prices), pstdev(prices)
        return (prices[0] - (mean - 2 * sigma)) / (4 * sigma)

    def macd(self, coin: str, end: datetime) -> tuple[float | None, float | None]:
        """EMA12 - EMA26 of ln price, and EMA9 of that."""
        prices = self.prices(coin, end, 259)
        lines = []
        for k in range(130 if prices else 1):
            window = self.prices(coin, end - k * SLOT, 130) if prices is None else prices[k : k + 130]
            if window is None:
                return None, None
            lines.append(math.fsum((f - w) * math.log(p) for f, w, p in zip(FAST, SLOW, window, strict=True)))
        return lines[0], math.fsum(w * m for w, m in zip(SIGNAL, lines, strict=True)) if prices else None

    def volume_change(self, coin: str, end: datetime) -> float | None:
        bars = [self.by_slot.get((coin, slot)) if self.active(coin, slot) else None for slot in (end, end - SLOT)]
        volumes = [float(b["volume_24h_usd"]) for b in bars if b is not None and b["volume_24h_usd"]]
        return math.log(volumes[0] / volumes[1]) if len(volumes) == 2 else None
