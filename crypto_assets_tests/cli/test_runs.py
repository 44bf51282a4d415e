"""Runs of this process: where the UI finds them, and what `up` asks for when it starts again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from crypto_assets.cli.catch_up import days_wanted, hours_wanted
from crypto_assets.cli.runs import CODE_LOCATION, run_job
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
        # As the page of a job asks: by the label of the repository that `dagster dev -m` serves.
        label = f"__repository__@{CODE_LOCATION}"
        (run,) = instance.get_runs(dg.RunsFilter(job_name="refresh", tags={".dagster/repository": label}))
        assert run.remote_job_origin is not None  # the timeline leaves out what has none
        assert run.remote_job_origin.location_name == CODE_LOCATION
        assert run.tags["dagster/max_retries"] == "0"


def test_the_code_location_is_the_one_that_up_and_ui_serve():
    import ast

    from crypto_assets.cli import up

    assert up.__file__ is not None
    words = {n.value for n in ast.walk(ast.parse(Path(up.__file__).read_text())) if isinstance(n, ast.Constant)}
    assert CODE_LOCATION in words


def test_a_recording_wants_the_whole_day_and_a_live_home_what_it_began():
    assert hours_wanted(settings("replay"), set(), NOW) == TODAY
    assert hours_wanted(settings("coingecko"), set(), NOW) == TODAY[-1:]
    assert hours_wanted(settings("coingecko"), {"2026-05-02-01:00"}, NOW) == TODAY[1:]
    assert hours_wanted(settings("coingecko"), {"2026-04-30-01:00"}, NOW) == TODAY


def test_a_home_that_begins_today_has_no_day_to_close():
    assert days_wanted(set(TODAY), NOW) == []
    assert days_wanted({"2026-05-01-23:00", *TODAY}, NOW) == ["2026-05-01"]
