"""Rows of Spark's Kafka source in the columns of the log, without a session; reading is tested with the engines."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.log.kafka.reading import headers_json
from crypto_assets.log.kafka.spark_source import log_columns

AT = datetime(2024, 5, 1, 10, tzinfo=UTC)
SCHEMA = pa.schema(
    [
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("headers", pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))),
    ]
)
Headers = list[tuple[str, bytes | None]]
NAMES = st.sampled_from(["source", "poll_id", "a"])
VALUES = st.none() | st.sampled_from([b"", b"1", b"simulator", b"\xff\xfe"])


def found(headers: list[Headers | None]) -> pa.Table:
    """What the source gives for records with these headers (None: without any)."""
    rows = [
        {
            "partition": i % 2,
            "offset": i // 2,
            "timestamp": AT,
            "key": b"bitcoin",
            "value": b"{}",
            "headers": None if each is None else [{"key": k, "value": v} for k, v in each],
        }
        for i, each in enumerate(headers)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


@settings(deadline=None)
@given(st.lists(st.none() | st.lists(st.tuples(NAMES, VALUES), max_size=4), max_size=30))
def test_headers_are_the_text_that_each_record_alone_has(headers: list[Headers | None]) -> None:
    expected = {(i % 2, i // 2): headers_json(each or ()) for i, each in enumerate(headers)}
    rows = log_columns(found(headers)).to_pylist()
    assert {(r["partition"], r["offset"]): r["headers"] for r in rows} == expected


@pytest.mark.parametrize("cut", [(0, 3), (1, 2)])
def test_headers_of_a_slice_of_a_table_are_its_own(cut: tuple[int, int]) -> None:
    all_rows = found([[("a", b"1")], [], [("a", None), ("source", b"x")], [("a", b"1")]])
    rows = log_columns(all_rows.slice(*cut)).sort_by([("offset", "ascending"), ("partition", "ascending")])
    texts = ['{"a":"1"}', "{}", '{"a":null,"source":"x"}', '{"a":"1"}']
    assert rows.column("headers").to_pylist() == texts[cut[0] : cut[0] + cut[1]]
