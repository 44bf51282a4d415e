"""Alert routing: turns observations and prior state into transitions. Pure.

Belongs here: when a red check, a failed run, a missing tick or a rule on market data becomes an alert, what is only its
consequence, and when it is over. Does not belong here: reading Dagster's events (`event_store`), which rows satisfy a
rule (`conditions`), storing and delivering (`outbox`), or the clock.

One alert per cause. A red subject is a *consequence* of an open alert when it lies downstream of it, is not more
severe, concerns overlapping partitions and turned red within `EXPLAINS_FOR` of it. A consequence is counted in the
cause's summary; it becomes a separate alert when it is still red after the cause has recovered.

A check that reports several rules is raised again, under its cause, when it fails rules that it did not fail before:
they may have another reason. One recovery ends all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import TypeAdapter

from crypto_assets.checks.rules import CONTRACT, parts
from crypto_assets.contracts.slices import DAY, HOUR, Slice, key_slice
from crypto_assets.contracts.tables import TABLES
from crypto_assets.market import polls
from crypto_assets.orchestration.evaluations import Evaluation, Severity

Ancestors = Callable[[str], frozenset[str]]
"""All upstream asset keys (`schema/name`) of an asset, the asset itself excluded."""

WARN_ALERTS = frozenset({*polls.CHECKS, "quarantine_below_1pct"})
"""Checks that alert at severity warn; every other warning stays in the UI."""

CAUSES_ELSEWHERE: Mapping[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("kafka/crypto_polls", "polls_recorded"): (("kafka/crypto_prices_raw", "delivered"),),
}
"""Causes beyond the asset graph: (asset, check) and what explains it."""

EXPLAINS_ITS_ASSET = frozenset({"enough_data"})
"""Checks that explain every other red check of their asset: without data the others are not evaluated."""

EXPLAINS_FOR = timedelta(hours=2)
"""How long an alert may explain downstream reds; beyond, an unrepaired cause would hide every new problem."""

LOOK_BACK = timedelta(hours=28)
"""Furthest look-back of a partition (features 26 h, bars_1d its day); a cause in an older hour explains nothing."""

GRACE = timedelta(minutes=10)
"""Grace after a cause's recovery, after which a consequence not evaluated again becomes an alert itself."""

OWN_ASSET = "ops/alerts"
EVERYTHING = "*"


@dataclass(frozen=True)
class RunOutcome:
    """A finished run of a job.

    Args:
        job: Job name.
        run_id: Run.
        succeeded: Whether it succeeded; canceled runs are not reported.
        at: End time (UTC).
        description: Reason of the failure.
        assets: Assets of the steps that failed; empty when the run was lost as a whole.
    """

    job: str
    run_id: str
    succeeded: bool
    at: datetime
    description: str = ""
    assets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Condition:
    """A named condition in its present state.

    Args:
        name: Name; becomes the cause.
        firing: Whether it holds.
        at: Time when it began to hold, or ended (UTC).
        summary: What is wrong and what to do, or what recovered.
        severity: Severity of its alert.
        explains: Whether it is one of the whole pipeline, of which every red check is a consequence.
    """

    name: str
    firing: bool
    at: datetime
    summary: str
    severity: Severity = "error"
    explains: bool = True


@dataclass(frozen=True)
class Hit:
    """A market rule that begins or ceases to hold for a coin.

    Args:
        rule: Name of the rule.
        coin: Coin; None if the rule is about no single coin.
        asset: Asset of the rule's table.
        firing: Whether it holds.
        at: End of the slot (UTC).
        summary: What the slot's row shows.
        severity: Severity of its alert.
        value: The rule's `value` in the slot.
    """

    rule: str
    coin: str | None
    asset: str
    firing: bool
    at: datetime
    summary: str
    severity: Severity = "warn"
    value: float | None = None

    @property
    def subject(self) -> Subject:
        """Subject of the alert."""
        return Subject("market", self.rule, self.asset, coin=self.coin)


@dataclass(frozen=True)
class Subject:
    """A subject that can be red: (asset, check, partition), a job, a condition, or (rule, coin) of the market."""

    kind: Literal["condition", "check", "run", "market"]
    name: str
    asset: str | None = None
    partition: str | None = None
    coin: str | None = None

    @property
    def cause(self) -> str:
        """The cause as shown to people."""
        if self.kind == "check":
            return f"{self.asset} {self.name}"
        if self.kind == "market" and self.coin:
            return f"{self.name} {self.coin}"
        return f"run of {self.name}" if self.kind == "run" else self.name

    def to_text(self) -> str:
        """Key of the stored state."""
        return json.dumps([self.kind, self.name, self.asset, self.partition, self.coin])

    @classmethod
    def from_text(cls, text: str) -> Subject:
        """Rebuild from `to_text`."""
        return cls(*json.loads(text))


@dataclass
class Red:
    """A red subject with the alert it belongs to; None until it is judged (again)."""

    severity: Severity
    since: datetime
    last: datetime
    description: str
    assets: tuple[str, ...]
    alert: str | None = None
    consequence: bool = False
    freed_at: datetime | None = None
    value: float | None = None
    rules: tuple[str, ...] = ()


_RED = TypeAdapter(Red)


@dataclass
class Open:
    """An alert that is firing, since `since`.

    `at` is when it was last raised, and `base` its summary without the count of consequences.
    """

    subject: Subject
    severity: Severity
    at: datetime
    base: str
    since: datetime


_OPEN = TypeAdapter(Open)


@dataclass(frozen=True)
class Alert:
    """One transition; a row of `ops.alerts` before delivery."""

    alert_id: str
    cause: str
    state: Literal["firing", "resolved"]
    severity: Severity
    asset: str | None
    check_name: str | None
    partition_key: str | None
    summary: str
    at: datetime
    rule: str | None = None
    coin_id: str | None = None
    value: float | None = None

    def row(self) -> dict[str, Any]:
        """The row as first stored, not delivered yet."""
        return {**asdict(self), "delivered_at": None, "attempts": 0}


@dataclass
class State:
    """Router state kept between calls; JSON by `to_json`."""

    reds: dict[Subject, Red] = field(default_factory=dict)
    open: dict[str, Open] = field(default_factory=dict)
    partitioned: set[tuple[str, str]] = field(default_factory=set)

    def firing(self, condition: str) -> bool:
        """Whether a condition's alert is open."""
        return Subject("condition", condition) in self.reds

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "reds": [[s.to_text(), _RED.dump_python(red, mode="json")] for s, red in self.reds.items()],
            "open": [
                [key, _OPEN.dump_python(o, mode="json", exclude={"subject"}) | {"subject": o.subject.to_text()}]
                for key, o in self.open.items()
            ],
            "partitioned": sorted(map(list, self.partitioned)),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> State:
        """Rebuild from `to_json`; an empty mapping is the first state."""
        reds = {Subject.from_text(key): _RED.validate_python(value) for key, value in raw.get("reds", [])}
        opened = {
            key: _OPEN.validate_python({"since": o["at"], **o, "subject": Subject.from_text(o["subject"])})
            for key, o in raw.get("open", [])
        }
        return cls(reds, opened, {(a, c) for a, c in raw.get("partitioned", [])})


@dataclass
class Routed:
    """Transitions in order, and alerts already stored whose summary now counts more consequences (id to summary)."""

    transitions: list[Alert] = field(default_factory=list)
    recounted: dict[str, str] = field(default_factory=dict)


def route(
    state: State,
    *,
    evaluations: Sequence[Evaluation] = (),
    runs: Sequence[RunOutcome] = (),
    conditions: Sequence[Condition] = (),
    hits: Sequence[Hit] = (),
    ancestors: Ancestors,
    now: datetime,
) -> Routed:
    """Apply observations to the state; return the alerts that fire and that resolve.

    Only a subject's final state within one call counts: red and green again within it is no transition. The same
    observations give the same alert ids, so that storing them twice stores them once.

    Args:
        state: Changed in place.
        evaluations: Check evaluations since the last call, oldest first. An evaluation without partition is ignored
            if per-partition ones of the same (asset, check) exist, unless it ends its own red.
        runs: Finished runs since the last call, oldest first.
        conditions: Present named conditions.
        hits: Market rules that begin or cease to hold, in one slot.
        ancestors: Upstream of an asset.
        now: Present time (UTC), for the grace of consequences.
    """
    router = _Router(state, ancestors, now)
    state.partitioned |= {(e.asset, e.check) for e in evaluations if e.partition is not None}
    for condition in conditions:
        router.observe_condition(condition)
    for evaluation in evaluations:
        router.observe_evaluation(evaluation)
    for run in runs:
        router.observe_run(run)
    for hit in hits:
        router.observe_hit(hit)
    router.resolve()
    router.raise_again()
    router.fire()
    router.recount()
    return router.routed


class _Router:
    """State of one call of `route`."""

    def __init__(self, state: State, ancestors: Ancestors, now: datetime) -> None:
        self.state, self.ancestors, self.now = state, ancestors, now
        self.routed = Routed()
        self.counted = {key: self._consequences(key) for key in state.open}
        self.recovered: dict[str, tuple[datetime, str]] = {}
        self.failed_before: dict[Subject, tuple[str, ...]] = {}

    # --- observing ---

    def observe_evaluation(self, e: Evaluation) -> None:
        if e.asset == OWN_ASSET:
            return
        subject = Subject("check", e.check, e.asset, e.partition)
        if e.check == CONTRACT:  # before there was one, each of its rules had a check and alerts
            table = TABLES.get(e.asset.replace("/", "."))
            for old in parts(table) if table is not None else ():
                self._green(Subject("check", old, e.asset, e.partition), e.at, f"now part of the check {CONTRACT}")
        alerts = e.severity == "error" or e.check in WARN_ALERTS
        if e.passed or not alerts:
            self._green(subject, e.at, e.description)
        elif e.partition is not None or (e.asset, e.check) not in self.state.partitioned:
            self._red(subject, e.severity, e.at, e.description, (e.asset,), rules=e.rules)

    def observe_run(self, run: RunOutcome) -> None:
        subject = Subject("run", run.job)
        if run.succeeded:
            self._green(subject, run.at, f"run {run.run_id[:8]} succeeded")
        else:
            self._red(subject, "error", run.at, f"run {run.run_id[:8]} failed: {run.description}", run.assets)

    def observe_condition(self, condition: Condition) -> None:
        subject = Subject("condition", condition.name)
        if condition.firing:
            assets = (EVERYTHING,) if condition.explains else ()
            self._red(subject, condition.severity, condition.at, condition.summary, assets)
        else:
            self._green(subject, condition.at, condition.summary)

    def observe_hit(self, hit: Hit) -> None:
        if hit.firing:
            self._red(hit.subject, hit.severity, hit.at, hit.summary, (), hit.value)
        else:
            self._green(hit.subject, hit.at, hit.summary)

    def _red(
        self,
        subject: Subject,
        severity: Severity,
        at: datetime,
        description: str,
        assets: tuple[str, ...],
        value: float | None = None,
        rules: tuple[str, ...] = (),
    ) -> None:
        known = self.state.reds.get(subject)
        if known is None:
            self.state.reds[subject] = Red(severity, at, at, description, assets, value=value, rules=rules)
            return
        self.failed_before.setdefault(subject, known.rules)
        known.severity, known.last, known.description, known.assets = severity, at, description, assets
        known.rules = rules

    def _green(self, subject: Subject, at: datetime, description: str) -> None:
        known = self.state.reds.pop(subject, None)
        if known is not None and known.alert is not None and not known.consequence:
            self.recovered[known.alert] = (at, description)

    # --- deciding ---

    def resolve(self) -> None:
        for key, (at, description) in self.recovered.items():
            if any(r.alert == key and not r.consequence for r in self.state.reds.values()):
                continue
            alert = self.state.open.pop(key)
            consequences = [r for r in self.state.reds.values() if r.alert == key]
            for red in consequences:
                red.alert, red.consequence, red.freed_at = None, False, at
            text = f"recovered after {_span(at - alert.since)}" + (f": {description}" if description else "")
            if consequences:
                text += f" ({_many(len(consequences))} not green yet)"
            self.routed.transitions.append(_alert(alert.subject, "resolved", alert.severity, at, text))

    def raise_again(self) -> None:
        """Replace open alerts whose check fails further rules by new ones of the same cause."""
        further: dict[str, list[tuple[Subject, Red]]] = {}
        names: dict[str, set[str]] = {}
        for subject, before in self.failed_before.items():
            red = self.state.reds.get(subject)
            if red is None or red.alert is None or red.consequence or not before:
                continue
            if new := set(red.rules) - set(before):
                further.setdefault(red.alert, []).append((subject, red))
                names.setdefault(red.alert, set()).update(new)
        for key, group in further.items():
            old = self.state.open.pop(key)
            at = max(red.last for _, red in group)
            base = f"fails further rules ({', '.join(sorted(names[key]))}): {_base_summary(group)}"
            alert = _alert(old.subject, "firing", group[0][1].severity, at, "")
            self.state.open[alert.alert_id] = Open(old.subject, alert.severity, at, base, old.since)
            for red in self.state.reds.values():
                if red.alert == key:
                    red.alert = alert.alert_id
            self.routed.transitions.append(replace(alert, summary=self._summary(alert.alert_id)))
            self.counted[alert.alert_id] = self._consequences(alert.alert_id)

    def fire(self) -> None:
        fired: dict[str, list[tuple[Subject, Red]]] = {}
        for subject, red in sorted(self._candidates(), key=self._rank):
            cause = self._cause_of(subject, red)
            if cause is not None:
                red.alert, red.consequence, red.freed_at = cause, True, None
                continue
            group = fired.setdefault(subject.cause, [])
            if not group:
                at = max(red.last, red.freed_at) if red.freed_at else red.last  # freed: its cause has recovered
                alert = _alert(subject, "firing", red.severity, at, "")
                self.state.open[alert.alert_id] = Open(subject, red.severity, alert.at, "", alert.at)
                red.alert = alert.alert_id
            else:
                red.alert = group[0][1].alert
            group.append((subject, red))
        for group in fired.values():
            key = group[0][1].alert
            assert key is not None
            opened = self.state.open[key]
            opened.base = _base_summary(group)
            for _, red in group:
                red.freed_at = None
            alert = _alert(opened.subject, "firing", opened.severity, opened.at, self._summary(key), group[0][1].value)
            self.routed.transitions.append(alert)
            self.counted[key] = self._consequences(key)

    def recount(self) -> None:
        for key in self.state.open:
            if self._consequences(key) > self.counted.get(key, 0):
                self.routed.recounted[key] = self._summary(key)

    def _candidates(self) -> Iterable[tuple[Subject, Red]]:
        for subject, red in self.state.reds.items():
            if red.alert is not None:
                continue
            if red.freed_at is not None and red.last <= red.freed_at and self.now - red.freed_at < GRACE:
                continue
            yield subject, red

    def _rank(self, item: tuple[Subject, Red]) -> tuple[Any, ...]:
        """Sort key with causes first: conditions, then checks and runs by depth in the graph, checks before runs."""
        subject, red = item
        depth = min((len(self.ancestors(a)) for a in red.assets if a != EVERYTHING), default=0)
        order = {"condition": 0, "check": 1, "run": 2, "market": 3}[subject.kind]
        explained_last = (subject.asset or "", subject.name) in CAUSES_ELSEWHERE
        place = explained_last - (subject.name in EXPLAINS_ITS_ASSET)
        return (order > 0, depth, order, place, subject.name, subject.partition or "", red.since)

    def _cause_of(self, subject: Subject, red: Red) -> str | None:
        named = CAUSES_ELSEWHERE.get((subject.asset or "", subject.name), ())
        for other, its in self.state.reds.items():
            if other == subject or its.alert is None or its.consequence:
                continue
            opened = self.state.open[its.alert]
            if opened.severity == "warn" and red.severity == "error":
                continue
            if red.since - opened.at > EXPLAINS_FOR or not _overlap(other.partition, subject.partition):
                continue
            if (other.asset or "", other.name) in named or self._upstream(other, its, subject, red):
                return its.alert
        return None

    def _upstream(self, cause: Subject, its: Red, subject: Subject, red: Red) -> bool:
        if subject.kind == "condition":
            return False
        if EVERYTHING in its.assets:
            return subject.kind == "check"
        for asset in red.assets:
            above = self.ancestors(asset)
            # A failed run and a red check of the same asset share one cause.
            same = asset in its.assets and (cause.kind != subject.kind or cause.name in EXPLAINS_ITS_ASSET)
            if same or any(a in above for a in its.assets):
                return True
        return False

    def _consequences(self, key: str) -> int:
        return sum(1 for r in self.state.reds.values() if r.alert == key and r.consequence)

    def _summary(self, key: str) -> str:
        names = sorted({s.cause for s, r in self.state.reds.items() if r.alert == key and r.consequence})
        if not names:
            return self.state.open[key].base
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return f"{self.state.open[key].base} [{_many(self._consequences(key))}: {shown}]"


def _alert(
    subject: Subject,
    state: Literal["firing", "resolved"],
    severity: Severity,
    at: datetime,
    summary: str,
    value: float | None = None,
) -> Alert:
    market = subject.kind == "market"
    # A rule changes at most once in a slot, so that its slot identifies the transition.
    identity = [subject.name, subject.coin, at] if market else [subject.cause, subject.partition, state, at]
    key = json.dumps([part.isoformat() if isinstance(part, datetime) else part for part in identity])
    return Alert(
        alert_id=hashlib.sha256(key.encode()).hexdigest()[:32],
        cause=subject.cause,
        state=state,
        severity=severity,
        asset=subject.asset,
        check_name=subject.name if subject.kind == "check" else None,
        partition_key=subject.partition,
        summary=summary,
        at=at,
        rule=subject.name if market else None,
        coin_id=subject.coin,
        value=value,
    )


def _base_summary(group: Sequence[tuple[Subject, Red]]) -> str:
    subject, red = group[0]
    text = red.description or f"{subject.cause} is red"
    if red.freed_at is not None:
        text = f"still red after its cause recovered: {text}"
    if len(group) > 1:
        last = max(s.partition or "" for s, _ in group)
        text += f" (and {len(group) - 1} more partitions up to {last})"
    return text


def _overlap(cause: str | None, consequence: str | None) -> bool:
    """Whether one red partition may have been read for another; no partition means the present, which may."""
    if cause is None or consequence is None:
        return True
    a, b = _slice(cause), _slice(consequence)
    if a is None or b is None:
        return cause == consequence
    return a.start < b.end and b.start - LOOK_BACK < a.end


def _slice(key: str) -> Slice | None:
    for grain in ("hour", "day"):
        try:
            return key_slice(key, grain)
        except ValueError:
            continue
    return None


def _many(consequences: int) -> str:
    return f"{consequences} consequence{'' if consequences == 1 else 's'}"


def _span(duration: timedelta) -> str:
    """Format a duration for people."""
    duration = max(duration, timedelta(0))
    if duration < timedelta(minutes=2):
        return f"{duration.total_seconds():.0f} s"
    if duration < 2 * HOUR:
        return f"{duration / timedelta(minutes=1):.0f} min"
    return f"{duration / HOUR:.1f} h" if duration < 2 * DAY else f"{duration / DAY:.1f} days"
