"""Metrics of the pipeline for Prometheus, from rows in memory.

A value that is null in the tables is no sample. The names `messages_produced`, `processing_latency_ms`, ... stay in
tables and page; here units and suffixes follow Prometheus' conventions.

Belongs here: names, units, reading them off. Does not belong here: what the server counts (`meters`), alert rules and
dashboards over the metrics (`deploy`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from prometheus_client import Gauge
from prometheus_client.core import GaugeMetricFamily

from crypto_assets.contracts.slices import HOUR
from crypto_assets.serving.held import Snapshot, micros
from crypto_assets.serving.kept import ALERTS, METRICS, POLLS
from crypto_assets.serving.meters import PREFIX
from crypto_assets.serving.service import Service

HOURLY = {
    "messages_produced": ("messages_produced", 1.0, "Records that arrived in the newest closed hour."),
    "processing_latency_ms_p50": ("processing_latency_p50_seconds", 1e-3, "Arrival to Bronze, median."),
    "processing_latency_ms_p99": ("processing_latency_p99_seconds", 1e-3, "Arrival to Bronze, 99th percentile."),
    "dedup_rate": ("dedup_ratio", 1.0, "Share of valid records that repeated a known quote."),
    "quarantine_rate": ("quarantine_ratio", 1.0, "Share of records that were quarantined."),
    "polls_ok_rate": ("polls_ok_ratio", 1.0, "Share of polls that succeeded."),
    "model_inference_latency_ms": ("model_inference_latency_seconds", 1e-3, "One call of the model, median."),
}
"""By metric of `ops.pipeline_metrics`: name, factor to its unit, description; of the newest closed hour."""


def export(service: Service) -> None:
    """Export the home's figures beside what the server counts."""
    service.meters.registry.register(_Pipeline(service))
    streams = Gauge(f"{PREFIX}_sse_clients", "Open event streams.", registry=service.meters.registry)
    streams.set_function(lambda: service.hub.clients)


class _Pipeline:
    """The home's figures at the time of the scrape."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All families; those without a value have no sample."""
        service, now = self._service, self._service.now()
        snapshots = {n: t.snapshot for n, t in service.follower.tables.items() if t.snapshot is not None}
        yield _family("table_version", "Delta version that is served.", "table", _versions(snapshots))
        yield _family("event_age_seconds", "Age of the newest event of a table.", "table", _ages(snapshots, now))
        yield from _hourly(snapshots.get(METRICS.name), now)
        report = service.state.state.report if service.state.state.unknown_because(now) is None else None
        lag = report.get("lag_s") if report else None
        yield _family("lag_seconds", "Age of the oldest record that is not in Gold.", None, {"": lag})
        yield _family("checks", "Checks of all assets by their newest state.", "state", _checks(report))
        yield _family("alerts_firing", "Alerts that fire.", "severity", _firing(snapshots.get(ALERTS.name)))
        poll = newest_poll(snapshots.get(POLLS.name))
        yield _family("credits_left", "Credits left this month.", None, {"": poll and poll["credits_left"]})
        written = service.state.state.age_s(now)
        yield _family("state_age_seconds", "Age of the pipeline's state report.", None, {"": written})


def _family(name: str, text: str, label: str | None, values: dict[str, Any]) -> GaugeMetricFamily:
    found = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=[label] if label else None)
    for key, value in values.items():
        if value is not None:
            found.add_metric([key] if label else [], float(value))
    return found


def _versions(snapshots: dict[str, Snapshot]) -> dict[str, int]:
    return {name: snapshot.version for name, snapshot in snapshots.items()}


def _ages(snapshots: dict[str, Snapshot], now: datetime) -> dict[str, float]:
    events = {name: s.newest_event() for name, s in snapshots.items() if s.kept.event}
    return {name: max(0.0, (now - event).total_seconds()) for name, event in events.items() if event}


def _hourly(snapshot: Snapshot | None, now: datetime) -> Iterator[GaugeMetricFamily]:
    closed = micros(now - HOUR)
    for metric, (name, factor, text) in HOURLY.items():
        rows = [row for row in snapshot.all_rows(metric) if row.at <= closed] if snapshot else []
        value = json.loads(rows[-1].text)["value"] if rows else None
        yield _family(name, text, None, {"": None if value is None else value * factor})


def _checks(report: dict[str, Any] | None) -> dict[str, int]:
    if report is None:
        return {}
    red = [name for asset in report["assets"] for name in asset["checks_red"]]
    states = {"green": sum(asset["checks_green"] for asset in report["assets"])}
    states["not_evaluated"] = sum("(not evaluated)" in name for name in red)
    states["warn"] = sum("(warn)" in name for name in red)
    return {**states, "error": len(red) - states["not_evaluated"] - states["warn"]}


def _firing(snapshot: Snapshot | None) -> dict[str, int]:
    """Causes whose newest transition is an alert, by severity."""
    newest: dict[tuple[str, str | None], dict[str, Any]] = {}
    for row in snapshot.all_rows("") if snapshot else ():
        alert = json.loads(row.text)
        newest[alert["cause"], alert["partition_key"]] = alert
    firing = [alert["severity"] for alert in newest.values() if alert["state"] == "firing"]
    return {severity: firing.count(severity) for severity in ("error", "warn")}


def newest_poll(snapshot: Snapshot | None) -> dict[str, Any] | None:
    """Row of the newest poll; None without one."""
    rows = snapshot.all_rows("") if snapshot else []
    return json.loads(rows[-1].text) if rows else None
