"""The stand-in of the exchange with more faults than the product's drill needs."""

from __future__ import annotations

import gzip
from typing import Any, ClassVar

from crypto_assets.sources.standin import FAULTS, RATE_LIMITED, Fault, Handler, Number, StandIn

HUGE_BYTES = 10 * 1024 * 1024
HTML = b"<html><head><title>Too Many Requests</title></head><body>error code: 1015</body></html>"


class FaultyStandIn(StandIn):
    """A stand-in with damaged, endless and oversized replies."""

    faults: ClassVar[tuple[str, ...]] = (
        *FAULTS,
        *("duplicate_coin", "scientific", "malformed", "rate_limited_200", "rate_limited_text", "rate_limited_html"),
        *("slow", "huge", "truncated_gzip"),
    )

    @staticmethod
    def handler() -> type[Handler]:
        return _Handler

    def damaged(self, elements: list[dict[str, Any]], fault: Fault) -> list[dict[str, Any]]:
        hit = [e for e in elements if fault.coin in (None, e["id"])]
        if fault.kind == "duplicate_coin":
            return [*elements, {**hit[0], "current_price": 1}]
        if fault.kind == "scientific":
            for e in hit:
                e["current_price"] = Number(1.9e-08)
                e["current_price"].text = "1.9e-08"
        return super().damaged(elements, fault)


class _Handler(Handler):
    def fail(self, fault: Fault) -> bool:
        wait = {"Retry-After": fault.retry_after} if fault.retry_after else {}
        answers: dict[str, tuple[int, bytes, dict[str, str]]] = {
            "rate_limited_200": (200, RATE_LIMITED, wait),
            "rate_limited_text": (429, b"Throttled", {**wait, "Content-Type": "text/plain"}),
            "rate_limited_html": (429, HTML, {"Content-Type": "text/html"}),
            "malformed": (200, b'[{"id":"bitcoin","current_price":1', {}),
            "huge": (200, b"[" + b" " * HUGE_BYTES + b"]", {}),
            "truncated_gzip": (200, gzip.compress(b"[" + b" " * 5000 + b"]")[:-20], {"Content-Encoding": "gzip"}),
        }
        if fault.kind == "slow":
            self._drip()
        elif fault.kind in answers:
            self.reply(*answers[fault.kind])
        else:
            return super().fail(fault)
        return True

    def _drip(self) -> None:
        """A byte now and then, for ever: until the client gives up or the server stops."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while not self.standin.stopped.wait(0.05):
                self.wfile.write(b" ")
                self.wfile.flush()
        except OSError:
            pass
        self.close_connection = True
