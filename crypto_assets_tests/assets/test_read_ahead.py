"""Reading ahead is a guess: whatever was expected, what is taken is what was asked for."""

import threading
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pytest

from crypto_assets.assets.log_slices.rows import ReadAhead
from crypto_assets.log.errors import LogTrimmed
from crypto_assets.storage.base import OffsetRange

CHUNK = 10
FIRST, SECOND = OffsetRange(0, 0, 95), OffsetRange(1, 40, 47)


class Log:
    """A log whose records are their offsets, and which notes what is read."""

    def __init__(self) -> None:
        self.asked: list[tuple[OffsetRange, ...]] = []

    def read(self, ranges: Sequence[OffsetRange]) -> Iterator[pa.Table]:
        self.asked.append(tuple(ranges))
        for piece in ranges:
            if piece.partition == 9:
                raise LogTrimmed("gone", str(piece))
            for start in range(piece.start, piece.end, CHUNK):
                found = range(start, min(start + CHUNK, piece.end))
                yield pa.table({"partition": [piece.partition] * len(found), "offset": list(found)})


def offsets(chunks: Iterator[pa.Table]) -> list[int]:
    return [o for chunk in chunks for o in chunk.column("offset").to_pylist()]


def wanted(*ranges: OffsetRange) -> list[int]:
    return [o for r in ranges for o in range(r.start, r.end)]


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "read-ahead"]


def test_what_was_expected_is_read_once_and_whole():
    log = Log()
    with ReadAhead(log.read) as ahead:
        ahead.expect([[FIRST, SECOND]])
        assert offsets(ahead.take([FIRST, SECOND])) == wanted(FIRST, SECOND)
        assert log.asked == [(FIRST, SECOND)]
        # asked again, as after a conflict: read again
        assert offsets(ahead.take([FIRST, SECOND])) == wanted(FIRST, SECOND)
        assert len(log.asked) == 2
    assert readers() == []


@pytest.mark.parametrize("asked", [[SECOND], [OffsetRange(0, 3, 95)], [FIRST]])
def test_a_wrong_guess_changes_nothing(asked):
    log = Log()
    with ReadAhead(log.read) as ahead:
        ahead.expect([[FIRST, SECOND]])
        assert offsets(ahead.take(asked)) == wanted(*asked)
    assert log.asked[-1] == tuple(asked)
    assert readers() == []


def test_without_a_guess_it_reads_when_asked():
    log = Log()
    with ReadAhead(log.read) as ahead:
        ahead.expect([])
        assert log.asked == []
        assert offsets(ahead.take([SECOND])) == wanted(SECOND)


def test_an_error_ahead_is_raised_where_its_ranges_are_taken_and_only_there():
    log, gone = Log(), OffsetRange(9, 0, 5)
    with ReadAhead(log.read) as ahead:
        ahead.expect([[SECOND, gone]])
        chunks = ahead.take([SECOND, gone])
        assert next(chunks).num_rows == 7
        with pytest.raises(LogTrimmed, match="gone"):
            next(chunks)
        ahead.expect([[gone]])
        assert offsets(ahead.take([FIRST])) == wanted(FIRST)
    assert readers() == []


def test_nobody_reads_on_when_the_caller_gives_up():
    log = Log()
    endless = OffsetRange(0, 0, 10**9)
    with ReadAhead(log.read) as ahead:
        ahead.expect([[endless]])
        assert next(ahead.take([endless])).num_rows == CHUNK
    assert readers() == []


HOURS = [[OffsetRange(0, 0, 30), OffsetRange(1, 5, 9)], [], [OffsetRange(0, 30, 41)], [OffsetRange(1, 9, 12)]]


def test_small_hours_that_follow_each_other_are_one_read():
    log, reads = Log(), set()
    with ReadAhead(log.read) as ahead:
        for at, hour in enumerate(HOURS):
            ahead.expect(HOURS[at:])
            if hour:
                assert offsets(ahead.take(hour)) == wanted(*hour)
                reads.add(ahead.last_read)
        assert (log.asked, len(reads)) == ([(OffsetRange(0, 0, 41), OffsetRange(1, 5, 12))], 1)
        # asked again, as after a conflict: read again, and what follows is expected anew
        assert offsets(ahead.take(HOURS[0])) == wanted(*HOURS[0])
        assert ahead.last_read not in reads
        ahead.expect(HOURS[1:])
        assert offsets(ahead.take(HOURS[2])) == wanted(*HOURS[2])
    assert [len(ranges) for ranges in log.asked] == [2, 2, 2]
    assert readers() == []


def test_an_hour_that_turns_out_to_be_stored_is_passed_over():
    log = Log()
    with ReadAhead(log.read) as ahead:
        ahead.expect(HOURS)
        assert offsets(ahead.take(HOURS[3])) == wanted(*HOURS[3])
        assert offsets(ahead.take(HOURS[2])) == wanted(*HOURS[2]), "out of order: read when asked"
    assert len(log.asked) == 2


@pytest.mark.parametrize(
    ("hours", "together"),
    [
        ([[OffsetRange(0, 0, 30_000)], [OffsetRange(0, 30_000, 41_000)]], 1),
        ([[OffsetRange(0, 0, 10)], [OffsetRange(0, 11, 20)]], 1),
        ([[OffsetRange(0, 0, 50_000)]], 1),
        ([[OffsetRange(0, 0, 10)], [OffsetRange(0, 10, 20)], [OffsetRange(0, 25, 30)]], 2),
    ],
    ids=["many records", "a hole", "one large hour", "a hole later"],
)
def test_what_is_large_or_does_not_follow_is_read_by_itself(hours, together):
    log = Log()
    with ReadAhead(log.read) as ahead:
        ahead.expect(hours)
        assert offsets(ahead.take(hours[0])) == wanted(*hours[0])
    assert log.asked == [(OffsetRange(0, 0, hours[together - 1][0].end),)]


def test_an_error_in_a_read_of_several_hours_is_raised_and_not_kept():
    log = Log()
    hours = [[OffsetRange(9, 0, 5)], [OffsetRange(9, 5, 7), SECOND]]
    with ReadAhead(log.read) as ahead:
        ahead.expect(hours)
        with pytest.raises(LogTrimmed, match="gone"):
            next(ahead.take(hours[0]))
        assert offsets(ahead.take([SECOND])) == wanted(SECOND)
    assert readers() == []
