"""Every record is judged by itself: all reasons that apply, exact numbers, exact times."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from crypto_assets.contracts.messages import QUARANTINE_REASONS
from crypto_assets.engine.sail import frame
from crypto_assets.market.coins import Coin, CoinRegistry
from crypto_assets.market.moments import read_rfc3339
from crypto_assets.transforms.parse import PRICE_LIMIT, day_of, decimal_of, hour_of, moment_of, parse_bronze
from crypto_assets_tests.builders import COINS, START, Record, at, bronze_rows, message, rfc3339

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TEN = at("2024-05-01 10:00:30")
ARRIVED = TEN + timedelta(seconds=1)
RETIRED = Coin("retired", "OLD", "Old", active_from=at("2024-02-01 00:00:00"), active_to=at("2024-05-01 10:00:00"))
REGISTRY = CoinRegistry((*COINS.coins, RETIRED))


def parsed(spark: SparkSession, records: Sequence[Record], **changed: Any) -> list[dict[str, Any]]:
    """The parsed records in their order."""
    rows = bronze_rows([replace(r, offset=i) for i, r in enumerate(records)])
    for name, values in changed.items():
        rows = rows.set_column(
            rows.schema.get_field_index(name), rows.schema.field(name), pa.array(values, rows.schema.field(name).type)
        )
    found = parse_bronze(frame(spark, rows), REGISTRY, START).toArrow().to_pylist()
    return sorted(found, key=lambda r: r["offset"])


def record(*, arrival: datetime = ARRIVED, headers: dict[str, str] | None = None, **changed: Any) -> Record:
    return Record(arrival, message(**{"event": TEN, **changed}), headers=headers or {})


def text_with(**raw: str) -> Record:
    """A record whose fields are put into the JSON text as they are given."""
    plain = {k: json.dumps(v) for k, v in message(event=TEN).items()} | raw
    return Record(ARRIVED, "{" + ", ".join(f'"{k}": {v}' for k, v in plain.items()) + "}")


LONG_AGO = TEN - timedelta(days=200)

CASES: dict[str, tuple[Record, list[str]]] = {
    "single quotes, which Spark would read": (text_with(symbol="'BTC'"), ["not_json"]),
    "a single quote within a text": (text_with(symbol='"B\'C"'), []),
    "a raw control character in a text": (text_with(symbol='"B\tC"'), ["not_json"]),
    "control characters between tokens": (Record(ARRIVED, text_with().value.replace(", ", ",\n\t")), []),
    "a surrogate without its partner": (text_with(symbol='"\\ud800"'), ["not_json"]),
    "a pair of surrogates": (text_with(symbol='"\\ud83d\\ude00"'), []),
    "a number beyond every double": (text_with(price_usd="1e999"), ["bad_number"]),
    "a quote": (record(), []),
    "null where it is allowed": (
        record(market_cap_usd=None, volume_24h_usd=None, change_24h_pct=None, change_7d_pct=None),
        [],
    ),
    "without optional fields": (record(name=..., change_1h_pct=...), []),
    "an unknown field more": (record(surprise={"a": [1]}), []),
    "an unknown cadence": (Record(ARRIVED, message(event=TEN), cadence_s=None), []),
    "bytes that are no text": (Record(ARRIVED, b"\xff\xfe\x00{"), ["not_utf8"]),
    "broken JSON": (Record(ARRIVED, '{"coin_id": "bitcoin"'), ["not_json"]),
    "a list": (Record(ARRIVED, "[1, 2]"), ["not_json"]),
    "a number": (Record(ARRIVED, "17"), ["not_json"]),
    "JSON null": (Record(ARRIVED, "null"), ["not_json"]),
    "empty text": (Record(ARRIVED, ""), ["not_json"]),
    "a tombstone": (Record(ARRIVED, None), ["not_json"]),
    "a name twice": (
        Record(ARRIVED, json.dumps(message(event=TEN))[:-1] + ', "price_usd": "1"}'),
        ["not_json"],
    ),
    "another version": (record(headers={"schema_version": "2"}), ["unknown_schema_version"]),
    "no version": (record(headers={"schema_version": ""}), ["unknown_schema_version"]),
    "no coin": (record(coin_id=""), ["missing_field"]),
    "no symbol": (record(symbol=...), ["missing_field"]),
    "an empty symbol": (record(symbol=""), ["missing_field"]),
    "a symbol that is a list": (record(symbol=["BTC"]), ["missing_field"]),
    "null price": (record(price_usd=None), ["missing_field"]),
    "no market cap": (record(market_cap_usd=...), ["missing_field"]),
    "no volume": (record(volume_24h_usd=...), ["missing_field"]),
    "no change": (record(change_7d_pct=...), ["missing_field"]),
    "no event time": (record(last_updated_at=...), ["missing_field"]),
    "no ingestion time": (record(ingestion_timestamp=...), ["missing_field"]),
    "no source": (record(headers={"source": ""}), ["missing_field"]),
    "a word for a price": (record(price="cheap"), ["bad_number"]),
    "NaN": (record(price="NaN"), ["bad_number"]),
    "infinity": (record(market_cap_usd="Infinity"), ["bad_number"]),
    "a price of 21 digits": (record(price="123456789012345678901"), ["bad_number"]),
    "a price beyond every double": (record(price="1e400"), ["bad_number"]),
    "more than all the money": (record(price=str(PRICE_LIMIT)), ["bad_number"]),
    "an optional number that is none": (record(change_1h_pct="much"), ["bad_number"]),
    "a number with a line's end": (record(price="100.5\n"), ["bad_number"]),
    "zero": (record(price="0.000"), ["non_positive_price"]),
    "negative": (record(price="-1.5"), ["non_positive_price"]),
    "a time without zone": (record(last_updated_at="2024-05-01T10:00:30"), ["bad_timestamp"]),
    "the 30th of February": (record(last_updated_at="2024-02-30T10:00:30Z"), ["bad_timestamp"]),
    "seconds since 1970": (record(last_updated_at=1714557630), ["bad_timestamp"]),
    "a wrong ingestion time": (record(ingestion_timestamp="yesterday"), ["bad_timestamp"]),
    "60 s ahead": (record(arrival=TEN - timedelta(seconds=60)), []),
    "more than 60 s ahead": (record(arrival=TEN - timedelta(seconds=60, milliseconds=1)), ["clock_skew"]),
    "a coin nobody knows": (record(coin_id="dogecoin"), ["unknown_coin"]),
    "a retired coin": (record(coin_id="retired"), ["unknown_coin"]),
    "a coin in its last moment": (record(coin_id="retired", event=at("2024-05-01 09:59:59")), []),
    "a coin before its time": (record(coin_id="retired", event=at("2024-01-31 23:59:59"),
                                      arrival=at("2024-02-01 00:00:01")), ["unknown_coin"]),
    "89 days late": (record(event=at("2024-02-02 10:59:59"), arrival=at("2024-05-01 10:59:59")), []),
    "more than 89 days late": (
        record(event=at("2024-02-02 09:59:59"), arrival=at("2024-05-01 10:00:00")),
        ["too_late"],
    ),
    "before the first partition": (
        record(event=START - timedelta(milliseconds=1), arrival=START + timedelta(seconds=5)),
        ["too_late"],
    ),
    "all that can be wrong at once": (
        record(coin_id="dogecoin", price="-3", market_cap_usd="much", symbol=..., ingestion_timestamp="now",
               event=LONG_AGO, headers={"schema_version": "9"}),
        ["bad_number", "bad_timestamp", "missing_field", "non_positive_price", "too_late", "unknown_coin",
         "unknown_schema_version"],
    ),
    "skewed and unknown and zero": (
        record(coin_id="dogecoin", price="0", arrival=TEN - timedelta(hours=1)),
        ["clock_skew", "non_positive_price", "unknown_coin"],
    ),
    "broken and of no version": (
        Record(ARRIVED, "{", headers={"schema_version": ""}),
        ["not_json", "unknown_schema_version"],
    ),
    "bytes of another version": (
        Record(ARRIVED, b"\xff", headers={"schema_version": "2"}),
        ["not_utf8", "unknown_schema_version"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def judged(spark: SparkSession) -> dict[str, dict[str, Any]]:
    """All cases, parsed in one pass."""
    rows = parsed(spark, [r for r, _ in CASES.values()])
    return dict(zip(CASES, rows, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_record_has_every_reason_that_applies(judged: dict[str, dict[str, Any]], case: str) -> None:
    wanted = CASES[case][1]
    row = judged[case]
    assert row["reasons"] == wanted
    assert row["is_valid"] is (not wanted)


def test_every_reason_of_the_contract_is_exercised_alone() -> None:
    assert {r for _, reasons in CASES.values() if len(reasons) == 1 for r in reasons} == set(QUARANTINE_REASONS)


def test_the_detail_names_each_reason_and_what_was_found(judged: dict[str, dict[str, Any]]) -> None:
    for case, (_, reasons) in CASES.items():
        named = [part.split(": ")[0] for part in judged[case]["detail"].split("; ")] if reasons else []
        assert named == reasons, case
    assert "price_usd=cheap" in judged["a word for a price"]["detail"]
    assert judged["no symbol"]["detail"] == "missing_field: symbol"
    assert judged["no source"]["detail"] == "missing_field: header source"
    assert judged["bytes that are no text"]["detail"] == "not_utf8: 4 bytes"
    assert "coin_id=dogecoin" in judged["a coin nobody knows"]["detail"]
    assert judged["a quote"]["detail"] == ""


def test_no_record_is_lost_and_gaps_are_no_records(spark: SparkSession) -> None:
    gap = Record(ARRIVED, None, kind="gap")
    found = parsed(spark, [record(), gap, Record(ARRIVED, "{"), record()])
    assert [r["offset"] for r in found] == [0, 2, 3]


def test_a_record_that_bronze_placed_in_another_hour_is_refused(spark: SparkSession) -> None:
    """Silver is read by Bronze's event hour, so such a record would be in no slice at all."""
    elsewhere = [TEN.replace(minute=0, second=0), TEN.replace(minute=0, second=0) - timedelta(hours=1), None]
    found = parsed(spark, [record()] * 3, event_hour=elsewhere)
    assert [r["reasons"] for r in found] == [[], ["bad_timestamp"], ["bad_timestamp"]]


def test_a_former_id_names_its_coin_until_its_date(spark: SparkSession) -> None:
    def matic(event: str) -> Record:
        return Record(at(event) + timedelta(seconds=1), message("matic-network", at(event), symbol="matic"))

    before, after, own = parsed(
        spark,
        [matic("2024-09-03 23:59:59"), matic("2024-09-04 00:00:00"),
         Record(ARRIVED, message("polygon-ecosystem-token", TEN, symbol="pol"))],
    )  # fmt: skip
    assert (before["coin_id"], before["symbol"], before["reasons"]) == ("polygon-ecosystem-token", "MATIC", [])
    assert (after["coin_id"], after["reasons"]) == ("matic-network", ["unknown_coin"])
    assert (own["coin_id"], own["reasons"]) == ("polygon-ecosystem-token", [])


def test_numbers_are_exact_from_text_and_from_json_numbers(spark: SparkSession) -> None:
    wanted = {
        '"1.9e-08"': "0.000000019",
        "1.9e-08": "0.000000019",
        '"0.000000000000000001"': "0.000000000000000001",
        "1E-18": "0.000000000000000001",
        '"123456789012345.123456789012345678"': "123456789012345.123456789012345678",
        "0.1": "0.1",
        "61234.123456789012345678": "61234.123456789012345678",
        '"1e5"': "100000",
        "007": None,
    }
    found = parsed(spark, [text_with(price_usd=raw) for raw in wanted])
    assert [r["price_usd"] for r in found] == [None if w is None else Decimal(w) for w in wanted.values()]

    wide = {
        '"12345678901234567890"': "12345678901234567890",
        "12345678901234567890": "12345678901234567890",
        '"99999999999999999999.999999999999999999"': "99999999999999999999.999999999999999999",
        "1.2345678901234567890e19": "12345678901234567890",
    }
    found = parsed(spark, [text_with(market_cap_usd=raw) for raw in wide])
    assert [(r["market_cap_usd"], r["reasons"]) for r in found] == [(Decimal(w), []) for w in wide.values()]


def as_decimal(text: str) -> Decimal | None:
    """What decimal(38,18) holds of a text, by Python's own arithmetic."""
    with localcontext() as context:
        context.prec = 200
        value = Decimal(text).quantize(Decimal("1e-18"), ROUND_HALF_UP)
        return value if abs(value) < Decimal(10) ** 20 else None


def test_decimals_equal_pythons_for_many_texts(spark: SparkSession) -> None:
    random_ = random.Random(20240501)
    texts = ["0", "-0", "0e0", "1e-19", "5e-19", "4.9999e-19", "-5e-19", "1e20", "9.99e19", "1e-60", "1e60", "-1.5E+3"]
    for _ in range(400):
        digits = "".join(random_.choices("0123456789", k=random_.randint(1, 22)))
        point = random_.randint(1, len(digits))
        plain = digits[:point] + ("." + digits[point:] if point < len(digits) else "")
        exponent = f"{random_.choice('eE')}{random_.choice(['', '+', '-'])}{random_.randint(0, 25)}"
        texts.append(random_.choice(["", "-"]) + plain + random_.choice(["", exponent]))
    found = spark.createDataFrame([(t,) for t in texts], "t string").select("t", decimal_of_column().alias("v"))
    read = {r["t"]: r["v"] for r in found.toArrow().to_pylist()}
    assert read == {t: as_decimal(t) for t in texts}


def decimal_of_column() -> Any:
    from pyspark.sql import functions as F

    return decimal_of(F.col("t"))


def test_texts_that_are_no_numbers_give_none(spark: SparkSession) -> None:
    texts = ["", " 1", "1 ", "+1", ".5", "1.", "1_000", "1,000", "0x10", "NaN", "inf", "1e", "e5", "1e5.0", "--1", "١٢",
             "1\n", "1e9999", "1e61", "null", "true"]  # fmt: skip
    found = spark.createDataFrame([(t,) for t in texts], "t string").select(decimal_of_column().alias("v"))
    assert found.toArrow().column("v").to_pylist() == [None] * len(texts)


def test_times_are_read_as_bronze_reads_them(spark: SparkSession) -> None:
    """A record whose hour the two read differently would be refused as misplaced."""
    from pyspark.sql import functions as F

    texts = [
        "2024-05-01T10:00:30Z", "2024-05-01T10:00:30.123Z", "2024-05-01T10:00:30.123456789Z", "2024-05-01t10:00:30z",
        "2024-05-01 10:00:30Z", "2024-05-01T10:00:30+05:30", "2024-05-01T10:00:30-00:00", "2024-05-01T23:30:00-14:00",
        "2024-02-29T00:00:00Z", "2023-02-29T00:00:00Z", "2024-05-01T24:00:00Z", "2024-05-01T23:59:60Z",
        "2024-13-01T00:00:00Z", "2024-05-01T10:00:30", "2024-05-01", "1714557630", "2024-05-01T10:00:30.Z",
        "2024-05-01T10:00Z", "02024-05-01T10:00:30Z", "2024-05-01T10:00:30Z\n", "", "2024-05-01T10:00:30+25:00",
        "1969-12-31T23:59:59.999Z",
    ]  # fmt: skip
    frame_ = spark.createDataFrame(list(enumerate(texts)), "i int, t string")
    read = frame_.select("i", moment_of(F.col("t")).alias("m")).orderBy("i").toArrow().column("m").to_pylist()
    assert dict(zip(texts, read, strict=True)) == {t: read_rfc3339(t) for t in texts}


def test_hours_and_days_do_not_depend_on_the_session(spark: SparkSession) -> None:
    from pyspark.sql import functions as F

    moments = ["2024-05-01 00:00:00", "2024-05-01 23:59:59.999999", "1969-12-31 23:59:59", "2024-02-29 12:30:00"]
    values = pa.table(
        {"t": pa.array([datetime.fromisoformat(m).replace(tzinfo=UTC) for m in moments], pa.timestamp("us", "UTC"))}
    )
    before = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "Asia/Kolkata")
    try:
        found = (
            frame(spark, values)
            .select(F.unix_seconds(hour_of(F.col("t"))).alias("hour"), day_of(F.col("t")).alias("day"))
            .toArrow()
        )
    finally:
        spark.conf.set("spark.sql.session.timeZone", before or "UTC")
    wanted = [at(m).replace(minute=0, second=0, microsecond=0) for m in moments]
    assert found.column("hour").to_pylist() == [int(w.timestamp()) for w in wanted]
    assert found.column("day").to_pylist() == [w.date() for w in wanted]


def test_fields_are_typed_and_headers_read(spark: SparkSession) -> None:
    (row,) = parsed(spark, [Record(ARRIVED, message(event=TEN, symbol="btc"), cadence_s=12.5)])
    assert (row["symbol"], row["name"], row["source"], row["poll_id"]) == ("BTC", "Bitcoin", "replay", "poll-1")
    assert (row["cadence_s"], row["last_updated_at"], row["event_hour"]) == (12.5, TEN, at("2024-05-01 10:00:00"))
    assert (row["change_1h_pct"], row["change_7d_pct"]) == (Decimal("0.1"), None)
    assert rfc3339(row["ingestion_timestamp"]) == rfc3339(START)


def test_a_cadence_that_says_nothing_is_unknown_and_no_reason(spark: SparkSession) -> None:
    found = parsed(spark, [Record(ARRIVED, message(event=TEN), cadence_s=c) for c in ("0", "-5", "soon", "1e3", "7")])
    assert [(r["cadence_s"], r["reasons"]) for r in found] == [(None, [])] * 4 + [(7.0, [])]
