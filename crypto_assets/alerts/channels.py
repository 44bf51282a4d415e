"""Channels that market alerts are sent by: the webhook, and whatever Apprise knows (chat, mail, push).

An address holds credentials: it is in no log line, exception or return value of this module. Does not belong here: the
webhook's HTTP (`webhook`), which alerts wait (`outbox`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from crypto_assets.alerts.webhook import WEBHOOK, Channel, Delivery, Webhook, message

if TYPE_CHECKING:
    from crypto_assets.settings import Settings

INSTALL = "pip install 'crypto_assets[notify]'"
NOT_INSTALLED = f"Apprise is not installed: {INSTALL}"


@dataclass(frozen=True)
class AppriseChannel:
    """An address of Apprise. It has no idempotency key: after a lost answer a message may come twice."""

    url: SecretStr

    def send(self, rows: Sequence[Mapping[str, Any]], *, key: str, source: str) -> Delivery:
        """Send the alerts as text; the key's first digits stand at its end."""
        try:
            apprise = import_module("apprise")
        except ImportError:
            return Delivery(False, 0, NOT_INSTALLED)
        title, _, rest = message(rows, source).partition("\n" if len(rows) > 1 else ": ")
        firing = any(row["state"] == "firing" for row in rows)
        kind = apprise.NotifyType.WARNING if firing else apprise.NotifyType.SUCCESS
        with _without_addresses_in_logs():
            target = apprise.Apprise()
            if not target.add(self.url.get_secret_value()):
                return Delivery(False, 0, "Apprise does not know this form of address")
            accepted = target.notify(title=title, body=f"{rest}\n[{key[:8]}]", notify_type=kind)
        return Delivery(bool(accepted), 1, "accepted" if accepted else "the service did not accept it")


def channels(settings: Settings) -> dict[str, Channel]:
    """The configured channels by name."""
    found: dict[str, Channel] = {name: AppriseChannel(url) for name, url in settings.channel_urls.items()}
    if settings.alert_webhook_url is not None:
        found[WEBHOOK] = Webhook(settings.alert_webhook_url)
    return found


@contextmanager
def _without_addresses_in_logs() -> Iterator[None]:
    """Keep Apprise's log lines, which name addresses, and those of its HTTP client out of every log."""
    loggers = [logging.getLogger(name) for name in ("apprise", "urllib3.connectionpool", "urllib3.util.retry")]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
