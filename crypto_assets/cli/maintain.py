"""`maintain`: housekeeping by hand; a dry run unless --apply. Tables that are in a workspace are not its."""

from __future__ import annotations

from datetime import datetime

from crypto_assets import databases
from crypto_assets.cli import output
from crypto_assets.cli.instance import open_instance
from crypto_assets.engine.engines import make_engine
from crypto_assets.home import existing_home
from crypto_assets.orchestration.maintenance import housekeeping
from crypto_assets.orchestration.maintenance_job import TABLES_JOB, tidied_by
from crypto_assets.settings import Settings


def run(settings: Settings, *, now: datetime, apply: bool, as_json: bool) -> int:
    """Run or rehearse housekeeping and print what it did; 1 when a part failed, else 0.

    Raises:
        HomeError: There is no home.
    """
    home = existing_home(settings)
    with open_instance(home, reading=not apply) as instance:
        rows = housekeeping(
            make_engine(settings).store,
            instance,
            home,
            now,
            dry_run=not apply,
            remote=tidied_by(settings, instance),
        )
    if as_json:
        output.as_json(rows)
    else:
        output.table("Housekeeping" if apply else "Housekeeping (dry run)", rows)
        if not apply:
            output.say("nothing was changed; do it with: crypto-assets maintain --apply")
        if settings.on_databricks:
            run = f"DAGSTER_HOME={home.dagster} dagster job execute -m crypto_assets.definitions -j {TABLES_JOB}"
            output.say(f"tables in the workspace: start the job {TABLES_JOB} in the UI, or {run}")
    failed = any(row["failed"] for row in rows)
    for trouble in databases.troubles(home.path) if failed else ():
        output.fail(trouble)
    return 1 if failed else 0
