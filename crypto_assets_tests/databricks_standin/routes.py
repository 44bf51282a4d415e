"""Calls of the API: what a request holds, what answers it, and which action serves it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from crypto_assets_tests.databricks_standin.errors import ApiError


@dataclass(frozen=True)
class Call:
    """One request as a call sees it."""

    method: str
    version: str
    query: Mapping[str, str]
    data: bytes
    headers: Mapping[str, str]
    rest: str = ""

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object that was sent.

        Raises:
            ApiError: 400, it is not one.
        """
        try:
            value = json.loads(self.data or b"{}")
        except ValueError:
            raise ApiError(400, "MALFORMED_REQUEST", "Invalid JSON given in the body of the request") from None
        if not isinstance(value, dict):
            raise ApiError(400, "MALFORMED_REQUEST", "The body of the request is not a JSON object")
        return value

    def need(self, name: str) -> Any:
        """A parameter from body or query.

        Raises:
            ApiError: 400, it is missing.
        """
        value = self.query.get(name) if self.method in ("GET", "HEAD", "DELETE") else self.body.get(name)
        if value in (None, ""):
            raise ApiError(400, "INVALID_PARAMETER_VALUE", f"Missing required field: {name}")
        return value


@dataclass(frozen=True)
class Reply:
    """An answer: a JSON object, or bytes as they are."""

    body: dict[str, Any] | bytes = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Action = Callable[[Call], "Reply | dict[str, Any] | None"]


class Routes:
    """Which call does what: `METHOD name`, with a final `*` for what follows."""

    def __init__(self) -> None:
        self._exact: dict[tuple[str, str], Action] = {}
        self._prefix: dict[tuple[str, str], Action] = {}

    def add(self, method: str, name: str, action: Action) -> None:
        """Serve `method` on the API call `name` (path without `/api/<version>/`)."""
        if name.endswith("*"):
            self._prefix[method, name[:-1]] = action
        else:
            self._exact[method, name] = action

    def find(self, method: str, name: str) -> tuple[Action, str] | None:
        """The action and what follows its prefix; None when there is no such call."""
        if action := self._exact.get((method, name)):
            return action, ""
        for (verb, prefix), action in self._prefix.items():
            if verb == method and name.startswith(prefix):
                return action, name[len(prefix) :]
        return None
