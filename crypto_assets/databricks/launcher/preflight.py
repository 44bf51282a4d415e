"""Checks before a step is submitted to Databricks, to a cluster or to serverless compute; one error lists all findings.

Belongs here: questions to the workspace and to the settings, and what to do about each answer. Does not belong here:
launching (`step_launcher`). What only a running cluster can show is classified afterwards (`failures`).
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, ClassVar

from crypto_assets.databricks.clusters import NEVER_ON_A_CLUSTER
from crypto_assets.databricks.launcher.launcher_config import environment
from crypto_assets.databricks.staging import VOLUMES, Staging, staging_at, staging_findings
from crypto_assets.errors import ReportedError
from crypto_assets.settings import Settings

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

TESTED_SPARK = (4, 2)
"""Spark minor that the transforms were tested on; an older one is refused."""
CORE_FAMILY = ("dagster", "dagster-pipes", "dagster-shared")
LIBRARY_FAMILY = ("dagster-databricks", "dagster-pyspark", "dagster-spark")
RUNTIME_PYTHON = {"15": (3, 11), "16": (3, 12), "17": (3, 12), "18": (3, 12), "19": (3, 12)}
"""Python of runtimes by major version; others are not known here.

15 and 16: their release notes, System environment. 17 to 19: `Requires-Python: ==3.12.*` of databricks-connect 17.3,
18.3 and 19.3 on PyPI, whose Python must be that of the runtime.
"""
LANDING_MOUNTS = ("/Volumes/", "/dbfs/")
"""Where files are that a cluster's processes see under the same path."""
SINGLE_USER = ("SINGLE_USER", "DATA_SECURITY_MODE_DEDICATED")
OLDEST_ENVIRONMENT = 4
"""Serverless environment version that has Spark Connect 4, and with it `mergeInto` and `toArrow`."""


class PreflightFailed(ReportedError):
    """Steps cannot be launched as configured; the message has every reason."""

    def __init__(self, findings: Sequence[str]) -> None:
        count = f"{len(findings)} findings" if len(findings) != 1 else "1 finding"
        super().__init__(
            f"nothing was submitted to Databricks, {count}:\n" + "\n".join(f"- {finding}" for finding in findings)
        )


def settings_findings(settings: Settings) -> list[str]:
    """Problems of the settings alone; does not contact the workspace."""
    found = []
    if settings.databricks_host is None:
        found.append("DATABRICKS_HOST is not set: the address of the workspace, https://....")
    has_principal = settings.databricks_client_id and settings.databricks_client_secret
    if not has_principal and settings.databricks_token is None:
        found.append("no credentials: set DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET (or DATABRICKS_TOKEN)")
    elif bool(settings.databricks_client_id) != bool(settings.databricks_client_secret):
        found.append("DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET belong together and only one is set")
    elif has_principal and settings.databricks_token is not None:
        found.append("both a service principal and DATABRICKS_TOKEN are set; unset DATABRICKS_TOKEN")
    return found + kafka_findings(settings) + landing_findings(settings)


def kafka_findings(settings: Settings) -> list[str]:
    """Brokers that a real workspace cannot reach; a workspace on this machine reaches all of them."""
    if settings.workspace_is_standin or settings.transport != "kafka":
        return []
    way_out = "; or let records travel as files: CRYPTO_ASSETS_TRANSPORT=landing"
    servers = settings.kafka_bootstrap_servers
    if not servers:
        embedded = "KAFKA_BOOTSTRAP_SERVERS is not set, and the embedded broker cannot be reached from the workspace"
        return [f"{embedded}; set the address of a Kafka that can{way_out}"]
    hidden = [s for s in (one.strip() for one in servers.split(",")) if _is_hidden(s.rsplit(":", 1)[0].strip("[]"))]
    if not hidden:
        return []
    return [f"Kafka at {', '.join(hidden)} is a loopback or private address, which the workspace cannot reach{way_out}"]


def landing_findings(settings: Settings) -> list[str]:
    """A landing folder that a cluster does not see."""
    if settings.transport != "landing":
        return []
    if settings.landing_path is not None and settings.landing_path.as_posix().startswith(LANDING_MOUNTS):
        return []
    given = "is not set" if settings.landing_path is None else f"is {settings.landing_path}"
    way_out = f"a volume of the workspace, CRYPTO_ASSETS_LANDING=/Volumes/{settings.catalog}/bronze/landing"
    return [f"CRYPTO_ASSETS_TRANSPORT=landing and CRYPTO_ASSETS_LANDING {given}: launched steps read {way_out}"]


def _is_hidden(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_link_local


class Preflight:
    """The checks of one workspace; what has passed is not asked again in this process."""

    _passed: ClassVar[set[str]] = set()

    def __init__(self, settings: Settings, workspace: WorkspaceClient) -> None:
        self._settings = settings
        self._workspace = workspace

    def require(
        self,
        staging: Staging,
        run_config: Mapping[str, Any],
        secrets: Sequence[Mapping[str, Any]],
        env_variables: Mapping[str, str],
        warn: Callable[[str], object],
    ) -> None:
        """Check a configuration, unless it has passed already.

        Args:
            staging: Where the step's files will be written.
            run_config: `run_config` of the launcher.
            secrets: `secrets_to_env_variables` of the launcher.
            env_variables: What travels in clear.
            warn: Takes what is worth saying and no reason to stop.

        Raises:
            PreflightFailed: With every finding.
        """
        self._once(
            (run_config, secrets, sorted(env_variables)),
            lambda: [
                *settings_findings(self._settings),
                *library_findings(run_config.get("libraries", ())),
                *self._environment(env_variables),
                *self._asked("cluster", lambda: self._cluster(run_config["cluster"], warn)),
                *self._asked("staging", lambda: staging_findings(staging)),
                *self._asked("secrets", lambda: self._secrets(secrets)),
            ],
        )

    def require_serverless(
        self,
        folder: str,
        libraries: Sequence[str],
        secrets: Sequence[Mapping[str, Any]],
        environment: Mapping[str, str],
    ) -> None:
        """Check settings and workspace for serverless compute, unless they have passed already.

        Args:
            folder: Folder of wheels and messages, `/Volumes/...`.
            libraries: Requirements of the environment, `name==version`.
            secrets: `{name, scope, key}` of each secret that the step reads.
            environment: What travels in clear.

        Raises:
            PreflightFailed: With every finding.
        """
        self._once(
            (folder, libraries, secrets, sorted(environment)),
            lambda: [
                *settings_findings(self._settings),
                *library_findings([{"pypi": {"package": library}} for library in libraries]),
                *self._version(),
                *self._environment(environment),
                *self._asked("the volume", lambda: self._volume(folder)),
                *self._asked("secrets", lambda: self._secrets(secrets)),
            ],
        )

    def _once(self, configuration: tuple[Any, ...], questions: Callable[[], list[str]]) -> None:
        key = repr((self._settings, *configuration))  # secrets are masked in it
        if key in self._passed:
            return
        if found := questions():
            raise PreflightFailed(found)
        self._passed.add(key)

    def _asked(self, what: str, question: Callable[[], Iterator[str]]) -> list[str]:
        """Findings of one question; that the workspace refuses to answer is a finding too."""
        try:
            return list(question())
        except Exception as error:  # noqa: BLE001  (every other question must be asked all the same)
            from databricks.sdk.errors.base import DatabricksError

            code = error.error_code if isinstance(error, DatabricksError) else type(error).__name__
            return [f"the workspace did not answer about {what}: {code}: {error}"]

    def _version(self) -> Iterator[str]:
        version = self._settings.databricks_environment_version
        if version < OLDEST_ENVIRONMENT:
            yield (
                f"serverless environment {version} has an older Spark Connect than tables are written with; set "
                f"CRYPTO_ASSETS_DATABRICKS_ENVIRONMENT_VERSION={OLDEST_ENVIRONMENT} or later"
            )

    def _volume(self, folder: str) -> Iterator[str]:
        if not folder.startswith(VOLUMES):
            yield (
                f"CRYPTO_ASSETS_DATABRICKS_STAGING={folder} is no folder of a volume, and serverless compute has no "
                "DBFS; unset it, or name a folder below /Volumes/"
            )
            return
        yield from staging_findings(staging_at(folder, self._workspace))

    def _environment(self, env_variables: Mapping[str, str]) -> Iterator[str]:
        values = self._settings.secrets()
        for name, value in env_variables.items():
            held = [secret for secret, text in values.items() if len(text) > 3 and text in str(value)]
            if held:
                yield f"{name} would travel in clear with the value of {', '.join(held)}; put it in the secret scope"
        missing = set(environment(self._settings)) - set(env_variables)
        if missing:
            yield f"env_variables in the configuration lack {', '.join(sorted(missing))}; do not replace them"

    def _cluster(self, cluster: Mapping[str, Any], warn: Callable[[str], object]) -> Iterator[str]:
        if "existing" in cluster:
            about: Any = self._found(
                f"cluster {cluster['existing']}", lambda: self._workspace.clusters.get(cluster["existing"])
            )
            if isinstance(about, str):
                yield about
                return
            mode = about.data_security_mode.value if about.data_security_mode else None
            yield from self._access(mode, about.single_user_name, f"cluster {cluster['existing']}")
            yield from self._spark(about.spark_version, warn)
            return
        new = cluster["new"]
        yield from self._access(new.get("data_security_mode"), new.get("single_user_name"), "the new cluster")
        yield from self._spark(new["spark_version"], warn)
        yield from self._nodes(new)

    def _access(self, mode: str | None, user: str | None, which: str) -> Iterator[str]:
        if mode not in SINGLE_USER:
            yield (
                f"{which} has access mode {mode}; launched steps need SINGLE_USER (dedicated), or use "
                "CRYPTO_ASSETS_TARGET=databricks-serverless"
            )
            return
        me = self._workspace.current_user.me().user_name
        if user and me and user != me:
            yield (
                f"{which} belongs to {user} and the credentials are {me}: only its own principal may run there; set "
                f"CRYPTO_ASSETS_DATABRICKS_RUN_AS={me}, or use that principal's credentials"
            )

    def _spark(self, wanted: str | None, warn: Callable[[str], object]) -> Iterator[str]:
        names = {v.key: v.name or "" for v in self._workspace.clusters.spark_versions().versions or ()}
        if wanted not in names:
            known = ", ".join(sorted(k for k in names if k)) or "none"
            yield f"no runtime {wanted} in the workspace: CRYPTO_ASSETS_DATABRICKS_SPARK_VERSION is one of {known}"
            return
        found = re.search(r"Spark (\d+)\.(\d+)", names[wanted])
        if found is None:
            warn(f"runtime {wanted} does not tell its Spark version; Spark 4.2 is the tested one")
        elif (int(found[1]), int(found[2])) < TESTED_SPARK:
            yield (
                f"runtime {wanted} has Spark {found[1]}.{found[2]}; the transforms are tested on "
                f"{TESTED_SPARK[0]}.{TESTED_SPARK[1]}, so choose one with that or a later minor"
            )
        python = RUNTIME_PYTHON.get(str(wanted).split(".")[0])
        if python is not None and python != sys.version_info[:2]:
            warn(
                f"runtime {wanted} has Python {python[0]}.{python[1]} and this process {sys.version_info[0]}."
                f"{sys.version_info[1]}: the pinned libraries must have wheels for it"
            )

    def _nodes(self, new: Mapping[str, Any]) -> Iterator[str]:
        nodes = new["nodes"]
        pool = nodes.get("instance_pool_id")
        if pool:
            answer = self._found(f"instance pool {pool}", lambda: self._workspace.instance_pools.get(pool))
            if isinstance(answer, str):
                yield answer
        else:
            wanted = nodes.get("node_types", {}).get("node_type_id")
            known = {n.node_type_id for n in self._workspace.clusters.list_node_types().node_types or ()}
            some = ", ".join(sorted(known)[:8])
            if not wanted:
                yield (
                    f"no node type: set CRYPTO_ASSETS_DATABRICKS_NODE_TYPE (the workspace has {some}), "
                    "CRYPTO_ASSETS_DATABRICKS_INSTANCE_POOL_ID or CRYPTO_ASSETS_DATABRICKS_CLUSTER_ID"
                )
            elif wanted not in known:
                yield f"no node type {wanted} in the workspace: CRYPTO_ASSETS_DATABRICKS_NODE_TYPE is one of {some}"
        policy = new.get("policy_id")
        if policy:
            answer = self._found(f"cluster policy {policy}", lambda: self._workspace.cluster_policies.get(policy))
            if isinstance(answer, str):
                yield answer

    def _found(self, what: str, ask: Callable[[], Any]) -> Any:
        """The answer, or a sentence that the thing does not exist."""
        from databricks.sdk.errors.base import DatabricksError

        try:
            return ask()
        except DatabricksError as error:
            return f"{what} cannot be used: {error.error_code}: {error}"

    def _secrets(self, secrets: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        from databricks.sdk.errors.base import DatabricksError

        by_scope: dict[str, list[Mapping[str, Any]]] = {}
        for entry in secrets:
            by_scope.setdefault(entry["scope"], []).append(entry)
        for scope, entries in by_scope.items():
            try:
                keys = {s.key for s in self._workspace.secrets.list_secrets(scope)}
            except DatabricksError as error:
                needed = ", ".join(f"{e['key']} ({e['name']})" for e in entries)
                yield f"secret scope {scope} cannot be read ({error.error_code}); steps need {needed} in it"
                continue
            for entry in entries:
                if entry["key"] not in keys:
                    yield (
                        f"secret {scope}/{entry['key']} is missing, which steps need as {entry['name']}: databricks "
                        f"secrets put-secret {scope} {entry['key']}"
                    )


def library_findings(libraries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Libraries that would break the cluster or speak another Dagster than this process."""
    found = []
    for family in (CORE_FAMILY, LIBRARY_FAMILY):
        here = {name: _installed(name) for name in family}
        if len(set(here.values())) > 1:
            listed = ", ".join(f"{name} {v}" for name, v in here.items())
            found.append(f"versions here differ: {listed}; install the lock: pip install -r requirements.lock")
    for library in libraries:
        package = (library.get("pypi") or {}).get("package", "")
        name, _, pinned = package.partition("==")
        plain = re.split(r"[\[<>=~!;\s]", name)[0].lower().replace("_", "-")
        if plain in NEVER_ON_A_CLUSTER:
            found.append(
                f"library {package} must not be installed on a cluster: the runtime has its own Spark and Delta"
            )
        elif plain in CORE_FAMILY + LIBRARY_FAMILY and pinned != _installed(plain):
            found.append(
                f"library {package} is not the version of this process, {_installed(plain)}: both must be equal"
            )
        elif plain and not pinned:
            found.append(f"library {package} is not pinned; install it here, or give it as name==version")
    return found


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
