"""Secrets, the current user, and the part of Unity Catalog that a preflight asks for."""

from __future__ import annotations

import base64
from typing import Any

from crypto_assets_tests.databricks_standin.errors import ApiError, absent, exists
from crypto_assets_tests.databricks_standin.routes import Call, Routes
from crypto_assets_tests.databricks_standin.state import State


class Secrets:
    """`/api/2.0/secrets/*` on `Workspace.secrets`."""

    def __init__(self, scopes: dict[str, dict[str, str]]) -> None:
        self._scopes = scopes

    def register(self, routes: Routes) -> None:
        """Add the calls."""
        routes.add("GET", "secrets/scopes/list", lambda _: {"scopes": [self._told(s) for s in self._scopes]})
        routes.add("POST", "secrets/scopes/create", self._create)
        routes.add("POST", "secrets/scopes/delete", self._delete_scope)
        routes.add("POST", "secrets/put", self._put)
        routes.add("POST", "secrets/delete", self._delete)
        routes.add("GET", "secrets/list", self._list)
        routes.add("GET", "secrets/get", self._get)

    @staticmethod
    def _told(name: str) -> dict[str, str]:
        return {"name": name, "backend_type": "DATABRICKS"}

    def _scope(self, call: Call) -> dict[str, str]:
        name = call.need("scope")
        if name not in self._scopes:
            raise absent(f"Scope {name} does not exist!")
        return self._scopes[name]

    def _create(self, call: Call) -> None:
        name = call.need("scope")
        if name in self._scopes:
            raise exists(f"Scope {name} already exists!")
        self._scopes[name] = {}

    def _delete_scope(self, call: Call) -> None:
        self._scope(call)
        del self._scopes[call.need("scope")]

    def _put(self, call: Call) -> None:
        text = call.body.get("string_value")
        encoded = call.body.get("bytes_value")
        value = text if text is not None else base64.b64decode(encoded or "").decode()
        self._scope(call)[call.need("key")] = value

    def _key(self, call: Call) -> str:
        if call.need("key") not in self._scope(call):
            raise absent(f"Failed to get secret {call.need('key')} for scope {call.need('scope')}.")
        return call.need("key")

    def _delete(self, call: Call) -> None:
        del self._scope(call)[self._key(call)]

    def _list(self, call: Call) -> dict[str, Any]:
        return {"secrets": [{"key": k, "last_updated_timestamp": 0} for k in self._scope(call)]}

    def _get(self, call: Call) -> dict[str, Any]:
        key = self._key(call)
        return {"key": key, "value": base64.b64encode(self._scope(call)[key].encode()).decode()}


def register_user(routes: Routes, name: str) -> None:
    """The current user."""
    told = {"id": "1", "userName": name, "displayName": name, "active": True}
    routes.add("GET", "preview/scim/v2/Me", lambda _: told)


class Catalog:
    """Catalogs, schemas, tables and volumes that exist: the folders of the lake."""

    def __init__(self, workspace: State) -> None:
        self._workspace = workspace

    def register(self, routes: Routes) -> None:
        """Add the calls."""
        for kind in ("catalogs", "schemas", "tables", "volumes"):
            routes.add("GET", f"unity-catalog/{kind}/*", self._get)

    def _get(self, call: Call) -> dict[str, Any]:
        names = call.rest.removesuffix("/exists").split(".")
        lake = self._workspace.lake
        volume = self._workspace.volumes.joinpath(*names)
        there = names[0] == self._workspace.catalog and len(names) < 4
        if there and len(names) == 3:
            there = lake.joinpath(*names[1:], "_delta_log").is_dir() or volume.is_dir()
        elif there and len(names) == 2:
            there = (lake / names[1]).is_dir() or volume.is_dir()
        if call.rest.endswith("/exists"):
            return {"table_exists": there}
        if not there:
            raise ApiError(404, "NOT_FOUND", f"'{call.rest}' does not exist.")
        return {"name": names[-1], "full_name": ".".join(names), "catalog_name": names[0]}
