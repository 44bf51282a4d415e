"""Refuses to open anything below the checkout: it is on this machine by accident, a cluster does not have it."""

from __future__ import annotations

import os
import sys
from typing import Any

EVENTS = ("open", "os.listdir", "os.scandir", "os.chdir")


def install(*, forbidden: str, allowed: list[str]) -> None:
    """Refuse paths below `forbidden` unless they are below one of `allowed`; there is no way back."""
    realpath, fsdecode, separator = os.path.realpath, os.fsdecode, os.sep
    root = realpath(forbidden) + separator
    free = tuple(realpath(a) + separator for a in allowed)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS:
            return
        path = arguments[0] if arguments[0] is not None else "."
        if isinstance(path, int):
            return
        real = realpath(fsdecode(path)) + separator
        if real.startswith(root) and not real.startswith(free):
            raise PermissionError(13, "the checkout does not exist on a cluster", fsdecode(path))

    sys.addaudithook(hook)
