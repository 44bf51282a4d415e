"""Checks before a step is submitted to serverless compute; one error lists all findings.

Belongs here: what differs from a cluster: the volume, the environment, no DBFS. Does not belong here: what both have in
common (`preflight`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from crypto_assets.databricks.launcher.preflight import Preflight, PreflightFailed, library_findings, settings_findings
from crypto_assets.databricks.staging import VOLUMES, staging_at, staging_findings

OLDEST_ENVIRONMENT = 4
"""Environment version that has Spark Connect 4, and with it `mergeInto` and `toArrow`."""


class ServerlessPreflight(Preflight):
    """The checks of one workspace for serverless steps; what has passed is not asked again in this process."""

    _passed: ClassVar[set[str]] = set()

    def require_serverless(
        self,
        folder: str,
        libraries: Sequence[str],
        secrets: Sequence[Mapping[str, Any]],
        environment: Mapping[str, str],
    ) -> None:
        """Check settings and workspace, unless they have passed already.

        Args:
            folder: Folder of wheels and messages, `/Volumes/...`.
            libraries: Requirements of the environment, `name==version`.
            secrets: `{name, scope, key}` of each secret that the step reads.
            environment: What travels in clear.

        Raises:
            PreflightFailed: With every finding.
        """
        key = repr((self._settings, folder, libraries, secrets, sorted(environment)))  # secrets are masked in it
        if key in self._passed:
            return
        found = [
            *settings_findings(self._settings),
            *library_findings([{"pypi": {"package": library}} for library in libraries]),
            *self._version(),
            *self._environment(environment),
            *self._asked("the volume", lambda: self._volume(folder)),
            *self._asked("secrets", lambda: self._secrets(secrets)),
        ]
        if found:
            raise PreflightFailed(found)
        self._passed.add(key)

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
