"""Signals of a command: the first asks it to stop in order, a second ends everything at once.

Belongs here: noticing signals and ending by force. Does not belong here: the processes that are ended (`processes`).

Python runs its handlers in the main thread, between two of its instructions: one that takes a lock can wait for the
thread that it interrupted, and none runs while that thread is inside a library. So the handlers here only note the
signal, and a thread that the interpreter's wakeup descriptor wakes does what locks are needed for.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from crypto_assets.cli import output

SAME_REQUEST_S = 0.1
"""Two signals within this time are one request: a terminal, its shell and `timeout` may each deliver it."""
HANGUP = getattr(signal, "SIGHUP", None)


class Asked(threading.Event):
    """Set when the command was asked to stop; `number` is the first signal, 0 before it."""

    number: int = 0

    def caused(self, error: BaseException) -> bool:
        """True if an exception follows from the interrupt request, whatever a library turned it into."""
        # Dagster installs its own handlers while it runs something, and may be quicker than the thread that sets us.
        interrupt = not isinstance(error, Exception) and not isinstance(error, SystemExit)
        return bool(self.number) or (interrupt and self.wait(1.0))


_active: list[Asked] = []
"""Of the contexts that are open, the innermost last: there is one set of signals in a process."""


def stop_if_asked() -> None:
    """Raise KeyboardInterrupt if the command was asked to stop, after work that may have swallowed the interrupt.

    Dagster does: a run that is interrupted is a failed or cancelled run to it, after which the next one could begin.
    """
    if _active and _active[-1].is_set():
        raise KeyboardInterrupt


@contextmanager
def stop_requested(*, interrupt: bool = False, announce: bool = True) -> Iterator[Asked]:
    """An event that SIGINT, SIGTERM and a closed terminal set; a second SIGINT or SIGTERM ends the process at once.

    SIGINT counts also where a shell made us ignore it, as shells do for what they start in the background; SIGHUP does
    not where it is ignored (`nohup`).

    Args:
        interrupt: The first signal also raises KeyboardInterrupt in the main thread: for work that polls no event.
        announce: Print that the first signal was noticed.
    """
    asked = Asked()
    interrupts = [KeyboardInterrupt] if interrupt else []

    def note(number: int, _frame: object) -> None:
        asked.number = asked.number or number
        if interrupts:
            raise interrupts.pop()

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    numbers = [signal.SIGINT, signal.SIGTERM]
    if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
        numbers.append(HANGUP)
    waked = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {number: signal.signal(number, note) for number in numbers}
    watcher = threading.Thread(target=_watch, args=(reader, asked, numbers, announce), name="signals", daemon=True)
    watcher.start()
    _active.append(asked)
    try:
        yield asked
    finally:
        _active.remove(asked)
        for number, handler in before.items():
            # The terminal is gone for good: its signal, sent again, must not kill what has stopped in order.
            gone = number == HANGUP == asked.number
            signal.signal(number, signal.SIG_IGN if gone else handler)
        signal.set_wakeup_fd(waked)
        os.close(writer)  # ends the thread
        watcher.join()
        os.close(reader)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turns a first signal into KeyboardInterrupt, and what comes of it into one line and exit code 128 + signal."""
    with stop_requested(interrupt=True) as asked:
        try:
            yield
        except BaseException as error:
            if not asked.caused(error):
                raise
            name = signal.Signals(asked.number).name
            output.anyway(output.fail, f"interrupted by {name}: what was committed stays, and the same command goes on")
            raise SystemExit(128 + asked.number) from None


def _watch(reader: int, asked: Asked, numbers: list[int], announce: bool) -> None:
    first_at = 0.0
    while received := [n for n in os.read(reader, 512) if n in numbers] or None:
        now = time.monotonic()
        if not asked.is_set():
            asked.number, first_at = asked.number or received[0], now
            asked.set()
            if announce:
                output.anyway(output.notice, "stopping ... (a second Ctrl-C ends everything at once)")
        elif now - first_at > SAME_REQUEST_S and (again := [n for n in received if n != HANGUP]):
            _end_now(again[0])


def _end_now(number: int) -> None:
    """End this process and all that it started, without any order."""
    from crypto_assets.cli.processes import kill_family

    kill_family()
    output.anyway(output.notice, "everything was ended at once; the next start recovers what was under way")
    os._exit(128 + number)
