"""Verdict of `status` from its measurements: one of four words, an exit code, and all reasons.

Belongs here: who serves a home and what that promises, and the judgement. Pure, but for reading the holder of the
home's lock. Does not belong here: measuring (`status`), the promise's arithmetic (`checks.freshness`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from crypto_assets.errors import CANNOT, FAILED, SUCCESS
from crypto_assets.home import Home

DEMO_MARKER = "demo.json"
"""File of a home that `demo` made."""
TICK_TIMEOUT_S = 60.0
CLOCK_TOLERANCE_S = 2.0
"""A newest event so far ahead of this machine's clock is still explained by two clocks that are kept by NTP."""

Word = Literal["ok", "no promise", "promise broken", "cannot tell"]
EXIT_CODES: dict[Word, int] = {"ok": SUCCESS, "no promise": SUCCESS, "promise broken": FAILED, "cannot tell": CANNOT}

Serving = Literal["served", "opened", "stopped", "demo"]


@dataclass(frozen=True)
class Producer:
    """The producer sensor: whether it runs, the age of its newest good tick, and why newer ones failed.

    Args:
        running: Whether it is switched on.
        newest_tick_age_s: Age of the newest good tick; negative when the clock is behind it.
        trouble: Error of the newest tick, if that failed.
        known: Whether any daemon ever ran it in this home.
    """

    running: bool
    newest_tick_age_s: float | None
    trouble: str | None
    known: bool = False


@dataclass(frozen=True)
class Service:
    """Who keeps a home fresh.

    Args:
        state: `served` by `up` or another daemon that ticks; `opened` by something that polls nothing (`ui`, `demo`);
            `stopped` when nothing serves it; `demo` when it holds a demo that nothing was ever meant to keep fresh.
        by: The process that holds the home.
        last_sign: Newest tick of the producer, for a home that is `stopped`.
    """

    state: Serving
    by: str | None = None
    last_sign: datetime | None = None

    @property
    def promises(self) -> bool:
        """True if the freshness promise applies."""
        return self.state in ("served", "stopped")

    @property
    def text(self) -> str:
        """The same in words."""
        if self.state == "served":
            return f"served by {self.by or 'a daemon that holds no lock'}"
        if self.state == "opened":
            return f"no promise: {self.by} polls nothing"
        if self.state == "stopped":
            return "nothing serves this home"
        return "no promise: a demo, which nothing keeps fresh"


def service_of(home: Home, producer: Producer, last_sign: datetime | None) -> Service:
    """Who serves a home now, by the holder of its lock; a daemon without lock is known by its ticks.

    Args:
        home: The home.
        producer: Its producer sensor.
        last_sign: Time of the sensor's newest good tick (UTC).
    """
    holder = home.holder("serve")
    if holder is not None and "(up)" in holder:
        return Service("served", holder)
    if holder is not None:
        return Service("opened", holder)
    age = producer.newest_tick_age_s
    if producer.running and age is not None and age <= TICK_TIMEOUT_S:
        return Service("served")
    if (home.path / DEMO_MARKER).exists() and not producer.known:
        return Service("demo")
    return Service("stopped", last_sign=last_sign)


@dataclass(frozen=True)
class Measured:
    """Measurements behind the verdict; ages in seconds.

    Args:
        service: Who serves the home.
        producer: The producer sensor.
        promised_s: Highest age and lag that keep the promise.
        lag_s: Lag; None = unknown.
        lag_unknown_because: Why.
        event_age_s: Age of the newest quote; None = there is none.
        ahead: Newest events later than the clock, by what has them, in seconds.
        failed_runs: Newest runs of scheduled assets that failed, as sentences.
        wrong: What is wrong whatever is promised, as sentences.
        unreadable: Parts that could not be read, and why.
    """

    service: Service
    producer: Producer
    promised_s: float
    lag_s: float | None
    lag_unknown_because: str | None
    event_age_s: float | None
    ahead: dict[str, float]
    failed_runs: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The word, the problems, and what could not be determined."""

    word: Word
    problems: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0, 1 or 3."""
        return EXIT_CODES[self.word]


def judge(found: Measured) -> Verdict:
    """All reasons; known problems outweigh unknowns."""
    problems = [*_clock(found), *found.wrong, *found.failed_runs]
    unknown = list(found.unreadable)
    if found.service.promises:
        problems += _service(found)
        problems += _freshness(found)
        if found.service.state == "served" and not found.producer.running and not found.producer.known:
            unknown.append("the producer sensor has never ticked here: the daemon is starting")
        if found.lag_s is None:
            unknown.append(f"the lag is unknown: {found.lag_unknown_because}")
        if found.event_age_s is None and "gold/latest_prices" not in found.ahead:
            unknown.append("there is no quote in gold/latest_prices yet")
    if problems:
        word: Word = "promise broken"
    elif unknown:
        word = "cannot tell"
    else:
        word = "ok" if found.service.promises else "no promise"
    return Verdict(word, tuple(problems), tuple(unknown))


def _clock(found: Measured) -> list[str]:
    late = {what: s for what, s in found.ahead.items() if s > CLOCK_TOLERANCE_S}
    if not late:
        return []
    named = ", ".join(f"{what} by {s:,.0f} s" for what, s in sorted(late.items()))
    return [
        (
            f"this machine's clock is behind the newest data ({named}): set the clock; if it is right, the "
            "clock of the broker or the source was ahead when it stamped them: crypto-assets doctor"
        )
    ]


def _service(found: Measured) -> list[str]:
    producer = found.producer
    if found.service.state == "stopped":
        since = found.service.last_sign
        when = f" since {since:%Y-%m-%d %H:%M:%S}Z" if since else ""
        return [f"nothing serves this home{when}: start it with crypto-assets up"]
    if not producer.running and not producer.known:
        return []  # it is starting: see `judge`
    if not producer.running:
        return ["the producer sensor is stopped: nothing polls; start it in the UI, Automation"]
    age = producer.newest_tick_age_s
    if age is not None and age <= TICK_TIMEOUT_S:
        return []
    why = f": {producer.trouble}" if producer.trouble else ""
    tick = "none yet" if age is None else f"{age:.0f} s old"
    return [
        (
            f"the producer sensor runs and its newest good tick is {tick} (at most {TICK_TIMEOUT_S:.0f} s){why}; "
            "if the daemon is down: crypto-assets up"
        )
    ]


def _freshness(found: Measured) -> list[str]:
    reasons = []
    if found.lag_s is not None and found.lag_s > found.promised_s:
        reasons.append(
            f"lag {found.lag_s:,.0f} s is more than the promised {found.promised_s:,.0f} s; see failed runs in the UI"
        )
    if found.event_age_s is not None and found.event_age_s > found.promised_s:
        reasons.append(
            f"the newest quote is {found.event_age_s:,.0f} s old, more than the promised {found.promised_s:,.0f} s; "
            "see the checks source_answers and quotes_move of kafka/crypto_prices_raw"
        )
    return reasons
