"""What the server counts about itself: requests, times, scored rows.

Belongs here: counters and the layer that counts. Does not belong here: figures of the home (`metrics`).
"""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX = "crypto_assets"
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Meters:
    """What this server counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter(
            f"{PREFIX}_http_requests_total", "Requests answered.", ("method", "route", "status"), **made
        )
        self.seconds = Histogram(
            f"{PREFIX}_http_request_duration_seconds", "Time to an answer.", ("route",), buckets=BUCKETS, **made
        )
        self.scored_rows = Counter(f"{PREFIX}_scored_rows_total", "Rows scored on request.", ("model",), **made)
        self.scoring = Histogram(
            f"{PREFIX}_scoring_duration_seconds", "Time to score a request.", ("model",), buckets=BUCKETS, **made
        )

    def scored(self, model: str, rows: int, seconds: float) -> None:
        """Count a scoring request."""
        self.scored_rows.labels(model).inc(rows)
        self.scoring.labels(model).observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class Metered:
    """ASGI layer that counts requests by route template, so that no client can make up label values."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self._app, self._meters = app, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._meters.seconds.labels(_route(scope)).observe(time.perf_counter() - started)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
            self._meters.requests.labels(method, _route(scope), str(status)).inc()


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", None) or "other"
