"""Base classes and exit codes of user-facing errors.

Errors of the operating system, SQLite and third-party libraries are translated by `faults`.
"""

from __future__ import annotations

SUCCESS, FAILED, USAGE, CANNOT = range(4)
"""Exit codes of every command: success; failure, or a problem was found; invalid command line or configuration; the
environment (disk, locks, broker, network) prevented an answer."""


class ReportedError(Exception):
    """Error shown without a traceback; its message names the problem and the command or setting that fixes it."""

    exit_code = FAILED


class UsageError(ReportedError, ValueError):
    """Invalid request or configuration; the message names the option, setting or file to change."""

    exit_code = USAGE


def reason(error: BaseException) -> str:
    """The error's message, or its type name if the message is empty, so that no text ends in a bare colon."""
    return str(error).strip() or type(error).__name__
