"""Body of bronze/market_history: days of quotes fetched from the source's archive, stored unchanged.

Belongs here: which calls a set of days needs, a day's share of a reply. Does not belong here: the HTTP call
(`sources.coingecko`), reading points (`transforms.silver.history_points`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from crypto_assets.assets.card import Step
from crypto_assets.assets.publishing import publish
from crypto_assets.checks import rules
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import DAY, Slice, contiguous, day_key
from crypto_assets.contracts.tables import MARKET_HISTORY
from crypto_assets.engine.base import CheckOutcome, Engine, Result, StepFailed, StepInputs
from crypto_assets.market.coins import Coin, CoinRegistry
from crypto_assets.source_facts import facts_of, with_history

if TYPE_CHECKING:
    import pyarrow as pa

    from crypto_assets.sources.base import Archive

ALL_COINS, FILLS = "all_coins_fetched", "fills_bars_5m"
EXTRA_CHECKS = {
    ALL_COINS: "Every coin that was active on the day has a reply with points; else the result names the coins.",
    FILLS: "The points are five minutes apart and fill 5-minute bars; else the result names what they can fill.",
}
SERIES = ("prices", "market_caps", "total_volumes")
REFUSALS = ("rate_limited", "unauthorized")
"""Failures that the next call would hit too."""
DAYS_PER_CALL = 90
"""The API's longest range with points closer than a day (docs.coingecko.com, market_chart/range)."""
CAN_FILL = {"5m": "bars_5m and coarser", "1h": "bars_1h and bars_1d", "1d": "bars_1d"}


@Step("bronze_market_history", [MARKET_HISTORY], moved_by=None, role="ingest", checks=EXTRA_CHECKS)
def work(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Fetch and store days: one call per coin for up to 90 days in a row, none for stored days.

    Each run of days is stored coin by coin before the next call, so a rate limit loses nothing: the same command
    resumes where it stopped.

    Args:
        engine: Engine whose store is written.
        partition_keys: Days.
        inputs: `source`, `coins`, `now`, `rebuild` (fetch again).

    Raises:
        StepFailed: The home is not live, or calls failed; names every coin and failure.
    """
    if not facts_of(inputs.source).history:
        raise StepFailed(
            f"market history is fetched from {with_history()} only, and this home holds {inputs.source} data: its "
            "hours come from the log (crypto-assets backfill DAY --from log)"
        )
    failures: list[str] = []
    with open_archive(inputs) as archive:
        for part in (part for run, _ in contiguous(partition_keys, "day") for part in _calls(run)):
            if _fetch(engine, archive, part, inputs, failures):
                break
    if failures:
        raise StepFailed(
            f"{len(failures)} calls for market history failed: {'; '.join(failures)}. What was fetched is stored; run "
            "the same backfill again to go on"
        )
    done = publish(
        engine,
        MARKET_HISTORY,
        partition_keys,
        inputs,
        lambda slice_: engine.store.read_arrow(MARKET_HISTORY.full_name, slice_),
        extra_checks=lambda slice_, rows: _checks(slice_, rows, inputs.coins),
        volatile=("fetched_at",),
        why_empty="the source has no points for this day",
    )
    return Result({MARKET_HISTORY.full_name: done})


def open_archive(inputs: StepInputs) -> AbstractContextManager[Archive]:
    """Open the source's archive, configured by this process's own settings: keys never travel in step inputs."""
    from crypto_assets.settings import load_settings
    from crypto_assets.sources.registry import source_of

    settings = load_settings().model_copy(update={"source": inputs.source})
    return source_of(settings).open_archive(settings)


def _calls(slice_: Slice) -> Iterator[Slice]:
    """Split a run of days into pieces of at most `DAYS_PER_CALL`."""
    start = slice_.start
    while start < slice_.end:
        end = min(start + DAYS_PER_CALL * DAY, slice_.end)
        yield Slice(start, end)
        start = end


def _fetch(engine: Engine, archive: Archive, part: Slice, inputs: StepInputs, failures: list[str]) -> bool:
    """Store the missing replies of a run of days, collect failures by coin; return whether to stop calling."""
    for coin in inputs.coins:
        lacking = _lacking(engine, coin, part, inputs.rebuild)
        if not lacking:
            continue
        span = Slice(lacking[0], lacking[-1] + DAY)
        reply, poll = archive.market_chart_range(coin.coin_id, span.start, span.end, inputs.now)
        if reply is None:
            failures.append(f"{coin.coin_id}: {poll.outcome} ({poll.detail or 'no detail'})")
            if poll.outcome in REFUSALS:
                return True
            continue
        rows = day_rows(coin.coin_id, reply, lacking, poll.finished_at, inputs.source)
        _store(engine, rows, inputs)
    return False


def _lacking(engine: Engine, coin: Coin, part: Slice, again: bool) -> list[datetime]:
    """Days on which the coin was active and has no reply yet."""
    days = [part.start + i * DAY for i in range((part.end - part.start) // DAY)]
    days = [day for day in days if coin.active_within(day, day + DAY)]
    if again:
        return days
    held = engine.store.read_arrow(MARKET_HISTORY.full_name, part, columns=["coin_id", "day_start"]).to_pylist()
    have = {r["day_start"] for r in held if r["coin_id"] == coin.coin_id}
    return [d for d in days if d not in have]


def day_rows(
    coin_id: str, reply: Mapping[str, Any], days: Iterable[datetime], fetched_at: datetime, source: str
) -> list[dict[str, Any]]:
    """Split a reply into days; a day without a price point gives no row.

    Args:
        coin_id: Coin.
        reply: `prices`, `market_caps`, `total_volumes`: lists of [milliseconds, number].
        days: Day starts (UTC).
        fetched_at: Time when the reply was complete.
        source: Data mode.
    """
    rows = []
    for day in days:
        low, high = int(day.timestamp() * 1000), int((day + DAY).timestamp() * 1000)
        share = {name: [p for p in reply.get(name) or [] if low <= p[0] < high] for name in SERIES}
        if not share["prices"]:
            continue
        rows.append(
            {
                "coin_id": coin_id,
                "day": day.date(),
                "day_start": day,
                "granularity": granularity([p[0] for p in share["prices"]]),
                "raw_json": json.dumps(share, default=_number_text),
                "points": len(share["prices"]),
                "fetched_at": fetched_at,
                "source": source,
            }
        )
    return rows


def granularity(stamps: Sequence[int]) -> str:
    """Spacing of points by their median gap: 5m, 1h or 1d.

    Args:
        stamps: Times in milliseconds.
    """
    gaps = sorted(b - a for a, b in pairwise(sorted(stamps)))
    if not gaps:
        return "1d"
    middle = timedelta(milliseconds=int(gaps[len(gaps) // 2]))
    if middle <= timedelta(minutes=15):
        return "5m"
    return "1h" if middle <= timedelta(hours=3) else "1d"


def _number_text(value: object) -> str:
    """Exact decimal text of a number: a float would round it."""
    if isinstance(value, Decimal):
        return format(value, "f")
    raise TypeError(f"{value!r} is no number of the reply")


def _store(engine: Engine, rows: Sequence[dict[str, Any]], inputs: StepInputs) -> None:
    import pyarrow as pa

    if rows:
        frame = pa.Table.from_pylist(list(rows), schema=arrow_schema(MARKET_HISTORY))
        engine.store.merge(
            MARKET_HISTORY.full_name,
            frame,
            mode="upsert",
            audit=rules.audit(MARKET_HISTORY, sorted({day_key(r["day_start"]) for r in rows})),
            commit_metadata={"run_id": inputs.run_id},
        )


def _checks(slice_: Slice, rows: pa.Table, coins: CoinRegistry) -> dict[str, list[CheckOutcome]]:
    stored = rows.select(["coin_id", "day_start", "granularity", "points"]).to_pylist()
    found: dict[str, list[CheckOutcome]] = {}
    for i in range((slice_.end - slice_.start) // DAY):
        day = slice_.start + i * DAY
        mine = [r for r in stored if r["day_start"] == day]
        absent = sorted({c.coin_id for c in coins if c.active_within(day, day + DAY)} - {r["coin_id"] for r in mine})
        coarse = sorted({r["granularity"] for r in mine} - {"5m"})
        found[day_key(day)] = [
            CheckOutcome(
                ALL_COINS, not absent, f"no points for {', '.join(absent)}" if absent else f"{len(mine)} coins", "warn"
            ),
            CheckOutcome(
                FILLS,
                bool(mine) and not coarse,
                "; ".join(f"{g} points fill {CAN_FILL[g]} only" for g in coarse)
                or f"{sum(r['points'] for r in mine)} points",
                "warn",
            ),
        ]
    return found
