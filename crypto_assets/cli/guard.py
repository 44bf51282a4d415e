"""The process that ends what a command started when the command itself cannot: `python -m crypto_assets.cli.guard`.

It waits at a pipe that only the command holds open, and which the kernel closes however the command ends. Signals do
not reach it: it leads a session, and ignores what a service manager sends to every process of a service.
"""

from __future__ import annotations

import signal
import sys

from crypto_assets.cli.processes import end_family, family

GRACE_S = 20.0
"""Seconds that each part of the family has for ending in order: Dagster ends its runs, the broker closes its files."""
BY_THEMSELVES_S = 1.0
"""Seconds for what ends with its parent anyway, such as a JVM at its standard input."""


def main(owner: str) -> None:
    """Wait until standard input ends, then end the family of the owner."""
    import psutil

    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, signal.SIG_IGN)
    while sys.stdin.buffer.read(64):
        pass
    psutil.wait_procs(family(owner), timeout=BY_THEMSELVES_S)
    end_family(owner, grace_s=GRACE_S)


if __name__ == "__main__":
    main(sys.argv[1])
