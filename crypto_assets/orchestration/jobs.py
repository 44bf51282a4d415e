"""Jobs: refreshes, and rebuilds started from the UI.

Hourly and daily assets are in different jobs because a job has one partition picker.
"""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from crypto_assets.assets.card import assets_of, steps

REFRESH_MAX_RUNTIME_S = 240
DAILY_MAX_RUNTIME_S = 3600


ONE_AT_A_TIME = {"crypto_assets/one_at_a_time": "refresh"}
"""Tag of runs of which the packaged dagster.yaml lets one through at a time."""


def _job(
    name: str, assets: tuple[str, ...], description: str, max_runtime_s: int, tags: Mapping[str, str] | None = None
) -> dg.UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*(dg.AssetKey(a.split("/")) for a in assets)),
        description=description,
        tags={"dagster/max_runtime": str(max_runtime_s), **(tags or {})},
    )


def jobs(step_limit_s: int = 0) -> list[dg.UnresolvedAssetJobDefinition]:
    """Build all asset jobs; their partitions are those of their assets.

    Args:
        step_limit_s: Seconds that one launched step may take, its queueing included; 0 = steps run here. Run
            monitoring must not end a run whose steps are within their own limit.
    """
    refresh_s, daily_s = (max(own, 2 * step_limit_s) for own in (REFRESH_MAX_RUNTIME_S, DAILY_MAX_RUNTIME_S))
    return [
        _job(
            "refresh",
            assets_of("refresh"),
            "Everything that follows a poll, for the running window of hours.",
            refresh_s,
            ONE_AT_A_TIME,
        ),
        _job(
            "daily",
            assets_of("daily"),
            "Day bars, models and forecast accuracy of a day that has ended.",
            daily_s,
        ),
        _job(
            "rebuild_hours",
            tuple(a for s in steps() if s.moved_by == "refresh" and s.grain == "hour" for a in s.assets),
            "Rebuild hours from the log: pick a partition or a range.",
            daily_s,
        ),
        _job("rebuild_day", assets_of("daily"), "Rebuild a day's bars, models and accuracy.", daily_s),
    ]
