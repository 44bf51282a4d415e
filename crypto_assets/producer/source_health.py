"""Health of source and producer, judged from the newest poll in the topic, the folder or the producer's state.

Belongs here: which poll *Execute* on the topics' checks judges. Does not belong here: the verdicts (`market.polls`),
which the producer sensor reports for the same poll.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from crypto_assets.contracts.messages import POLL_SCHEMA_V1
from crypto_assets.log.errors import LogError
from crypto_assets.log.files import folder as landed
from crypto_assets.log.kafka import reading
from crypto_assets.market.polls import ABSENT_AFTER_POLLS, Found, judge, read_poll
from crypto_assets.producer.ticks import ProducerState
from crypto_assets.settings import Settings
from crypto_assets.storage.base import OffsetRange

LOOK_BACK_POLLS = 100
"""Number of newest polls searched for the newest answer."""

_NEEDED = [n for n, s in POLL_SCHEMA_V1["properties"].items() if "null" not in s.get("type", ())]


def judge_newest(settings: Settings) -> Found:
    """Evaluations of the topics' checks by name: (passed, description).

    The newest poll is judged: one that the producer could not record, else the newest of the topic. Facts that only an
    answer holds come from the newest answered poll, as in the sensor.

    Never raises for an unreachable broker: that is a red `polls_recorded`, unless the producer's state has more.
    """
    polls: list[dict[str, Any]] = []
    changed_at = None
    why = f"no readable poll among the newest of topic {settings.polls_topic}"
    try:
        if settings.transport == "landing":
            polls, changed_ms = _landed_polls(settings, LOOK_BACK_POLLS)
        else:
            polls = _newest_polls(settings, LOOK_BACK_POLLS)
            changed_ms = reading.newest_timestamp_ms(settings, settings.prices_topic)
        changed_at = datetime.fromtimestamp(changed_ms / 1000, UTC) if changed_ms >= 0 else None
    except LogError as error:
        why = str(error)
    found = judge_polls(polls, changed_at) if polls else {"polls_recorded": (False, why)}
    lost = _unrecorded(settings)
    return found if lost is None else found | judge(read_poll(json.dumps(lost["poll"])), lost["error"])


def extent(settings: Settings, topic: str) -> dict[str, Any]:
    """Present contents of a topic, or the folder in its place: figures for people.

    Raises:
        LogError: No broker answers, or the topic does not exist.
    """
    if settings.transport == "landing":
        hours = landed.hours(settings.landing / topic)
        return {"hours_with_files": len(hours), "newest_hour": hours[-1].isoformat() if hours else "none"}
    ends = reading.end_offsets(settings, topic)
    stamp = reading.newest_timestamp_ms(settings, topic)
    return {
        "records": sum(end - low for low, end in ends.values()),
        "newest_record_at": datetime.fromtimestamp(stamp / 1000, UTC).isoformat() if stamp >= 0 else "none",
        **{f"partition_{p}": f"offsets {low:,} to {end:,}" for p, (low, end) in sorted(ends.items())},
    }


def judge_polls(polls: Sequence[Mapping[str, Any]], changed_at: datetime | None) -> Found:
    """Evaluations of recorded polls.

    Args:
        polls: Polls as `read_poll` gives them, oldest first, at least one.
        changed_at: Time of the last changed quote (UTC), absent from polls of version 1; None = never.
    """
    answered = [poll for poll in polls if poll["outcome"] == "ok"]
    found = judge(_completed(answered, changed_at)) if answered else {}
    return found if polls[-1]["outcome"] == "ok" else found | judge(polls[-1])


def _completed(polls: Sequence[Mapping[str, Any]], changed_at: datetime | None) -> Mapping[str, Any]:
    """The last poll, completed with what version 1 lacks: absent coins, and the age of the newest quote."""
    last = polls[-1]
    if last["coins_absent"] is not None:
        return last
    recent = [set(poll["coins_missing"]) for poll in polls[-ABSENT_AFTER_POLLS:]]
    absent = sorted(set.intersection(*recent)) if len(recent) == ABSENT_AFTER_POLLS else []
    age = None if changed_at is None else (last["finished_at"] - changed_at).total_seconds()
    return {**last, "coins_absent": absent, "quote_age_s": age}


def _unrecorded(settings: Settings) -> Mapping[str, Any] | None:
    """The newest poll with its error, if the producer of this home could not record it."""
    path = settings.home / "state" / "producer.json"
    try:
        return ProducerState.from_json(path.read_text(encoding="utf-8")).unrecorded
    except (OSError, ValueError):  # the producer reports a damaged state
        return None


def _newest_polls(settings: Settings, count: int) -> list[dict[str, Any]]:
    """The newest poll messages, oldest first; unreadable ones are left out."""
    ends = reading.end_offsets(settings, settings.polls_topic)
    found: list[dict[str, Any]] = []
    ranges = [OffsetRange(p, max(low, end - count), end) for p, (low, end) in ends.items() if end > low]
    for chunk in reading.read_ranges(settings, settings.polls_topic, ranges):
        found += filter(None, map(_poll, chunk.column("value").to_pylist()))
    return sorted(found, key=lambda p: p["finished_at"])[-count:]


def _landed_polls(settings: Settings, count: int) -> tuple[list[dict[str, Any]], int]:
    """Newest poll messages from landed files, and the newest price's arrival in ms since 1970 (-1 without one)."""
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
    """A poll, or None if the record lacks mandatory fields."""
    poll = read_poll(value)
    return None if any(poll[name] is None for name in _NEEDED) else poll
