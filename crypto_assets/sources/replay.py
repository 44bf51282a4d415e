"""The recording: three coins by minute on Coinbase, 2018-04-04 and 05, played on other days.

Belongs here: reading the recording and mapping a present moment to it. Does not belong here: serving it (`standin`).
The data and its licence are described in `sample_data/NOTICE`.
"""

from __future__ import annotations

import csv
import gzip
import io
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from importlib import resources

from crypto_assets.market.coins import default_registry
from crypto_assets.sources.feed import Quote, change_pct

FILE = "coinbase_minutes_2018-04-04_05.csv.gz"
RECORDED_DAY = date(2018, 4, 5)
"""The whole day; the one before has a hole of seven hours."""

QUOTE_DELAY = timedelta(seconds=59)
"""A minute's close is taken as quoted one second before the minute ends, so that no quote leaves its hour."""

GAP = timedelta(minutes=10)
DAY = timedelta(days=1)
EIGHT_DIGITS = Decimal("0.00000001")


@dataclass(frozen=True)
class Series:
    """One coin's recorded quotes in time order: times, closes in USD, volumes of the minute in coins."""

    times: tuple[datetime, ...]
    closes: tuple[Decimal, ...]
    volumes: tuple[Decimal, ...]

    def index_at(self, moment: datetime) -> int:
        """Index of the newest quote not later than `moment`, or -1."""
        return bisect_right(self.times, moment) - 1


@dataclass(frozen=True)
class Recording:
    """All recorded quotes by coin id."""

    series: dict[str, Series]

    @staticmethod
    @lru_cache(maxsize=1)
    def load() -> Recording:
        """Read the packaged recording (7,343 minutes)."""
        packed = resources.files("crypto_assets.sample_data").joinpath(FILE).read_bytes()
        rows: dict[str, list[tuple[datetime, Decimal, Decimal]]] = {}
        for row in csv.DictReader(io.StringIO(gzip.decompress(packed).decode())):
            start = datetime.fromisoformat(row["minute_start_utc"])
            rows.setdefault(row["coin_id"], []).append(
                (start + QUOTE_DELAY, Decimal(row["close"]), Decimal(row["volume"]))
            )
        return Recording({c: Series(*(tuple(column) for column in zip(*r, strict=True))) for c, r in rows.items()})


class ReplayFeed:
    """The recording as a feed.

    2018-04-05 is played on `anchor`, the day before it on the day before, and the whole day again on every later day,
    scaled so that a midnight has no jump.

    Args:
        anchor: UTC day on which 2018-04-05 is played.
    """

    name = "replay"
    coins = default_registry("replay").coins

    def __init__(self, anchor: date) -> None:
        self.anchor = anchor
        self.recording = Recording.load()
        midnight = datetime(RECORDED_DAY.year, RECORDED_DAY.month, RECORDED_DAY.day, tzinfo=UTC)
        self._first = {c: s.index_at(midnight) + 1 for c, s in self.recording.series.items()}
        # Scale of one repetition: what the day ended at over what it began at.
        self._step = {c: s.closes[-1] / s.closes[self._first[c]] for c, s in self.recording.series.items()}
        self._usd = {
            c: _cumulated([p * v for p, v in zip(s.closes, s.volumes, strict=True)])
            for c, s in self.recording.series.items()
        }

    def quotes(self, now: datetime) -> list[Quote]:
        """Newest quote of each coin; see `Feed`."""
        found = []
        for coin in self.coins:
            at = self._price_at(coin.coin_id, now)
            if at is None:
                continue
            when, price = at
            found.append(
                Quote(
                    coin.coin_id,
                    coin.symbol,
                    coin.name,
                    price,
                    when,
                    volume_24h=self._volume_24h(coin.coin_id, now),
                    change_1h_pct=self._change(coin.coin_id, price, when - timedelta(hours=1)),
                    change_24h_pct=self._change(coin.coin_id, price, when - DAY),
                )
            )
        return found

    def headers(self, now: datetime) -> dict[str, str]:
        """`recorded_at`, `shift_days`, and on repeated days `seam` with the scale of each coin."""
        recorded, repetition = self._recorded(now)
        headers = {
            "recorded_at": recorded.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "shift_days": str((now.astimezone(UTC).date() - recorded.date()).days),
        }
        if repetition:
            factors = {c: f"{self._scale(c, repetition):.8f}" for c in sorted(self._step)}
            headers["seam"] = f"repetition {repetition}; " + ", ".join(f"{c} x {f}" for c, f in factors.items())
        return headers

    def history(self, coin_id: str, times: Sequence[datetime]) -> list[tuple[datetime, Decimal]]:
        """Price at each time that has a quote within ten minutes before it."""
        found = []
        if coin_id not in self.recording.series:
            return found
        for moment in times:
            at = self._price_at(coin_id, moment)
            if at is not None and moment - at[0] <= GAP:
                found.append((moment, at[1]))
        return found

    def _recorded(self, now: datetime) -> tuple[datetime, int]:
        """Recorded moment that `now` shows, and how often the day has been repeated before."""
        now = now.astimezone(UTC)
        repetition = max(0, (now.date() - self.anchor).days)
        offset = now.date() - self.anchor - timedelta(days=repetition)
        day = RECORDED_DAY + offset
        return now.replace(year=day.year, month=day.month, day=day.day), repetition

    def _scale(self, coin_id: str, repetition: int) -> Decimal:
        return self._step[coin_id] ** repetition if repetition else Decimal(1)

    def _price_at(self, coin_id: str, now: datetime) -> tuple[datetime, Decimal] | None:
        """Time and price of the newest quote, both as played."""
        recorded, repetition = self._recorded(now)
        series = self.recording.series[coin_id]
        i = series.index_at(recorded)
        if repetition and i < self._first[coin_id]:
            # The repeated day has not had its first quote: the last one of the day before stands.
            repetition, i = repetition - 1, len(series.times) - 1
            shift = now.astimezone(UTC).date() - timedelta(days=1) - RECORDED_DAY
        elif i < 0:
            return None
        else:
            shift = now.astimezone(UTC).date() - recorded.date()
        price = series.closes[i] * self._scale(coin_id, repetition)
        return series.times[i] + shift, price.quantize(EIGHT_DIGITS) if repetition else price

    def _change(self, coin_id: str, price: Decimal, moment: datetime) -> Decimal | None:
        """Change since the quote at `moment`, if one lies within ten minutes before it."""
        at = self._price_at(coin_id, moment)
        return change_pct(price, at[1]) if at is not None and moment - at[0] <= GAP else None

    def _volume_24h(self, coin_id: str, now: datetime) -> Decimal | None:
        """USD volume of 24 hours, or None unless they hold no gap: only on repeated days."""
        recorded, repetition = self._recorded(now)
        if not repetition:
            return None
        series, usd, first = self.recording.series[coin_id], self._usd[coin_id], self._first[coin_id]
        i = max(series.index_at(recorded), first - 1)
        today = (usd[i + 1] - usd[first]) * self._scale(coin_id, repetition)
        yesterday = (usd[-1] - usd[i + 1]) * self._scale(coin_id, repetition - 1)
        return (today + yesterday).quantize(Decimal("0.01"))


def _cumulated(values: Sequence[Decimal]) -> list[Decimal]:
    total, sums = Decimal(0), [Decimal(0)]
    for value in values:
        total += value
        sums.append(total)
    return sums
