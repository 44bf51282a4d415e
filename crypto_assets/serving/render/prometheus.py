"""Recording and alert rules over the metrics that the service exports.

Belongs here: expressions, thresholds, the runbook entry of every alert. Does not belong here: exported metrics
(`serving.metrics`, `serving.meters`), scraping (`deploy/prometheus/prometheus.yml`, written by hand).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from crypto_assets.checks.freshness import thresholds
from crypto_assets.serving.meters import PREFIX
from crypto_assets.serving.render.yaml_text import to_yaml

FOLDER = "deploy/prometheus"
RUNBOOK = "docs/runbook.md#alerts-of-prometheus"
"""Section with a row for every alert of this module."""
CADENCE_S = 270.0
"""Seconds between polls of CoinGecko's demo plan over a whole month (`checks.freshness.cadence_s`)."""
LATE_S, STALE_S = (int(limit.total_seconds()) for limit in thresholds(CADENCE_S))
PRICES = f'{PREFIX}_event_age_seconds{{table="gold.latest_prices"}}'

RECORDED: Mapping[str, str] = {
    f"{PREFIX}:http_requests:rate5m": f"sum by (route, status) (rate({PREFIX}_http_requests_total[5m]))",
    f"{PREFIX}:http_errors:ratio_rate5m": (
        f'sum(rate({PREFIX}_http_requests_total{{status=~"5.."}}[5m])) / sum(rate({PREFIX}_http_requests_total[5m]))'
    ),
    f"{PREFIX}:http_request_duration_seconds:p99_5m": (
        f"histogram_quantile(0.99, sum by (le, route) (rate({PREFIX}_http_request_duration_seconds_bucket[5m])))"
    ),
    f"{PREFIX}:scoring_duration_seconds:p99_5m": (
        f"histogram_quantile(0.99, sum by (le, model) (rate({PREFIX}_scoring_duration_seconds_bucket[5m])))"
    ),
    f"{PREFIX}:scored_rows:rate5m": f"sum by (model) (rate({PREFIX}_scored_rows_total[5m]))",
    f"{PREFIX}:credits_left:in_3d": f"predict_linear({PREFIX}_credits_left[1d], 3 * 86400)",
}
"""Expressions of recording rules by name (`level:metric:operations`)."""


@dataclass(frozen=True)
class Alert:
    """One alert rule.

    Args:
        name: CamelCase; its row in the runbook has it.
        expr: Fires where this has samples.
        for_: How long it must hold.
        severity: As in `ops.alerts`.
        summary: One line; may use Prometheus' templates.
    """

    name: str
    expr: str
    for_: str
    severity: Literal["warn", "error"]
    summary: str


ALERTS: Sequence[Alert] = (
    Alert("CryptoAssetsUnreachable", f"absent({PREFIX}_sse_clients)", "2m", "error", "The API is not scraped."),
    Alert(
        "CryptoAssetsStateUnknown",
        f"{PREFIX}_state_age_seconds > 120 or (absent({PREFIX}_state_age_seconds) and on() {PREFIX}_sse_clients)",
        "3m",
        "error",
        "The alert sensor has not written the state of the pipeline: is the daemon running?",
    ),
    Alert(
        "CryptoAssetsPricesStale",
        f"{PRICES} > {STALE_S}",
        "1m",
        "error",
        "The newest quote is {{ $value | humanizeDuration }} old.",
    ),
    Alert(
        "CryptoAssetsPricesLate",
        f"{PRICES} > {LATE_S}",
        "5m",
        "warn",
        "The newest quote is {{ $value | humanizeDuration }} old.",
    ),
    Alert(
        "CryptoAssetsLag",
        f"{PREFIX}_lag_seconds > {LATE_S}",
        "5m",
        "warn",
        "The oldest record that is not in Gold waits for {{ $value | humanizeDuration }}.",
    ),
    Alert("CryptoAssetsChecksRed", f'{PREFIX}_checks{{state="error"}} > 0', "5m", "error",
          "{{ $value }} checks of the pipeline fail."),
    Alert("CryptoAssetsAlertsFiring", f'{PREFIX}_alerts_firing{{severity="error"}} > 0', "1m", "error",
          "{{ $value }} alerts of severity error fire in ops.alerts."),
    Alert("CryptoAssetsPollsFail", f"{PREFIX}_polls_ok_ratio < 0.9", "1m", "warn",
          "Only {{ $value | humanizePercentage }} of the newest closed hour's polls succeeded."),
    Alert("CryptoAssetsQuarantine", f"{PREFIX}_quarantine_ratio > 0.01", "1m", "warn",
          "{{ $value | humanizePercentage }} of the newest closed hour's records were quarantined."),
    Alert("CryptoAssetsCreditsRunOut", f"{PREFIX}:credits_left:in_3d < 0", "30m", "warn",
          "At the pace of the last day the source's credits run out within three days."),
    Alert("CryptoAssetsApiErrors", f"{PREFIX}:http_errors:ratio_rate5m > 0.01", "5m", "error",
          "{{ $value | humanizePercentage }} of requests fail with a 5xx status."),
    Alert("CryptoAssetsApiSlow", f"{PREFIX}:http_request_duration_seconds:p99_5m > 1", "10m", "warn",
          "{{ $labels.route }} takes {{ $value | humanizeDuration }} at the 99th percentile."),
)  # fmt: skip


def rules() -> dict[str, Any]:
    """Recording rules as values of a rule file."""
    recorded = [{"record": name, "expr": expr} for name, expr in RECORDED.items()]
    return {"groups": [{"name": PREFIX, "interval": "30s", "rules": recorded}]}


def alerts() -> dict[str, Any]:
    """Alert rules as values of a rule file."""
    found = [
        {
            "alert": alert.name,
            "expr": alert.expr,
            "for": alert.for_,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary, "runbook_url": RUNBOOK},
        }
        for alert in ALERTS
    ]
    return {"groups": [{"name": f"{PREFIX}_alerts", "rules": found}]}


def files() -> dict[str, Callable[[], str]]:
    """Rendered files by path within a checkout."""
    return {
        f"{FOLDER}/rules.yml": lambda: to_yaml(rules(), "Recording rules."),
        f"{FOLDER}/alerts.yml": lambda: to_yaml(alerts(), "Alert rules."),
    }
