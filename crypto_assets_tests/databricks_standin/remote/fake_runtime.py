"""What a cluster puts into a task's names: `spark`, `sc`, `dbutils`, and the module `databricks.sdk.runtime`."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Lazy:
    """Stands for an object that is costly to make, until something of it is used."""

    def __init__(self, make: Callable[[], Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_make")(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_make")(), name, value)

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return type(object.__getattribute__(self, "_make")())


class Secrets:
    """`dbutils.secrets`."""

    def __init__(self, scopes: dict[str, dict[str, str]]) -> None:
        self._scopes = scopes

    def get(self, scope: str, key: str) -> str:
        """A secret's value."""
        if scope not in self._scopes:
            raise ValueError(f"Secret does not exist with scope: {scope} and key: {key}")
        if key not in self._scopes[scope]:
            raise ValueError(f"Secret does not exist with scope: {scope} and key: {key}")
        return self._scopes[scope][key]

    def getBytes(self, scope: str, key: str) -> bytes:  # noqa: N802 - their name
        """A secret's value as bytes."""
        return self.get(scope, key).encode()

    def list(self, scope: str) -> list[Any]:
        """Keys of a scope."""
        return [types.SimpleNamespace(key=k) for k in self._scopes[scope]]

    def listScopes(self) -> list[Any]:  # noqa: N802 - their name
        """Scopes."""
        return [types.SimpleNamespace(name=s) for s in self._scopes]


class FileInfo(NamedTuple):
    """What `dbutils.fs.ls` gives."""

    path: str
    name: str
    size: int
    modificationTime: int  # noqa: N815 - their name


class Fs:
    """`dbutils.fs` on DBFS and volumes."""

    def __init__(self, dbfs: str | None, volumes: str) -> None:
        self._dbfs, self._volumes = dbfs, volumes

    def _path(self, text: str) -> Path:
        plain = "/" + text.removeprefix("dbfs:").lstrip("/")
        if plain.startswith("/Volumes/"):
            return Path(self._volumes + plain.removeprefix("/Volumes"))
        if self._dbfs is None:
            raise PermissionError(f"Public DBFS root is not accessible here: {text}")
        return Path(self._dbfs + plain)

    def ls(self, path: str) -> list[FileInfo]:
        """A folder's content."""
        found = []
        for entry in sorted(self._path(path).iterdir()):
            name, stat = entry.name + ("/" if entry.is_dir() else ""), entry.stat()
            size = 0 if entry.is_dir() else stat.st_size
            found.append(FileInfo(f"{path.rstrip('/')}/{name}", name, size, int(stat.st_mtime * 1000)))
        return found

    def head(self, path: str, maxBytes: int = 65536) -> str:  # noqa: N803 - their name
        """The start of a file."""
        with self._path(path).open("rb") as file:
            return file.read(maxBytes).decode()

    def put(self, path: str, contents: str, overwrite: bool = False) -> bool:
        """Write a text file."""
        target = self._path(path)
        if target.exists() and not overwrite:
            raise FileExistsError(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(contents, encoding="utf-8")
        return True

    def mkdirs(self, path: str) -> bool:
        """Make a folder."""
        self._path(path).mkdir(parents=True, exist_ok=True)
        return True

    def cp(self, source: str, target: str, recurse: bool = False) -> bool:
        """Copy."""
        here, there = self._path(source), self._path(target)
        there.parent.mkdir(parents=True, exist_ok=True)
        if here.is_dir():
            if not recurse:
                raise IsADirectoryError(source)
            shutil.copytree(here, there, dirs_exist_ok=True)
        else:
            shutil.copy(here, there)
        return True

    def mv(self, source: str, target: str, recurse: bool = False) -> bool:
        """Move."""
        self.cp(source, target, recurse)
        return self.rm(source, recurse)

    def rm(self, path: str, recurse: bool = False) -> bool:
        """Remove; False when there was nothing."""
        target = self._path(path)
        if target.is_dir():
            if recurse:
                shutil.rmtree(target)
            else:
                target.rmdir()
            return True
        there = target.exists()
        target.unlink(missing_ok=True)
        return there


def install(spec: dict[str, Any]) -> dict[str, Any]:
    """Make the names, and `databricks.sdk.runtime` which has them too. Gives the names."""
    import session

    dbutils = types.SimpleNamespace(secrets=Secrets(spec["secrets"]), fs=Fs(spec["dbfs"], spec["volumes"]))
    names: dict[str, Any] = {"spark": Lazy(session.get), "dbutils": dbutils}
    if spec["spark_context"]:
        names["sc"] = Lazy(lambda: session.get().sparkContext)
    runtime = types.ModuleType("databricks.sdk.runtime")
    runtime.__dict__.update(names, is_local_implementation=False)
    sys.modules["databricks.sdk.runtime"] = runtime
    return names
