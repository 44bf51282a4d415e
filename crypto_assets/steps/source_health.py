"""How the source and the producer are, judged from the newest polls that the polls topic holds.

Belongs here: what a person's "Execute" on the topics' checks shows. Does not belong here: the evaluation of a tick
while it happens (`kafka.ticks`), which the producer sensor reports.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.messages import POLL_SCHEMA
from crypto_assets.kafka import log
from crypto_assets.kafka.errors import LogError
from crypto_assets.kafka.ticks import ABSENT_AFTER_POLLS
from crypto_assets.storage.base import OffsetRange

if TYPE_CHECKING:
    from crypto_assets.settings import Settings

Found = dict[str, tuple[bool, str]]
NEEDED = set(POLL_SCHEMA["required"])


def judge(settings: Settings) -> Found:
    """Evaluations of the topics' checks by name: (passed, what was found).

    Never raises for an unreachable broker: that is a red `polls_recorded`.
    """
    try:
        polls = _newest_polls(settings, ABSENT_AFTER_POLLS)
        changed_ms = log.newest_timestamp_ms(settings, settings.prices_topic)
    except LogError as error:
        return {"polls_recorded": (False, str(error))}
    if not polls:
        return {"polls_recorded": (False, f"no readable poll among the newest of topic {settings.polls_topic}")}
    return judge_polls(polls, datetime.fromtimestamp(changed_ms / 1000, UTC) if changed_ms >= 0 else None)


def judge_polls(polls: Sequence[Mapping[str, Any]], changed_at: datetime | None) -> Found:
    """The evaluations that polls amount to.

    Args:
        polls: Poll messages, oldest first, at least one.
        changed_at: When a quote last changed (UTC); None = never.
    """
    last = polls[-1]
    at = datetime.fromisoformat(last["finished_at"])
    fresh = last["coins_returned"] - last["coins_unchanged"]
    found: Found = {
        "polls_recorded": (True, f"newest poll {last['poll_id']}"),
        "source_answers": (last["outcome"] == "ok", f"{last['outcome']}: {last['detail'] or 'no detail'}"),
        "delivered": (last["delivered"] == fresh, f"{last['delivered']} of {fresh} changed quotes confirmed"),
    }
    if last["outcome"] != "ok":
        return found
    answered = [p for p in polls if p["outcome"] == "ok"]
    absent = set.intersection(*(set(p["coins_missing"]) for p in answered))
    gone = sorted(absent) if len(answered) >= ABSENT_AFTER_POLLS else []
    found["no_coin_missing"] = (not gone, f"not in {len(answered)} polls: {', '.join(gone)}" if gone else "every coin")
    bound = 4 * last["cadence_s"] + 120
    age = None if changed_at is None else (at - changed_at).total_seconds()
    told = "no quote yet" if age is None else f"a quote last changed {age:.0f} s before the poll, bound {bound:.0f} s"
    found["quotes_move"] = (age is not None and age <= bound, told)
    return found


def _newest_polls(settings: Settings, count: int) -> list[dict[str, Any]]:
    """The newest poll messages, oldest first; unreadable ones are left out."""
    ends = log.end_offsets(settings, settings.polls_topic)
    found: list[dict[str, Any]] = []
    ranges = [OffsetRange(p, max(low, end - count), end) for p, (low, end) in ends.items() if end > low]
    for chunk in log.read_ranges(settings, settings.polls_topic, ranges):
        for value in chunk.column("value").to_pylist():
            try:
                poll = json.loads(value)
            except (ValueError, TypeError):
                continue
            if isinstance(poll, dict) and poll.keys() >= NEEDED:
                found.append(poll)
    return sorted(found, key=lambda p: p["finished_at"])[-count:]
