"""Ten correlated coins that never traded: a seeded random walk, random access in time.

A quote is a function of seed and time alone, so a restarted simulator agrees with its past. Log prices follow a common
and an own Gaussian factor, every 10 s, within days whose closing levels revert slowly to the coin's base price; within
a day the path is a bridge between the two levels. Direction is a coin toss and volatility is not: it has wild and quiet
days, an afternoon, and clusters that fade within hours, as markets have (Cont 2001), so that a model of volatility has
something to learn and a model of direction has nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from crypto_assets.market.coins import DEFAULT_COINS
from crypto_assets.sources.feed import Quote, change_pct

if TYPE_CHECKING:
    import numpy as np

BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=10)
STEPS_A_DAY = 8640
DAY = timedelta(days=1)

BASES = {
    # coin: price in USD, daily volatility, supply, 24 h volume in coins. Invented, of the usual magnitudes.
    "bitcoin": (60_000.0, 0.025, 19.7e6, 4.0e5),
    "ethereum": (3_000.0, 0.030, 120e6, 5.0e6),
    "solana": (140.0, 0.040, 465e6, 2.0e7),
    "cardano": (0.45, 0.035, 35.6e9, 8.0e8),
    "polygon-ecosystem-token": (0.50, 0.040, 9.5e9, 4.0e8),
    "chainlink": (14.0, 0.035, 590e6, 3.0e7),
    "avalanche-2": (28.0, 0.040, 395e6, 1.2e7),
    "polkadot": (6.5, 0.035, 1.4e9, 3.5e7),
    "uniswap": (8.0, 0.040, 600e6, 1.8e7),
    "litecoin": (75.0, 0.030, 74e6, 5.0e6),
}
COMMON_SHARE = 0.6
"""Share of variance that all coins have in common."""

REVERSION = 0.03

DAY_SIGMA, DAY_MEMORY = 0.3, (1.0, 0.7, 0.5, 0.35)
"""Log volatility of a day: its standard deviation, and the weights of its own and the three days' draws before."""
PEAK_HOUR, PEAK = 15, 0.35
"""Hour (UTC) at which volatility peaks within a day, and by what share."""
CLUSTER_SIGMA, CLUSTER_STEPS, BLOCK_STEPS = 0.4, 540, 30
"""Log volatility within a day: its standard deviation, the steps in which a cluster fades to 1/e, and steps a draw."""


class SimulatorFeed:
    """The simulator as a feed (see `sources.feed.Feed`).

    Args:
        seed: Equal seeds give equal prices at every time.
        steady: Volatility is the same at all times; for tests of what a quiet market must not cause.
    """

    name = "simulator"

    def __init__(self, seed: int, *, steady: bool = False) -> None:
        self.seed, self.steady = seed, steady
        self.coins = tuple(c for c in DEFAULT_COINS.coins if c.coin_id in BASES)
        self._index = {c.coin_id: i for i, c in enumerate(self.coins)}
        self._days: dict[int, np.ndarray] = {}
        self._levels: np.ndarray | None = None

    def quotes(self, now: datetime) -> list[Quote]:
        """Quotes of the 10 s step that ended last."""
        return [self._quote(c.coin_id, now) for c in self.coins]

    def headers(self, now: datetime) -> dict[str, str]:
        """The seed; nothing here was recorded."""
        del now
        return {}

    def history(self, coin_id: str, times: Sequence[datetime]) -> list[tuple[datetime, Decimal]]:
        """Price at each time."""
        return [(t, self._price(coin_id, t)) for t in times] if coin_id in self._index else []

    def _quote(self, coin_id: str, now: datetime) -> Quote:
        import math

        when = _floor(now)
        price = self._price(coin_id, when)
        coin = self.coins[self._index[coin_id]]
        _, _, supply, volume = BASES[coin_id]
        # Volume breathes slowly with the time of day; it informs no model.
        share = 1 + 0.1 * math.sin(when.timestamp() / 86_400 * 2 * math.pi + self._index[coin_id])
        return Quote(
            coin_id,
            coin.symbol,
            coin.name,
            price,
            when,
            market_cap=(price * Decimal(supply)).quantize(Decimal("0.01")),
            volume_24h=(price * Decimal(volume) * Decimal(f"{share:.6f}")).quantize(Decimal("0.01")),
            change_1h_pct=change_pct(price, self._price(coin_id, when - timedelta(hours=1))),
            change_24h_pct=change_pct(price, self._price(coin_id, when - DAY)),
            change_7d_pct=change_pct(price, self._price(coin_id, when - 7 * DAY)),
        )

    def _price(self, coin_id: str, moment: datetime) -> Decimal:
        import math

        day, within = divmod(int((_floor(moment) - BEGINNING) / STEP), STEPS_A_DAY)
        log = float(self._day(day)[self._index[coin_id], within])
        # Eight significant digits, as sources quote.
        return Decimal(f"{math.exp(log):.8g}")

    def _day(self, day: int) -> np.ndarray:
        """Log prices of one day, coins x 8640 steps: a bridge from the day's opening level to the next one's."""
        import numpy as np

        if day not in self._days:
            if len(self._days) > 60:
                self._days.clear()
            levels = self._all_levels(day + 2)
            rng = np.random.default_rng([self.seed, 1, day])
            share = np.sqrt(COMMON_SHARE)
            noise = share * rng.standard_normal(STEPS_A_DAY) + np.sqrt(1 - COMMON_SHARE) * rng.standard_normal(
                (len(self.coins), STEPS_A_DAY)
            )
            walk = np.cumsum(noise * self._volatility(day) * (self._daily()[:, None] / np.sqrt(STEPS_A_DAY)), axis=1)
            ramp = np.arange(1, STEPS_A_DAY + 1) / STEPS_A_DAY
            bridge = walk - ramp * walk[:, -1:]
            opened, closed = levels[day][:, None], levels[day + 1][:, None]
            self._days[day] = opened + bridge + ramp * (closed - opened)
        return self._days[day]

    def _volatility(self, day: int) -> np.ndarray:
        """Volatility of one day's steps in units of the coin's usual one, 8640 values."""
        import numpy as np

        if self.steady:
            return np.ones(STEPS_A_DAY)
        draws = [np.random.default_rng([self.seed, 2, day - back]).standard_normal() for back in range(len(DAY_MEMORY))]
        of_day = DAY_SIGMA * np.dot(DAY_MEMORY, draws) / np.linalg.norm(DAY_MEMORY)
        hours = np.arange(STEPS_A_DAY) / STEPS_A_DAY * 24
        season = PEAK * np.cos((hours - PEAK_HOUR) / 24 * 2 * np.pi)
        blocks = np.random.default_rng([self.seed, 3, day]).standard_normal(STEPS_A_DAY // BLOCK_STEPS)
        kept = np.exp(-BLOCK_STEPS / CLUSTER_STEPS)
        for i in range(1, len(blocks)):
            blocks[i] = kept * blocks[i - 1] + np.sqrt(1 - kept**2) * blocks[i]
        shape = np.exp(season + CLUSTER_SIGMA * np.repeat(blocks, BLOCK_STEPS))
        return np.exp(of_day - DAY_SIGMA**2) * shape / np.sqrt((shape**2).mean())

    def _all_levels(self, count: int) -> np.ndarray:
        """Log price level at the start of each of the first `count` days since the beginning."""
        import numpy as np

        if self._levels is None or len(self._levels) < count:
            total = count + 400
            rng = np.random.default_rng([self.seed, 0])
            share = np.sqrt(COMMON_SHARE)
            draws = rng.standard_normal((4000, 1 + len(self.coins)))
            noise = (share * draws[:, :1] + np.sqrt(1 - COMMON_SHARE) * draws[:, 1:]) * self._daily()
            base = np.log([BASES[c.coin_id][0] for c in self.coins])
            levels = np.empty((max(total, 4000), len(self.coins)))
            levels[0] = base
            for i in range(1, len(levels)):
                levels[i] = levels[i - 1] + REVERSION * (base - levels[i - 1]) + noise[(i - 1) % len(noise)]
            self._levels = levels
        return self._levels

    def _daily(self) -> np.ndarray:
        import numpy as np

        return np.array([BASES[c.coin_id][1] for c in self.coins])


def _floor(moment: datetime) -> datetime:
    """The 10 s step that ended last."""
    return BEGINNING + ((moment.astimezone(UTC) - BEGINNING) // STEP) * STEP
