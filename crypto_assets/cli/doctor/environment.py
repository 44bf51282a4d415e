"""Variables, `.env`, credentials, proxies: what the settings are made of. No value is printed."""

from __future__ import annotations

import difflib
import re
import stat
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path

from dotenv.parser import parse_stream

from crypto_assets.cli.doctor.finding import Finding
from crypto_assets.databricks.launcher.preflight import settings_findings
from crypto_assets.faults import in_short
from crypto_assets.files import UnreadableFile, read_text
from crypto_assets.settings import Settings
from crypto_assets.settings_docs import documented
from crypto_assets.sources.registry import source_of

OUR_PREFIX = "CRYPTO_ASSETS_"
ALSO_KNOWN = frozenset(
    {
        "DAGSTER_HOME",
        "DATABRICKS_CLIENT_ID",
        "DATABRICKS_CLIENT_SECRET",
        "DATABRICKS_CLUSTER_ID",
        "DATABRICKS_CONFIG_FILE",
        "DATABRICKS_CONFIG_PROFILE",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_TRACKING_USERNAME",
        "KAFKA_HEAP_OPTS",
        "KAFKA_HOME",
        "KAFKA_OPTS",
    }
)
"""Names of other programs that resemble ours and are correct."""
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
NEAR = 0.84
"""difflib ratio from which a name is taken for a slip: one or two letters of about ten."""


def known_names() -> dict[str, str]:
    """Every environment name that `Settings` reads, and the preferred name of its setting."""
    return {name: setting.names[0] for setting in documented(Settings) for name in setting.names}


def dotenv_names(path: Path) -> list[str]:
    """Names that a `.env` file sets; empty when there is none, or none that can be read."""
    try:
        text = read_text(path)
    except (OSError, UnreadableFile):
        return []
    lines = (line.strip().removeprefix("export ") for line in text.splitlines())
    return [line.split("=", 1)[0].strip() for line in lines if "=" in line and not line.startswith("#")]


def dotenv(path: Path) -> Iterator[Finding]:
    """Checks that `.env` is readable, its permissions, and lines without effect."""
    if not (path.exists() or path.is_symlink()):
        return
    try:
        text = read_text(path)
    except (OSError, UnreadableFile) as error:
        yield Finding("environment", "error", in_short(error), f"mend {path}, or remove it")
        return
    wrong = [str(b.original.line) for b in parse_stream(StringIO(text)) if b.error]
    if wrong:
        found = f"{path}: line {', '.join(wrong)} sets nothing"
        yield Finding("environment", "warn", found, "write NAME=value; quote a value that holds # or blanks")
    secret = {name for setting in documented(Settings) if setting.secret for name in setting.names}
    held = sorted(set(dotenv_names(path)) & secret)
    mode = path.stat().st_mode
    if held and mode & (stat.S_IRWXG | stat.S_IRWXO):
        who = "everybody on this machine" if mode & stat.S_IROTH else "the file's group"
        yield Finding(
            "environment", "warn", f"{path} holds {', '.join(held)} and {who} may read it", f"chmod 600 {path}"
        )


def proxies(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Variables that send requests through a proxy, and what is reached without it."""
    found = sorted(n for n, value in environment.items() if n.upper() in PROXIES and value)
    if not found:
        return
    spared = sorted(n for n, value in environment.items() if n.upper() == "NO_PROXY" and value)
    yield Finding(
        "proxy",
        "note",
        f"{', '.join(found)} set: CoinGecko, the webhook, MLflow and Databricks are reached through a proxy"
        + (f", but for what {', '.join(spared)} names" if spared else "")
        + "; 127.0.0.1 and localhost are reached directly",
        "unset them if there is no proxy",
    )


def names(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Unused names that resemble those of settings."""
    known = known_names()
    wrong = 0
    for name in sorted(environment):
        upper = name.upper()
        if upper in known or upper in ALSO_KNOWN:
            if name != upper and name not in known:
                wrong += 1
                yield Finding("environment", "note", f"{name} is read although it is not upper case", f"write {upper}")
            elif known.get(name, name) != name:
                yield Finding("environment", "note", f"{name} is read as {known[name]}")
            continue
        near = difflib.get_close_matches(upper, sorted(known), n=1, cutoff=NEAR)
        if near:
            wrong += 1
            yield Finding("environment", "warn", f"{name} is set and has no effect", f"did you mean {near[0]}?")
        elif upper.startswith(OUR_PREFIX):
            wrong += 1
            listed = ", ".join(sorted(k for k in known if k.startswith(OUR_PREFIX)))
            yield Finding("environment", "warn", f"{name} is set and has no effect", f"names are: {listed}")
    if not wrong:
        yield Finding("environment", "ok", "every name that looks like ours is one of ours")


def credentials(settings: Settings) -> Iterator[Finding]:
    """Secrets that the configuration needs and does not have."""
    source = source_of(settings)
    if missing := source.missing_key(settings):
        yield Finding("credentials", "error", *missing)
    elif plan := source.plan(settings):
        yield Finding("credentials", "ok", f"{settings.source}: plan {plan}")
    if settings.alert_webhook_url is None:
        yield Finding(
            "credentials", "note", "no webhook: alerts are only in the table ops.alerts", "set ALERT_WEBHOOK_URL"
        )


def databricks(settings: Settings) -> Iterator[Finding]:
    """Settings that prevent steps from being launched; the workspace is only contacted at the first launch.

    Each finding of the launcher has the problem, then the fix.
    """
    if not settings.on_databricks:
        return
    wrong = settings_findings(settings)
    for text in wrong:
        found, *fix = re.split("[:;] ", text, maxsplit=1)
        yield Finding(
            "databricks", "error", found, fix[0] if fix else "set both, or unset it: DATABRICKS_TOKEN is used then"
        )
    if not wrong:
        rest = "cluster, secrets and access are looked at before the first step is submitted"
        yield Finding("databricks", "ok", f"the settings can launch steps at {settings.databricks_host}; {rest}")
