"""HTTP: token check, faults, routing, errors in Databricks' form. What a call does is in the `*_api` modules."""

from __future__ import annotations

import base64
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from crypto_assets_tests.databricks_standin.errors import ApiError
from crypto_assets_tests.databricks_standin.routes import Call, Reply
from crypto_assets_tests.databricks_standin.state import State

VERSION = re.compile(r"^/api/(\d\.\d)/")


class Handler(BaseHTTPRequestHandler):
    """One connection. `workspace` is set on a subclass."""

    workspace: State
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes; without this the second waits 40 ms for an acknowledgement of the first.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are not logged: the token is in their headers."""

    def do_GET(self) -> None:
        self._serve("GET")

    def do_HEAD(self) -> None:
        self._serve("HEAD")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def do_PATCH(self) -> None:
        self._serve("PATCH")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        parts = urlsplit(self.path)
        data = self._read()
        query = {k: v[-1] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        try:
            reply = self._answer(method, parts.path, query, data)
        except ApiError as error:
            reply = Reply(error.body, error.status)
        except Exception as error:  # noqa: BLE001 - a defect of the stand-in must reach the test, not hang its client
            message = f"{type(error).__name__}: {error}"
            self.workspace.defects.append(f"{method} {parts.path}: {message}")
            reply = Reply({"error_code": "INTERNAL_ERROR", "message": f"stand-in: {message}"}, 500)
        self.workspace.requests.append((method, parts.path, reply.status))
        self._send(reply)

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, method: str, path: str, query: dict[str, str], data: bytes) -> Reply:
        workspace = self.workspace
        if path.startswith("/oidc/"):
            return self._oauth(method, path, data)
        version = VERSION.match(path)
        name = unquote(path[version.end() :]) if version else ""
        found = workspace.routes.find(method, name) if version else None
        if found is None:
            workspace.unknown.append(f"{method} {path}")
            raise ApiError(404, "ENDPOINT_NOT_FOUND", f"No API found for '{method} {path}'")
        self._check_token()
        fault = workspace.faults.take_call(name)
        wait = {"Retry-After": str(fault.retry_after)} if fault and fault.retry_after is not None else {}
        if fault and not fault.after_accept:
            return Reply(fault.body, fault.status, wait)
        action, rest = found
        call = Call(method, version[1] if version else "", query, data, dict(self.headers.items()), rest)
        result = action(call)
        if fault:
            return Reply(fault.body, fault.status, wait)
        return result if isinstance(result, Reply) else Reply(result or {})

    def _check_token(self) -> None:
        given = self.headers.get("Authorization", "")
        if not given.startswith("Bearer "):
            raise ApiError(401, "401", "Credential was not sent or was of an unsupported type for this API.")
        if not self.workspace.knows_token(given.removeprefix("Bearer ")):
            raise ApiError(403, "403", "Invalid access token.")

    def _oauth(self, method: str, path: str, data: bytes) -> Reply:
        """The token endpoint of service principals (client credentials)."""
        host = self.workspace.host
        if path == "/oidc/.well-known/oauth-authorization-server":
            ends = {"authorization_endpoint": f"{host}/oidc/v1/authorize", "token_endpoint": f"{host}/oidc/v1/token"}
            return Reply({"issuer": f"{host}/oidc", **ends})
        if (method, path) != ("POST", "/oidc/v1/token"):
            raise ApiError(404, "ENDPOINT_NOT_FOUND", f"No API found for '{method} {path}'")
        form = {k: v[-1] for k, v in parse_qs(data.decode()).items()}
        scheme, _, secret = self.headers.get("Authorization", "").partition(" ")
        given = base64.b64decode(secret).decode() if scheme == "Basic" else ""
        if form.get("grant_type") != "client_credentials" or given != ":".join(self.workspace.service_principal):
            return Reply({"error": "invalid_client", "error_description": "Client authentication failed"}, 401)
        return Reply({"access_token": self.workspace.issue_token(), "token_type": "Bearer", "expires_in": 3600})

    def _send(self, reply: Reply) -> None:
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        kind = "application/octet-stream" if isinstance(reply.body, bytes) else "application/json"
        try:
            self.send_response(reply.status)
            for name, value in {"Content-Type": kind, **reply.headers}.items():
                if name == "Content-Length":
                    continue
                self.send_header(name, value)
            if reply.status == 204:
                self.end_headers()
                return
            self.send_header("Content-Length", reply.headers.get("Content-Length", str(len(body))))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except OSError:
            self.close_connection = True
