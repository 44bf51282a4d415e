"""A server on 127.0.0.1 that speaks the CoinGecko API, from the recording or the simulator, with faults on request.

It serves /coins/markets and /coins/{id}/market_chart/range. A client that drives time sends its
present moment in `X-Standin-Now` (ISO 8601); without it, real time counts. Faults are set by `POST /_faults` with a
JSON object `{"kind": ..., "coin": ..., "times": n}` (times absent = until cleared) and cleared by `{"kind": null}`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from crypto_assets.sources.feed import Feed, Quote

FAULTS = ("null_price", "missing_coin", "frozen_quote", "rate_limited_json", "unauthorized", "down")
NOW_HEADER = "X-Standin-Now"
RATE_LIMITED = b'{"status": {"error_code": 429, "error_message": "You\'ve exceeded the Rate Limit."}}'


@dataclass
class Fault:
    """A fault in force. `times` None = until cleared."""

    kind: str
    coin: str | None = None
    times: int | None = None
    retry_after: str | None = "30"


class StandIn:
    """The server; use it as a context manager.

    Args:
        feed: What is served.
        port: Port on 127.0.0.1; 0 = a free one.
    """

    faults: ClassVar[tuple[str, ...]] = FAULTS

    def __init__(self, feed: Feed, port: int = 0) -> None:
        self.feed = feed
        self._fault: Fault | None = None
        self._frozen: dict[str, Quote] = {}
        self._lock = threading.Lock()
        self.requests = 0
        self.stopped = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (self.handler(),), {"standin": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @staticmethod
    def handler() -> type[Handler]:
        """Class that answers requests."""
        return Handler

    @property
    def url(self) -> str:
        """Base URL of the API."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/api/v3"

    def __enter__(self) -> StandIn:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving; replies under way end early."""
        self.stopped.set()
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def set_fault(self, kind: str | None, **options: Any) -> None:
        """Put a fault in force, or clear it with None.

        Raises:
            ValueError: There is no such fault; names those that are.
        """
        if kind is not None and kind not in self.faults:
            raise ValueError(f"{kind!r} is no fault; choose one of {', '.join(self.faults)}")
        with self._lock:
            self._fault = Fault(kind, **options) if kind else None
            self._frozen = {}

    def take_fault(self) -> Fault | None:
        """The fault for one request."""
        with self._lock:
            self.requests += 1
            fault = self._fault
            if fault is not None and fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self._fault = None
            return fault

    def quotes(self, ids: Sequence[str], now: datetime, fault: Fault | None) -> list[dict[str, Any]]:
        """Elements of `/coins/markets`."""
        quotes = {q.coin_id: q for q in self.feed.quotes(now) if q.coin_id in ids}
        if fault is not None and fault.kind == "frozen_quote":
            with self._lock:
                for coin_id, quote in quotes.items():
                    if fault.coin in (None, coin_id):
                        self._frozen.setdefault(coin_id, quote)
                quotes |= {c: q for c, q in self._frozen.items() if c in ids}
        elements = [element(q) for q in quotes.values()]
        return self.damaged(elements, fault) if fault is not None else elements

    def damaged(self, elements: list[dict[str, Any]], fault: Fault) -> list[dict[str, Any]]:
        """Elements of a good reply with the fault in those of its coin, or in the first."""
        hit = [e for e in elements if fault.coin in (None, e["id"])][: None if fault.coin else 1]
        if fault.kind == "null_price":
            for e in hit:
                e["current_price"] = None
        return [e for e in elements if e not in hit] if fault.kind == "missing_coin" else elements


def element(quote: Quote) -> dict[str, Any]:
    """A quote as CoinGecko writes a coin; numbers stay text here and are written bare by `_dump`."""
    return {
        "id": quote.coin_id,
        "symbol": quote.symbol.lower(),
        "name": quote.name,
        "current_price": Number.of(quote.price),
        "market_cap": Number.of(quote.market_cap),
        "total_volume": Number.of(quote.volume_24h),
        "price_change_percentage_24h": Number.of(quote.change_24h_pct),
        "last_updated": quote.last_updated_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "price_change_percentage_1h_in_currency": Number.of(quote.change_1h_pct),
        "price_change_percentage_24h_in_currency": Number.of(quote.change_24h_pct),
        "price_change_percentage_7d_in_currency": Number.of(quote.change_7d_pct),
    }


class Number(float):
    """A decimal that JSON writes with all its digits: `json` calls `__repr__` of float subclasses' text."""

    text: str

    @classmethod
    def of(cls, value: Any) -> Number | None:
        """A value with its digits; None stays None."""
        if value is None:
            return None
        number = cls(value)
        number.text = format(value, "f")
        return number


def _dump(value: Any) -> str:
    """JSON text in which every `Number` has all its digits."""
    if isinstance(value, Number):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{_dump(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_dump, value)) + "]"
    return json.dumps(value)


class Handler(BaseHTTPRequestHandler):
    """Answers of one stand-in."""

    standin: StandIn
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes; without this the second waits 40 ms for an acknowledgement of the first.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are not logged: the key may be in their headers."""

    def do_POST(self) -> None:
        """Set or clear a fault."""
        text = self.rfile.read(int(self.headers.get("content-length") or 0))
        if urlsplit(self.path).path != "/_faults":
            self.reply(404, b"{}")
            return
        try:
            self.standin.set_fault(**{"kind": None, **json.loads(text or b"{}")})
        except (ValueError, TypeError) as error:
            self.reply(400, json.dumps({"error": str(error)}).encode())
            return
        self.reply(200, b"{}")

    def do_GET(self) -> None:
        """Serve the API."""
        parts = urlsplit(self.path)
        query = {k: v[-1] for k, v in parse_qs(parts.query).items()}
        path = parts.path.removeprefix("/api/v3")
        given = self.headers.get(NOW_HEADER)
        now = datetime.fromisoformat(given) if given else datetime.now(UTC)
        fault = self.standin.take_fault() if path.startswith("/coins/") else None
        if fault is not None and self.fail(fault):
            return
        if path == "/coins/markets":
            self._markets(query, now, fault)
        elif path.startswith("/coins/") and path.endswith("/market_chart/range"):
            self._range(path.split("/")[2], query, now)
        else:
            self.reply(404, b'{"error":"not found"}')

    def _markets(self, query: dict[str, str], now: datetime, fault: Fault | None) -> None:
        elements = self.standin.quotes(query.get("ids", "").split(","), now, fault)
        extra = {f"X-Standin-{k}": v for k, v in self.standin.feed.headers(now).items()}
        self.reply(200, _dump(elements).encode(), {"Age": "0", **extra})

    def _range(self, coin_id: str, query: dict[str, str], now: datetime) -> None:
        start = datetime.fromtimestamp(int(query["from"]), UTC)
        end = datetime.fromtimestamp(int(query["to"]), UTC)
        days = (end - start) / timedelta(days=1)
        # The spacing that CoinGecko documents for ranges: five minutes only for the newest day, an hour for up to 90.
        newest_day = days <= 1 and end >= now - timedelta(hours=1)
        step = timedelta(minutes=5) if newest_day else timedelta(hours=1) if days <= 90 else timedelta(days=1)
        times = [start + i * step for i in range(int((end - start) / step) + 1)]
        points = [[int(t.timestamp() * 1000), Number.of(p)] for t, p in self.standin.feed.history(coin_id, times)]
        if coin_id not in {c.coin_id for c in self.standin.feed.coins}:
            self.reply(404, b'{"error":"coin not found"}')
            return
        self.reply(200, _dump({"prices": points, "market_caps": [], "total_volumes": []}).encode())

    def fail(self, fault: Fault) -> bool:
        """Answer with the fault; False if it only changes a good reply."""
        wait = {"Retry-After": fault.retry_after} if fault.retry_after else {}
        answers: dict[str, tuple[int, bytes, dict[str, str]]] = {
            "rate_limited_json": (429, RATE_LIMITED, wait),
            "unauthorized": (401, b'{"status":{"error_code":10002,"error_message":"API Key Missing"}}', {}),
            "down": (503, b"upstream connect error", {"Content-Type": "text/plain"}),
        }
        if fault.kind in answers:
            self.reply(*answers[fault.kind])
        return fault.kind in answers

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a whole reply, JSON unless the headers say otherwise."""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
