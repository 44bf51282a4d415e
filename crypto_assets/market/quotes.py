"""Value types of quotes and polls.

Belongs here: the result of a poll and its outcomes. Does not belong here: parsing replies (`payload`), the poll budget
(`credits`), the sources themselves (`crypto_assets.sources`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal

Outcome = Literal["ok", "rate_limited", "unauthorized", "bad_payload", "upstream_down", "unknown_coin"]


@dataclass(frozen=True)
class Tick:
    """A coin's quote: USD amounts and percentages as exact decimals, None = missing; times UTC.

    `payload` is the coin's element of the reply as verbatim JSON text (None above 4 kB).
    """

    coin_id: str
    symbol: str
    name: str | None
    price_usd: Decimal
    market_cap_usd: Decimal | None
    volume_24h_usd: Decimal | None
    change_1h_pct: Decimal | None
    change_24h_pct: Decimal | None
    change_7d_pct: Decimal | None
    last_updated_at: datetime
    payload: str | None = None


@dataclass(frozen=True)
class Poll:
    """Result of one poll: either ticks or a named failure, never both.

    Args:
        started_at: Start of the request (UTC; virtual time for replay and simulator).
        finished_at: When the reply was complete.
        outcome: `ok` or the name of the failure.
        ticks: One per coin; empty unless `ok`.
        missing: Coins requested but not in an `ok` reply.
        problems: Coins with unusable quotes, with the reason (`bitcoin: null price`).
        nulled: Fields of ticks set to null because their number is out of range, with the number.
        http_status: HTTP status; None without a reply.
        detail: Description of a failure, redacted, at most 500 characters.
        retry_after_s: Seconds to wait, requested by the source.
        age_s: `Age` header: seconds that the reply spent in a cache.
        credits_used: Calls made by this poll, including retries.
        headers: Extra Kafka headers for a replay (`recorded_at`, `shift_days`, `seam`).
    """

    started_at: datetime
    finished_at: datetime
    outcome: Outcome
    ticks: tuple[Tick, ...] = ()
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    nulled: tuple[str, ...] = ()
    http_status: int | None = None
    detail: str | None = None
    retry_after_s: float | None = None
    age_s: float | None = None
    credits_used: int = 0
    headers: dict[str, str] = field(default_factory=dict)
