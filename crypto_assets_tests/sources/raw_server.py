"""A server on 127.0.0.1 that answers with the very bytes a test says, for replies that no HTTP library would write.

Belongs here: the socket. What a healthy or faulty CoinGecko says is the package's own stand-in.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import parse_qsl, urlsplit

QUOTE = {
    "id": "bitcoin",
    "symbol": "btc",
    "name": "Bitcoin",
    "current_price": 1.5,
    "last_updated": "2026-01-05T11:59:00.000Z",
}

Answer = bytes | Callable[[socket.socket, threading.Event], None]
"""Bytes to send before the connection is closed, or what to do with the socket until the event is set."""


def reply(body: bytes | str | object, status: int = 200, **headers: object) -> bytes:
    """A whole HTTP reply; anything but bytes and text is written as JSON. `Content_Length=None` leaves a header out."""
    if not isinstance(body, (bytes, str)):
        body = json.dumps(body)
    content = body.encode() if isinstance(body, str) else body
    sent = {"Content-Type": "application/json", "Content-Length": len(content), "Connection": "close"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Said", *(f"{n}: {v}" for n, v in sent.items() if v is not None)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def gzipped(body: bytes, *, cut: int = 0) -> bytes:
    """A reply with a compressed body of which the last `cut` bytes are missing."""
    packed = gzip.compress(body, mtime=0)
    return reply(packed[: len(packed) - cut], Content_Encoding="gzip")


@dataclass(frozen=True)
class Received:
    """What the server got: path and query, the query by name, headers by name in lower case."""

    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))


@dataclass
class RawServer:
    """Answers each connection with the next of `answers`; the last one stands for all that follow."""

    answers: Sequence[Answer] = ()
    received: list[Received] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> RawServer:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/api/v3"

    def answer(self, *answers: Answer) -> None:
        """Say what comes next."""
        self.answers = answers
        self.received.clear()

    def _serve(self) -> None:
        while not self.stop.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        try:
            with connection.makefile("rb") as lines:
                target = lines.readline().split(b" ")[1].decode()
                headers = {}
                while line := lines.readline().strip():
                    name, _, value = line.partition(b":")
                    headers[name.decode().lower()] = value.strip().decode()
            self.received.append(Received(target, headers))
            answer = self.answers[min(len(self.received), len(self.answers)) - 1]
            if isinstance(answer, bytes):
                connection.sendall(answer)
            else:
                answer(connection, self.stop)
        except (OSError, IndexError):
            return  # the client has hung up


def drip(head: bytes, drop: bytes = b" ", every_s: float = 0.02) -> Answer:
    """Send `head`, then a drop now and then for ever."""

    def talk(connection: socket.socket, stop: threading.Event) -> None:
        connection.sendall(head)
        while not stop.wait(every_s):
            connection.sendall(drop)

    return talk
