"""Tables of the lake, and where models are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from crypto_assets.cli.doctor.finding import HTTP_TIMEOUT_S, SKEW_LIMIT_S, Finding
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.tables import TABLES
from crypto_assets.databricks.launcher.launcher_config import credentials as credentials_of
from crypto_assets.faults import in_short
from crypto_assets.settings import Settings
from crypto_assets.storage import log_files
from crypto_assets.storage.damage import diagnose
from crypto_assets.web import Client, NoReply

if TYPE_CHECKING:
    from deltalake import DeltaTable

NAMED = 5
"""Damaged files of a table that are named."""
REPAIR = "crypto-assets verify says what is missing; docs/runbook.md, By message, what repairs it"


def lake(settings: Settings) -> Iterator[Finding]:
    """Table properties that exactly-once rests on, and tables whose columns are not the contract's."""
    from deltalake import DeltaTable

    if settings.on_databricks:
        where = f"tables are in catalog {settings.catalog} of the workspace and were not looked at"
        yield Finding("lake", "note", where, "deploy/databricks/sql sets their properties; see docs/databricks.md")
        return
    checked, wrong = 0, 0
    for name, contract in TABLES.items():
        uri = settings.table_uri(name)
        try:
            diagnosis = diagnose(uri)
            if diagnosis is None:
                continue
            checked += 1
            if damages := [str(damage) for damage in diagnosis.damages]:
                more = f"; and {len(damages) - NAMED} more" if len(damages) > NAMED else ""
                found = [Finding("lake", "error", f"{name}: {'; '.join(damages[:NAMED])}{more}", log_files.REPAIR)]
            else:
                found = list(_table(name, contract, uri, DeltaTable(uri)))
        except Exception as error:  # noqa: BLE001 - a table that cannot be opened is a finding; the others are still checked
            found = [Finding("lake", "error", f"{name} at {uri} cannot be opened: {in_short(error)}", REPAIR)]
        wrong += len(found)
        yield from found
    if not wrong:
        yield Finding("lake", "ok", f"{checked} tables at {settings.lake}")


def _table(name: str, contract: Table, uri: str, table: DeltaTable) -> Iterator[Finding]:
    properties = table.metadata().configuration
    if "delta.setTransactionRetentionDuration" in properties:
        yield Finding(
            "lake",
            "error",
            f"{name}: delta.setTransactionRetentionDuration is set, so recorded writes expire and can be replayed",
            f"ALTER TABLE ... UNSET TBLPROPERTIES ('delta.setTransactionRetentionDuration') for {uri}",
        )
    if properties.get("delta.isolationLevel") != "Serializable":
        yield Finding(
            "lake",
            "error",
            f"{name}: delta.isolationLevel is {properties.get('delta.isolationLevel') or 'not set'}; two writers "
            "could double rows",
            f"set delta.isolationLevel=Serializable on {uri}",
        )
    have = {f.name for f in table.schema().fields}
    if have != set(contract.column_names):
        missing, extra = sorted(set(contract.column_names) - have), sorted(have - set(contract.column_names))
        yield Finding(
            "lake",
            "error",
            f"{name}: columns missing {missing or 'none'}, unknown {extra or 'none'}: written by another version",
            "see docs/runbook.md, Upgrade; or begin a new home with CRYPTO_ASSETS_HOME",
        )


def clock(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Detects a clock that is behind the tables: every commit has a timestamp.

    Records of the log are compared by `log.kafka`; their times are virtual in replay and simulator homes.
    """
    from deltalake import DeltaTable

    newest: tuple[float, str] = (0.0, "")
    for name in () if settings.on_databricks else TABLES:
        with suppress(Exception):  # the check `lake` reports problems of a table
            commits = DeltaTable(settings.table_uri(name)).history(1)
            newest = max(newest, (commits[0]["timestamp"] / 1000, name))
    behind = newest[0] - now.timestamp()
    if behind > SKEW_LIMIT_S:
        made = datetime.fromtimestamp(newest[0], UTC)
        yield Finding(
            "clock",
            "error",
            f"this machine's clock says {now:%Y-%m-%d %H:%M:%S}Z; {newest[1]} was written {made:%Y-%m-%d %H:%M:%S}Z, "
            f"{behind:,.0f} s later",
            "set the clock (NTP), and only then go on: hours and ages are cut by it",
        )


def tracking(settings: Settings) -> Iterator[Finding]:
    """Checks that MLflow's tracking and registry addresses are reachable."""
    for what, uri in (("tracking", settings.tracking_uri), ("registry", settings.mlflow_registry_uri)):
        if uri is None:
            continue
        setting = f"MLFLOW_{what.upper()}_URI"
        if uri.startswith("sqlite:///"):
            path = Path(uri.removeprefix("sqlite:///"))
            state = f"{path} ({path.stat().st_size / 1e6:,.1f} MB)" if path.exists() else f"{path} (made at first use)"
            yield Finding("models", "ok", f"{what}: {state}")
        elif uri.startswith("databricks"):
            lacking = settings.databricks_host is None or not credentials_of(settings)
            yield Finding(
                "models",
                "error" if lacking else "ok",
                f"{what}: {uri}" + (" needs DATABRICKS_HOST and credentials" if lacking else ""),
                f"set DATABRICKS_HOST with a service principal or DATABRICKS_TOKEN, or unset {setting}"
                if lacking
                else "",
            )
        elif uri.startswith(("http://", "https://")):
            status = _http_status(f"{uri.rstrip('/')}/health")
            good = status == 200
            yield Finding(
                "models",
                "ok" if good else "error",
                f"{what}: the server answers" if good else f"{what}: /health answers {status or 'nothing'}",
                "" if good else f"start the server, or correct {setting}",
            )
        else:
            yield Finding("models", "note", f"{what}: an address of a kind that cannot be looked at", f"see {setting}")


def _http_status(url: str) -> int | None:
    try:
        with Client() as client:
            return client.send("GET", url, deadline_s=HTTP_TIMEOUT_S, body=False).status
    except NoReply:
        return None
