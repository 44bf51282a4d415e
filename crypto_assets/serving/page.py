"""The page's files over HTTP.

Belongs here: how they are sent. Does not belong here: the files (`dashboard/`), what they show (`board`).
"""

from __future__ import annotations

from pathlib import Path

from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope


class _Files(StaticFiles):
    """Files that a browser asks for again before each use, so that modules of two versions never meet."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def files(folder: Path) -> ASGIApp:
    """An application that answers with the files of a folder, compressed for those who take it."""
    return GZipMiddleware(_Files(directory=folder, html=True), minimum_size=1024, compresslevel=6)
