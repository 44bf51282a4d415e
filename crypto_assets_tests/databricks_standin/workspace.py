"""The workspace: its folders, its state, and the parts put together. Start here."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path

import crypto_assets_tests
from crypto_assets_tests.databricks_standin.catalog_api import Catalog, Secrets, register_user
from crypto_assets_tests.databricks_standin.executor import Executor
from crypto_assets_tests.databricks_standin.jobs_api import Jobs, permissions
from crypto_assets_tests.databricks_standin.jvms import Jvms
from crypto_assets_tests.databricks_standin.libraries import make_site
from crypto_assets_tests.databricks_standin.processes import end_group
from crypto_assets_tests.databricks_standin.server import Handler
from crypto_assets_tests.databricks_standin.state import State

REMOTE = Path(__file__).parent / "remote"
WORKER = """#!/bin/sh
exec "{python}" -I -S "{runtime}/worker.py" "$@"
"""


class Workspace(State):
    """A running workspace; use it as a context manager.

    Args:
        root: Folder for everything it keeps; made if absent.
        token: What clients must send; None = a new random one.
        catalog: The Unity Catalog catalog; its tables lie at `<lake>/<schema>/<table>`.
        checkout: What tasks may not read; None = where this code lies.
        port: Port on 127.0.0.1; 0 = a free one.
        workers: Runs executed at the same time; more are QUEUED.
        user: Name of the current user.
        spark: Whether tasks can have a session; without, nothing needs a JVM or its jars.
        dbfs: Whether it has a DBFS root, as old workspaces do; new ones refuse every access to it.
        jvms: Warm JVMs that other workspaces use too; None = its own.

    Attributes:
        host: Its URL.
        lake, dbfs, volumes: Folders of tables, of DBFS, and of `/Volumes`.
        secrets: Scope -> key -> value; write to it.
        runs: Submitted runs in order.
        faults: What goes wrong next.
        delays: Seconds that runs stay in PENDING or TERMINATING.
        clusters: Known clusters, policies, pools; `clusters.add` for an all-purpose cluster.
        requests: `(method, path, status)` of every call.
        unknown: Calls that do not exist; a test asserts that there are none.
        defects: Errors of the stand-in itself; a test asserts that there are none.
        uploads: Every file a client wrote, kept after its deletion.
    """

    def __init__(
        self,
        root: Path,
        *,
        token: str | None = None,
        catalog: str = "crypto_analytics",
        checkout: Path | None = None,
        port: int = 0,
        workers: int = 2,
        user: str = "standin@example.com",
        spark: bool = True,
        dbfs: bool = False,
        jvms: Jvms | None = None,
    ) -> None:
        super().__init__(
            root,
            token=token,
            catalog=catalog,
            checkout=checkout or Path(crypto_assets_tests.__file__).parent.parent,
            spark=spark,
            dbfs=dbfs,
            jvms=jvms,
        )
        self._own_jvms = jvms is None
        for part in (
            *(self.dbfs_api, self.volumes_api, self.clusters, self.jvms),
            *(Jobs(self), Secrets(self.secrets), Catalog(self)),
        ):
            part.register(self.routes)
        permissions(self.routes, self)
        register_user(self.routes, user)
        self._port = port
        self._workers = workers
        self._mlflow: subprocess.Popen[bytes] | None = None
        self._mlflow_uri = ""
        self._mlflow_lock = threading.Lock()

    def __enter__(self) -> Workspace:
        return self.start()

    def start(self) -> Workspace:
        """Serve; once.

        Raises:
            OSError: The port is taken.
        """
        handler = type("WorkspaceHandler", (Handler,), {"workspace": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._server.daemon_threads = True
        self.host = f"http://127.0.0.1:{self._server.server_address[1]}"
        for folder in (self.lake, self.dbfs, self.volumes, self.root / "runs", self.root / "warehouse"):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.runtime, ignore_errors=True)
        shutil.copytree(REMOTE, self.runtime, ignore=shutil.ignore_patterns("__pycache__"))
        make_site(self.site_packages, self.site)
        worker = self.runtime / "worker.sh"
        worker.write_text(WORKER.format(python=sys.executable, runtime=self.runtime), encoding="utf-8")
        worker.chmod(0o755)
        self.spark.write()
        self.executor = Executor(self, self._workers)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving and end every process."""
        self._server.shutdown()
        self._server.server_close()
        self.executor.close()
        if self._own_jvms:
            self.jvms.close()
        with self._mlflow_lock:
            if self._mlflow is not None:
                end_group(self._mlflow)
                self._mlflow = None

    @property
    def mlflow_uri(self) -> str:
        """URI of an MLflow server with sqlite below the root, started when first asked for.

        Raises:
            RuntimeError: It did not start; names its log.
        """
        with self._mlflow_lock:
            if self._mlflow is None:
                self._start_mlflow()
            return self._mlflow_uri

    def _start_mlflow(self) -> None:
        folder = self.root / "mlflow"
        folder.mkdir(exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        store = [
            "--backend-store-uri",
            f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination",
            str(folder / "artifacts"),
        ]
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), *store]
        # Without its job runners, which no workspace's registry shows: seven processes that ask for work all the time.
        env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (folder / "server.log").open("wb") as log:
            self._mlflow = subprocess.Popen(
                [*command, "--workers", "1"], stdout=log, stderr=log, start_new_session=True, cwd=folder, env=env
            )
        self._mlflow_uri = f"http://127.0.0.1:{port}"
        waiting = threading.Event()
        for _ in range(1200):  # five minutes: its imports alone take one on a machine that is busy
            try:
                with urllib.request.urlopen(f"{self._mlflow_uri}/health", timeout=2):
                    return
            except OSError:
                if self._mlflow.poll() is not None:
                    break
                waiting.wait(0.25)
        end_group(self._mlflow)
        self._mlflow = None
        raise RuntimeError(f"the MLflow server did not start; see {folder / 'server.log'}")
