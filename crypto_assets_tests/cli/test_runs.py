"""Runs of this process: where the UI finds them, and what `up` asks for when it starts again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from crypto_assets.assets.card import assets_of
from crypto_assets.cli.catch_up import days_wanted, hours_wanted
from crypto_assets.cli.instance import CODE_LOCATION
from crypto_assets.cli.runs import phases, run_job
from crypto_assets.orchestration.unchanged import Plan
from crypto_assets.settings import Settings

NOW = datetime(2026, 5, 2, 2, 30, tzinfo=UTC)
TODAY = [f"2026-05-02-0{h}:00" for h in range(3)]


def settings(source: str) -> Settings:
    return Settings(_env_file=None, source=source)  # type: ignore[call-arg, arg-type]


def test_a_run_is_under_its_job_and_on_the_timeline(tmp_path: Path):
    @dg.asset
    def silver() -> None: ...

    defs = dg.Definitions(assets=[silver], jobs=[dg.define_asset_job("refresh", [silver])])
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        failed: list[str] = []
        run_job(defs, instance, "refresh", [], failed, {})
        assert failed == []
        # As the page of a job asks: by the label of the repository that `up` and `ui` serve.
        label = f"__repository__@{CODE_LOCATION}"
        (run,) = instance.get_runs(dg.RunsFilter(job_name="refresh", tags={".dagster/repository": label}))
        assert run.remote_job_origin is not None  # the timeline leaves out what has none
        assert run.remote_job_origin.location_name == CODE_LOCATION
        assert run.tags["dagster/max_retries"] == "0"


def test_a_recording_wants_the_whole_day_and_a_live_home_what_it_began():
    assert hours_wanted(settings("replay"), set(), NOW) == TODAY
    assert hours_wanted(settings("coingecko"), set(), NOW) == TODAY[-1:]
    assert hours_wanted(settings("coingecko"), {"2026-05-02-01:00"}, NOW) == TODAY[1:]


@pytest.mark.parametrize("source", ["replay", "coingecko"])
def test_after_an_outage_every_hour_since_the_newest_one_is_wanted(source: str):
    late = ["2026-05-01-22:00", "2026-05-01-23:00", *TODAY]
    assert hours_wanted(settings(source), {"2026-05-01-03:00", "2026-05-01-22:00"}, NOW) == late
    long_ago = hours_wanted(settings(source), {"2026-04-20-01:00"}, NOW)
    assert (long_ago[0], long_ago[-1], len(long_ago)) == ("2026-04-30-00:00", TODAY[-1], 51)
    assert days_wanted(long_ago, set(), NOW) == ["2026-04-30", "2026-05-01"]


def test_a_home_that_begins_today_has_no_day_to_close():
    assert days_wanted(TODAY, set(TODAY), NOW) == []
    assert days_wanted(TODAY, {"2026-05-01-23:00", *TODAY}, NOW) == ["2026-05-01"]


def stale(days: int) -> Plan:
    """So many days of which no model has been trained."""
    keys = {f"2026-05-{day:02}": "it was never made" for day in range(1, days + 1)}
    return Plan({dg.AssetKey(["ml", model]): keys for model in ("anomaly_model", "price_model")})


def test_weeks_train_before_they_score_and_every_asset_is_made_once():
    parts = phases(stale(7))
    assert [job for job, _ in parts] == ["refresh", "daily", "refresh", "daily"]
    order = [asset for _, assets in parts for asset in assets]
    assert len(order) == len(set(order))
    assert set(order) >= {
        a for job in ("refresh", "daily") for a in assets_of(job) if a.startswith(("ml/", "features/"))
    }
    place = {asset: number for number, (_, assets) in enumerate(parts) for asset in assets}
    assert place["features/price_features"] < place["ml/anomaly_model"] < place["gold/anomalies"]
    assert place["ml/price_model"] < place["gold/price_predictions"] < place["gold/prediction_accuracy"]
    assert place["gold/anomalies"] == place["ops/pipeline_metrics"]  # which reads it


def test_days_too_few_to_train_on_are_two_runs():
    assert [job for job, _ in phases(stale(6))] == ["refresh", "daily"]
