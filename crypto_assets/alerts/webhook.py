"""Delivery by HTTP: a JSON POST, retried, at least once; and what a channel is.

The address is a secret: it is in no log line, exception or return value of this module. Does not belong here: which
alerts exist (`alerts`), which of them still wait for delivery (`outbox`), other channels (`channels`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr

from crypto_assets.settings_databricks import LOOPBACK
from crypto_assets.source_facts import facts_of
from crypto_assets.web import Client, NoReply

ATTEMPTS = 3
TIMEOUT_S = 5.0
WEBHOOK = "webhook"
"""Name of the channel."""
THREAD = "webhook"
"""Name of the sender threads."""
IDEMPOTENCY_HEADER = "Idempotency-Key"


@dataclass(frozen=True)
class Delivery:
    """Outcome of one delivery.

    Args:
        accepted: Whether the receiver answered with a status of 200-299.
        attempts: POSTs made.
        detail: The last status or the kind of error; never the address.
    """

    accepted: bool
    attempts: int
    detail: str


class Channel(Protocol):
    """Where alerts are sent."""

    def send(self, rows: Sequence[Mapping[str, Any]], *, key: str, source: str) -> Delivery:
        """Send one message; never raises for the receiver's behaviour.

        Args:
            rows: Rows of `ops.alerts`, oldest first; at least one.
            key: Identity of the message, the same at every attempt.
            source: Data mode of the home.
        """
        ...


@dataclass(frozen=True)
class Webhook:
    """The channel `webhook`: an alert is a JSON object, several in one message an object with a list of them."""

    url: SecretStr

    def send(self, rows: Sequence[Mapping[str, Any]], *, key: str, source: str) -> Delivery:
        """POST them."""
        bodies = [payload(row, source) for row in rows]
        several = {"source": source, "text": message(rows, source), "alerts": bodies}
        return deliver(self.url, bodies[0] if len(bodies) == 1 else several, idempotency_key=key)


class _NotNowError(Exception):
    """The receiver is unreachable, busy or failing; worth another attempt."""


def payload(row: Mapping[str, Any], source: str) -> dict[str, Any]:
    """JSON body of an alert row; `text` is one line for receivers, such as chat channels, that show only that.

    Args:
        row: A row of `ops.alerts`.
        source: Data mode of the home, named on every surface.
    """
    body = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
        if name not in ("delivered_at", "attempts")
    }
    return {**body, "source": source, "text": message([row], source)}


def message(rows: Sequence[Mapping[str, Any]], source: str) -> str:
    """Text of a message: a line per alert, several under a heading. Prices that are not live are marked."""
    mark = "" if facts_of(source).live else f"[{source}] "
    lines = [_line(row) for row in rows]
    if len(lines) == 1:
        return mark + lines[0]
    return "\n".join(
        [f"{mark}{len(lines)} alerts, {rows[0]['at']:%Y-%m-%d %H:%M} to {rows[-1]['at']:%H:%M} UTC", *lines]
    )


def _line(row: Mapping[str, Any]) -> str:
    where = f" [{row['partition_key']}]" if row["partition_key"] else ""
    slot = f" at {row['at']:%H:%M} UTC" if row.get("rule") else ""
    return f"{row['state'].upper()} {row['severity']}: {row['cause']}{where}{slot}: {row['summary']}"


def deliver(
    url: SecretStr,
    body: Mapping[str, Any],
    *,
    idempotency_key: str,
    attempts: int = ATTEMPTS,
    timeout_s: float = TIMEOUT_S,
    wait_initial_s: float = 0.2,
) -> Delivery:
    """POST `body` as JSON until it is accepted or the attempts are used up.

    Never raises for the receiver's behaviour. No answer, 408, 425, 429 and 5xx are retried; any other status is final
    for this call. Redirects are not followed, because they would carry the alert to another address. A receiver may get
    the same alert twice (an answer can be lost) and recognizes the copy by the header `Idempotency-Key`.

    Args:
        url: Address.
        body: JSON object.
        idempotency_key: Identity of the alert.
        attempts: Maximum number of POSTs.
        timeout_s: Seconds for each attempt, enforced overall: three end within 16 s, waits included.
        wait_initial_s: First wait between attempts; it doubles, with jitter.
    """
    import stamina

    made, status, detail = 0, None, ""
    try:
        with _without_address_in_logs(), _client(url) as client:
            for attempt in stamina.retry_context(
                on=_NotNowError, attempts=attempts, timeout=None, wait_initial=wait_initial_s, wait_max=2.0
            ):
                with attempt:
                    made += 1
                    status, detail = _post(client, url, body, idempotency_key, timeout_s)
                    if status is None or status in (408, 425, 429) or status >= 500:
                        raise _NotNowError(detail)
    except _NotNowError:
        return Delivery(False, made, detail)
    return Delivery(status is not None and 200 <= status < 300, made, detail)


def _client(url: SecretStr) -> Client:
    try:
        here = urlsplit(url.get_secret_value()).hostname in LOOPBACK
    except ValueError:  # the attempt will report the malformed address
        here = False
    return Client(trust_env=not here, name=THREAD)


def _post(
    client: Client, url: SecretStr, body: Mapping[str, Any], idempotency_key: str, timeout_s: float
) -> tuple[int | None, str]:
    """Send one POST; return the status, or None with the kind of error."""
    try:
        reply = client.send(
            "POST",
            url.get_secret_value(),
            deadline_s=timeout_s,
            body=False,
            json=dict(body),
            headers={IDEMPOTENCY_HEADER: idempotency_key},
        )
    except NoReply as error:
        return None, f"no answer from the webhook ({error})"
    return reply.status, f"the webhook answered {reply.status}"


@contextmanager
def _without_address_in_logs() -> Iterator[None]:
    """Keep urllib3's debug lines of our requests (they name host and path) out of every log."""

    def keep(record: logging.LogRecord) -> bool:
        return record.threadName != THREAD

    loggers = [logging.getLogger(name) for name in ("urllib3.connectionpool", "urllib3.util.retry")]
    for logger in loggers:
        logger.addFilter(keep)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(keep)
