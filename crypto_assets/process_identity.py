"""Telling a process from a later one that was given its number."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil


def started_after_boot(process: psutil.Process) -> float:
    """Seconds from the boot of the machine to the start of a process, in steps of 0.01.

    Its start as a time of day changes whenever the clock is set, because it is computed from the present time.

    Raises:
        psutil.NoSuchProcess: It has ended.
    """
    import psutil

    return process.create_time() - psutil.boot_time()
