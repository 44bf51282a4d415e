"""State of the producer, and summaries of a tick and of a run.

Does not belong here: polling or publishing (`crypto_assets.producer.loop`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from crypto_assets.market.credits import CreditState
from crypto_assets.market.polls import Found, judge


@dataclass(frozen=True)
class ProducerState:
    """Producer state that survives a restart.

    Args:
        sent: By coin, `last_updated_at` of the quote delivered last, as in its message.
        credits: The governor's state.
        absent: By coin, how many polls in a row it has been missing from.
        last_poll_id: Id of the newest poll.
        last_poll_at: Its time (UTC).
        unrecorded: The newest poll's message and why it could not be recorded (`poll`, `error`); None when it was.
    """

    sent: dict[str, str] = field(default_factory=dict)
    credits: CreditState = field(default_factory=CreditState)
    absent: dict[str, int] = field(default_factory=dict)
    last_poll_id: str | None = None
    last_poll_at: datetime | None = None
    unrecorded: Mapping[str, Any] | None = None

    def to_json(self) -> str:
        """JSON text."""
        record = asdict(self) | {"version": 1, "credits": json.loads(self.credits.to_json())}
        record["last_poll_at"] = self.last_poll_at.isoformat() if self.last_poll_at else None
        return json.dumps(record, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ProducerState:
        """Rebuild from `to_json`.

        Raises:
            ValueError: The text is not such a state.
        """
        try:
            raw = json.loads(text)
            return cls(
                sent=dict(raw["sent"]),
                credits=CreditState.from_json(json.dumps(raw["credits"])),
                absent={coin: int(polls) for coin, polls in raw["absent"].items()},
                last_poll_id=raw["last_poll_id"],
                last_poll_at=datetime.fromisoformat(raw["last_poll_at"]) if raw["last_poll_at"] else None,
                unrecorded=raw.get("unrecorded"),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a producer state: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class TickSummary:
    """Outcome of one tick.

    Args:
        polled: Whether the source was polled.
        poll_id: Id of the poll; the newest earlier one when this tick did not poll.
        outcome: Outcome of the poll, None without one.
        sent: Messages handed to Kafka.
        delivered: Messages that Kafka confirmed.
        unchanged: Coins whose quote had already been delivered.
        missing: Requested coins missing from the reply.
        message: The poll as recorded, None when this tick did not poll.
        recorded: Whether the poll itself was recorded in the polls topic.
        cadence_s: Seconds between polls in force.
        credits_left: Credits left this month, None when not metered.
        error: Reason of a failed delivery.
        text: One line for people.
    """

    polled: bool
    text: str
    poll_id: str | None = None
    outcome: str | None = None
    sent: int = 0
    delivered: int = 0
    unchanged: int = 0
    missing: tuple[str, ...] = ()
    message: Mapping[str, Any] | None = None
    recorded: bool = False
    cadence_s: float = 0.0
    credits_left: int | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the source answered and everything was delivered and recorded; true for a tick not due."""
        return not self.polled or (self.outcome == "ok" and self.error is None and self.recorded)

    def checks(self) -> Found:
        """Evaluations of the topics' checks by name (`market.polls.judge`); empty when the tick did not poll."""
        return {} if self.message is None else judge(self.message, self.error)


@dataclass
class RunSummary:
    """Totals of a run of ticks."""

    polls: int = 0
    sent: int = 0
    unchanged: int = 0
    failed: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    credits_left: int | None = None
    last: TickSummary | None = None

    def add(self, tick: TickSummary) -> None:
        """Count one tick."""
        if not tick.polled:
            self.last = self.last or tick
            return
        self.polls += 1
        self.sent += tick.delivered
        self.unchanged += tick.unchanged
        self.failed += not tick.ok
        self.outcomes[str(tick.outcome)] = self.outcomes.get(str(tick.outcome), 0) + 1
        self.credits_left = tick.credits_left
        self.last = tick

    @property
    def ok(self) -> bool:
        """Whether the newest poll was answered and delivered."""
        return self.last is None or self.last.ok

    @property
    def text(self) -> str:
        """One line for people."""
        if not self.polls:
            return f"no poll; {self.last.text}" if self.last else "no poll"
        named = ", ".join(f"{count:,} {name}" for name, count in sorted(self.outcomes.items()))
        left = f"; {self.credits_left:,} credits left" if self.credits_left is not None else ""
        tail = f"; {self.last.error}" if self.last and self.last.error else ""
        return f"{self.polls:,} polls ({named}): {self.sent:,} sent, {self.unchanged:,} unchanged{left}{tail}"

    def to_record(self) -> dict[str, Any]:
        """A plain record, for `--json`."""
        totals = {name: value for name, value in vars(self).items() if name != "last"}
        return {"ok": self.ok, **totals, "text": self.text}
