"""Sensor that polls the source every 10 s and requests a refresh once Kafka has confirmed delivery.

Belongs here: translating a producer tick into Dagster events and a run request. Does not belong here: polling and
publishing (`producer.loop`), which `crypto-assets produce` shares.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from crypto_assets.dagster_private import DATA_VERSION_TAG
from crypto_assets.market.polls import CHECKS
from crypto_assets.orchestration.running_window import hours_request, running_window
from crypto_assets.orchestration.topics import KEYS, POLLS, PRICES
from crypto_assets.producer.loop import Producer
from crypto_assets.producer.ticks import TickSummary
from crypto_assets.settings import HOURLY_REFRESH_S, Settings

IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


APPENDED = {DATA_VERSION_TAG: "appended"}
"""Constant data version of the topics."""


def shared_producer(settings: Settings) -> Callable[[], Producer]:
    """Factory of the process's producer, opened at the first tick and kept for the next ones."""
    kept: list[Producer] = []

    def get() -> Producer:
        if not kept:
            from crypto_assets.producer.loop import open_producer

            kept.append(open_producer(settings))
        return kept[0]

    return get


def refresh_due(cursor: Mapping[str, Any], now: datetime, every_s: int) -> bool:
    """Return whether enough time has passed since this sensor last requested a refresh.

    Hourly refreshes are left to the schedule close_hour; otherwise every hour would be refreshed twice.
    """
    if every_s >= HOURLY_REFRESH_S:
        return False
    last = cursor.get("requested_at")
    return last is None or now - datetime.fromisoformat(last) >= timedelta(seconds=every_s)


def refresh_in_progress(instance: dg.DagsterInstance) -> bool:
    """Return whether a refresh is queued or running; the next tick then asks again."""
    return bool(instance.get_runs(dg.RunsFilter(job_name="refresh", statuses=IN_PROGRESS), limit=1))


def poll_events(tick: TickSummary) -> list[Any]:
    """Events of one poll: materializations of the topics and check evaluations.

    The data version is constant, because a new one at each poll would mark every Bronze hour stale. A poll that was not
    recorded, or whose messages were not confirmed, yields an observation instead of a materialization.
    """
    delivered = {"messages_sent": tick.sent, "unchanged": tick.unchanged, "poll_id": tick.poll_id}
    prices = dg.AssetMaterialization if tick.ok else dg.AssetObservation
    polls = dg.AssetMaterialization if tick.recorded else dg.AssetObservation
    events: list[Any] = [
        prices(PRICES, description=tick.text, metadata={**delivered, "outcome": tick.outcome}, tags=APPENDED),
        polls(POLLS, metadata={"poll_id": tick.poll_id}, tags=APPENDED),
    ]
    for name, (passed, text) in tick.checks().items():
        key = KEYS[CHECKS[name][0]]
        events.append(
            dg.AssetCheckEvaluation(
                asset_key=key, check_name=name, passed=passed, description=text, metadata={"poll_id": tick.poll_id}
            )
        )
    return events


def evaluate(
    producer: Producer,
    instance: dg.DagsterInstance,
    cursor_text: str | None,
    now: datetime,
    source: str,
    every_s: int = 0,
) -> dg.SensorResult:
    """Run one tick: poll if due, report events, request a refresh once Kafka has confirmed.

    Args:
        producer: The process's producer.
        instance: Asked whether a refresh is in progress.
        cursor_text: Cursor of the previous tick: the poll whose refresh is still wanted.
        now: Time of the tick (UTC).
        source: Data mode, for run tags.
        every_s: Minimum seconds between refreshes.
    """
    cursor = json.loads(cursor_text) if cursor_text else {}
    tick = producer.tick(now)
    if tick.delivered:
        cursor["wanted"] = tick.poll_id
    wanted = cursor.get("wanted")
    requests = []
    if wanted and refresh_due(cursor, now, every_s) and not refresh_in_progress(instance):
        tags = {"crypto_assets/poll_id": wanted, "crypto_assets/source": source}
        requests = [hours_request(wanted, running_window(now), tags)]
        cursor["wanted"] = None
        if every_s:
            cursor["requested_at"] = now.isoformat()
    return dg.SensorResult(
        asset_events=poll_events(tick) if tick.polled else [],
        run_requests=requests or None,
        skip_reason=None if requests else tick.text,
        cursor=json.dumps(cursor),
    )


def build(
    refresh: dg.UnresolvedAssetJobDefinition,
    open_producer: Callable[[], Producer],
    source: str,
    *,
    refresh_every_s: int = 0,
    status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
) -> dg.SensorDefinition:
    """Build the sensor definition.

    Args:
        refresh: Job that is requested.
        open_producer: Returns the process's producer, opened once and kept between ticks.
        source: Data mode, for run tags.
        refresh_every_s: Minimum seconds between refreshes.
        status: Whether it runs before a person has switched it.
    """

    @dg.sensor(
        name="producer",
        job=refresh,
        minimum_interval_seconds=10,
        default_status=status,
        description="Polls the source as the credit budget allows, publishes to Kafka, then requests the refresh. "
        "Stopped in a bare `dagster dev`: nothing polls until `crypto-assets up` starts it, or a person does here.",
    )
    def producer_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return evaluate(open_producer(), context.instance, context.cursor, datetime.now(UTC), source, refresh_every_s)

    return producer_sensor
