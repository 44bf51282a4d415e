"""Times of messages: RFC 3339 text with a zone, read the same way wherever it is read.

Belongs here: the pattern, and reading one text in Python. Does not belong here: reading columns on an engine
(`transforms.parse`), writing times (`market.payload`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

RFC3339 = (
    "(19|[2-8][0-9])[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    "[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?"
    "([Zz]|[+-](0[0-9]|1[0-7]):[0-5][0-9]|[+-]18:00)"
)
"""Years 1900 to 8999, hours to 23, seconds to 59, up to nine digits of a fraction, `Z` or an offset up to 18 hours.

Engines differ on what lies beyond (24:00, leap seconds, the year 0, other offsets, results after 9999), so no text
beyond is a time. The pattern uses only what Java, Rust, RE2 and Python read alike, and is not anchored.
"""

_PATTERN = re.compile(RFC3339)


def read_rfc3339(text: object) -> datetime | None:
    """The UTC time of an RFC 3339 text (digits after microseconds are cut).

    Returns:
        None for what is no text, no such time, or no day of the calendar.
    """
    if not isinstance(text, str) or not _PATTERN.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except ValueError:
        return None
