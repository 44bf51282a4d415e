"""`ops/alerts` in Dagster: written and reported by the alert sensor; no step materializes it."""

# Dagster reads the annotations of check functions at run time, so this module has no `annotations` future import.

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from crypto_assets.alerts import sensor
from crypto_assets.checks import factories as checks
from crypto_assets.checks import rules
from crypto_assets.contracts.tables import ALERTS
from crypto_assets.engine.base import CheckOutcome
from crypto_assets.orchestration.shell import asset_spec

ACCEPTED = "accepted_by_webhook"
EXTRA_CHECKS = {
    ACCEPTED: "With a webhook configured, every pipeline alert of the last day that is older than 10 minutes was "
    "accepted by it."
}
PATIENCE = timedelta(minutes=10)
LOOK_BACK = timedelta(days=1)
FRESHNESS = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=2), fail_window=timedelta(hours=4))
"""Maximum interval between reports of the table, also when there is no alert."""


def spec(*, promised: bool) -> dg.AssetSpec:
    """Spec of the asset.

    Args:
        promised: Whether the sensor runs by itself and so keeps the table fresh.
    """
    return asset_spec(ALERTS, freshness=FRESHNESS if promised else None, made_by=sensor.tick)


def judge(alerts: Sequence[Mapping[str, Any]], now: datetime, *, configured: bool) -> CheckOutcome:
    """Evaluate the check.

    Args:
        alerts: Rows of `ops.alerts`.
        now: Time of the evaluation (UTC).
        configured: Whether ALERT_WEBHOOK_URL is set; without it alerts are in the table only.
    """
    if not configured:
        return CheckOutcome(ACCEPTED, True, "no webhook (ALERT_WEBHOOK_URL): alerts are in the table only")
    # Market alerts have channels of their own, and may be held back (quiet hours) or only recorded (old slots).
    pipeline = [a for a in alerts if a.get("rule") is None]
    due = [a for a in pipeline if now - LOOK_BACK < a["at"] < now - PATIENCE]
    lost = [a for a in due if a["delivered_at"] is None]
    message = f"{len(due)} alerts of the last day were accepted"
    if lost:
        oldest = min(a["at"] for a in lost)
        message = f"{len(lost)} of {len(due)} alerts were not accepted, the oldest of {oldest:%Y-%m-%d %H:%M}"
    return CheckOutcome(ACCEPTED, not lost, message, metadata={"violations": len(lost)})


def table_checks() -> dg.AssetChecksDefinition:
    """Checks of the table. No run writes it, so they run separately: from the UI and with `maintain`."""
    specs = checks.specs(ALERTS.asset_key, ALERTS, EXTRA_CHECKS)

    @dg.multi_asset_check(
        name="alert_checks",
        specs=specs,
        required_resource_keys={"engine", "step_inputs"},
        description="The contract of ops/alerts, and whether the webhook accepted what was sent.",
    )
    def alert_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        rows = context.resources.engine.store.read_arrow(ALERTS.full_name)
        configured = context.resources.step_inputs.settings.alert_webhook_url is not None
        found = [
            *rules.folded(ALERTS, rules.evaluate(ALERTS, rows, [None])[None]),
            judge(rows.to_pylist(), datetime.now(UTC), configured=configured),
        ]
        by_name = {o.name: o for o in found}
        for spec in specs:
            outcomes: dict[str | None, CheckOutcome] = {None: by_name[spec.name]}
            yield checks.aggregate(spec.asset_key, spec.name, outcomes)

    return alert_checks
