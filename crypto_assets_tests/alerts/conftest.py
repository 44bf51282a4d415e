from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Held:
    """A request that waits for its answer."""

    def __init__(self) -> None:
        self.arrived, self.release = threading.Event(), threading.Event()


class Receiver:
    """A local webhook: answers the given statuses in turn, then 200, and keeps what it accepted."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.held: Held | None = None
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.accepted: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = ({k.lower(): v for k, v in self.headers.items()}, body)
                receiver.seen.append(request)
                held, receiver.held = receiver.held, None
                if held is not None:
                    held.arrived.set()
                    held.release.wait(60)
                status = receiver.answers.pop(0) if receiver.answers else 200
                if status < 300:
                    receiver.accepted.append(request)
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", receiver.url)
                self.send_header("Content-Length", "0")
                with suppress(OSError):  # whoever asked was killed
                    self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hooks/S3CRET-token"

    def hold(self) -> Held:
        """Keep the next request waiting."""
        self.held = Held()
        return self.held


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()
