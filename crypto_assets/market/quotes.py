"""A coin's quote and one look at a source, as values.

Belongs here: what a poll returns, and the names of its outcomes. Does not belong here: reading a reply (`payload`), the
budget of polls (`credits`), or anything that can be polled (`crypto_assets.sources`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal

Outcome = Literal["ok", "rate_limited", "unauthorized", "bad_payload", "upstream_down", "unknown_coin"]


@dataclass(frozen=True)
class Tick:
    """One coin's quote. Money in USD and percentages as exact decimals; absent = None; times UTC.

    `payload` is the coin's element of the reply as verbatim JSON text (at most 4 kB, else None).
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
    """One look at the source: either ticks or a named failure, never both.

    Args:
        started_at: When the request started; virtual time for replay and simulator (UTC).
        finished_at: When the answer was complete.
        outcome: `ok` or the name of the failure.
        ticks: One per coin; empty unless `ok`.
        missing: Coins asked for and not in an `ok` reply.
        problems: Coins present but unusable, with the reason (`bitcoin: null price`).
        nulled: Fields of ticks that are null because their number is out of range, with the number.
        http_status: Status, or None without an answer.
        detail: Human text about a failure, redacted, at most 500 characters.
        retry_after_s: Seconds to wait that the source asked for.
        age_s: `Age` header: seconds that the reply spent in a cache.
        credits_used: Calls made by this poll, retries included.
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
