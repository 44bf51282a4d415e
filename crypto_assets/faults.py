"""Translates errors caused by users, disks and networks into one line that names the file and the fix.

Belongs here: wording third-party errors for the commands and the Dagster code location. An error not recognised here is
a bug and keeps its traceback. Does not belong here: errors that carry their own text (`errors.ReportedError`).
"""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import NoReturn

from crypto_assets import databases
from crypto_assets.errors import CANNOT, USAGE, ReportedError, reason
from crypto_assets.redaction import redact
from crypto_assets.settings import Settings

RUST = re.compile(r"\(os error (\d+)\)|Os \{ code: (\d+)")
"""OS error numbers in messages of the Rust libraries (delta-rs, Sail)."""

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
HANGING = re.compile(r":\s*(?=[.;)](\s|$))")

ANOTHER_HOME = "or choose another home with CRYPTO_ASSETS_HOME"
REMEDIES = {
    errno.ENOSPC: f"the disk is full: free some space, then repeat the command, {ANOTHER_HOME}",
    errno.EDQUOT: f"the quota of this user is used up: free some space, {ANOTHER_HOME}",
    errno.EFBIG: "files may not grow so large here: see ulimit -f and the file system's limit",
    errno.EROFS: f"the file system is read-only: mount it writable, {ANOTHER_HOME}",
    errno.EACCES: f"this user may not use it: let it read and write there (chown, chmod), {ANOTHER_HOME}",
    errno.EPERM: f"this user may not use it: let it read and write there (chown, chmod), {ANOTHER_HOME}",
    errno.ENOTDIR: f"a part of this path is a file, and a folder is expected: remove the file, {ANOTHER_HOME}",
    errno.EEXIST: f"there is a file where a folder is expected, or the reverse: remove it, {ANOTHER_HOME}",
    errno.EISDIR: "it is a folder, and a file is expected: remove or rename it",
    errno.ENOENT: "it is not there: restore it, or repeat the command",
    errno.ENAMETOOLONG: f"the path is too long: {ANOTHER_HOME.removeprefix('or ')}",
    errno.ELOOP: "its symbolic links lead in a circle: mend them",
    errno.EMFILE: "this process may not open more files: raise the limit, as with ulimit -n 8192",
    errno.ENFILE: "the machine may not open more files: close programs, or raise fs.file-max",
    errno.EAGAIN: "the system refused more processes or threads for now: see ulimit -u, and repeat the command",
    errno.ENOMEM: "the machine has no more memory: close programs, and repeat the command",
    errno.ENOLCK: f"the file system keeps no locks: {ANOTHER_HOME.removeprefix('or ')} on a local disk",
    errno.EIO: "the disk did not answer: check the system's log (dmesg), and restore from a backup if it is broken",
    errno.ESTALE: "the network drive has lost it: mount it again",
}
LONGEST_QUOTE = 300
"""Maximum characters quoted from a third-party error message."""
NETWORK = "check the address, the network and the proxy variables"


@dataclass(frozen=True)
class Fault:
    """User-facing description of an error.

    Args:
        text: One line: the problem, its location and its fix.
        exit_code: Exit code of the command.
    """

    text: str
    exit_code: int


@contextmanager
def reported(settings: Callable[[], Settings | None], print_error: Callable[[str], None]) -> Iterator[None]:
    """Exit with one line and an exit code on a recognised error; other errors propagate.

    Args:
        settings: Returns the settings in force, None before they are loaded.
        print_error: Prints a line to standard error.
    """
    try:
        yield
        sys.stdout.flush()  # detect a closed pipe or a full disk here rather than at exit
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic in a Rust library is not an Exception
        if isinstance(error, BrokenPipeError) and _output_closed():
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(128 + signal.SIGPIPE) from None
        known = settings()
        fault = explain(error, known.home if known else None)
        if fault is None:
            raise
        print_error(redacted(fault.text, known.secrets() if known else {}))
        raise SystemExit(fault.exit_code) from None


def redacted(text: str, secrets: Mapping[str, str]) -> str:
    """The text with secrets (by name) and passwords in URLs redacted."""
    return redact(text, secrets, mark=lambda name: f"<{name}>")


def _output_closed() -> bool:
    """True if the reader of standard output or standard error has exited (`| head`)."""
    poller = select.poll()
    for descriptor in (1, 2):
        poller.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poller.poll(0))


def explain(error: BaseException, home: Path | None = None) -> Fault | None:
    """Describe an error or its cause in one line; None if it is not recognised.

    Args:
        error: Exception raised.
        home: Home in force, if known; its databases are examined after an SQLite error.
    """
    for one in _chain(error):
        if isinstance(one, ReportedError):
            number = _of_rust(one)
            helps = f"; {REMEDIES[number]}" if number in REMEDIES else ""
            return Fault(one_line(reason(one)) + helps, one.exit_code)
        if _is(one, "pydantic", "ValidationError") and one.title.endswith("Settings"):  # type: ignore[attr-defined]
            return Fault(_settings(one), USAGE)
        found = _database(one, home) or _operating_system(one, home)
        if found:
            return Fault(one_line(found), CANNOT)
    return None


def in_short(error: BaseException, home: Path | None = None) -> str:
    """Any error in one line: the text of `explain`, else its type and the start of its message."""
    if fault := explain(error, home):
        return fault.text
    name, text = type(error).__name__, reason(error)
    return name if text == name else f"{name}: {shorten(text.splitlines()[0], LONGEST_QUOTE, placeholder=' ...')}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, outermost first."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__


def _is(error: BaseException, module: str, *names: str) -> bool:
    """`isinstance` against classes of a module without importing it; an unloaded module cannot have raised."""
    there = sys.modules.get(module)
    return there is not None and isinstance(error, tuple(c for n in names if (c := getattr(there, n, None))))


def _settings(error: BaseException) -> str:
    problems = [
        f"{'.'.join(map(str, p['loc'])) or 'settings'}: {p['msg'].removeprefix('Value error, ')}"
        for p in error.errors()  # type: ignore[attr-defined]
    ]
    return f"{'; '.join(problems)} (set in the environment or .env; crypto-assets doctor checks them all)"


def _database(error: BaseException, home: Path | None) -> str | None:
    """Describe an error of SQLite, SQLAlchemy, Alembic or MLflow, from the state of the home's databases."""
    ours = isinstance(error, sqlite3.Error) or _is(error, "sqlalchemy.exc", "SQLAlchemyError")
    schema = _is(error, "dagster._core.errors", "DagsterInstanceSchemaOutdated") or _is(
        error, "alembic.util.exc", "CommandError"
    )
    mlflow = _is(error, "mlflow.exceptions", "MlflowException") and "schema" in str(error)
    if not (ours or schema or mlflow):
        return None
    found = list(databases.troubles(home)) if home is not None and home.is_dir() else []
    if found:
        return "; ".join(found)
    if (full := _operating_system(getattr(error, "orig", None) or error, home)) is not None:
        return full
    text = reason(getattr(error, "orig", None) or error).splitlines()[0]
    if "full" in text:
        return f"{home or 'the home'}: {REMEDIES[errno.ENOSPC]}"
    if "locked" in text:
        return f"{text}: a database of {home or 'the home'} was in use by another process; repeat the command"
    path = home / databases.DATABASES[0].path if home is not None else None
    helps = databases.surroundings(path) if path is not None and path.exists() else "see crypto-assets doctor"
    return f"the databases of {home or 'the home'}: {text}; {helps}"


def _operating_system(error: BaseException, home: Path | None) -> str | None:
    rust = _of_rust(error)
    if not rust and not isinstance(error, OSError):
        return None
    number = rust or getattr(error, "errno", None)
    if not rust and _of_network(error):
        return f"{one_line(reason(error))}; {NETWORK}"
    remedy = REMEDIES.get(number or 0, "see crypto-assets doctor")
    if rust or number is None:
        return f"{one_line(reason(error))}; {remedy}"
    named = getattr(error, "filename", None)
    if isinstance(named, str | bytes):
        where = os.fsdecode(named)
    else:
        where = _unnamed(number, home)
    return f"{where}: {os.strerror(number)}; {remedy}"


def _of_rust(error: BaseException) -> int | None:
    found = RUST.search(str(error))
    return int(found[1] or found[2]) if found else None


def _unnamed(number: int, home: Path | None) -> str:
    """Most likely location of an error that names no file."""
    if home is None:
        return "the working directory"
    with suppress(OSError):
        disk = os.statvfs(home)
        if number == errno.ENOSPC and disk.f_bavail and disk.f_favail:
            return f"standard output, or another disk than that of {home}"
    return str(home)


def _of_network(error: BaseException) -> bool:
    return isinstance(error, ConnectionError | TimeoutError | socket.gaierror) or _is(
        error, "requests.exceptions", "RequestException"
    )


def one_line(text: str) -> str:
    """A message on one line, without colons left dangling by empty quotations."""
    return HANGING.sub("", " ".join(COLOURS.sub("", text).split())).rstrip(" :;")


def program(main: Callable[[], int | None]) -> NoReturn:
    """Run a `python -m` entry point with the same error reporting as the CLI."""
    with reported(lambda: None, lambda text: print(f"error: {text}", file=sys.stderr)):
        code = main()
    sys.exit(code)
