"""Casting rows to a contract: exactly or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from crypto_assets.contracts.arrow import ContractViolation, arrow_type, conform
from crypto_assets.contracts.model import MONEY, Column, Table


def one(type_: str, nullable: bool = True) -> Table:
    column = Column("x", type_, "x", nullable=nullable)
    return Table("s", "t", "d", (column,), ("x",), None, "merge", "team:x", "g", ())


def cast(type_: str, array: pa.Array):
    return conform(one(type_), pa.table({"x": array})).column("x").to_pylist()


AT = datetime(2024, 1, 1, 5, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("type_", "array", "expected"),
    [
        ("string", pa.array(["a", None], pa.large_string()), ["a", None]),
        ("string", pa.array(["a"]).dictionary_encode(), ["a"]),
        ("string", pa.array(["a"], pa.string_view()), ["a"]),
        ("string", pa.nulls(2), [None, None]),
        ("bigint", pa.array([1], pa.int32()), [1]),
        ("int", pa.array([2**31 - 1], pa.int64()), [2**31 - 1]),
        ("double", pa.array([1.5], pa.float32()), [1.5]),
        ("double", pa.array([2], pa.int64()), [2.0]),
        (MONEY, pa.array([Decimal("1.25")], pa.decimal128(10, 2)), [Decimal("1.250000000000000000")]),
        (MONEY, pa.array([3], pa.int64()), [Decimal(3)]),
        ("timestamp", pa.array([AT], pa.timestamp("ns", "UTC")), [AT]),
        ("timestamp", pa.array([AT], pa.timestamp("us", "Europe/Berlin")), [AT]),
        ("array<string>", pa.array([["a"]], pa.large_list(pa.large_string())), [["a"]]),
    ],
)
def test_casts_that_keep_every_value(type_, array, expected):
    assert cast(type_, array) == expected


@pytest.mark.parametrize(
    ("type_", "array"),
    [
        (MONEY, pa.array([0.1])),
        (MONEY, pa.array([Decimal("1e-19")], pa.decimal128(38, 19))),
        (MONEY, pa.array(["1.5"])),
        ("int", pa.array([2**31], pa.int64())),
        ("int", pa.array([1.0])),
        ("bigint", pa.array(["1"])),
        ("double", pa.array([2**53 + 1], pa.int64())),
        ("double", pa.array([Decimal("0.1")])),
        ("string", pa.array([1])),
        ("boolean", pa.array([1])),
        ("timestamp", pa.array([AT.replace(tzinfo=None)], pa.timestamp("us"))),
        ("timestamp", pa.array([1], pa.timestamp("ns", "UTC"))),
        ("timestamp", pa.array(["2024-01-01T00:00:00Z"])),
        ("date", pa.array([AT], pa.timestamp("us", "UTC"))),
    ],
)
def test_anything_else_is_refused_by_name(type_, array):
    with pytest.raises(ContractViolation, match=r"s\.t: .*column x is "):
        cast(type_, array)


def test_a_null_where_none_may_be_is_counted():
    with pytest.raises(ContractViolation, match=r"column x has 2 null\(s\)"):
        conform(one("int", nullable=False), pa.table({"x": pa.array([1, None, None], pa.int32())}))


def test_a_column_given_twice_is_refused():
    with pytest.raises(ContractViolation, match="more than once"):
        conform(one("int"), pa.table([pa.array([1], pa.int32())] * 2, names=["x", "x"]))


def test_an_unknown_type_is_named():
    with pytest.raises(ValueError, match="'money' is not a column type"):
        arrow_type("money")
