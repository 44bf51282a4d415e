"""Rows of the newest files as JSON text in memory, per coin in time order, cut by bisection.

A Delta file never changes, so its rows are encoded once (`rows`). A snapshot is the list of files of one version; a
request cuts its rows out of those that the files hold, and an older version shares all files that it has in common.
Rows of days that are not kept are encoded when asked for, and the last few such files stay.

Belongs here: files, snapshots, cutting. Does not belong here: opening tables and noticing commits (`follow`).
"""

from __future__ import annotations

import json
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, partial
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from crypto_assets.contracts.slices import DAY
from crypto_assets.serving.kept import Kept
from crypto_assets.serving.rows import file_sql
from crypto_assets.storage.delta_files import literal

COLD_ROWS = 60_000
"""Rows of files that no newest version has, or of older days, that stay in memory: about 30 MB."""
Keep = Callable[["Row"], bool] | None
_at = attrgetter("at")
ALWAYS, NEVER = -(2**63), 2**63 - 1
"""Bounds of everything."""


class FileGone(Exception):
    """A data file was removed after the version that lists it was superseded; the message is its path."""


class Row(NamedTuple):
    """A row: its place in the order, when it was first there (µs since 1970, 0 = unknown), and its JSON text."""

    at: int
    known: int
    text: bytes


class FileRows(NamedTuple):
    """Rows of one file by group, sorted, and its newest event time (µs since 1970)."""

    groups: dict[str, list[Row]]
    newest_event: int | None


class Having:
    """A filter of rows by values of their columns; a value of None is not looked at.

    Args:
        values: Text or truth value by column.
    """

    def __init__(self, **values: str | bool | None) -> None:
        self._values = {name: value for name, value in values.items() if value is not None}
        # A name between quotes cannot occur within a string, where quotes are escaped.
        self._texts = [f'"{name}":{json.dumps(value)}'.encode() for name, value in self._values.items()]

    def __bool__(self) -> bool:
        return bool(self._values)

    def __call__(self, row: Row) -> bool:
        """Whether a row is wanted."""
        return all(text + b"," in row.text or text + b"}" in row.text for text in self._texts)

    def sql(self, stored: Collection[str]) -> str:
        """The same as SQL over a file with these columns; a column that it lacks is null in all of its rows."""
        return " AND ".join(
            f'"{name}" = {value if isinstance(value, bool) else literal(value)}' if name in stored else "false"
            for name, value in self._values.items()
        )


class File(NamedTuple):
    """A data file of a version, and its Delta partition if that is a day."""

    path: Path
    day: date | None


def micros(moment: datetime) -> int:
    """A time as µs since 1970, exactly."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def moment(micros: int) -> datetime:
    """The time of µs since 1970 (UTC)."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


class Files:
    """Encoded files: those of the newest versions, and the last few others. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self._hot: dict[str, dict[File, FileRows]] = {}
        self._cold: dict[File, FileRows] = {}

    def rows(self, kept: Kept, file: File) -> FileRows:
        """Rows of a file, encoded at the first call.

        Raises:
            FileGone: It is not there any more.
        """
        # What is there is read without the lock, which is held while files are encoded: requests never wait for that.
        if (found := self._there(kept, file)) is not None:
            return found
        with self._lock:
            if (found := self._there(kept, file)) is None:
                found = self._encoded(kept, file)
                self._put_aside(file, found)
            return found

    def some(self, kept: Kept, file: File, having: Having) -> FileRows:
        """Rows of a file that a filter wants. Only these are encoded, unless all are in memory; they are not kept.

        Raises:
            FileGone: It is not there any more.
        """
        if (found := self._there(kept, file)) is None:
            with self._lock:
                return self._encoded(kept, file, having)
        groups = {group: [row for row in rows if having(row)] for group, rows in found.groups.items()}
        return FileRows(groups, found.newest_event)

    def _there(self, kept: Kept, file: File) -> FileRows | None:
        return self._hot.get(kept.name, {}).get(file) or self._cold.get(file)

    def keep(self, kept: Kept, files: Iterable[File]) -> None:
        """Keep exactly these files of a table; encode those that are not."""
        hot = {file: self.rows(kept, file) for file in files}
        with self._lock:
            dropped = {file: rows for file, rows in self._hot.get(kept.name, {}).items() if file not in hot}
            self._hot[kept.name] = hot
            for file in hot:
                self._cold.pop(file, None)
            for file, rows in dropped.items():  # the version before is compared with the new one, and may be asked for
                self._put_aside(file, rows)

    def held(self) -> dict[str, int]:
        """Rows in memory by table, without those of older days."""
        with self._lock:
            return {name: sum(_count(file) for file in files.values()) for name, files in self._hot.items()}

    def _put_aside(self, file: File, rows: FileRows) -> None:
        self._cold[file] = rows
        while len(self._cold) > 1 and sum(map(_count, self._cold.values())) > COLD_ROWS:
            del self._cold[next(iter(self._cold))]

    def _encoded(self, kept: Kept, file: File, having: Having | None = None) -> FileRows:
        import duckdb

        path = literal(str(file.path))  # for a parameter DuckDB imports pandas
        if self._connection is None:
            self._connection = _connection()
        try:
            schema = self._connection.execute(f"SELECT name FROM parquet_schema({path})").fetchall()  # noqa: S608
            stored = {name for (name,) in schema}
            condition = having.sql(stored) if having else ""
            found = self._connection.execute(file_sql(kept, path, stored, file.day, condition)).fetchall()
        except duckdb.IOException as error:
            if file.path.exists():
                raise
            raise FileGone(str(file.path)) from error
        groups: dict[str, list[Row]] = {}
        for group, at, _, known, text in found:
            groups.setdefault(group, []).append(Row(at, known or 0, text.encode()))
        return FileRows(groups, max((event for _, _, event, _, _ in found if event is not None), default=None))


def _count(file: FileRows) -> int:
    return sum(map(len, file.groups.values()))


def _connection() -> Any:
    import duckdb

    connection = duckdb.connect(config={"threads": 1, "autoinstall_known_extensions": False})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


@dataclass(frozen=True)
class Snapshot:
    """One version of a table.

    What its many files come to is computed once: a year of days would otherwise be walked for every request.

    Args:
        kept: The table.
        table_id: Delta's id of the table: another one after it was made again.
        version: Delta version.
        committed_at: Time of its commit, as the commit says (UTC).
        run_id: Run that committed it, if the commit says.
        paths: Its files.
        encoded: Where their rows are.
    """

    kept: Kept
    table_id: str
    version: int
    committed_at: datetime
    run_id: str | None
    paths: tuple[File, ...]
    encoded: Files = field(repr=False, compare=False)
    _merged: dict[str, list[Row]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def tag(self) -> str:
        """Text that no other contents of the table have."""
        return f"{self.kept.name}-{self.table_id[:8]}-{self.version}"

    @cached_property
    def hot_from(self) -> date | None:
        """First day whose rows are in memory; None = all are."""
        days = [f.day for f in self.paths if f.day is not None]
        if self.kept.hot_days is None or not days:
            return None
        return max(days) - timedelta(days=self.kept.hot_days - 1)

    def hot(self) -> list[File]:
        """Files of the days that are in memory."""
        return self._hot

    @cached_property
    def _hot(self) -> list[File]:
        first = self.hot_from
        return [f for f in self.paths if first is None or f.day is None or f.day >= first]

    def newest_event(self) -> datetime | None:
        """Newest event time (UTC); None without rows."""
        return self._newest_event

    @cached_property
    def _newest_event(self) -> datetime | None:
        found = [self.encoded.rows(self.kept, f).newest_event for f in self._newest_files()]
        known = [event for event in found if event is not None]
        return moment(max(known)) if known else None

    def _newest_files(self) -> list[File]:
        """Files of the newest two days: event times of an earlier day are not newer."""
        first = max((f.day for f in self.paths if f.day is not None), default=date.max) - DAY
        return [f for f in self.paths if f.day is None or f.day >= first]

    def groups(self) -> list[str]:
        """Groups with rows in memory, sorted."""
        return self._groups

    @cached_property
    def _groups(self) -> list[str]:
        return sorted({g for f in self.hot() for g in self.encoded.rows(self.kept, f).groups})

    def reaches_back(self, start: int) -> bool:
        """True if rows from a time (µs) on need no file of an older day."""
        first = self.hot_from
        if first is None or len(self._hot) == len(self.paths):
            return True
        # A row whose slot ends at midnight lies in the day before.
        return start > micros(datetime.combine(first, datetime.min.time(), UTC))

    def all_rows(self, group: str) -> list[Row]:
        """Rows of a group that are in memory, sorted."""
        if (found := self._merged.get(group)) is None:
            found = self._merged[group] = _of_group([self.encoded.rows(self.kept, f) for f in self.hot()], group)
        return found

    def oldest(
        self, groups: Sequence[str], start: int, end: int, limit: int, keep: Keep = None, having: Having | None = None
    ) -> Sequence[Row]:
        """Rows of groups from `start` up to and including `end` (µs or numbers of the order), the first ones, sorted.

        Older days are read one after the other, each for all groups: more groups need no more files.

        Args:
            groups: The groups.
            start: First place in the order.
            end: Last place in the order.
            limit: Rows wanted; all at the place of the last come along, and one more row, if there is one.
            keep: Only rows for which this is true.
            having: Implied by `keep`; of older days only rows that it wants are encoded.

        Raises:
            FileGone: A file of an older day is gone: take the newest snapshot.
        """
        if self.reaches_back(start):
            return _cut_first(merged(_first(self.all_rows(g), start, end, limit, keep) for g in groups), limit)
        found: list[Row] = []
        for day in self._days(start, end):
            of_day = self._of_day(day, having)
            found = merged([found, *(_first(of_day(group), start, end, NEVER, keep) for group in groups)])
            # The next day's file may hold rows of midnight, and none of before.
            over = micros(datetime.combine(day + DAY, datetime.min.time(), UTC))
            stop = _end_of_first(found, limit)
            if stop < len(found) and found[stop - 1].at < over:
                break
        return _cut_first(found, limit)

    def newest(
        self, groups: Sequence[str], end: int, limit: int, keep: Keep = None, having: Having | None = None
    ) -> Sequence[Row]:
        """At most `limit` rows of groups, the newest up to and including `end`, sorted.

        Args:
            groups: The groups.
            end: Last place in the order.
            limit: Rows at most.
            keep: Only rows for which this is true.
            having: As in `oldest`.

        Raises:
            FileGone: As in `oldest`.
        """
        found = merged(_last(self.all_rows(group), end, limit, keep) for group in groups)
        for day in self._older_days():
            if len(found) >= limit:
                break  # every row of an older day is older than these
            of_day = self._of_day(day, having)
            found = [*merged(_last(of_day(group), end, limit - len(found), keep) for group in groups), *found]
        return found[max(0, len(found) - limit) :]

    def has_newest(self, groups: Sequence[str], end: int, limit: int) -> bool:
        """True if the newest rows of groups up to a place, as many as the limit, need no file of an older day."""
        if self.reaches_back(ALWAYS):
            return True
        return sum(bisect_right(self.all_rows(group), end, key=_at) for group in groups) >= limit

    def _older_days(self) -> list[date]:
        """Days that are not in memory, newest first."""
        first = self.hot_from
        return sorted({f.day for f in self.paths if first and f.day and f.day < first}, reverse=True)

    def _days(self, start: int, end: int) -> list[date]:
        """Days whose files may hold rows of a range, oldest first. A row of midnight may lie in the day before."""
        first = moment(max(start, 0)).date() - DAY
        last = moment(min(end, micros(datetime.max.replace(tzinfo=UTC)))).date()
        return sorted({f.day for f in self.paths if f.day is not None and first <= f.day <= last})

    def _of_day(self, day: date, having: Having | None) -> Callable[[str], list[Row]]:
        """Rows of a day's files by group, sorted."""
        files = [f for f in self.paths if f.day == day]
        return partial(
            _of_group,
            [self.encoded.some(self.kept, f, having) if having else self.encoded.rows(self.kept, f) for f in files],
        )

    def prepare(self) -> None:
        """Encode and sort what stays in memory, so that no request has to."""
        self.encoded.keep(self.kept, self.hot())
        for group in self.groups():
            self.all_rows(group)


def _of_group(files: Iterable[FileRows], group: str) -> list[Row]:
    """Rows of a group in several files, sorted; of a single file the list itself."""
    parts = [rows for f in files if (rows := f.groups.get(group))]
    return parts[0] if len(parts) == 1 else merged(parts)


def merged(parts: Iterable[Sequence[Row]]) -> list[Row]:
    """Rows of several sorted parts, sorted; at the same place in the order of the parts."""
    return sorted(chain.from_iterable(parts), key=_at)


def _first(rows: Sequence[Row], start: int, end: int, limit: int, keep: Keep = None) -> Sequence[Row]:
    found = rows[bisect_left(rows, start, key=_at) : bisect_right(rows, end, key=_at)]
    if keep is not None:
        found = [row for row in found if keep(row)]
    return _cut_first(found, limit)


def _cut_first(found: Sequence[Row], limit: int) -> Sequence[Row]:
    """The first rows, with all that have the place of the last, and one more: there is a next page."""
    return found[: _end_of_first(found, limit) + 1]


def _end_of_first(found: Sequence[Row], limit: int) -> int:
    """Number of the first rows with all that have the place of the last."""
    stop = min(limit, len(found))
    while 0 < stop < len(found) and found[stop].at == found[stop - 1].at:
        stop += 1
    return stop


def _last(rows: Sequence[Row], end: int, limit: int, keep: Keep) -> Sequence[Row]:
    stop = bisect_right(rows, end, key=_at)
    if keep is None:
        return rows[max(0, stop - limit) : stop]
    found: list[Row] = []
    for row in reversed(rows[:stop]):
        if len(found) == limit:
            break
        if keep(row):
            found.append(row)
    return found[::-1]


def changed(before: Snapshot | None, after: Snapshot) -> Iterator[tuple[str, Row]]:
    """Rows of the newest days that a version added or changed, with their groups."""
    there = set(before.hot()) if before else set()
    now = set(after.hot())
    old: dict[str, set[bytes]] = {}
    for file in there - now:
        assert before is not None
        for group, rows in before.encoded.rows(before.kept, file).groups.items():
            old.setdefault(group, set()).update(row.text for row in rows)
    for file in sorted(now - there):
        for group, rows in after.encoded.rows(after.kept, file).groups.items():
            known = old.get(group, set())
            yield from ((group, row) for row in rows if row.text not in known)
