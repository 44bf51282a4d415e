"""The query catalogue for the API: a query of it on the present versions of its tables, as JSON text.

Belongs here: reopening the lake after commits, remembering answers, rows of a query as text. Does not belong here:
the queries (`queries`), running SQL (`lake`), HTTP (`routes`).
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from crypto_assets.serving.answers import Problem, iso
from crypto_assets.serving.lake import Lake, NoAnswer
from crypto_assets.serving.queries import CATALOGUE
from crypto_assets.serving.query import Query, QueryError
from crypto_assets.storage import delta_files

if TYPE_CHECKING:
    from crypto_assets.settings import Settings

MOST_ROWS = 10_000
MEMORY = "256MB"
TIMEOUT_S = 10.0
ANSWERS = 64
"""Answers that stay in memory, each until a table of its query has a commit."""


@dataclass(frozen=True)
class Answer:
    """Rows of a query.

    Args:
        rows: JSON texts.
        versions: Delta version of every table that the query reads and that exists.
        truncated: Whether there are more rows.
    """

    rows: list[bytes]
    versions: Mapping[str, int]
    truncated: bool


class Catalogue:
    """Runs queries on the newest versions. Safe to use from several threads; queries take turns."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lake: Lake | None = None
        self._lock = threading.Lock()
        self._answers: OrderedDict[tuple[str, str], Answer] = OrderedDict()

    @staticmethod
    def query(name: str) -> Query:
        """A query by its name.

        Raises:
            Problem: 404; names the queries.
        """
        if name not in CATALOGUE:
            raise Problem(404, f"there is no query {name!r}; there are {', '.join(CATALOGUE)}")
        return CATALOGUE[name]

    def versions(self, query: Query) -> dict[str, int]:
        """Present versions of the tables that a query reads and that exist."""
        root = self._settings.lake
        found = {name: delta_files.latest_version(delta_files.table_path(root, name)) for name in query.tables}
        return {name: version for name, version in found.items() if version is not None}

    def answer(self, query: Query, params: Mapping[str, str], now: datetime) -> Answer:
        """Rows of a query.

        Args:
            query: The query.
            params: Values by parameter, as text.
            now: Present time (UTC), the default of a parameter `now` in a live home.

        Raises:
            Problem: 422 for a parameter that is unknown or not acceptable, 503 when the query takes too long.
        """
        key = query.name, json.dumps(sorted(params.items()))
        with self._lock:
            versions = self.versions(query)
            known = self._answers.get(key)
            live_age = "now" in {p.name for p in query.parameters} and self._settings.is_live and "now" not in params
            if known is not None and known.versions == versions and not live_age:
                return known
            try:
                lake = self._on(versions)
                given = {**params, "now": now} if live_age else dict(params)
                rows = lake.answer(query, MOST_ROWS + 1, timeout_s=TIMEOUT_S, **given)
            except NoAnswer as error:
                raise Problem(503, str(error), {"Retry-After": "10"}) from error
            except QueryError as error:
                raise Problem(422, str(error)) from error
            found = [_text(row).encode() for row in rows.records(MOST_ROWS)]
            made = self._answers[key] = Answer(found, versions, len(rows.values) > MOST_ROWS)
            while len(self._answers) > ANSWERS:
                self._answers.popitem(last=False)
            return made

    def _on(self, versions: Mapping[str, int]) -> Lake:
        """The lake with these versions of its tables, reopened where a table has newer commits."""
        lake = self._lake
        if lake is None or any(lake.versions.get(name) != version for name, version in versions.items()):
            if lake is not None:
                lake.close()
            lake = self._lake = Lake(self._settings.lake, self._settings.source_facts, MEMORY)
        return lake


def _text(value: Any) -> str:
    """JSON text of a row or value: decimals exact and plain, times as in tables."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(name)}:{_text(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, Decimal):
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, datetime):
        return json.dumps(iso(value))
    if isinstance(value, date):
        return json.dumps(value.isoformat())
    if isinstance(value, float) and value - value != 0:
        return "null"
    return json.dumps(value)
