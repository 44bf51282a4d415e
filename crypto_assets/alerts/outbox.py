"""Storing alerts in `ops.alerts` and delivering those that wait, by channel, at least once.

Belongs here: which rows are written and which messages are sent next. Does not belong here: which alerts exist
(`alerts`), how a channel sends (`channels`), or where the waiting ones are kept (`sensor`, `market`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from crypto_assets.alerts.alerts import Alert
from crypto_assets.alerts.webhook import ATTEMPTS, Channel, Delivery
from crypto_assets.checks import rules
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.tables import ALERTS
from crypto_assets.storage.store import DeltaStore

if TYPE_CHECKING:
    import pyarrow as pa

MESSAGES_PER_CALL = 20
DELIVERING_AT_MOST_S = 12.0
"""Seconds after which a call starts no further delivery: a tick has two calls and may take 60, and one delivery 16."""
GIVE_UP = timedelta(hours=24)
"""Age from which an unaccepted alert is no longer sent; it stays in the table."""

Place = tuple[str, str]
"""What waits for what: id of the alert, name of the channel."""


@dataclass
class Waiting:
    """An alert that waits for a channel.

    Args:
        since: Since when.
        attempts: Attempts made.
        next_at: Time of the next attempt; None = at once.
        message: Alerts of equal text are sent as one message; empty = sent by itself.
        held_until: End of the quiet hours in which it fired.
    """

    since: datetime
    attempts: int = 0
    next_at: datetime | None = None
    message: str = ""
    held_until: datetime | None = None

    def to_list(self) -> list[Any]:
        """JSON values."""
        return [_iso(self.since), self.attempts, _iso(self.next_at), self.message, _iso(self.held_until)]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> Waiting:
        """Rebuild from `to_list`, also of a version without the last two."""
        since, attempts, next_at, message, held_until = [*values, "", None][:5]
        return cls(datetime.fromisoformat(since), attempts, _time(next_at), message, _time(held_until))


def waiting_to_json(waiting: Mapping[Place, Waiting]) -> dict[str, list[Any]]:
    """JSON of all that waits: `<alert_id> <channel>` to the values."""
    return {" ".join(place): waits.to_list() for place, waits in waiting.items()}


def waiting_from_json(raw: Mapping[str, Sequence[Any]]) -> dict[Place, Waiting]:
    """Rebuild from `waiting_to_json`; a key without channel, as of an earlier version, is the webhook's."""
    return {_place(key): Waiting.from_list(values) for key, values in raw.items()}


def _place(key: str) -> Place:
    alert, _, channel = key.partition(" ")
    return alert, channel or "webhook"


def store_transitions(store: DeltaStore, transitions: Sequence[Alert]) -> int:
    """Insert new alerts; a repeated call inserts nothing and leaves their delivery state."""
    if not transitions:
        return 0
    rows = _arrow([a.row() for a in {a.alert_id: a for a in transitions}.values()])
    return store.merge(ALERTS.full_name, rows, mode="insert_if_absent", audit=rules.audit(ALERTS, [None])).rows


def recount(store: DeltaStore, summaries: Mapping[str, str]) -> int:
    """Update the summaries of stored alerts; return the number of rows changed."""
    rows = _stored(store, list(summaries))
    changed = [{**r, "summary": summaries[r["alert_id"]]} for r in rows if r["summary"] != summaries[r["alert_id"]]]
    _update(store, changed)
    return len(changed)


def deliver_waiting(
    store: DeltaStore, waiting: dict[Place, Waiting], channels: Mapping[str, Channel], source: str, now: datetime
) -> tuple[int, int]:
    """Deliver what is due on each channel, oldest first, until one message is not accepted.

    Order is kept, so a receiver never sees a recovery before its alert, and a channel that does not answer delays no
    other beyond this call. `waiting` is changed in place.

    Args:
        store: Store that holds `ops.alerts`.
        waiting: What waits.
        channels: Configured channels by name.
        source: Data mode of the home.
        now: Present time (UTC).

    Returns:
        Numbers of alerts delivered and given up, counted by channel.
    """
    given_up = [place for place, w in waiting.items() if now - w.since > GIVE_UP + _held(w)]
    for place in given_up:
        del waiting[place]
    due = {name: places for name in channels if (places := _due(waiting, name, now))}
    if not due:
        return 0, len(given_up)
    rows = {r["alert_id"]: r for r in _stored(store, sorted({alert for places in due.values() for alert, _ in places}))}
    for place in [p for places in due.values() for p in places if rows.get(p[0], {}).get("delivered_at")]:
        del waiting[place]  # accepted by a call that ended before it could note so
    changed: dict[str, dict[str, Any]] = {}
    before = len(waiting)
    end = time.monotonic() + DELIVERING_AT_MOST_S
    for name, places in due.items():
        for members in _messages(waiting, places, rows)[:MESSAGES_PER_CALL]:
            if time.monotonic() > end:
                break
            sent = [rows[alert] for alert, _ in members]
            done = channels[name].send(sent, key=_message_key(sent), source=source)
            for place in members:
                changed[place[0]] = _noted(waiting, place, rows[place[0]], done, now)
            if not done.accepted:
                break
    _update(store, list(changed.values()))
    return before - len(waiting), len(given_up)


def _noted(
    waiting: dict[Place, Waiting], place: Place, row: dict[str, Any], done: Delivery, now: datetime
) -> dict[str, Any]:
    """The row of an alert after a delivery; what no longer waits is removed."""
    waits = waiting[place]
    waits.attempts += done.attempts
    row["attempts"] += done.attempts
    if not done.accepted:
        waits.next_at = now + timedelta(seconds=min(10 * 2 ** min(waits.attempts // ATTEMPTS, 6), 600))
        return row
    del waiting[place]
    if not any(alert == place[0] for alert, _ in waiting):
        row["delivered_at"] = now
    return row


def _message_key(rows: Sequence[Mapping[str, Any]]) -> str:
    """Identity of a message: that of its alert, or a hash of those of its alerts. Equal contents have an equal key."""
    ids = [row["alert_id"] for row in rows]
    return ids[0] if len(ids) == 1 else hashlib.sha256(" ".join(ids).encode()).hexdigest()[:32]


def _held(waits: Waiting) -> timedelta:
    """How long an alert was kept back on purpose, which is not counted as waiting."""
    return waits.held_until - waits.since if waits.held_until else timedelta(0)


def _due(waiting: Mapping[Place, Waiting], channel: str, now: datetime) -> list[Place]:
    """What a channel may send now; nothing while it pauses after a failure."""
    mine = {p: w for p, w in waiting.items() if p[1] == channel and not (w.held_until and w.held_until > now)}
    paused = any(w.next_at is not None and w.next_at > now for w in mine.values())
    return [] if paused else list(mine)


def _messages(
    waiting: Mapping[Place, Waiting], places: Sequence[Place], rows: Mapping[str, Mapping[str, Any]]
) -> list[list[Place]]:
    """What each message holds, in order of its oldest alert; alerts that are in no table any more are left out."""

    def moment(place: Place) -> tuple[Any, ...]:
        return (rows[place[0]]["at"], rows[place[0]]["state"], place)

    messages: dict[str, list[Place]] = {}
    for place in sorted((p for p in places if p in waiting and p[0] in rows), key=moment):
        messages.setdefault(waiting[place].message or place[0], []).append(place)
    return list(messages.values())


def _stored(store: DeltaStore, ids: Sequence[str]) -> list[dict[str, Any]]:
    if not ids:
        return []
    listed = ", ".join(f"'{i}'" for i in ids)
    return store.read_arrow("ops.alerts", where=f"alert_id IN ({listed})").to_pylist()


def _update(store: DeltaStore, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        store.merge(ALERTS.full_name, _arrow(rows), mode="upsert", audit=rules.audit(ALERTS, [None]))


def _arrow(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist([dict(r) for r in rows], schema=arrow_schema(ALERTS))


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
