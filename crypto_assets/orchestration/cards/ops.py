"""The pipeline's own metrics and alerts."""

# Dagster reads the annotations of check functions at run time, so this module has no `annotations` future import.
from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from crypto_assets.assets import alerts as alert_delivery
from crypto_assets.assets import metrics
from crypto_assets.checks import factories as checks
from crypto_assets.checks import rules
from crypto_assets.contracts.tables import ALERTS
from crypto_assets.engine.base import CheckOutcome
from crypto_assets.orchestration.shell import Step, asset_spec, dep

STEPS = (
    Step(
        "ops_pipeline_metrics",
        metrics.work,
        ["ops.pipeline_metrics"],
        deps=[
            dep("bronze/raw_prices"),
            dep("silver/prices"),
            dep("silver/quarantine"),
            dep("ops/polls"),
            dep("gold/anomalies"),
        ],
    ),
)


def alerts_spec() -> dg.AssetSpec:
    """`ops/alerts` is written by the alert sensor, which reports its materializations."""
    return asset_spec("ops.alerts", deps=(), partitions_def=None, freshness=None, table_uri=None)


def alert_checks() -> dg.AssetChecksDefinition:
    """Checks of `ops/alerts`. No run writes the table, so they run by themselves: from the UI and with `maintain`."""
    specs = checks.specs(ALERTS.asset_key, ALERTS, alert_delivery.EXTRA_CHECKS)

    @dg.multi_asset_check(
        name="alert_checks",
        specs=specs,
        required_resource_keys={"engine", "step_inputs"},
        description="The contract of ops/alerts, and whether the webhook accepted what was sent.",
    )
    def alert_checks_op(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        rows = context.resources.engine.store.read_arrow(ALERTS.full_name)
        configured = context.resources.step_inputs.settings.alert_webhook_url is not None
        found = [
            *rules.evaluate(ALERTS, rows, [None])[None],
            alert_delivery.judge(rows.to_pylist(), datetime.now(UTC), configured=configured),
        ]
        by_name = {o.name: o for o in found}
        for spec in specs:
            outcomes: dict[str | None, CheckOutcome] = {None: by_name[spec.name]}
            yield checks.aggregate(spec.asset_key, spec.name, outcomes)

    return alert_checks_op
