"""One line of a landed file: our envelope, or a raw message as another producer writes it.

An envelope is a JSON object of exactly the fields below, on one line:

    {"crypto_assets_landing":1,"timestamp":"2024-01-05T10:00:00.500Z","key":"bitcoin","headers":{...},"value":"{...}"}

The value is the message as text within JSON, so its bytes are what Kafka would carry; one that is not UTF-8 stands as
`value_base64` instead. Any other line is a raw message: its text is the value, and key and headers are null. That
includes an envelope with other fields or one that cannot be read: nothing of it is lost, and Silver quarantines it.
Does not belong here: files and folders (`log.files.folder`), messages (`market.payload`).
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

MARKER = "crypto_assets_landing"
VERSION = 1
_MARKER_BYTES = MARKER.encode()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COMMON = frozenset({MARKER, "timestamp", "key", "headers"})
_SHAPES = (_COMMON | {"value"}, _COMMON | {"value_base64"})


@dataclass(frozen=True)
class Line:
    """One record.

    Args:
        timestamp: When it arrived (UTC); None for a raw message.
        key: Message key.
        headers: JSON text of the headers with sorted keys, as `log.kafka.reading.headers_json` writes; None = unknown.
        value: The message; None for a record without value.
    """

    timestamp: datetime | None
    key: str | None
    headers: str | None
    value: bytes | None


def encode(timestamp: datetime, key: str | None, headers: str, value: bytes | None) -> bytes:
    """One record as an envelope with its newline.

    Args:
        timestamp: Arrival (with zone); kept to the millisecond, as Kafka keeps it.
        key: Message key.
        headers: JSON text of an object, from `log.kafka.reading.headers_json`.
        value: The message.
    """
    moment = timestamp.astimezone(UTC)
    record: dict[str, Any] = {
        MARKER: VERSION,
        "timestamp": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z",
        "key": key,
        "headers": json.loads(headers),
    }
    try:
        record["value"] = None if value is None else value.decode()
    except UnicodeDecodeError:
        record["value_base64"] = base64.b64encode(value or b"").decode()
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes, before: datetime) -> Line | None:
    """The record of one line, without or with its line ending; None for an empty line.

    Args:
        line: The line's bytes.
        before: End of the folder's hour (UTC). An envelope cannot have arrived at or after it: one that claims to is
            not believed, because a time in the future would close hours that are still open.
    """
    text = line.removesuffix(b"\n").removesuffix(b"\r")
    if not text.strip():
        return None
    envelope = _envelope(text, before) if _MARKER_BYTES in text else None
    return envelope or Line(None, None, None, text)


def _envelope(text: bytes, before: datetime) -> Line | None:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.keys() not in _SHAPES or record[MARKER] is not VERSION:
        # `is`, because True == 1; small integers are one object
        return None
    key, headers = record["key"], record["headers"]
    moment, value = _moment(record["timestamp"]), _value(record)
    understood = (key is None or isinstance(key, str)) and isinstance(headers, dict) and value is not ...
    if not understood or moment is None or moment >= before:
        return None
    header_text = json.dumps(headers, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return Line(moment, key, header_text, value)


def _value(record: dict[str, Any]) -> Any:
    """Bytes, None, or Ellipsis where the field is neither text nor null."""
    if "value_base64" in record:
        try:
            return base64.b64decode(record["value_base64"], validate=True)
        except (TypeError, ValueError, binascii.Error):
            return ...
    value = record["value"]
    if value is None:
        return None
    try:
        return value.encode() if isinstance(value, str) else ...
    except UnicodeEncodeError:  # half of a surrogate pair
        return ...


def _moment(text: object) -> datetime | None:
    """A time with its zone, cut to the millisecond, not before 1970."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
        if moment is None or moment.tzinfo is None:
            return None
        stamp = (moment - _EPOCH) // timedelta(milliseconds=1)
        return None if stamp < 0 else _EPOCH + timedelta(milliseconds=stamp)
    except (ValueError, OverflowError):
        return None
