"""Whether the producer ticks, from Dagster's storage: for alerts and for the report."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dagster as dg


def producer_alive(instance: dg.DagsterInstance) -> tuple[datetime | None, str | None]:
    """Time of the producer's newest good tick, and the error of its newest tick if that failed.

    The time is None when the sensor does not run. A sensor just started counts as alive since its start.
    """
    from crypto_assets.dagster_private import TickStatus
    from crypto_assets.orchestration import event_store

    state = event_store.sensor_state(instance, "producer")
    if state is None or not state.is_running:
        return None, None
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=5)
    good = [t.timestamp for t in ticks if t.status != TickStatus.FAILURE]
    data: Any = state.instigator_data
    started = getattr(data, "last_sensor_start_timestamp", None)
    success = getattr(data, "last_tick_success_timestamp", None) if not good else None
    moments = [m for m in (*good, started, success) if m]
    if not moments:
        return None, None
    failed = ticks[0].error if ticks and ticks[0].status == TickStatus.FAILURE else None
    trouble = (failed.cause or failed).message.strip().splitlines()[0][:300] if failed else None
    return datetime.fromtimestamp(max(moments), UTC), trouble
