"""Time slices of tables and their partition keys.

Belongs here: partition-key arithmetic and slice predicates, pure. Does not belong here: Dagster's partition
definitions (`orchestration.partitions`), reading and writing (`storage`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from crypto_assets.contracts.model import Grain, Table

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
HOUR_FORMAT = "%Y-%m-%d-%H:%M"
DAY_FORMAT = "%Y-%m-%d"


@dataclass(frozen=True, order=True)
class Slice:
    """Half-open interval [start, end) of a table's time column, in whole UTC hours.

    Raises:
        ValueError: A bound is not in UTC or not a whole hour, or the interval is empty.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for bound in (self.start, self.end):
            if bound.tzinfo is None:
                raise ValueError(f"slice bound {bound!r} has no time zone; use UTC")
            if bound.utcoffset():
                raise ValueError(f"slice bound {bound.isoformat()} is not in UTC")  # predicates print it as it is
            if bound != bound.replace(minute=0, second=0, microsecond=0):
                raise ValueError(f"slice bound {bound.isoformat()} is not a whole hour")
        if not self.start < self.end:
            raise ValueError(f"empty slice [{self.start.isoformat()}, {self.end.isoformat()})")

    def hours(self) -> list[datetime]:
        """Start of every hour in the slice."""
        count = int((self.end - self.start) / HOUR)
        return [self.start + i * HOUR for i in range(count)]

    def extend(self, before: timedelta) -> Slice:
        """The slice with an earlier start, for look-backs."""
        return Slice(self.start - before, self.end)

    def predicate(self, table: Table) -> str:
        """SQL predicate that selects this slice of `table`, with plain literals only.

        delta-rs accepts neither CAST nor `timestamp '...'` in a replace predicate, and both Spark and delta-rs coerce
        ISO text to the column's type. Tables partitioned by `day` also get a day condition for pruning.

        Raises:
            ValueError: The table has no time column.
        """
        if table.time_column is None:
            raise ValueError(f"{table.full_name} has no time column, so it has no slices")
        parts = []
        if "day" in table.partition_by and table.time_column != "day":
            last = self.end - timedelta(microseconds=1)
            if self.start.date() == last.date():
                parts.append(f"day = '{self.start:%Y-%m-%d}'")
            else:
                parts.append(f"day >= '{self.start:%Y-%m-%d}' AND day <= '{last:%Y-%m-%d}'")
        parts.append(f"{table.time_column} >= '{self.start:%Y-%m-%dT%H:%M:%SZ}'")
        parts.append(f"{table.time_column} < '{self.end:%Y-%m-%dT%H:%M:%SZ}'")
        return " AND ".join(parts)


def floor_hour(moment: datetime) -> datetime:
    """Start of the UTC hour that contains `moment`."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def floor_day(moment: datetime) -> datetime:
    """Start of the UTC day that contains `moment`."""
    return floor_hour(moment).replace(hour=0)


def hour_key(moment: datetime) -> str:
    """Partition key of the UTC hour that contains `moment`."""
    return floor_hour(moment).strftime(HOUR_FORMAT)


def day_key(moment: datetime) -> str:
    """Partition key of the UTC day that contains `moment`."""
    return floor_day(moment).strftime(DAY_FORMAT)


def key_slice(key: str, grain: Grain) -> Slice:
    """The slice of a partition key.

    Raises:
        ValueError: The key does not have the grain's format (`2024-01-31-23:00` or `2024-01-31`).
    """
    form, length = (HOUR_FORMAT, HOUR) if grain == "hour" else (DAY_FORMAT, DAY)
    try:
        start = datetime.strptime(key, form).replace(tzinfo=UTC)
        if start.strftime(form) != key:  # strptime accepts 2024-1-31, which would not sort correctly
            raise ValueError("digits are missing")
        return Slice(start, start + length)
    except ValueError as error:
        expected = "2024-01-31-23:00" if grain == "hour" else "2024-01-31"
        raise ValueError(f"{key!r} is not a {grain} partition key such as {expected!r}: {error}") from error


def contiguous(keys: Iterable[str], grain: Grain) -> list[tuple[Slice, list[str]]]:
    """Merge partition keys into maximal contiguous runs, in time order.

    Returns:
        Pairs of slice and keys; a range run of 72 hours is one pair.
    """
    runs: list[tuple[Slice, list[str]]] = []
    for key in sorted(set(keys)):
        piece = key_slice(key, grain)
        if runs and runs[-1][0].end == piece.start:
            runs[-1] = (Slice(runs[-1][0].start, piece.end), [*runs[-1][1], key])
        else:
            runs.append((piece, [key]))
    return runs


def key_spans(keys: Iterable[str]) -> list[str]:
    """Keys in compact form for display, in time order: contiguous runs as `first..last`, single keys as they are."""
    found = []
    by_grain: dict[Grain, list[str]] = {"day": [], "hour": []}
    for key in keys:
        by_grain["hour" if ":" in key else "day"].append(key)
    for grain, mine in by_grain.items():
        found += [run[0] if len(run) == 1 else f"{run[0]}..{run[-1]}" for _, run in contiguous(mine, grain)]
    return found


def hour_keys(slice_: Slice) -> list[str]:
    """Hourly partition keys within a slice."""
    return [hour_key(h) for h in slice_.hours()]
