"""Databricks SQL alerts (v2) over queries of the catalogue, as a file that the bundle includes.

They watch a workspace from within, where no alert sensor can read the tables: prices that stand still, what is flagged,
quarantine, credits, alerts that fire.

Belongs here: conditions and thresholds. Does not belong here: queries (`serving.queries`), the bundle
(`deploy/databricks.yml`, written by hand), alerts that the product sends itself (`alerts`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from crypto_assets.checks.freshness import thresholds
from crypto_assets.contracts.render import in_catalog, literal
from crypto_assets.serving import queries
from crypto_assets.serving.query import Query
from crypto_assets.serving.render.sql import value, with_parameters
from crypto_assets.serving.render.yaml_text import to_yaml
from crypto_assets.settings import HOURLY_REFRESH_S

PATH = "deploy/databricks/alerts.yml"
HOURLY, DAILY = "0 20 * * * ?", "0 30 6 * * ?"
"""Quartz: after the refresh of :05, and in the morning (UTC)."""


@dataclass(frozen=True)
class Alert:
    """One alert.

    Args:
        name: snake_case; key in the bundle.
        title: Shown in the workspace and in messages.
        does: What to do about it, or where that stands.
        query: Query of the catalogue.
        aggregate: SQL function over the column.
        column: Column of the query.
        operator: The alert fires where `aggregate(column) operator threshold` holds.
        threshold: Number to compare with.
        schedule: When it is evaluated.
        parameters: SQL by parameter of the query; the others have their defaults.
        where: Values by column to which rows are restricted.
    """

    name: str
    title: str
    does: str
    query: Query
    aggregate: Literal["COUNT", "MAX", "MIN"]
    column: str
    operator: Literal["GREATER_THAN", "LESS_THAN"]
    threshold: float
    schedule: str = HOURLY
    parameters: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)

    def sql(self, catalog: str) -> str:
        """The SQL that is evaluated, over the tables of a catalog."""
        found = in_catalog(with_parameters(self.query, self.parameters), catalog)
        if not self.where:
            return found
        conditions = " AND ".join(f"{name} = {literal(text)}" for name, text in self.where.items())
        return f"SELECT * FROM (\n{found}\n) AS rows_of WHERE {conditions}"  # noqa: S608 - constants of this module


ALERTS = (
    Alert(
        "prices_stale",
        "Prices stand still",
        "No coin has a new quote. Open the newest run of the schedule close_hour; docs/runbook.md, An alert arrived.",
        queries.LATEST_PRICES,
        "MIN",
        "age_s",
        "GREATER_THAN",
        thresholds(HOURLY_REFRESH_S)[1].total_seconds(),
    ),
    Alert(
        "anomalies_flagged",
        "Anomalies were flagged",
        "A slot of the newest two hours stands out: the dashboard, page Anomalies, has score and explanation.",
        queries.RECENT_ANOMALIES,
        "COUNT",
        "window_end",
        "GREATER_THAN",
        0,
        parameters={"hours": value(2)},  # longer than the schedule's hour: no slot falls between two evaluations
    ),
    Alert(
        "quarantine_high",
        "Records are quarantined",
        "More than 1 % of an hour's records were rejected: read silver.quarantine, which has every reason.",
        queries.PIPELINE_HEALTH,
        "MAX",
        "max_24h",
        "GREATER_THAN",
        0.01,
        where={"metric": "quarantine_rate"},
    ),
    Alert(
        "credits_low",
        "Credits run out",
        "Credits of the source last less than three days: lengthen the cadence or raise the plan.",
        queries.CREDITS_LEFT,
        "MIN",
        "days_left",
        "LESS_THAN",
        3,
        DAILY,
    ),
    Alert(
        "errors_open",
        "Errors of the pipeline are open",
        "Alerts of severity error fire: docs/runbook.md, An alert arrived.",
        queries.ALERTS_OPEN,
        "COUNT",
        "alert_id",
        "GREATER_THAN",
        0,
        where={"severity": "error"},
    ),
)


def resources() -> dict[str, Any]:
    """`resources.alerts` of the bundle, whose variables they refer to."""
    return {"resources": {"alerts": {alert.name: _resource(alert) for alert in ALERTS}}}


def files() -> dict[str, Callable[[], str]]:
    """Rendered files by path within a checkout."""
    return {PATH: lambda: to_yaml(resources(), "Alerts of the Databricks bundle.")}


def _resource(alert: Alert) -> dict[str, Any]:
    return {
        "display_name": f"crypto-assets: {alert.title}",
        "custom_summary": alert.title,
        "custom_description": alert.does,
        "query_text": alert.sql("${var.catalog}") + "\n",
        "warehouse_id": "${var.warehouse_id}",
        "evaluation": {
            "source": {"name": alert.column, "display": alert.column, "aggregation": alert.aggregate},
            "comparison_operator": alert.operator,
            "threshold": {"value": {"double_value": float(alert.threshold)}},
            "empty_result_state": "OK",
            "notification": {"notify_on_ok": True, "subscriptions": [{"user_email": "${var.alerts_email}"}]},
        },
        "schedule": {
            "quartz_cron_schedule": alert.schedule,
            "timezone_id": "UTC",
            "pause_status": "${var.alerts_pause_status}",
        },
    }
