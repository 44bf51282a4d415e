"""`python -m crypto_assets_tests.databricks_standin`: a Databricks workspace on this machine, for those without one."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from crypto_assets.cli import output
from crypto_assets.cli.processes import owned_children
from crypto_assets.cli.signals import stop_requested
from crypto_assets.databricks.deploy.unity import VOLUMES
from crypto_assets_tests.databricks_standin.cluster import NODE_TYPES
from crypto_assets_tests.databricks_standin.workspace import Workspace

TOKEN_FILE = "token"
DEFAULT_ROOT = Path(".crypto_assets") / "databricks-standin"


def command(
    root: Annotated[
        Path,
        typer.Option(
            "--root",
            show_default=False,
            help="Folder that it keeps: lake, volumes, runs; default databricks-standin in .crypto_assets.",
        ),
    ] = DEFAULT_ROOT,
    port: Annotated[int, typer.Option("--port", help="Port on 127.0.0.1; 0 = a free one.")] = 0,
    dbfs: Annotated[bool, typer.Option("--dbfs", help="Have a DBFS root, as old workspaces do.")] = False,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Start an MLflow server beside it.")] = False,
) -> None:
    """Run a stand-in of a Databricks workspace, which executes what is submitted, until Ctrl-C.

    It prints what another terminal needs: host, token, node type, target. The volumes of the catalog are there.
    """
    root.mkdir(parents=True, exist_ok=True)
    with stop_requested() as stop, owned_children():
        try:
            workspace = Workspace(root, token=_kept_token(root / TOKEN_FILE), port=port, dbfs=dbfs).start()
        except OSError as error:
            output.fail(
                f"cannot serve on port {port}: {error.strerror}; choose another with --port, or 0 for a free one"
            )
            raise typer.Exit(1) from None
        with contextlib.closing(workspace):
            workspace.uploads.enabled = False  # they would fill the memory
            for volume in VOLUMES:
                workspace.volumes_api.create(f"{workspace.catalog}.{volume.schema}.{volume.name}")
            print(f"export DATABRICKS_HOST={workspace.host}")
            print(f'export DATABRICKS_TOKEN="$(cat {workspace.root / TOKEN_FILE})"')
            print(f"export CRYPTO_ASSETS_DATABRICKS_NODE_TYPE={next(iter(NODE_TYPES))}")
            print("export CRYPTO_ASSETS_DATABRICKS_POLL_S=0.5")
            print("export CRYPTO_ASSETS_TARGET=databricks  # or databricks-serverless")
            if mlflow:
                print(f"export MLFLOW_TRACKING_URI={workspace.mlflow_uri}")
            print(f"# tables are in {workspace.lake}; Ctrl-C stops", flush=True)
            stop.wait()


def _kept_token(path: Path) -> str:
    """The token of the folder, made at first use; only the owner may read it."""
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.write(f"dapi{secrets.token_hex(16)}")
    return path.read_text(encoding="utf-8").strip()


if __name__ == "__main__":
    typer.run(command)
