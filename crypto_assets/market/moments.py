"""RFC 3339 times with a zone, parsed identically in Python and on every engine.

Belongs here: the pattern, and parsing in Python. Does not belong here: parsing columns on an engine
(`transforms.parse`), formatting times (`market.payload`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

RFC3339 = (
    "(19|[2-8][0-9])[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    "[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?"
    "([Zz]|[+-](0[0-9]|1[0-7]):[0-5][0-9]|[+-]18:00)"
)
"""Years 1900 to 8999, hours to 23, seconds to 59, up to nine fractional digits, `Z` or an offset of up to 18 hours.

Engines disagree on anything else (24:00, leap seconds, year 0, other offsets, results after 9999), so it is rejected.
The pattern uses only syntax that Java, Rust, RE2 and Python interpret alike, and is not anchored.
"""

_PATTERN = re.compile(RFC3339)


def read_rfc3339(text: object) -> datetime | None:
    """UTC time of an RFC 3339 text, truncated to microseconds; None if it is not text or not a valid time."""
    if not isinstance(text, str) or not _PATTERN.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except ValueError:
        return None
