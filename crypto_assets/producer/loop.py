"""The poll loop: polls the source within the budget, publishes changes, records what was delivered.

Run by the Dagster sensor and by `crypto-assets produce`. Its state is saved only after the broker has confirmed
delivery, so a crash in between sends a quote twice (which Silver removes) and never loses one. Does not belong here:
the sensor, the source, the budget's arithmetic (`crypto_assets.market.credits`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from crypto_assets.errors import reason
from crypto_assets.files import LockHeld, file_lock, read_object, read_text, write_atomic
from crypto_assets.home import Home, open_home
from crypto_assets.log.errors import LogError
from crypto_assets.log.files.publisher import LandingPublisher, prepare
from crypto_assets.log.kafka.client import client_config
from crypto_assets.log.kafka.publisher import Publisher
from crypto_assets.log.kafka.topic import require_topics
from crypto_assets.market.coins import CoinRegistry
from crypto_assets.market.credits import Governor
from crypto_assets.market.payload import poll_to_message, rfc3339, tick_to_message
from crypto_assets.market.polls import ABSENT_AFTER_POLLS
from crypto_assets.market.quotes import Poll, Tick
from crypto_assets.producer.ticks import ProducerState, RunSummary, TickSummary
from crypto_assets.settings import Settings
from crypto_assets.sources.base import Poller
from crypto_assets.sources.registry import source_of

CATCH_UP_BATCH = 200
STATE_FILE = "producer.json"
ANCHOR_FILE = "replay.json"


@dataclass(frozen=True)
class _Polled:
    """One poll and its consequences for this home, before anything is sent."""

    poll: Poll
    poll_id: str
    asked: int
    fresh: tuple[Tick, ...]
    cadence_s: float
    state: ProducerState
    arrival: datetime | None

    @property
    def unchanged(self) -> int:
        return len(self.poll.ticks) - len(self.fresh)


@dataclass(eq=False)
class Producer:
    """Polls a source and publishes what changed. Use as a context manager, or call `close`.

    Args:
        source: Source to poll.
        publisher: Publisher of messages.
        registry: Returns the coins at the time of a tick, so that an added coin is polled without a restart.
        governor: Governor of the budget.
        state_path: File of the state; beside it lies the lock that keeps two producers of a home apart.
        loop_s: Poll interval of `run` in seconds.
        on_close: Called by `close`.
    """

    source: Poller
    publisher: Publisher
    registry: Callable[[], CoinRegistry]
    governor: Governor
    state_path: Path
    loop_s: float = field(default=10.0, kw_only=True)
    on_close: Callable[[], None] = field(default=lambda: None, kw_only=True)

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the client and the source."""
        self.publisher.close()
        self.on_close()

    @property
    def state(self) -> ProducerState:
        """The saved state.

        Raises:
            LogError: The file is damaged; names the fix.
        """
        return read_state(self.state_path.parent, self.state_path.name)

    @property
    def last_poll_at(self) -> datetime | None:
        """Time of the newest poll (UTC; virtual in replay and simulator homes)."""
        return self.state.last_poll_at

    def tick(self, now: datetime) -> TickSummary:
        """Poll if due, publish what changed, save the state.

        Never raises for faults of source or broker: they are in the summary.

        Args:
            now: The time (UTC); virtual time in replay and simulator homes.

        Raises:
            LogError: The state file is damaged.
        """
        try:
            with self._exclusive():
                state = self._settled(self.state, now)
                if not self.governor.may_poll(state.credits, now):
                    return self._idle(state, now)
                return self._poll(state, now)
        except LockHeld:
            state = self.state
            return TickSummary(
                polled=False, poll_id=state.last_poll_id, text="another producer of this home is polling"
            )

    def run(
        self,
        *,
        for_s: float | None = None,
        once: bool = False,
        stop_event: threading.Event | None = None,
        report: Callable[[str], None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> RunSummary:
        """Tick until stopped; a tick in progress is always finished.

        Args:
            for_s: Stop after this many seconds of `clock`; None = no limit.
            once: Make one tick only.
            stop_event: Stops the loop when set.
            report: Called with one line per poll.
            clock: Returns the time of each tick.
        """
        stop = stop_event or threading.Event()
        summary = RunSummary()
        end = clock() + timedelta(seconds=for_s) if for_s is not None else None
        while not stop.is_set():
            now = clock()
            tick = self.tick(now)
            summary.add(tick)
            if report and (tick.polled or once):
                report(tick.text)
            wait = self.loop_s if end is None else min(self.loop_s, (end - clock()) / timedelta(seconds=1))
            if once or wait <= 0 or stop.wait(wait):
                break
        return summary

    def catch_up(
        self, moments: Sequence[datetime], advance: Callable[[int], object] = lambda _polls: None
    ) -> RunSummary:
        """Poll at many virtual times, due or not, and publish in batches.

        Args:
            moments: Virtual times, rising.
            advance: Called with the number of polls done.

        Raises:
            PublishFailed: A batch was not confirmed; the state is that of the batch before.
            LockHeld: Another producer of this home is polling.
        """
        summary = RunSummary()
        with self._exclusive():
            state = self.state
            for done in range(0, len(moments), CATCH_UP_BATCH):
                polls = []
                for moment in moments[done : done + CATCH_UP_BATCH]:
                    polled = self._query(state, moment)
                    state = polled.state
                    self._enqueue_prices(polled)
                    polls.append(polled)
                self.publisher.flush()
                for polled in polls:
                    # only now have they been delivered
                    self._enqueue_record(polled, delivered=len(polled.fresh))
                self.publisher.flush()
                self._save(state)
                for polled in polls:
                    summary.add(self._summary(polled, delivered=len(polled.fresh), recorded=True, error=None))
                advance(len(polls))
        return summary

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with file_lock(self.state_path.with_suffix(".lock"), timeout_s=0):
            yield

    def _settled(self, state: ProducerState, now: datetime) -> ProducerState:
        """State without future times, which a clock that was ahead has left; saved if it differs."""
        settled = self.governor.settled(state.credits, now)
        if settled == state.credits:
            return state
        self._save(replace(state, credits=settled))
        return replace(state, credits=settled)

    def _save(self, state: ProducerState) -> None:
        write_atomic(self.state_path, state.to_json())

    def _idle(self, state: ProducerState, now: datetime) -> TickSummary:
        report = self.governor.report(state.credits, now)
        cadence = self.governor.cadence_s(state.credits, now)
        if report.dry_on is not None:
            why = "no credits left this month for a poll"
        elif now.timestamp() < state.credits.blocked_until:
            until = datetime.fromtimestamp(state.credits.blocked_until, UTC)
            why = f"waiting until {until:%H:%M:%S}Z after a failed poll"
        else:
            why = f"not due: cadence {cadence:g} s"
        return TickSummary(
            polled=False,
            text=f"{why}; {report.text}",
            poll_id=state.last_poll_id,
            cadence_s=cadence,
            credits_left=report.left,
        )

    def _poll(self, state: ProducerState, now: datetime) -> TickSummary:
        polled = self._query(state, now)
        delivered, recorded, error = 0, False, None
        try:
            self._enqueue_prices(polled)
            delivered = self.publisher.flush()
            # the quotes are safe: from here on a crash only sends them again
            self._enqueue_record(polled, delivered=delivered)
            self.publisher.flush()
            recorded = True
        except LogError as failure:
            error = str(failure)
        # credits are spent either way; messages count only if confirmed
        sent = polled.state.sent if delivered == len(polled.fresh) else state.sent
        lost = None if error is None else {"poll": self._message(polled, delivered), "error": error}
        self._save(replace(polled.state, sent=sent, unrecorded=lost))
        return self._summary(polled, delivered=delivered, recorded=recorded, error=error)

    def _query(self, state: ProducerState, now: datetime) -> _Polled:
        coins = [coin.coin_id for coin in self.registry().active_at(now)]
        cadence = self.governor.cadence_s(state.credits, now)
        poll = self.source.poll(coins, now)
        fresh = tuple(t for t in poll.ticks if state.sent.get(t.coin_id) != rfc3339(t.last_updated_at))
        spent = self.governor.record(
            state.credits,
            now,
            credits_used=poll.credits_used,
            ok=poll.outcome == "ok",
            retry_after_s=poll.retry_after_s,
        )
        poll_id = f"{self.source.name}-{now.astimezone(UTC):%Y%m%dT%H%M%S.%f}"[:-3] + "Z"
        if poll.outcome == "ok":
            absent = {coin: state.absent.get(coin, 0) + 1 for coin in poll.missing}
        else:
            absent = state.absent  # a failed poll proves nothing about a coin
        return _Polled(
            poll=poll,
            poll_id=poll_id,
            asked=len(coins),
            fresh=fresh,
            cadence_s=cadence,
            state=ProducerState(
                sent=state.sent | {t.coin_id: rfc3339(t.last_updated_at) for t in fresh},
                credits=spent,
                absent=absent,
                last_poll_id=poll_id,
                last_poll_at=now,
            ),
            arrival=poll.finished_at if self.publisher.virtual else None,
        )

    def _arrival(self, polled: _Polled, topic: str) -> datetime | None:
        """Virtual arrival of a poll's records: time of the reply, but never before what the topic holds.

        After a crash a poll may repeat one that the topic already has; its records then arrive after those.
        """
        if polled.arrival is None:
            return None
        floor = self.publisher.floor(topic)
        return polled.arrival if floor is None else max(polled.arrival, floor)

    def _enqueue_prices(self, polled: _Polled) -> None:
        if not polled.fresh:
            return
        self.publisher.enqueue_prices(
            [tick_to_message(tick, polled.poll.finished_at) for tick in polled.fresh],
            poll_id=polled.poll_id,
            cadence_s=polled.cadence_s,
            headers=polled.poll.headers,
            arrival=self._arrival(polled, self.publisher.prices_topic),
        )

    def _enqueue_record(self, polled: _Polled, *, delivered: int) -> None:
        message = self._message(polled, delivered)
        self.publisher.enqueue_poll(message, arrival=self._arrival(polled, self.publisher.polls_topic))

    def _message(self, polled: _Polled, delivered: int) -> dict[str, Any]:
        return poll_to_message(
            polled.poll,
            poll_id=polled.poll_id,
            source=self.source.name,
            asked=polled.asked,
            unchanged=polled.unchanged,
            absent=[coin for coin, polls in polled.state.absent.items() if polls >= ABSENT_AFTER_POLLS],
            cadence_s=polled.cadence_s,
            credits_left=self.governor.report(polled.state.credits, polled.poll.finished_at).left,
            delivered=delivered,
        )

    def _summary(self, polled: _Polled, *, delivered: int, recorded: bool, error: str | None) -> TickSummary:
        poll = polled.poll
        report = self.governor.report(polled.state.credits, poll.finished_at)
        if error is not None:
            text = error
        elif poll.outcome != "ok":
            text = f"{poll.outcome}: {poll.detail or 'no detail'}; {report.text}"
        else:
            missing = f", missing: {', '.join(poll.missing)}" if poll.missing else ""
            unusable = f", unusable: {'; '.join(poll.problems)}" if poll.problems else ""
            unusable += f", null: {'; '.join(poll.nulled)}" if poll.nulled else ""
            text = f"{delivered} sent, {polled.unchanged} unchanged{missing}{unusable}; {report.text}"
        return TickSummary(
            polled=True,
            text=text,
            poll_id=polled.poll_id,
            outcome=poll.outcome,
            sent=len(polled.fresh),
            delivered=delivered,
            unchanged=polled.unchanged,
            missing=poll.missing,
            message=self._message(polled, delivered),
            recorded=recorded,
            cadence_s=polled.cadence_s,
            credits_left=report.left,
            error=error,
        )


def governor_of(settings: Settings) -> Governor:
    """Governor of a home: its source's budget and pace."""
    source = source_of(settings)
    return Governor(source.budget(settings), loop_s=settings.poll_interval_s, floor_s=source.quotes_every_s(settings))


def replay_anchor(home: Home, default: date) -> date:
    """UTC day on which the home plays the recording's whole day; decided once, since played data must not change.

    Args:
        home: The home.
        default: Day to decide for if the home has none yet.
    """
    path = home.state / ANCHOR_FILE
    if not path.exists():
        write_atomic(path, json.dumps({"anchor": default.isoformat()}))
    return read_anchor(home.state) or default


def read_anchor(folder: Path) -> date | None:
    """The day in a home's folder `state`; None if undecided.

    Raises:
        LogError: The file is damaged; the message contains its correct content.
    """
    path = folder / ANCHOR_FILE
    try:
        return date.fromisoformat(read_object(path)["anchor"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise LogError(
            f"{path} is damaged ({reason(error)}). Restore it, or write into it: "
            '{"anchor": "<UTC day of the first poll; in a home of the demo the day after>"}'
        ) from error


def read_state(folder: Path, name: str = STATE_FILE) -> ProducerState:
    """Producer state in a home's folder `state`; empty before the first poll.

    Raises:
        LogError: The file is damaged; names the fix.
    """
    path = folder / name
    try:
        return ProducerState.from_json(read_text(path))
    except FileNotFoundError:
        return ProducerState()
    except ValueError as error:
        raise LogError(
            f"{path} is damaged ({reason(error)}). Delete it: the next poll sends every quote once more, which Silver"
            " removes, and the month's credits are counted from zero"
        ) from error


def open_publisher(settings: Settings, now: datetime) -> Publisher:
    """Open the publisher of the configured transport; its topics or folders are created and verified.

    Args:
        settings: Settings of the home.
        now: Time of the check of the topics (UTC).

    Raises:
        LogUnavailable: No broker is configured or running, or the landing folder cannot be created.
        LogError: A topic's configuration does not allow exact hours.
    """
    prices, polls, virtual = settings.prices_topic, settings.polls_topic, not settings.is_live
    if settings.transport == "landing":
        prepare(settings.landing, (prices, polls))
        return LandingPublisher(
            settings.landing, prices_topic=prices, polls_topic=polls, source=settings.source, virtual=virtual
        )
    require_topics(settings, now)
    config = client_config(settings)
    return Publisher(config, prices_topic=prices, polls_topic=polls, source=settings.source, virtual=virtual)


def open_producer(settings: Settings, *, anchor: date | None = None) -> Producer:
    """Open the producer of a home: its source, its topics (created and verified), its state.

    Args:
        settings: Settings of the home.
        anchor: For a home that has not played anything yet: UTC day on which the recording's whole day is played;
            default today. Later the home's own day applies.

    Raises:
        HomeError: The home is bound to another mode.
        LogUnavailable: No broker is configured or running.
        LogError: A topic's configuration does not allow exact hours.
    """
    home = open_home(settings)
    now = datetime.now(UTC)
    publisher = open_publisher(settings, now)
    with ExitStack() as stack:
        played = replay_anchor(home, anchor or now.date())
        source = stack.enter_context(source_of(settings).open(settings, anchor=played))
        return Producer(
            source,
            publisher,
            home.registry,
            governor_of(settings),
            home.state / STATE_FILE,
            loop_s=settings.poll_interval_s,
            on_close=stack.pop_all().close,
        )
    raise AssertionError("unreachable: the source's context does not swallow errors")
