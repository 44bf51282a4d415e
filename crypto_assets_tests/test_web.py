"""Every request ends at its deadline, whatever the other side does, and the other side sees that it ended."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from crypto_assets.alerts import webhook
from crypto_assets.sources.coingecko import CoinGeckoClient
from crypto_assets.web import BadBody, Client, NoReply, TooLate, Unreachable
from crypto_assets_tests.sources.raw_server import RawServer, gzipped, reply

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
TLS_HELLO = b"\x16\x03\x03\x40\x00"
"""Begins a handshake record of 16 kB that never ends."""
DRIPS = {
    "silence": (b"", b""),
    "100 Continue for ever": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a byte of a header": (HEAD + b"X-Slow: ", b"x"),
    "header lines": (b"HTTP/1.1 200 OK\r\nX: ", b"\r\n y"),
    "a status line": (b"HTTP/1.1 2", b"0"),
    "a body of known length": (HEAD + b"Content-Length: 99999\r\n\r\n[", b" "),
    "a body without end": (HEAD + b"Connection: close\r\n\r\n[", b" "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a chunk's size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
}


class Dripper:
    """Sends the start of a reply, then a drop now and then, until the client closes the connection."""

    def __init__(self, start: bytes, drop: bytes) -> None:
        self._start, self._drop = start, drop
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._stop = threading.Event()
        self.closed = threading.Event()
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(0.02)
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        sent = self._start
        while not self._stop.is_set():
            try:
                if sent:
                    connection.sendall(sent)
                sent = self._drop
                if not connection.recv(65536):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        self.closed.set()

    def close(self) -> None:
        self._stop.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def dripping() -> Iterator[Callable[[bytes, bytes], Dripper]]:
    started: list[Dripper] = []

    def start(head: bytes, drop: bytes) -> Dripper:
        started.append(Dripper(head, drop))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer() as running:
        yield running


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(trust_env=False) as opened:
        yield opened


@pytest.mark.parametrize("kind", DRIPS)
def test_a_drip_ends_at_the_deadline_and_its_connection_is_closed(kind, dripping, client):
    server = dripping(*DRIPS[kind])
    with pytest.raises(TooLate, match=r"no whole reply within 0\.2 s"):
        client.send("GET", f"http://127.0.0.1:{server.port}/", deadline_s=0.2)
    assert server.closed.wait(30)


def test_so_does_a_handshake(dripping, client):
    server = dripping(TLS_HELLO, b"\x00")
    with pytest.raises(TooLate):
        client.send("GET", f"https://127.0.0.1:{server.port}/", deadline_s=0.2)
    assert server.closed.wait(30)


def test_so_does_a_name_server_that_does_not_answer(monkeypatch, client):
    asked, answer = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def slow(*args, **kwargs):
        asked.set()
        answer.wait(60)
        return real("127.0.0.1", *args[1:], **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(TooLate):
            client.send("GET", f"http://name.example:{server.getsockname()[1]}/", deadline_s=0.2)
        assert asked.is_set()
        answer.set()  # what comes after the deadline is not used
        connection, _ = server.accept()
        with connection:
            connection.settimeout(30)
            assert connection.recv(1) == b""


def test_a_client_serves_again_after_a_deadline(dripping, client, server):
    with pytest.raises(TooLate):
        client.send("GET", f"http://127.0.0.1:{dripping(b'', b'').port}/", deadline_s=0.1)
    server.answer(reply([1]))
    assert client.send("GET", server.url, deadline_s=20).content == b"[1]"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply(b" " * 3000), BadBody),
        (gzipped(b" " * 1_000_000), BadBody),
        (reply(b"[]", Content_Length=9), NoReply),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Unreachable),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", Unreachable),
    ],
)
def test_what_is_no_reply_is_named(server, client, answer, error):
    server.answer(answer)
    with pytest.raises(error):
        client.send("GET", server.url, deadline_s=20, body_limit=2000)


def test_a_redirect_is_an_answer(server, client):
    server.answer(reply("", 302, Location=server.url))
    assert client.send("GET", server.url, deadline_s=20).status == 302
    assert len(server.received) == 1


@pytest.mark.parametrize("kind", ["100 Continue for ever", "a byte of a header"])
def test_a_poll_and_a_delivery_end_by_it(kind, dripping):
    server = dripping(*DRIPS[kind])
    source = CoinGeckoClient(f"http://127.0.0.1:{server.port}", deadline_s=0.2, wait_initial_s=0.01)
    poll = source.poll(["bitcoin"], datetime(2026, 1, 5, tzinfo=UTC))
    assert (poll.outcome, poll.detail) == ("upstream_down", "no whole reply within 0.2 s")
    url = SecretStr(f"http://127.0.0.1:{server.port}/hooks/S3CRET")
    done = webhook.deliver(url, {}, idempotency_key="x", attempts=2, timeout_s=0.2, wait_initial_s=0.01)
    assert (done.accepted, done.attempts) == (False, 2)
    assert done.detail == "no answer from the webhook (no whole reply within 0.2 s)"
