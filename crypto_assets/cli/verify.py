"""`verify`: the independent audit, printed."""

from __future__ import annotations

from datetime import datetime

from crypto_assets.cli import output
from crypto_assets.cli.up import running_broker
from crypto_assets.errors import CANNOT, FAILED, SUCCESS, UsageError
from crypto_assets.home import existing_home
from crypto_assets.log.kafka.client import client_config
from crypto_assets.settings import Settings
from crypto_assets.verify.audit import audit
from crypto_assets.verify.coverage import UNJUDGED


def run(settings: Settings, *, now: datetime, as_json: bool, verbose: bool = False) -> int:
    """Audit the home; 0 when every law holds, 1 when one is broken, 3 when a table could not be judged.

    Args:
        settings: Settings of the home.
        now: Present time (UTC).
        as_json: Print JSON: everything.
        verbose: Print every law, and for each table what it is compared with; else only laws that do not hold.

    Raises:
        ValueError: The tables are in a workspace, where this process cannot read them.
        HomeError: There is no home.
    """
    home = existing_home(settings)
    if settings.on_databricks and not _has_tables(settings):
        raise UsageError(
            f"nothing was audited: with CRYPTO_ASSETS_TARGET={settings.target} the tables are in catalog "
            f"{settings.catalog} of the workspace, and the audit reads folders. Set CRYPTO_ASSETS_LAKE to a folder "
            "that holds them as <schema>/<table> and that this machine can read"
            + (f"; {settings.lake_uri} has no bronze/raw_prices" if settings.lake_uri else "")
        )
    topics = {"bronze.raw_prices": settings.prices_topic, "ops.polls": settings.polls_topic}
    landed = settings.transport == "landing"
    with running_broker(settings):
        report = audit(
            lake=settings.lake,
            kafka=lambda: client_config(settings),
            topics=topics,
            folders={t: settings.landing / name for t, name in topics.items()} if landed else None,
            home=home.path,
            secrets=settings.secrets(),
            now=now,
        )
    if as_json:
        output.as_json({"ok": report.ok, "laws": report.rows(), "tables": report.tables(UNJUDGED)})
    else:
        shown = ("holds", "table", "rows", *(("laws", "recomputed by") if verbose else ()))
        output.table("Tables", report.tables(UNJUDGED), shown)
        held = [] if verbose else [row for row in report.rows() if row["holds"] == "yes"]
        output.table("Laws" if verbose else "Laws without proof", [r for r in report.rows() if r not in held])
        if held:
            checked = sum(row["checked"] for row in held)
            output.say(f"{len(held)} laws hold (checked {checked:,} times); all of them: --verbose")
        waits = "".join(f"; {f.law}: {f.note}" for f in report.pending)
        verdict = "every law holds" if report.ok else "the lake and the log do not agree: see the rows marked NO"
        if report.unread and not report.broken:
            verdict = f"no law is broken, but not every table was judged: {'; '.join(report.unread.values())}"
        output.say(verdict + (f" of what is stored{waits}" if waits and report.ok else ""))
    if report.broken:
        return FAILED
    return CANNOT if report.unread else SUCCESS


def _has_tables(settings: Settings) -> bool:
    """True if the configured folder contains the table audited first."""
    from deltalake import DeltaTable

    return settings.lake_uri is not None and DeltaTable.is_deltatable(f"{settings.lake_uri}/bronze/raw_prices")
