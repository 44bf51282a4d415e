"""Silver's parser and the audit's, which share no code, read every record alike, on every engine."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from bench.agreement import ARRIVED, EVENT, HEADERS, MESSAGES, START, bronze, disagreements
from bench.mutations import mutated
from crypto_assets.engine.sail import frame
from crypto_assets.market.coins import DEFAULT_COINS
from crypto_assets.market.payload import tick_to_message
from crypto_assets.market.quotes import Tick
from crypto_assets.transforms import json_text
from crypto_assets.transforms.bronze import read_moment
from crypto_assets.transforms.parse import parse_bronze, parse_plain

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

GOOD = MESSAGES[0]


def text(*more: str, **raw: str) -> str:
    """A good message with values replaced by JSON text, and members put behind."""
    members = [f'"{n}":{raw.get(n, json.dumps(v))}' for n, v in GOOD.items() if n != "source_payload"]
    return "{" + ",".join([*members, *more]) + "}"


def without(name: str, *more: str) -> str:
    return text(*more).replace(f'"{name}":{json.dumps(GOOD[name])},', "")


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "an escaped name before a nested twin": (
        without("price_usd", '"price\\u005fusd":"12782.6"', '"zz":{"price_usd":77.7}'),
        {"price_usd": Decimal("12782.6")},
    ),
    "a bare number under an escaped name": (
        without("price_usd", '"zz":[{"price_usd":77.7}]', '"pric\\u0065_usd":0.123456789012345678'),
        {"price_usd": Decimal("0.123456789012345678")},
    ),
    "only a nested twin": (without("price_usd", '"zz":{"price_usd":77.7}'), {"reasons": ["missing_field"]}),
    "a text that looks like a member": (
        text(name='"\\"price_usd\\":77.7,\\"symbol\\":\\"X\\""'),
        {"price_usd": Decimal("61234.5"), "name": '"price_usd":77.7,"symbol":"X"'},
    ),
    "a time under an escaped name before a nested twin": (
        without("last_updated_at", '"zz":{"last_updated_at":"2024-05-01T08:00:00Z"}',
                '"last\\u005fupdated_at":"2024-05-01T09:30:00Z"'),
        {"last_updated_at": datetime(2024, 5, 1, 9, 30, tzinfo=UTC)},
    ),
    "a name repeated": (text('"price_usd":"61234.5"'), {"reasons": ["not_json"]}),
    "a name repeated with an escape": (text('"price\\u005fusd":"61234.5"'), {"reasons": ["not_json"]}),
    "a name repeated within an unknown member": (text('"zz":{"a":1,"a":2}'), {}),
    "text after the object": (text() + " x", {"reasons": ["not_json"]}),
    "a closing bracket too many": (text() + "}", {"reasons": ["not_json"]}),
    "two objects": (text() + text(), {"reasons": ["not_json"]}),
    "an object and a member": (text() + ',"y":0', {"reasons": ["not_json"]}),
    "a byte order mark": ("\ufeff" + text(), {"reasons": ["not_json"]}),
    "a space that JSON does not have": (text() + "\u00a0", {"reasons": ["not_json"]}),
    "line ends of Windows": (text().replace(",", ",\r\n") + "\r\n", {}),
    "an exponent with many zeros": (text(price_usd="1.0e00000000003"), {"price_usd": Decimal(1000)}),
    "1,201 decimals": (text(price_usd='"0.' + "3" * 1201 + '"'), {"price_usd": Decimal("0.333333333333333333")}),
    "1,201 decimals, bare": (text(price_usd="0." + "6" * 1201), {"price_usd": Decimal("0.666666666666666667")}),
    "1,000 zeros before a number": (text(price_usd='"' + "0" * 1000 + '1.5"'), {"price_usd": Decimal("1.5")}),
    "300 levels of nesting": (text('"zz":' + "[" * 300 + "]" * 300), {"reasons": ["not_json"]}),
    "99 lists": (text('"zz":' + "[" * 99 + "]" * 99), {}),
    "100 lists": (text('"zz":' + "[" * 100 + "]" * 100), {"reasons": ["not_json"]}),
    "brackets in a text": (text('"zz":"' + "[{" * 300 + '"'), {}),
    "an integer of 5,000 digits": (text('"zz":' + "7" * 5000), {}),
    "50,000 characters": (text('"zz":"' + "x" * (50_000 - len(text()) - 8) + '"'), {}),
    "more than 50,000 characters": (text('"zz":"' + "x" * (50_001 - len(text()) - 8) + '"'), {"reasons": ["not_json"]}),
    "a capitalisation of 1e31": (
        text(market_cap_usd="1e31"), {"market_cap_usd": None, "out_of_range": ["market_cap_usd"]},
    ),
    "one of 21 digits in quotes": (
        text(market_cap_usd='"123456789012345678901"'), {"market_cap_usd": None, "out_of_range": ["market_cap_usd"]},
    ),
    "a volume that rounds out of range": (
        text(volume_24h_usd="99999999999999999999.9999999999999999995"),
        {"volume_24h_usd": None, "out_of_range": ["volume_24h_usd"]},
    ),
    "a name that is a number": (text(name="7"), {"name": None}),
    "a name in brackets": (text(name='"[x]"'), {"name": "[x]"}),
    "a symbol that is a number": (text(symbol="7"), {"reasons": ["missing_field"]}),
    "letters that grow in capitals": (text(symbol='"stra\u00dfe\u0149"'), {"symbol": "STRASSE\u02bcN"}),
    "an escaped backslash before what looks like a surrogate": (text(name='"\\\\ud800"'), {"name": "\\ud800"}),
    "a lone surrogate in an unknown name": (text('"\\ud800":1'), {"reasons": ["not_json"]}),
    "midnight as 24:00": (text(last_updated_at='"2024-04-30T24:00:00Z"'), {"reasons": ["bad_timestamp"]}),
    "a leap second": (text(ingestion_timestamp='"2016-12-31T23:59:60Z"'), {"reasons": ["bad_timestamp"]}),
    "a year beyond 8999": (text(ingestion_timestamp='"9000-01-01T00:00:00Z"'), {"reasons": ["bad_timestamp"]}),
    "the last year": (text(ingestion_timestamp='"8999-12-31T23:59:59-18:00"'), {}),
    "a year beyond 9999": (text(ingestion_timestamp='"9999-12-31T23:59:59-01:00"'), {"reasons": ["bad_timestamp"]}),
    "nine digits of a fraction": (
        text(last_updated_at='"2024-05-01T10:00:30.123456789Z"'),
        {"last_updated_at": EVENT.replace(microsecond=123456)},
    ),
    "half an hour off": (text(last_updated_at='"2024-05-01T15:30:30.123+05:30"'), {}),
}  # fmt: skip


def test_single_records(spark: SparkSession) -> None:
    padding = [text().encode()] * len(HEADERS)  # the first rows have headers of all kinds, the others good ones
    values = [*padding, *(value.encode() for value, _ in CASES.values())]
    rows = parse_bronze(frame(spark, bronze(values)), DEFAULT_COINS, START).toArrow().to_pylist()
    by_offset = {row["offset"]: row for row in rows}
    for i, (case, (_, wanted)) in enumerate(CASES.items(), len(padding)):
        expected = {"reasons": [], "out_of_range": None} | wanted
        assert {n: by_offset[i][n] for n in expected} == expected, case
    assert list(disagreements(spark, values)) == []


def test_what_our_producer_writes_is_read_by_the_one_pattern(spark: SparkSession) -> None:
    """Everything else takes three times as long."""
    from pyspark.sql import functions as F

    ticks = [
        Tick('a\\"b', "B", name, Decimal("1.5"), None, Decimal("2e3"), None, Decimal(-1), Decimal(0), EVENT, payload)
        for name in ("Bitcoin", None)
        for payload in ('[{"a":"\\"\u20bf"}]', None)
    ]
    texts = [json.dumps(tick_to_message(t, EVENT), ensure_ascii=False, separators=(",", ":")) for t in ticks]
    found = spark.createDataFrame([(t,) for t in texts], "t string").select(json_text.plain(F.col("t")).alias("p"))
    assert found.toArrow().column("p").to_pylist() == [True] * len(texts)


@pytest.mark.parametrize("seed", [15])
def test_mutated_records(spark: SparkSession, seed: int) -> None:
    assert list(disagreements(spark, list(mutated(MESSAGES, 2_000, seed)))) == []


@pytest.mark.parametrize("seed", [16])
def test_what_the_first_pass_calls_valid_is_so_in_every_column(spark: SparkSession, seed: int) -> None:
    values = [*(value.encode() for value, _ in CASES.values()), *mutated(MESSAGES, 2_000, seed)]
    rows = frame(spark, bronze(values))
    first = parse_plain(rows, DEFAULT_COINS, START).toArrow().to_pylist()
    full = {row["offset"]: row for row in parse_bronze(rows, DEFAULT_COINS, START).toArrow().to_pylist()}
    assert {row["offset"] for row in first} == set(full)
    valid = [row for row in first if row["is_valid"]]
    assert len(valid) > 100
    assert [row for row in valid if row != {n: full[row["offset"]][n] for n in row}] == []


def test_bronze_has_the_hour_of_the_members_own_time() -> None:
    assert EVENT < ARRIVED
    value, wanted = CASES["a time under an escaped name before a nested twin"]
    assert read_moment(value) == wanted["last_updated_at"]
    assert bronze([value.encode()]).column("event_hour").to_pylist() == [datetime(2024, 5, 1, 9, tzinfo=UTC)]
