"""`backfill`: the plan, printed, and its submission."""

from __future__ import annotations

from datetime import UTC, datetime

from crypto_assets.cli import output
from crypto_assets.cli.instance import open_instance
from crypto_assets.errors import UsageError
from crypto_assets.home import Home, existing_home
from crypto_assets.orchestration.backfill import Plan
from crypto_assets.settings import Settings


def run(settings: Settings, days: str, origin: str, *, dry_run: bool, as_json: bool) -> int:
    """Print the plan and, unless `dry_run`, submit it; 0 when submitted or printed.

    Raises:
        ValueError: The days or the origin cannot be used; every reason is named.
    """
    from crypto_assets.orchestration import backfill

    if origin not in ("log", "history"):
        raise UsageError(f"--from {origin}: choose log or history")
    home = existing_home(settings)
    now = datetime.now(UTC)
    first, last = backfill.parse_days(days)
    active = home.registry().active_at(now)
    plan = backfill.plan(
        first,
        last,
        origin,  # type: ignore[arg-type]
        now=now,
        start=home.partitions_start,
        coins=len(active),
        history=settings.source_facts.history,
    )
    submitted = None
    if not dry_run:
        from crypto_assets.wiring import build_definitions

        graph = build_definitions(settings).resolve_asset_graph()
        with open_instance(home) as instance:
            submitted = backfill.submit(
                instance,
                graph,
                plan,
                now=now,
                tags={"crypto_assets/source": settings.source, "crypto_assets/why": "backfill"},
            )
    _print(home, plan, submitted, as_json=as_json)
    return 0


def _print(home: Home, plan: Plan, submitted: str | None, *, as_json: bool) -> None:
    record = {
        "days": list(plan.days),
        "from": plan.origin,
        "partitions": plan.partitions,
        "assets": [*plan.hourly, *plan.daily],
        "calls": plan.calls,
        "credits": plan.credits,
        "notes": list(plan.notes),
        "backfill_id": submitted,
    }
    if as_json:
        output.as_json(record)
        return
    output.table(
        f"Backfill from {plan.origin}",
        [
            {"": "days", "value": f"{plan.days[0]}..{plan.days[-1]} ({len(plan.days)})"},
            {"": "partitions", "value": f"{plan.partitions:,} of {len(plan.hourly) + len(plan.daily)} assets"},
            {"": "calls", "value": str(plan.calls)},
            {"": "credits", "value": str(plan.credits)},
        ],
    )
    for note in plan.notes:
        output.say(f"note: {note}")
    if submitted:
        output.say(f"submitted as backfill {submitted}; the daemon of `up` or `ui` runs it")
        served = home.ui_address.read_text(encoding="utf-8") if home.ui_address.exists() else None
        output.say(f"{served}/runs/b/{submitted}" if served else "neither serves this home now: crypto-assets ui")
    else:
        output.say("dry run: nothing was submitted")
