"""A Grafana dashboard over the exported metrics: the pipeline's health and that of the service.

Belongs here: panels and their queries. Does not belong here: exported metrics (`serving.metrics`, `serving.meters`),
rules (`prometheus`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from crypto_assets.serving.meters import PREFIX
from crypto_assets.serving.render.prometheus import LATE_S, STALE_S

PATH = "deploy/grafana/crypto_assets.json"
UID = "crypto-assets"
WIDTH = 24
"""Columns of the grid."""
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """One panel.

    Args:
        title: What it shows.
        exprs: PromQL by legend; "" = no legend, `{{label}}` = the value of a label.
        unit: Grafana's name of the unit.
        kind: Newest value or lines over time.
        limits: Values from which it is yellow and red.
        width: Columns of the grid, of 24.
        description: Shown on its info icon.
    """

    title: str
    exprs: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: Literal["stat", "timeseries"] = "timeseries"
    limits: tuple[float, float] | None = None
    width: int = 8
    description: str = ""


def _m(name: str) -> str:
    return f"{PREFIX}_{name}"


def _rate(counter: str, by: str) -> tuple[str, str]:
    return f"sum by ({by}) (rate({_m(counter)}[5m]))", f"{{{{{by}}}}}"


def _p99(histogram: str, by: str) -> tuple[str, str]:
    return (
        f"histogram_quantile(0.99, sum by (le, {by}) (rate({_m(histogram)}_bucket[5m])))",
        f"{{{{{by}}}}}",
    )


PANELS: Sequence[Panel] = (
    Panel("Newest quote", ((_m('event_age_seconds{table="gold.latest_prices"}'), ""),), "s", "stat", (LATE_S, STALE_S),
          4, "Age of the newest quote."),
    Panel("Lag", ((_m("lag_seconds"), ""),), "s", "stat", (LATE_S, STALE_S), 4,
          "Age of the oldest record that is not in Gold; no value = the state of the pipeline is unknown."),
    Panel("Checks red", ((_m('checks{state="error"}'), ""),), "none", "stat", (1, 1), 4),
    Panel("Alerts firing", ((f"sum({_m('alerts_firing')})", ""),), "none", "stat", (1, 5), 4),
    Panel("Credits left", ((_m("credits_left"), ""),), "none", "stat", None, 4, "Of the source's plan, this month."),
    Panel("State report", ((_m("state_age_seconds"), ""),), "s", "stat", (60, 120), 4,
          "Age of the report that the alert sensor writes at every tick."),
    Panel("Age of the newest event by table", ((_m("event_age_seconds"), "{{table}}"),), "s", width=12),
    Panel("Table versions", ((f"changes({_m('table_version')}[10m])", "{{table}}"),), "none", width=12,
          description="Commits in ten minutes."),
    Panel("Messages produced", ((_m("messages_produced"), "messages"),), description="Of the newest closed hour."),
    Panel("Processing latency", ((_m("processing_latency_p50_seconds"), "p50"),
                                 (_m("processing_latency_p99_seconds"), "p99")), "s",
          description="Arrival to Bronze, of the newest closed hour."),
    Panel("Model inference latency", ((_m("model_inference_latency_seconds"), "median"),), "s"),
    Panel("Repeated quotes, quarantine, polls",
          ((_m("dedup_ratio"), "repeated quotes"), (_m("quarantine_ratio"), "quarantined records"),
           (_m("polls_ok_ratio"), "polls that succeeded")), "percentunit", width=12),
    Panel("Checks", ((_m("checks"), "{{state}}"),), "none", width=6),
    Panel("Alerts", ((_m("alerts_firing"), "{{severity}}"),), "none", width=6),
    Panel("Requests", (_rate("http_requests_total", "route"),), "reqps"),
    Panel("Request duration, p99", (_p99("http_request_duration_seconds", "route"),), "s"),
    Panel("Errors", (_rate('http_requests_total{status=~"5.."}', "status"),), "reqps"),
    Panel("Open event streams", ((_m("sse_clients"), "clients"),), "none"),
    Panel("Scored rows", (_rate("scored_rows_total", "model"),), "rowsps"),
    Panel("Scoring duration, p99", (_p99("scoring_duration_seconds", "model"),), "s"),
)  # fmt: skip


def document(panels: Sequence[Panel] = PANELS) -> dict[str, Any]:
    """The dashboard as JSON-safe values; panels fill rows of the grid from the left."""
    placed, left, top, tallest = [], 0, 0, 0
    for number, panel in enumerate(panels, start=1):
        height = 4 if panel.kind == "stat" else 8
        if left + panel.width > WIDTH:
            left, top, tallest = 0, top + tallest, 0
        placed.append(_panel(panel, number, {"x": left, "y": top, "w": panel.width, "h": height}))
        left, tallest = left + panel.width, max(tallest, height)
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    return {
        "uid": UID,
        "title": "Crypto assets",
        "tags": [UID],
        "timezone": "utc",
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": [source]},
        "annotations": {"list": []},
        "panels": placed,
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limits:
        steps += [{"color": c, "value": v} for c, v in zip(("yellow", "red"), panel.limits, strict=True)]
    targets = [
        {"refId": chr(ord("A") + n), "datasource": _SOURCE, "expr": expr, "legendFormat": legend or "__auto"}
        for n, (expr, legend) in enumerate(panel.exprs)
    ]
    options = {"reduceOptions": {"calcs": ["lastNotNull"]}} if panel.kind == "stat" else {"tooltip": {"mode": "multi"}}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": options,
        "targets": targets,
    }


def text() -> str:
    """The dashboard's file."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def files() -> dict[str, Callable[[], str]]:
    """Rendered files by path within a checkout."""
    return {PATH: text}
