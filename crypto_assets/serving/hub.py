"""Server-sent events: one ring of encoded events that every client reads at its own place.

A client is a number in the ring and no queue, so a slow one delays nobody and costs no memory; one that falls off the
ring, or comes back from another start of the server, gets the event that makes it load everything again.

Belongs here: fan-out and resumption. Does not belong here: what an event holds (`events`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from typing import NamedTuple

RING = 5_000
"""Events that a client may miss and still get."""
KEEP_ALIVE_S = 15.0
RETRY_MS = 2_000
"""Time after which a browser reconnects."""


class Event(NamedTuple):
    """An event: its kind, the coin it is of (None = all), and its data as JSON text."""

    kind: str
    coin: str | None
    data: bytes


class _Sent(NamedTuple):
    number: int
    kind: str
    coin: str | None
    chunk: bytes


class Hub:
    """Fans events out to clients. All methods belong to the event loop's thread."""

    def __init__(self) -> None:
        self.start = secrets.token_hex(4)
        """Names this start of the server in every event id."""
        self.clients = 0
        self._ring: deque[_Sent] = deque(maxlen=RING)
        self._next = 1
        self._news: asyncio.Event = asyncio.Event()
        self._closed = False

    def publish(self, events: Sequence[Event]) -> None:
        """Send events to everyone."""
        for event in events:
            chunk = b"id: %s-%d\nevent: %s\ndata: %s\n\n" % (
                self.start.encode(),
                self._next,
                event.kind.encode(),
                event.data,
            )
            self._ring.append(_Sent(self._next, event.kind, event.coin, chunk))
            self._next += 1
        if events:
            self._wake()

    def close(self) -> None:
        """End all streams, so that the server can stop."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def stream(
        self, last_event_id: str | None, *, kinds: Collection[str] = (), coin: str | None = None
    ) -> AsyncIterator[bytes]:
        """Chunks for one client, until it leaves or the hub closes.

        Args:
            last_event_id: Id of the last event that the client has seen, when it reconnects.
            kinds: These kinds only; empty = all.
            coin: Events of this coin, and those of none.
        """
        self.clients += 1
        try:
            seen = self._seen(last_event_id)
            # A first id, so that a client that has had no event yet can come back to its place, too.
            yield b"retry: %d\nid: %s-%d\n\n" % (RETRY_MS, self.start.encode(), max(seen, 0))
            while not self._closed:
                news = self._news
                if seen < 0 or self._gone(seen):
                    seen = self._next - 1
                    yield self._reset(seen)
                chunks = [
                    sent.chunk
                    for sent in self._after(seen)
                    if (not kinds or sent.kind in kinds) and (coin is None or sent.coin in (None, coin))
                ]
                seen = self._next - 1
                if chunks:
                    yield b"".join(chunks)
                    continue
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        await news.wait()
                except TimeoutError:
                    yield b": keep-alive\n\n"
        finally:
            self.clients -= 1

    def _seen(self, last_event_id: str | None) -> int:
        """Number of the last event that a client has seen; -1 when this cannot be known."""
        if not last_event_id:
            return self._next - 1
        start, _, number = last_event_id.partition("-")
        if start != self.start or not number.isdecimal() or int(number) >= self._next:
            return -1
        return int(number)

    def _gone(self, seen: int) -> bool:
        """True if the event after the one seen is not in the ring any more."""
        return bool(self._ring) and self._ring[0].number > seen + 1

    def _after(self, seen: int) -> Sequence[_Sent]:
        missing = self._next - 1 - seen
        return list(self._ring)[-missing:] if missing else ()

    def _reset(self, seen: int) -> bytes:
        return b"id: %s-%d\nevent: reset\ndata: {}\n\n" % (self.start.encode(), seen)
