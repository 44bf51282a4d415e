"""When market rules fire: their rows, slot by slot, turned into transitions of the alert router. Pure.

The one implementation for back-tests and live evaluation. What a rule and coin have come to is a `Track`; whether their
alert is open is the router's own state. A slot is judged once: what comes later for the same or an earlier slot (a
restatement, a late row) changes nothing.

Does not belong here: which rows satisfy a rule (`conditions`), how an alert is worded and identified (`alerts`), what
is sent (`outbox`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from crypto_assets.alerts import conditions
from crypto_assets.alerts.alerts import Alert, Hit, State, Subject, route
from crypto_assets.alerts.conditions import Seen
from crypto_assets.alerts.rules import Rule

if TYPE_CHECKING:
    import pyarrow as pa

Key = tuple[str, str]
"""Rule and coin; the coin is empty for a rule about all coins."""

ABANDONED = timedelta(days=1)
"""How far a coin's newest row lies behind the newest of its rule when its alert ends: it is no longer polled."""


@dataclass
class Track:
    """What a rule and a coin have come to.

    Args:
        last: Newest slot judged (UTC).
        since: First slot of the uninterrupted run in which the rule holds; None while it does not.
        fired: Slot of the newest alert.
    """

    last: datetime
    since: datetime | None = None
    fired: datetime | None = None

    def to_list(self) -> list[str | None]:
        """JSON values."""
        return [moment.isoformat() if moment else None for moment in (self.last, self.since, self.fired)]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> Track:
        """Rebuild from `to_list`."""
        last, since, fired = (datetime.fromisoformat(text) if text else None for text in values)
        assert last is not None
        return cls(last, since, fired)


def judge(
    rules: Iterable[Rule],
    rows: Mapping[str, pa.Table],
    tracks: dict[Key, Track],
    state: State,
    after: Mapping[str, datetime] | None = None,
) -> list[Alert]:
    """Judge rows; return the alerts that fire and that resolve, in order of their slots.

    Rows may overlap with those of earlier calls. The transitions are the same however the rows are spread over calls,
    as long as each coin's rows come in order.

    Args:
        rules: Vetted rules.
        rows: Rows by table.
        tracks: Changed in place.
        state: The router's state; changed in place.
        after: Slots by rule: only later ones are judged.
    """
    begins = after or {}
    seen = [
        (row, rule)
        for rule in rules
        if rule.table in rows
        for row in conditions.evaluate(rule, rows[rule.table])
        if rule.name not in begins or row.slot > begins[rule.name]
    ]
    seen.sort(key=lambda item: (item[0].slot, item[1].name, item[0].coin))
    found: list[Alert] = []
    for slot, group in groupby(seen, key=lambda item: item[0].slot):
        hits = [hit for row, rule in group if (hit := _step(rule, row, tracks, state)) is not None]
        if hits:
            found += route(state, hits=hits, ancestors=_no_ancestors, now=slot).transitions
    return found


def ended(rules: Sequence[Rule], tracks: Mapping[Key, Track], state: State, now: datetime) -> list[Alert]:
    """Resolve alerts of rules that are not among `rules`, and of coins without rows.

    Args:
        rules: Rules in force.
        tracks: What they have come to.
        state: The router's state; changed in place.
        now: Present time (UTC): when the alerts of other rules end.
    """
    names = {rule.name for rule in rules}
    newest: dict[str, datetime] = {}
    for (name, _), track in tracks.items():
        newest[name] = max(track.last, newest.get(name, track.last))
    found: list[Alert] = []
    for subject in [s for s in state.reds if s.kind == "market"]:
        hit = None
        if subject.name not in names:
            # Slots of a virtual home may lie ahead of the clock; an alert never ends before it fired.
            after = state.reds[subject].last + timedelta(microseconds=1)
            hit = _over(subject, max(now, after), "the rule is not in force any more")
        elif (track := tracks.get((subject.name, subject.coin or ""))) is not None:
            last = newest[subject.name]
            if last - track.last > ABANDONED:
                hit = _over(subject, last, f"no rows since {track.last:%Y-%m-%d %H:%M} UTC")
        if hit is not None:
            found += route(state, hits=[hit], ancestors=_no_ancestors, now=hit.at).transitions
    return found


def _over(subject: Subject, at: datetime, summary: str) -> Hit:
    return Hit(subject.name, subject.coin, subject.asset or "", False, at, summary)


def _step(rule: Rule, row: Seen, tracks: dict[Key, Track], state: State) -> Hit | None:
    """Judge one row of one rule; return what changes."""
    key = (rule.name, row.coin)
    track = tracks.get(key)
    if track is None:
        track = tracks[key] = Track(row.slot)
        before = None
    elif row.slot <= track.last:
        return None
    else:
        before = max(track.last, row.before) if row.before else track.last
        track.last = row.slot
    hole = before is None or row.slot - before > row.step
    is_open = Subject("market", rule.name, rule.asset, coin=row.coin or None) in state.reds
    if not row.hit:
        track.since = None
        return _hit(rule, row, firing=False) if is_open else None
    if hole or track.since is None:
        track.since = row.slot  # nothing is known of the slots between
    due = row.slot - track.since >= rule.for_
    cooled = track.fired is None or row.slot - track.fired >= rule.cooldown
    if is_open or not due or not cooled:
        return None
    track.fired = row.slot
    return _hit(rule, row, firing=True)


def _hit(rule: Rule, row: Seen, *, firing: bool) -> Hit:
    shown = ", ".join(f"{name} = {text}" for name, text in row.shown.items())
    summary = f"{rule.description} ({shown})" if firing and shown else rule.description if firing else shown
    value = row.value if firing else None
    return Hit(rule.name, row.coin or None, rule.asset, firing, row.slot, summary, rule.severity, value)


def _no_ancestors(_: str) -> frozenset[str]:
    return frozenset()
