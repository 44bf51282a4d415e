"""Delivery of one alert by HTTP: a JSON POST, retried, at least once.

The address is a secret: it is in no log line, exception or return value of this module. Does not belong here: which
alerts exist (`alerts`) or which of them still wait for delivery (`alert_sensor`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import SecretStr

ATTEMPTS = 3
TIMEOUT_S = 5.0
IDEMPOTENCY_HEADER = "Idempotency-Key"


@dataclass(frozen=True)
class Delivery:
    """What became of one delivery.

    Args:
        accepted: Whether the receiver answered with a status of 200-299.
        attempts: POSTs made.
        detail: The last status or the kind of error; never the address.
    """

    accepted: bool
    attempts: int
    detail: str


class _NotNowError(Exception):
    """The receiver is unreachable, busy or failing; worth another attempt."""


def payload(row: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The JSON body of an alert row. `text` is one line for receivers such as chat channels that show only that.

    Args:
        row: A row of `ops.alerts`.
        source: Data mode of the home, named on every surface.
    """
    where = f" [{row['partition_key']}]" if row["partition_key"] else ""
    body = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
        if name not in ("delivered_at", "attempts")
    }
    text = f"{row['state'].upper()} {row['severity']}: {row['cause']}{where}: {row['summary']}"
    return {**body, "source": source, "text": text}


def deliver(
    url: SecretStr,
    body: Mapping[str, Any],
    *,
    idempotency_key: str,
    attempts: int = ATTEMPTS,
    timeout_s: float = TIMEOUT_S,
    wait_initial_s: float = 0.2,
) -> Delivery:
    """POST `body` as JSON until it is accepted or the attempts are used up. Never raises for what the receiver does.

    No answer, 408, 425, 429 and 5xx are tried again; any other status is final for this call. Redirects are not
    followed, because they would carry the alert to another address. A receiver may see the same alert twice (an
    answer can be lost) and tells the copies by the header `Idempotency-Key`.

    Args:
        url: Address.
        body: JSON object.
        idempotency_key: Identity of the alert.
        attempts: POSTs at most.
        timeout_s: Seconds for each of connecting and answering.
        wait_initial_s: First wait between attempts; it doubles, with jitter.
    """
    import requests
    import stamina

    made, status, detail = 0, None, ""
    try:
        with _without_address_in_logs(), requests.Session() as session:
            for attempt in stamina.retry_context(
                on=_NotNowError, attempts=attempts, timeout=None, wait_initial=wait_initial_s, wait_max=2.0
            ):
                with attempt:
                    made += 1
                    status, detail = _post(session, url, body, idempotency_key, timeout_s)
                    if status is None or status in (408, 425, 429) or status >= 500:
                        raise _NotNowError(detail)
    except _NotNowError:
        return Delivery(False, made, detail)
    return Delivery(status is not None and 200 <= status < 300, made, detail)


def _post(
    session: Any, url: SecretStr, body: Mapping[str, Any], idempotency_key: str, timeout_s: float
) -> tuple[int | None, str]:
    """One POST: the status, or None with the kind of error. Errors of `requests` hold the address, so none leaves."""
    import requests

    try:
        response = session.post(
            url.get_secret_value(),
            json=dict(body),
            headers={IDEMPOTENCY_HEADER: idempotency_key},
            timeout=timeout_s,
            allow_redirects=False,
            stream=True,
        )
        response.close()
    except (requests.RequestException, ValueError) as error:
        return None, f"no answer from the webhook ({type(error).__name__})"
    return response.status_code, f"the webhook answered {response.status_code}"


@contextmanager
def _without_address_in_logs() -> Iterator[None]:
    """Keep urllib3's debug lines of this thread (they name host and path) out of every log."""
    ours = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        return record.thread != ours

    loggers = [logging.getLogger(name) for name in ("urllib3.connectionpool", "urllib3.util.retry")]
    for logger in loggers:
        logger.addFilter(keep)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(keep)
