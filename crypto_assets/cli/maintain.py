"""`maintain`: housekeeping by hand; a dry run unless --apply."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from crypto_assets.cli import output
from crypto_assets.cli.instance import open_instance

if TYPE_CHECKING:
    from crypto_assets.settings import Settings


def run(settings: Settings, *, now: datetime, apply: bool, as_json: bool) -> int:
    """Run or rehearse housekeeping and print what it did; always 0."""
    from crypto_assets.automation.maintenance import housekeeping
    from crypto_assets.compute.engines import make_engine
    from crypto_assets.home import existing_home

    home = existing_home(settings)
    with open_instance(home) as instance:
        rows = housekeeping(make_engine(settings).store, instance, home, now, dry_run=not apply, progress=None)
    if as_json:
        output.as_json(rows)
    else:
        output.table("Housekeeping" if apply else "Housekeeping (dry run)", rows)
        if not apply:
            output.say("nothing was changed; do it with: crypto-assets maintain --apply")
    return 0
