"""Write logic shared by all backends: retries until a commit, versions read, commit metadata.

Belongs here: the loop and the bookkeeping around a write. Does not belong here: how a store reads or commits.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from crypto_assets.storage.base import WriteConflict

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_CHARS = 300
"""Characters of an error that are repeated; a JVM's trace is long."""


class Overtaken(Exception):
    """Another writer was first; nothing of this attempt was committed."""


class TransactionUsed(Overtaken):
    """Another writer has committed under the number of this attempt's application transaction."""


@dataclass(frozen=True)
class Patience:
    """How long a write goes on against others.

    Args:
        attempts: Tries.
        first_pause_s: Upper bound of the first pause; each further one is twice as long.
        longest_pause_s: Upper bound of all pauses.
    """

    attempts: int
    first_pause_s: float
    longest_pause_s: float


def until_committed(
    table: str,
    attempt: Callable[[], T],
    is_conflict: Callable[[Exception], bool],
    explain: Callable[[Exception], Exception | None],
    patience: Patience,
) -> tuple[T, int]:
    """Try until an attempt is not overtaken by another writer, with growing random pauses.

    Args:
        table: Table, for the message.
        attempt: Reads everything again and writes, once.
        is_conflict: True for errors that mean another writer committed first; others are raised at once.
        explain: Gives the error to raise instead of one that a library raised, or None.
        patience: How often it is tried, and the pauses.

    Returns:
        What the attempt gave that was not overtaken, and how many were.

    Raises:
        WriteConflict: Others committed before each of the attempts.
    """
    last: Exception | None = None
    for retries in range(patience.attempts):
        try:
            return attempt(), retries
        except Exception as error:
            if not is_conflict(error):
                if (explained := explain(error)) is not None:
                    raise explained from error
                raise
            last = error
            _LOG.info("%s: attempt %d was overtaken: %s", table, retries + 1, " ".join(str(error)[:_CHARS].split()))
        longest = min(patience.longest_pause_s, patience.first_pause_s * 2 ** min(retries, 10))
        time.sleep(random.uniform(0, longest))  # noqa: S311 - jitter, not a secret
    raise WriteConflict(
        f"{table}: other writers committed before each of {patience.attempts} attempts ({str(last)[:_CHARS]}). Nothing "
        "was written; run the step again when fewer runs write this table"
    )


class RecordedReads:
    """Versions of the tables that a thread reads while it builds what it will write."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextmanager
    def recorded(self) -> Iterator[dict[str, int]]:
        """Versions of the tables that this thread reads within the block."""
        outer = getattr(self._local, "versions", None)
        self._local.versions = self._local.last = versions = {}
        try:
            yield versions
        finally:
            self._local.versions = outer

    def last(self) -> Mapping[str, int]:
        """Versions that this thread read within the last block."""
        return dict(getattr(self._local, "last", {}))

    def note(self, table: str, version: int) -> None:
        """Record a read; nothing outside a block."""
        versions = getattr(self._local, "versions", None)
        if versions is not None:
            versions[table] = version
