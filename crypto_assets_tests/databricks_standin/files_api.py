"""DBFS, and the Files API on Unity Catalog volumes. Both are real folders below the workspace's root."""

from __future__ import annotations

import base64
import binascii
import itertools
import shutil
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from crypto_assets_tests.databricks_standin.errors import ApiError, absent, exists, invalid
from crypto_assets_tests.databricks_standin.routes import Call, Reply, Routes
from crypto_assets_tests.databricks_standin.uploads import Uploads

MEBIBYTE = 1024 * 1024


def below(root: Path, relative: str) -> Path:
    """A path below `root`.

    Raises:
        ApiError: 400, it would leave the folder.
    """
    path = (root / relative.strip("/")).resolve()
    if path != root.resolve() and root.resolve() not in path.parents:
        raise invalid(f"Path {relative} leaves its file system")
    return path


class Dbfs:
    """`/api/2.0/dbfs/*`. Blocks and single puts are limited to 1 MiB, as in the real one.

    Args:
        root: Its folder.
        uploads: Takes every written file.
        enabled: Whether the workspace has it; new ones have not, and refuse every call.
    """

    def __init__(self, root: Path, uploads: Uploads, *, enabled: bool) -> None:
        self.root = root
        self.enabled = enabled
        self._uploads = uploads
        self._handles: dict[int, tuple[str, bytearray]] = {}
        self._next = itertools.count(1001)
        self._lock = threading.Lock()

    def register(self, routes: Routes) -> None:
        """Add the calls."""
        for name in ("create", "add-block", "close", "put", "delete", "mkdirs", "move"):
            routes.add("POST", f"dbfs/{name}", self._guarded(getattr(self, name.replace("-", "_"))))
        for name in ("get-status", "read", "list"):
            routes.add("GET", f"dbfs/{name}", self._guarded(getattr(self, name.replace("-", "_"))))

    def _guarded(self, action: Any) -> Any:
        def call(request: Call) -> Any:
            if not self.enabled:
                path = request.query.get("path") or request.body.get("path", "/")
                raise ApiError(
                    403, "PERMISSION_DENIED", f"Public DBFS root is disabled. Access is denied on path: {path}"
                )
            return action(request)

        return call

    def path(self, text: str) -> Path:
        """Where a DBFS path (`dbfs:/a`, `dbfs:///a` or `/a`) lies.

        Raises:
            ApiError: 400, it is not absolute or leaves the file system.
        """
        plain = text.removeprefix("dbfs:")
        if not plain.startswith("/"):
            raise invalid(f"Path must be absolute: {text}")
        return below(self.root, plain)

    def _shown(self, path: Path) -> str:
        return "/" + path.relative_to(self.root.resolve()).as_posix().lstrip(".")

    def _info(self, path: Path) -> dict[str, Any]:
        stat = path.stat()
        size = 0 if path.is_dir() else stat.st_size
        changed = int(stat.st_mtime * 1000)
        return {"path": self._shown(path), "is_dir": path.is_dir(), "file_size": size, "modification_time": changed}

    def _existing(self, text: str) -> Path:
        path = self.path(text)
        if not path.exists():
            raise absent(f"No file or directory exists on path {text}.")
        return path

    def _write(self, text: str, data: bytes, overwrite: bool) -> None:
        path = self.path(text)
        self._refuse_existing(text, overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(data)
        part.replace(path)
        self._uploads.keep(self._shown(path), data)

    def _refuse_existing(self, text: str, overwrite: bool) -> None:
        path = self.path(text)
        if path.exists() and (path.is_dir() or not overwrite):
            raise exists(f"A file or directory already exists at the input path {text}.")

    @staticmethod
    def _decoded(text: str) -> bytes:
        try:
            data = base64.b64decode(text or "", validate=True)
        except binascii.Error:
            raise invalid("The data is not base64") from None
        if len(data) > MEBIBYTE:
            raise ApiError(400, "MAX_BLOCK_SIZE_EXCEEDED", "A block may have 1 MB at most")
        return data

    def create(self, call: Call) -> dict[str, Any]:
        """Open a stream for writing; the file appears when it is closed."""
        path = call.need("path")
        self._refuse_existing(path, bool(call.body.get("overwrite")))
        with self._lock:
            handle = next(self._next)
            self._handles[handle] = (path, bytearray())
        return {"handle": handle}

    def _stream(self, call: Call, *, last: bool = False) -> tuple[str, bytearray]:
        handle = int(call.need("handle"))
        with self._lock:
            found = self._handles.pop(handle, None) if last else self._handles.get(handle)
        if found is None:
            raise absent(f"No stream is open with handle {handle}")
        return found

    def add_block(self, call: Call) -> None:
        """Append to an open stream."""
        self._stream(call)[1].extend(self._decoded(call.body.get("data", "")))

    def close(self, call: Call) -> None:
        """Close a stream."""
        path, data = self._stream(call, last=True)
        self._write(path, bytes(data), overwrite=True)

    def put(self, call: Call) -> None:
        """Write a small file at once."""
        data = self._decoded(call.body.get("contents", ""))
        self._write(call.need("path"), data, bool(call.body.get("overwrite")))

    def get_status(self, call: Call) -> dict[str, Any]:
        """Size and kind of a path."""
        return self._info(self._existing(call.need("path")))

    def list(self, call: Call) -> dict[str, Any]:
        """A folder's content, or the file itself."""
        path = self._existing(call.need("path"))
        return {"files": [self._info(p) for p in (sorted(path.iterdir()) if path.is_dir() else [path])]}

    def read(self, call: Call) -> dict[str, Any]:
        """At most 1 MiB from an offset; nothing beyond the end."""
        path = self._existing(call.need("path"))
        if path.is_dir():
            raise invalid(f"{call.need('path')} is a directory")
        offset, length = int(call.query.get("offset") or 0), int(call.query.get("length") or MEBIBYTE // 2)
        if length > MEBIBYTE:
            raise ApiError(400, "MAX_READ_SIZE_EXCEEDED", "At most 1 MB can be read at once")
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        return {"bytes_read": len(data), "data": base64.b64encode(data).decode()}

    def mkdirs(self, call: Call) -> None:
        """Make a folder and its parents."""
        path = self.path(call.need("path"))
        if path.is_file():
            raise exists(f"A file already exists at the input path {call.need('path')}.")
        path.mkdir(parents=True, exist_ok=True)

    def move(self, call: Call) -> None:
        """Rename a file or folder."""
        source, target = self._existing(call.need("source_path")), self.path(call.need("destination_path"))
        if target.exists():
            raise exists(f"A file or directory already exists at {call.need('destination_path')}.")
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)

    def delete(self, call: Call) -> None:
        """Delete; what is not there is deleted already."""
        path = self.path(call.need("path"))
        if path.is_dir():
            if any(path.iterdir()) and not call.body.get("recursive"):
                raise ApiError(400, "IO_ERROR", f"The directory {call.need('path')} is not empty")
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if path == self.root.resolve():
            self.root.mkdir(exist_ok=True)


class Volumes:
    """`/api/2.0/fs/files` and `/fs/directories` below `/Volumes/<catalog>/<schema>/<volume>`.

    Attributes:
        read_only: Names of volumes, `catalog.schema.volume`, that the user may not write.
    """

    def __init__(self, root: Path, uploads: Uploads) -> None:
        self.root = root
        self.read_only: set[str] = set()
        self._uploads = uploads

    def register(self, routes: Routes) -> None:
        """Add the calls."""
        for kind, verbs in (
            ("files", ("GET", "HEAD", "PUT", "DELETE")),
            ("directories", ("GET", "HEAD", "PUT", "DELETE")),
        ):
            for verb in verbs:
                action = getattr(self, f"{verb.lower()}_{kind}")
                routes.add(verb, f"fs/{kind}/*", self._permitted(action) if verb in ("PUT", "DELETE") else action)

    def _permitted(self, action: Any) -> Any:
        def call(request: Call) -> Any:
            self.path(request.rest)
            name = ".".join(request.rest.strip("/").split("/")[1:4])
            if name in self.read_only:
                raise ApiError(403, "PERMISSION_DENIED", f"User does not have WRITE VOLUME on Volume '{name}'.")
            return action(request)

        return call

    def create(self, name: str) -> Path:
        """Make a volume `catalog.schema.volume` and give its folder."""
        path = self.root.joinpath(*name.split("."))
        path.mkdir(parents=True, exist_ok=True)
        return path

    def path(self, text: str) -> Path:
        """Where a volume path lies: `/Volumes/...`, or the real path that it has here.

        Raises:
            ApiError: 400 for a path outside of /Volumes, 404 for a volume that does not exist.
        """
        text = "/" + unquote(text).strip("/")
        relative = text.removeprefix(str(self.root)) if text.startswith(f"{self.root}/") else None
        if relative is None:
            if not text.startswith("/Volumes/"):
                raise invalid(f"Path {text} is not below /Volumes")
            relative = text.removeprefix("/Volumes")
        names = relative.strip("/").split("/")
        if len(names) < 3 or not below(self.root, "/".join(names[:3])).is_dir():
            raise ApiError(404, "NOT_FOUND", f"Volume '{'.'.join(names[:3])}' does not exist.")
        return below(self.root, relative)

    @staticmethod
    def _absent(call: Call) -> ApiError:
        return ApiError(404, "NOT_FOUND", f"The path /{call.rest} does not exist.")

    def _file(self, call: Call) -> Path:
        path = self.path(call.rest)
        if not path.is_file():
            raise self._absent(call)
        return path

    def get_files(self, call: Call) -> Reply:
        """Download, whole or the range that is asked for."""
        data = self._file(call).read_bytes()
        asked = call.headers.get("Range", "")
        if asked.startswith("bytes="):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            data = data[int(first) : int(last) + 1 if last else None]
            return Reply(data, 206, {"Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT"})
        return Reply(data, 200, {"Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT"})

    def head_files(self, call: Call) -> Reply:
        """Size of a file."""
        return Reply(b"", 200, {"Content-Length": str(self._file(call).stat().st_size)})

    def put_files(self, call: Call) -> Reply:
        """Upload."""
        path = self.path(call.rest)
        if path.exists() and call.query.get("overwrite") != "true":
            raise ApiError(409, "ALREADY_EXISTS", f"The file /{call.rest} already exists.")
        if not path.parent.is_dir():
            # The real one makes missing folders of a volume, too.
            path.parent.mkdir(parents=True)
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(call.data)
        part.replace(path)
        self._uploads.keep(f"/{call.rest}", call.data)
        return Reply(status=204)

    def delete_files(self, call: Call) -> Reply:
        """Delete a file."""
        self._file(call).unlink()
        return Reply(status=204)

    def _directory(self, call: Call) -> Path:
        path = self.path(call.rest)
        if not path.is_dir():
            raise self._absent(call)
        return path

    def get_directories(self, call: Call) -> dict[str, Any]:
        """List a folder, a page at a time."""
        folder = self._directory(call)
        entries = [
            {
                "path": f"/{call.rest.strip('/')}/{p.name}",
                "name": p.name,
                "is_directory": p.is_dir(),
                "last_modified": int(p.stat().st_mtime * 1000),
                **({} if p.is_dir() else {"file_size": p.stat().st_size}),
            }
            for p in sorted(folder.iterdir())
        ]
        size, start = int(call.query.get("page_size") or 1000), int(call.query.get("page_token") or 0)
        page = {"contents": entries[start : start + size]}
        return page | ({"next_page_token": str(start + size)} if start + size < len(entries) else {})

    def head_directories(self, call: Call) -> Reply:
        """Whether a folder exists."""
        self._directory(call)
        return Reply(b"")

    def put_directories(self, call: Call) -> Reply:
        """Make a folder and its parents."""
        path = self.path(call.rest)
        if path.is_file():
            raise ApiError(409, "ALREADY_EXISTS", f"The path /{call.rest} is a file.")
        path.mkdir(parents=True, exist_ok=True)
        return Reply(status=204)

    def delete_directories(self, call: Call) -> Reply:
        """Delete an empty folder."""
        path = self._directory(call)
        if any(path.iterdir()):
            raise ApiError(400, "FILES_API_DIRECTORY_IS_NOT_EMPTY", f"The directory /{call.rest} is not empty.")
        path.rmdir()
        return Reply(status=204)
