"""Market alerts of a home: rules in force, their durable state, one evaluation of new rows, and a follower of commits.

Whoever evaluates (the service that follows commits, the alert sensor beside it) holds the home's lock meanwhile and
goes on where the state file says, so that a slot is judged once. Alerts are stored before the state is: a process that
dies in between leaves work that the next one repeats with the same ids. Sending happens outside that lock.

Does not belong here: when a rule fires (`judgement`), what is sent and how (`outbox`, `channels`), the clock.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from crypto_assets.alerts import conditions, judgement
from crypto_assets.alerts.alerts import Alert, State
from crypto_assets.alerts.channels import channels
from crypto_assets.alerts.judgement import Key, Track
from crypto_assets.alerts.outbox import (
    Place,
    Waiting,
    deliver_waiting,
    store_transitions,
    waiting_from_json,
    waiting_to_json,
)
from crypto_assets.alerts.rules import DEFAULTS, Rule, RulesError, load
from crypto_assets.contracts.slices import DAY, HOUR
from crypto_assets.contracts.tables import TABLES
from crypto_assets.files import LockHeld, file_lock, read_object, read_text, write_atomic

if TYPE_CHECKING:
    import threading

    import pyarrow as pa

    from crypto_assets.settings import Settings
    from crypto_assets.storage.store import DeltaStore

LATE = HOUR
"""Age from which a slot is no news: its alert is stored and not sent."""
LOOK_EVERY_S = 0.25
RETRY_EVERY = timedelta(seconds=5)
"""How often a follower tries what failed, and deliveries that wait, without a new commit."""
LOCK_S = 10.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tested:
    """Newest back-test of a rule.

    Args:
        content_hash: Hash of the rule as tested.
        coin: Coin with the most alerts per day.
        per_day: Its alerts per day.
        days: Its days with rows.
        fires: Alerts of all coins.
        at: When it was tested (UTC), ISO 8601.
    """

    content_hash: str
    coin: str
    per_day: float
    days: int
    fires: int
    at: str


@dataclass(frozen=True)
class Enabled:
    """A rule that a person has enabled: the hash of its text, and the newest slot of its table then (ISO 8601)."""

    content_hash: str
    since: str | None


@dataclass
class MarketState:
    """What the home keeps of market alerts."""

    tested: dict[str, Tested] = field(default_factory=dict)
    enabled: dict[str, Enabled] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    tracks: dict[Key, Track] = field(default_factory=dict)
    router: State = field(default_factory=State)
    waiting: dict[Place, Waiting] = field(default_factory=dict)

    def to_text(self) -> str:
        """JSON."""
        return json.dumps(
            {
                "tested": {name: asdict(tested) for name, tested in self.tested.items()},
                "enabled": {name: asdict(enabled) for name, enabled in self.enabled.items()},
                "versions": self.versions,
                "tracks": [[*key, *track.to_list()] for key, track in self.tracks.items()],
                "router": self.router.to_json(),
                "waiting": waiting_to_json(self.waiting),
            },
            indent=1,
        )

    @classmethod
    def read(cls, path: Path) -> MarketState:
        """The state in a file; empty if there is none.

        Raises:
            RulesError: The file is damaged.
        """
        if not path.exists():
            return cls()
        try:
            raw = read_object(path)
            return cls(
                {name: Tested(**tested) for name, tested in raw["tested"].items()},
                {name: Enabled(**enabled) for name, enabled in raw["enabled"].items()},
                dict(raw["versions"]),
                {(rule, coin): Track.from_list(values) for rule, coin, *values in raw["tracks"]},
                State.from_json(raw["router"]),
                waiting_from_json(raw["waiting"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RulesError(
                f"{path} is damaged ({type(error).__name__}); delete it, then back-test and enable the rules again"
            ) from error


@dataclass(frozen=True)
class Ticked:
    """What a tick did: alerts that fired and resolved, deliveries made and given up, and what waits."""

    fired: int = 0
    resolved: int = 0
    delivered: int = 0
    given_up: int = 0
    waiting: int = 0


def state_file(settings: Settings) -> Path:
    """The file that a home keeps its `MarketState` in."""
    return settings.home / "state" / "market_alerts.json"


def all_rules(settings: Settings) -> list[Rule]:
    """Rules of the product and of the person's file, which replaces those of the same name.

    Raises:
        RulesError: The file cannot be used; lists every problem with line and fix.
        UnreadableFile: It is not UTF-8 text.
    """
    rules = {rule.name: rule for rule in load(read_text(DEFAULTS), DEFAULTS.name, conditions.vet)}
    path = settings.alert_rules_file
    if path.exists():
        rules |= {rule.name: rule for rule in load(read_text(path), str(path), conditions.vet)}
    elif settings.alert_rules is not None:
        raise RulesError(f"there is no rules file at {path}: write it, or unset CRYPTO_ASSETS_ALERT_RULES")
    return list(rules.values())


class MarketAlerts:
    """Market alerts of one home.

    Args:
        settings: Settings in force.
        store: Store with the tables that rules read and `ops.alerts`.
    """

    def __init__(self, settings: Settings, store: DeltaStore) -> None:
        self.settings, self.store = settings, store
        self.channels = channels(settings)
        self.path = state_file(settings)
        self._lock, self._sending = self.path.with_suffix(".lock"), self.path.with_suffix(".sending.lock")
        self._rules: list[Rule] = []
        self._rules_of: object = None

    # --- rules and state --------------------------------------------------------------------------------------------

    def rules(self) -> list[Rule]:
        """All rules, read again when the file has changed.

        Raises:
            RulesError: The file cannot be used.
        """
        path = self.settings.alert_rules_file
        facts = path.stat() if path.exists() else None
        identity = (facts.st_mtime_ns, facts.st_size) if facts else None
        if self._rules_of != (identity,):
            self._rules = all_rules(self.settings)
            self._rules_of = (identity,)
        return self._rules

    def state(self) -> MarketState:
        """The state as it is; to be read, not changed."""
        return MarketState.read(self.path)

    @contextmanager
    def changing(self) -> Iterator[MarketState]:
        """The state, to be changed within the context and saved at its end.

        Raises:
            LockHeld: Another process holds it for longer than `LOCK_S`.
        """
        with file_lock(self._lock, timeout_s=LOCK_S):
            state = MarketState.read(self.path)
            before = state.to_text()
            yield state
            if (text := state.to_text()) != before:
                write_atomic(self.path, text)

    def in_force(self, state: MarketState) -> list[Rule]:
        """Rules that are enabled in their present text."""
        return [
            rule
            for rule in self.rules()
            if rule.enabled and (on := state.enabled.get(rule.name)) and on.content_hash == rule.content_hash
        ]

    def newest_slot(self, table: str) -> datetime | None:
        """Newest slot of a table that is final; None without any."""
        import pyarrow.compute as pc

        row_set = conditions.ROW_SETS[table]
        rows = self.store.read_arrow(table, columns=[row_set.slot], where=row_set.final)
        return pc.max(rows.column(0)).as_py()  # type: ignore[attr-defined]

    # --- evaluating -------------------------------------------------------------------------------------------------

    def evaluate(self, now: datetime) -> list[Alert]:
        """Judge new rows of all rules in force; store what fires and resolves, and note what is to be sent.

        Args:
            now: Present time (UTC).

        Raises:
            RulesError: Rules or state cannot be used.
            LockHeld: Another process evaluates.
        """
        if not self.path.exists():
            return []
        with self.changing() as state:
            rules = self.in_force(state)
            found = judgement.ended(rules, state.tracks, state.router, now)
            newest: dict[str, datetime] = {}
            for table in sorted({rule.table for rule in rules}):
                version = self.store.version(table)
                if version is None or version == state.versions.get(table):
                    continue
                mine = [rule for rule in rules if rule.table == table]
                after = {rule.name: begin for rule in mine if (begin := _begin(rule, state))}
                rows = self._rows(table, mine, after)
                found += judgement.judge(mine, {table: rows}, state.tracks, state.router, after)
                judged = [track.last for (name, _), track in state.tracks.items() if name in {r.name for r in mine}]
                newest[table] = max(judged, default=now)
                state.versions[table] = version
            found += judgement.ended(rules, state.tracks, state.router, now)
            store_transitions(self.store, found)
            self._enqueue(found, rules, state, newest, now)
        return found

    def _rows(self, table: str, rules: Sequence[Rule], after: Mapping[str, datetime]) -> pa.Table:
        """Rows of slots that some rule has still to judge."""
        contract, where = TABLES[table], None
        if len(after) == len(rules):
            first = min(after.values())
            where = f"{conditions.ROW_SETS[table].slot} > '{first.isoformat()}'"
            if "day" in contract.partition_by:  # finds the files
                where += f" AND day >= '{first - DAY:%Y-%m-%d}'"
            elif contract.time_column:
                where += f" AND {contract.time_column} >= '{(first - DAY).isoformat()}'"
        columns = dict.fromkeys(name for rule in rules for name in conditions.columns(rule))
        return self.store.read_arrow(table, columns=list(columns), where=where)

    def _enqueue(
        self,
        alerts: Iterable[Alert],
        rules: Iterable[Rule],
        state: MarketState,
        newest: Mapping[str, datetime],
        now: datetime,
    ) -> None:
        """Note what is to be sent where; not what is old, and of the end of events nothing."""
        by_name = {rule.name: rule for rule in rules}
        for alert in alerts:
            rule = by_name.get(alert.rule or "")
            if rule is None or (alert.state == "resolved" and not rule.for_):
                continue
            # The time of replayed and simulated prices is that of their newest row.
            clock = now if self.settings.is_live else newest.get(rule.table, alert.at)
            if clock - alert.at > LATE:
                continue
            held = rule.quiet_hours.until(now) if rule.quiet_hours else None
            together = f"{rule.group} {alert.at.isoformat()} {alert.state}" if rule.group else ""
            if held and rule.digest:
                together = f"digest {held.isoformat()}"
            for name in rule.channels:
                waits = Waiting(now, message=together, held_until=held)
                state.waiting.setdefault((alert.alert_id, name), waits)

    # --- sending ----------------------------------------------------------------------------------------------------

    def deliver(self, now: datetime) -> tuple[int, int]:
        """Send what is due; return the numbers delivered and given up. Nothing while another process sends.

        The state is read before and merged after, since evaluating goes on meanwhile. What waits for a channel that
        this process has no address of is left to others for `LATE`.
        """
        if not self.path.exists() or not self.state().waiting:
            return 0, 0
        try:
            with file_lock(self._sending, timeout_s=0):
                waiting = self.state().waiting
                before = set(waiting)
                done = deliver_waiting(self.store, waiting, self.channels, self.settings.source, now)
                for place, waits in list(waiting.items()):
                    if place[1] not in self.channels and now - (waits.held_until or waits.since) > LATE:
                        del waiting[place]
                with self.changing() as state:
                    for place in before & set(state.waiting):
                        if place in waiting:
                            state.waiting[place] = waiting[place]
                        else:
                            del state.waiting[place]
                return done
        except LockHeld:
            return 0, 0

    def tick(self, now: datetime) -> Ticked:
        """Evaluate and deliver.

        Raises:
            RulesError: Rules or state cannot be used.
        """
        found: list[Alert] = []
        try:
            found = self.evaluate(now)
        except LockHeld:
            _LOG.debug("another process evaluates")
        finally:
            delivered, given_up = self.deliver(now)
        fired = sum(alert.state == "firing" for alert in found)
        waiting = len(self.state().waiting) if self.path.exists() else 0
        return Ticked(fired, len(found) - fired, delivered, given_up, waiting)

    # --- following --------------------------------------------------------------------------------------------------

    def has_news(self) -> bool:
        """Whether a table that a rule reads has a newer commit: some `stat` calls; always true of a remote lake."""
        if "://" in self.settings.lake:
            return True
        if not self.path.exists():
            return False
        state = self.state()
        return any(self._is_newer(table, state) for table in {rule.table for rule in self.in_force(state)})

    def _is_newer(self, table: str, state: MarketState) -> bool:
        log = Path(self.store.path(table)) / "_delta_log"
        version = state.versions.get(table)
        return log.exists() if version is None else (log / f"{version + 1:020d}.json").exists()

    def follow(self, stop: threading.Event, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Tick after every commit and every few seconds, until `stop`. A fault is logged once and tried again."""
        trouble, again_at = None, clock()
        while not stop.wait(LOOK_EVERY_S):
            try:
                if self.has_news() or clock() >= again_at:
                    done = self.tick(clock())
                    more = done.delivered and done.waiting  # a call sends a limited number
                    again_at = clock() if more else clock() + RETRY_EVERY
                trouble = None
            except Exception as error:  # noqa: BLE001 - whatever fails, later rows are judged
                again_at = clock() + RETRY_EVERY
                if str(error) != trouble:
                    _LOG.warning("market alerts: %s", error)
                trouble = str(error)


def _begin(rule: Rule, state: MarketState) -> datetime | None:
    """Slot after which a rule judges rows: that of its enabling, or `LATE` before its newest: some coins lag behind."""
    since = state.enabled[rule.name].since
    enabled = datetime.fromisoformat(since) if since else None
    judged = [track.last for (name, _), track in state.tracks.items() if name == rule.name]
    return max((m for m in (enabled, max(judged) - LATE if judged else None) if m), default=None)
