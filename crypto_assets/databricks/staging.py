"""Where shipped steps are staged in a workspace: a Unity Catalog volume, or DBFS where a setting asks for it.

Belongs here: writing, reading and removing files of a step, their paths on a cluster, and what a preflight finds out
about the place. Does not belong here: which files a step has (`launcher.step_launcher`, `pipes.client`).

New accounts have neither a DBFS root nor mounts (https://docs.databricks.com/aws/en/dbfs/), so the volume is the
default. Its files go by the plain Files API: the SDK's `workspace.files` uploads in parts to presigned addresses of the
cloud's storage, which a firewall may close.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from crypto_assets.settings import Settings

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.errors.base import DatabricksError

VOLUMES = "/Volumes/"
DBFS = "dbfs:"
MEBIBYTE = 1024 * 1024
"""The DBFS API gives no more at once."""


def staging_folder(settings: Settings) -> str:
    """Folder that steps are staged in: `/Volumes/<catalog>/<schema>/<volume>...` or `dbfs:/...`."""
    return settings.databricks_staging or f"{VOLUMES}{settings.catalog}/ops/staging"


def staging_at(folder: str, workspace: WorkspaceClient) -> Staging:
    """Staging in a folder of a volume, or of DBFS: whatever does not lie below `/Volumes/`."""
    return VolumeStaging(folder, workspace) if folder.startswith(VOLUMES) else DbfsStaging(folder, workspace)


def staging_findings(staging: Staging) -> Iterator[str]:
    """Problem that prevents staging, determined by writing, reading and removing a small file."""
    from databricks.sdk.errors.base import DatabricksError

    probe = f"probe-{uuid.uuid4().hex}"
    try:
        staging.put(f"{probe}/file", b"probe")
        staging.read(f"{probe}/file")
        staging.remove(probe)
    except DatabricksError as error:
        yield staging.refusal(error)


class VolumeStaging:
    """A folder of a Unity Catalog volume. Classic and serverless compute see it under the path that the API knows."""

    def __init__(self, folder: str, workspace: WorkspaceClient) -> None:
        from databricks.sdk.service.files import FilesAPI

        self._root = folder
        self._workspace = workspace
        self._files = FilesAPI(workspace.api_client)

    def put(self, path: str, data: bytes) -> None:
        """Write a file, in place of an earlier one, and its folders."""
        full = self.address(path)
        self._files.create_directory(full.rpartition("/")[0])
        self._files.upload(full, io.BytesIO(data), overwrite=True)

    def read(self, path: str) -> bytes | None:
        """Content of a file; None when there is none yet."""
        from databricks.sdk.errors import NotFound

        try:
            contents = self._files.download(self.address(path)).contents
        except NotFound:
            return None
        assert contents is not None
        with contents:
            return contents.read()

    def remove(self, folder: str) -> None:
        """Remove a folder and its content."""
        from databricks.sdk.errors import NotFound

        with suppress(NotFound):
            self._remove(self.address(folder))

    def _remove(self, full: str) -> None:
        # The Files API deletes a folder only when it is empty.
        for entry in list(self._files.list_directory_contents(full)):
            if entry.path and entry.is_directory:
                self._remove(entry.path)
            elif entry.path:
                self._files.delete(entry.path)
        self._files.delete_directory(full)

    def remove_if_empty(self, folder: str) -> None:
        """Remove a folder unless something is in it; raises nothing."""
        from databricks.sdk.errors.base import DatabricksError

        with suppress(DatabricksError):
            self._files.delete_directory(self.address(folder))

    def address(self, path: str) -> str:
        """Path as the Jobs API names it."""
        return f"{self._root}/{path}"

    mounted = address
    """Path that processes of a cluster open."""

    def refusal(self, error: DatabricksError) -> str:
        """Explanation of a rejected write, with its fix."""
        from databricks.sdk.errors import NotFound, PermissionDenied

        name = ".".join(self._root.split("/")[2:5])
        other = "or name another with CRYPTO_ASSETS_DATABRICKS_STAGING"
        if isinstance(error, NotFound):
            return f"volume {name} does not exist ({error}): CREATE VOLUME {name} (the bundle makes it), {other}"
        if isinstance(error, PermissionDenied):
            me = self._workspace.current_user.me().user_name
            return (
                f"volume {name} cannot be read and written by {me} ({error}): GRANT READ VOLUME, WRITE VOLUME ON "
                f"VOLUME {name} TO `{me}`, and USE CATALOG and USE SCHEMA above it, {other}"
            )
        return f"volume {name} cannot be used ({error.error_code}: {error}); try again, {other}"


class DbfsStaging:
    """A folder of the DBFS root, by the DBFS API; clusters in dedicated access mode mount it at `/dbfs`."""

    def __init__(self, folder: str, workspace: WorkspaceClient) -> None:
        self._root = folder.removeprefix(DBFS)
        self._dbfs = workspace.dbfs

    def put(self, path: str, data: bytes) -> None:
        """Write a file and its folders."""
        self._dbfs.upload(f"{self._root}/{path}", io.BytesIO(data), overwrite=True)

    def read(self, path: str) -> bytes | None:
        """Content of a file, or None."""
        from databricks.sdk.errors import NotFound

        try:
            with self._dbfs.download(f"{self._root}/{path}") as file:
                return b"".join(iter(lambda: file.read(MEBIBYTE), b""))
        except NotFound:
            return None

    def remove(self, folder: str) -> None:
        """Remove a folder and its content."""
        self._dbfs.delete(f"{self._root}/{folder}", recursive=True)

    def remove_if_empty(self, folder: str) -> None:
        """Remove a folder unless something is in it."""
        from databricks.sdk.errors.base import DatabricksError
        from databricks.sdk.service.files import DbfsAPI

        # By the plain call, which refuses a folder with something in it.
        with suppress(DatabricksError):
            DbfsAPI.delete(self._dbfs, f"{self._root}/{folder}")

    def address(self, path: str) -> str:
        """Path as the Jobs API names it."""
        return f"{DBFS}{self._root}/{path}"

    def mounted(self, path: str) -> str:
        """Path that processes of a cluster open."""
        return f"/dbfs{self._root}/{path}"

    def refusal(self, error: DatabricksError) -> str:
        """Explanation of a rejected write, with its fix."""
        return (
            f"DBFS cannot be written at {self._root} ({error}): new workspaces have it disabled; unset "
            "CRYPTO_ASSETS_DATABRICKS_STAGING, so that steps are staged in a volume"
        )


Staging = VolumeStaging | DbfsStaging
"""A folder of a workspace, with paths relative to it. Methods raise `DatabricksError` unless stated otherwise."""
