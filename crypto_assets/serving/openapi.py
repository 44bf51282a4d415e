"""What the documentation says about answers: schemas from contracts, examples, and the problems of every route.

Belongs here: OpenAPI. Does not belong here: what is answered (`routes`).
"""

from __future__ import annotations

from typing import Any

from crypto_assets.contracts.model import Column
from crypto_assets.serving.answers import PROBLEM, Provenance
from crypto_assets.serving.kept import JSON_TEXT, Kept

DESCRIPTION = """Prices, bars, anomalies, forecasts and features of the lakehouse, and changes as they are committed.

Every answer of `/v1` is `{"data": ..., "provenance": {...}}`; the provenance names the table, its version and the age
of the data. Money is a JSON number with the decimal's exact text. `ETag` names the table's version: ask again with
`If-None-Match`. `as_of` answers as of an earlier time. Errors are `application/problem+json`."""

_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was wrong, and what to do."},
        "instance": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}
_MEANING = {
    400: "A foreign Host header, or a body that cannot be understood.",
    401: "The token is missing or wrong.",
    404: "No such coin, model or query; no table yet, or none at the time of `as_of`.",
    405: "Another method.",
    410: "The version of `as_of` is cleaned up.",
    413: "The body is larger than 1 MiB.",
    422: "A parameter is unknown or not acceptable; `errors` lists each.",
    429: "Too many requests a minute.",
    503: "Not ready, or a table cannot be read.",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": meaning, "content": {PROBLEM: {"schema": _PROBLEM}}} for status, meaning in _MEANING.items()
}
"""Declared once for all routes."""


def rows_of(kept: Kept) -> dict[int | str, dict[str, Any]]:
    """The answer with rows of a table, and 304."""
    embedded = JSON_TEXT.get(kept.name, ())
    row = {
        "type": "object",
        "required": [c.name for c in kept.columns],
        "properties": {c.name: _schema(c, embedded=c.name in embedded) for c in kept.columns},
    }
    schema = {
        "type": "object",
        "required": ["data", "provenance"],
        "properties": {"data": {"type": "array", "items": row}, "provenance": _provenance()},
    }
    content = {"application/json": {"schema": schema, "example": {"data": [_example(kept)], "provenance": {}}}}
    return {
        200: {"description": f"Rows of {kept.name}: {kept.table.description}", "content": content},
        304: {"description": "The version that If-None-Match names is the present one."},
    }


def answer_of(example: Any) -> dict[int | str, dict[str, Any]]:
    """Any other JSON answer."""
    content = {"application/json": {"schema": {"type": "object"}, "example": example}}
    return {200: {"description": "The answer.", "content": content}, 304: {"description": "Nothing has changed."}}


def _provenance() -> dict[str, Any]:
    types = {"table_version": "integer", "age_s": "integer", "truncated": "boolean"}
    needed = {"source", "banner", "table", "table_version", "committed_at", "as_of_kind", "freshness", "truncated"}
    return {
        "type": "object",
        "required": sorted(needed),
        "properties": {
            name: {"type": types.get(name, "string") if name in needed else [types.get(name, "string"), "null"]}
            for name in Provenance.__dataclass_fields__
        },
    }


def _schema(column: Column, *, embedded: bool) -> dict[str, Any]:
    if embedded:
        return {"description": column.description}
    plain = {
        "boolean": {"type": "boolean"},
        "int": {"type": "integer"},
        "bigint": {"type": "integer"},
        "double": {"type": "number"},
        "date": {"type": "string", "format": "date"},
        "timestamp": {"type": "string", "format": "date-time"},
        "array<string>": {"type": "array", "items": {"type": "string"}},
    }
    found = {"type": "number"} if column.type.startswith("decimal") else plain.get(column.type, {"type": "string"})
    described = {**found, "description": f"{column.description}{f' Unit: {column.unit}.' if column.unit else ''}"}
    return {**described, "type": [described["type"], "null"]} if column.nullable else described


def _example(kept: Kept) -> dict[str, Any]:
    values = {"boolean": True, "int": 1, "bigint": 60, "double": 0.25, "date": "2026-11-29", "array<string>": []}
    known = {"coin_id": "bitcoin", "symbol": "BTC", "name": "Bitcoin", "horizon": "5m", "mode": "live"}
    return {
        c.name: known.get(c.name)
        or (
            "2026-11-29T12:05:00Z"
            if c.type == "timestamp"
            else 0.000000019
            if c.type.startswith("decimal")
            else values.get(c.type, "text")
        )
        for c in kept.columns
    }
