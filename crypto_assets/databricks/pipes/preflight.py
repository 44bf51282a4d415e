"""What is checked before a step is submitted to serverless compute: everything at once, one error with every finding.

Belongs here: what differs from a cluster: the volume, the environment, no DBFS. Does not belong here: what both have in
common (`preflight`).
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from crypto_assets.databricks.launcher.preflight import Preflight, PreflightFailed, library_findings, settings_findings

OLDEST_ENVIRONMENT = 4
"""Environment version that has Spark Connect 4, and with it `mergeInto` and `toArrow`."""


class ServerlessPreflight(Preflight):
    """The checks of one workspace for serverless steps; what has passed is not asked again in this process."""

    _passed: ClassVar[set[str]] = set()

    def require_serverless(
        self,
        volume: str,
        libraries: Sequence[str],
        secrets: Sequence[Mapping[str, Any]],
        environment: Mapping[str, str],
    ) -> None:
        """Check settings and workspace, unless they have passed already.

        Args:
            volume: Folder of wheels and messages, `/Volumes/...`.
            libraries: Requirements of the environment, `name==version`.
            secrets: `{name, scope, key}` of each secret that the step reads.
            environment: What travels in clear.

        Raises:
            PreflightFailed: With every finding.
        """
        key = repr((self._settings, volume, libraries, secrets, sorted(environment)))  # secrets are masked in it
        if key in self._passed:
            return
        found = [
            *settings_findings(self._settings),
            *library_findings([{"pypi": {"package": library}} for library in libraries]),
            *self._version(),
            *self._environment(environment),
            *self._asked("the volume", lambda: self._volume(volume)),
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

    def _volume(self, volume: str) -> Iterator[str]:
        """Write, and delete, a small file where wheels and messages lie."""
        from databricks.sdk.errors.base import DatabricksError
        from databricks.sdk.service.files import FilesAPI

        files = FilesAPI(self._workspace.api_client)
        probe = f"{volume}/probe-{uuid.uuid4().hex}"
        try:
            files.upload(probe, io.BytesIO(b"probe"), overwrite=True)
            files.delete(probe)
        except DatabricksError as error:
            name = ".".join(volume.split("/")[2:5])
            yield (
                f"volume {volume} cannot be written ({error.error_code}: {error}): CREATE VOLUME {name}, GRANT READ "
                f"VOLUME, WRITE VOLUME on it to who launches, or name another with CRYPTO_ASSETS_DATABRICKS_VOLUME"
            )
