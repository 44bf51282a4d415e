"""State of a workspace that its parts share: folders, known things, tokens. Serving it is in `workspace`."""

from __future__ import annotations

import secrets
import sysconfig
from pathlib import Path
from typing import Any, Protocol

from crypto_assets_tests.databricks_standin.cluster import Clusters
from crypto_assets_tests.databricks_standin.errors import ApiError
from crypto_assets_tests.databricks_standin.faults import Faults
from crypto_assets_tests.databricks_standin.files_api import Dbfs, Volumes
from crypto_assets_tests.databricks_standin.jvms import Jvms
from crypto_assets_tests.databricks_standin.routes import Routes
from crypto_assets_tests.databricks_standin.runs import Run
from crypto_assets_tests.databricks_standin.spark import SparkSettings
from crypto_assets_tests.databricks_standin.uploads import Uploads


class Runner(Protocol):
    """What executes runs."""

    def submit(self, run: Run) -> None:
        """Take a run."""

    def cancel(self, run: Run) -> None:
        """Stop a run."""


class State:
    """Arguments and attributes are those of `Workspace`."""

    executor: Runner
    host: str

    def __init__(
        self,
        root: Path,
        *,
        token: str | None,
        catalog: str,
        checkout: Path,
        spark: bool,
        dbfs: bool,
        jvms: Jvms | None,
    ) -> None:
        self.root = root.resolve()
        self.token = token or f"dapi{secrets.token_hex(16)}"
        self.catalog = catalog
        self.checkout = checkout.resolve()
        self.lake, self.dbfs, self.volumes = (self.root / n for n in ("lake", "dbfs", "Volumes"))
        self.runtime = self.root / "runtime"
        self.site = self.runtime / "site"
        self.site_packages = Path(sysconfig.get_paths()["purelib"])
        self.runs: list[Run] = []
        self.secrets: dict[str, dict[str, str]] = {}
        self.permissions: dict[str, list[dict[str, Any]]] = {}
        self.delays: dict[str, float] = {}
        self.requests: list[tuple[str, str, int]] = []
        self.unknown: list[str] = []
        self.defects: list[str] = []
        self.uploads = Uploads()
        self.faults = Faults()
        self.clusters = Clusters()
        self.routes = Routes()
        self.spark = SparkSettings(self.root, catalog, enabled=spark)
        self.jvms = jvms or Jvms(self.root / "jvms")
        self.dbfs_api = Dbfs(self.dbfs, self.uploads, enabled=dbfs)
        self.volumes_api = Volumes(self.volumes, self.uploads)
        self.service_principal = ("standin-client", secrets.token_hex(16))
        self._issued: set[str] = set()

    def knows_token(self, token: str) -> bool:
        """Whether a bearer token is valid."""
        return secrets.compare_digest(token, self.token) or token in self._issued

    def issue_token(self) -> str:
        """A token for the service principal."""
        token = secrets.token_urlsafe(24)
        self._issued.add(token)
        return token

    def table(self, name: str) -> Path:
        """Where `schema.table` lies."""
        return self.lake.joinpath(*name.split("."))

    def workspace_file(self, path: str) -> Path:
        """The real file behind a `dbfs:/` or `/dbfs/` path or a volume path.

        Raises:
            FileNotFoundError: There is none.
        """
        try:
            if path.startswith(("dbfs:", "/dbfs/")) and not path.startswith("dbfs:/Volumes/"):
                if not self.dbfs_api.enabled:
                    raise FileNotFoundError(f"Public DBFS root is disabled. Access is denied on path: {path}")
                found = self.dbfs_api.path("/" + path.removeprefix("dbfs:").removeprefix("/dbfs/").lstrip("/"))
            else:
                found = self.volumes_api.path(path.removeprefix("dbfs:"))
        except ApiError as error:
            raise FileNotFoundError(str(error)) from None
        if not found.is_file():
            raise FileNotFoundError(f"No such file: {path}")
        return found
