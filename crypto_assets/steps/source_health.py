"""How the source and the producer are, judged from the newest polls in the polls topic or folder.

Belongs here: what a person's "Execute" on the topics' checks shows. Does not belong here: the evaluation of a tick
while it happens (`kafka.ticks`), which the producer sensor reports.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.messages import POLL_SCHEMA
from crypto_assets.kafka import log
from crypto_assets.kafka.errors import LogError
from crypto_assets.kafka.ticks import ABSENT_AFTER_POLLS
from crypto_assets.landing import folder as landed
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
        if settings.transport == "landing":
            polls, changed_ms = _landed_polls(settings, ABSENT_AFTER_POLLS)
        else:
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
        found += filter(None, map(_poll, chunk.column("value").to_pylist()))
    return sorted(found, key=lambda p: p["finished_at"])[-count:]


def _landed_polls(settings: Settings, count: int) -> tuple[list[dict[str, Any]], int]:
    """The same from landed files, and the arrival of the newest price in milliseconds since 1970 (-1 without one)."""
    polls: list[dict[str, Any]] = []
    for _, line in _newest_lines(settings, settings.polls_topic):
        poll = _poll(line.value)
        polls += [poll] if poll else []
        if len(polls) >= count:
            break
    newest = next((at for at, _ in _newest_lines(settings, settings.prices_topic)), None)
    return sorted(polls, key=lambda p: p["finished_at"]), -1 if newest is None else round(newest.timestamp() * 1000)


def _newest_lines(settings: Settings, topic: str) -> Iterator[tuple[datetime, landed.Line]]:
    """Landed records with their arrival, newest first, an hour's folder at a time."""
    place = settings.landing / topic
    for hour in reversed(landed.hours(place)):
        found = []
        for file in landed.list_hour(place, hour).files:
            what = landed.content(file)
            if what is not None and what.whole:
                lines = landed.lines_of(file, what, hour)
                found += [(landed.arrival_of(line, file, hour, file.written_at), line) for _, line in lines]
        yield from sorted(found, key=lambda pair: pair[0], reverse=True)


def _poll(value: bytes | None) -> dict[str, Any] | None:
    """A poll message, or None when the value is none."""
    try:
        poll = json.loads(value or b"")
    except ValueError:
        return None
    return poll if isinstance(poll, dict) and poll.keys() >= NEEDED else None
