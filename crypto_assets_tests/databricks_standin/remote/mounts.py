"""`/dbfs` and `/Volumes` without mounting anything: functions that take paths get the real one."""

from __future__ import annotations

import builtins
import errno
import functools
import io
import os
from collections.abc import Callable
from typing import Any

ONE_PATH = (
    *("open", "stat", "lstat", "access", "chmod", "utime", "truncate", "readlink"),
    *("listdir", "scandir", "mkdir", "rmdir", "remove", "unlink", "chdir"),
    *(name for name in ("listxattr", "getxattr", "setxattr") if hasattr(os, name)),
)
TWO_PATHS = ("rename", "replace", "link", "symlink")


def install(*, dbfs: str | None, volumes: str) -> None:
    """Redirect; `/dbfs` only where the cluster has it."""
    mounted = {"/Volumes": volumes, **({"/dbfs": dbfs} if dbfs else {})}

    def real(path: Any) -> Any:
        if isinstance(path, (str, os.PathLike)):
            text = os.fspath(path)
            if isinstance(text, str):
                for mount, folder in mounted.items():
                    if text == mount or text.startswith(mount + "/"):
                        return folder + text[len(mount) :]
        return path

    def redirected(function: Callable[..., Any], paths: int) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            head = tuple(real(a) for a in args[:paths])
            named = {k: real(v) if k in ("path", "file", "src", "dst") else v for k, v in named.items()}
            return function(*head, *args[paths:], **named)

        return call

    supports = (os.supports_dir_fd, os.supports_effective_ids, os.supports_fd, os.supports_follow_symlinks)
    for names, paths in ((ONE_PATH, 1), (TWO_PATHS, 2)):
        for name in names:
            function = getattr(os, name)
            new = redirected(function, paths)
            setattr(os, name, new)
            # `os` tells by these sets what a function can do; shutil asks them for the function itself.
            for group in supports:
                if function in group:
                    group.add(new)
    builtins.open = io.open = _sequential(redirected(io.open, 1))


def _sequential(plain: Callable[..., Any]) -> Callable[..., Any]:
    """`open` that refuses what the mount of a volume cannot do: appending and writing out of order."""

    @functools.wraps(plain)
    def opened(file: Any, mode: str = "r", *args: Any, **named: Any) -> Any:
        if set(mode) & {"a", "+"} and isinstance(file, (str, os.PathLike)) and os.fspath(file).startswith("/Volumes/"):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), file)
        return plain(file, mode, *args, **named)

    return opened
