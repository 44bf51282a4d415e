"""What every error that a person can cause has in common.

Belongs here: the two base classes. What the operating system, SQLite and other people's libraries raise is put into
words by `faults`.
"""

from __future__ import annotations

SUCCESS, FAILED, USAGE, CANNOT = range(4)
"""Exit codes of every command: done and well; it failed, or what was examined is not well; the command line, a setting
or a file of settings is wrong; the surroundings (disk, locks, broker, network) kept it from finding out."""


class ReportedError(Exception):
    """An error whose message says what is wrong and which command or setting fixes it: shown without a traceback."""

    exit_code = FAILED


class UsageError(ReportedError, ValueError):
    """What was asked for cannot be done as asked; the message names the option, the setting or the file to change."""

    exit_code = USAGE


def reason(error: BaseException) -> str:
    """The error's message, or its type where it has none: no text may end in a colon with nothing behind it."""
    return str(error).strip() or type(error).__name__
