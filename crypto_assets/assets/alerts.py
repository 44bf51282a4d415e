"""Whether alerts reached the webhook, judged from the rows of `ops.alerts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from crypto_assets.engine.base import CheckOutcome

ACCEPTED = "accepted_by_webhook"
EXTRA_CHECKS = {
    ACCEPTED: "With a webhook configured, every alert of the last day that is older than 10 minutes was accepted by it."
}
PATIENCE = timedelta(minutes=10)
LOOK_BACK = timedelta(days=1)


def judge(alerts: Sequence[Mapping[str, Any]], now: datetime, *, configured: bool) -> CheckOutcome:
    """Evaluate the check.

    Args:
        alerts: Rows of `ops.alerts`.
        now: Time of the evaluation (UTC).
        configured: Whether ALERT_WEBHOOK_URL is set; without it alerts are in the table only.
    """
    if not configured:
        return CheckOutcome(ACCEPTED, True, "no webhook (ALERT_WEBHOOK_URL): alerts are in the table only")
    due = [a for a in alerts if now - LOOK_BACK < a["at"] < now - PATIENCE]
    lost = [a for a in due if a["delivered_at"] is None]
    told = f"{len(due)} alerts of the last day were accepted"
    if lost:
        oldest = min(a["at"] for a in lost)
        told = f"{len(lost)} of {len(due)} alerts were not accepted, the oldest of {oldest:%Y-%m-%d %H:%M}"
    return CheckOutcome(ACCEPTED, not lost, told, metadata={"violations": len(lost)})
