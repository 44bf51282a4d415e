"""Finished answers, given again while nothing has changed: after a commit many clients ask for the same.

An answer is good until a table has a commit or the pipeline's state is reported again, and for no longer than the
second that the age of the data in it belongs to.

Belongs here: the ASGI layer and its memory. Does not belong here: making answers (`answers`), which are remembered
(`routes`), who may ask (`access`, which is outside this layer).
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crypto_assets.serving.answers import names

MOST_BYTES = 16 * 1024 * 1024
"""Bytes of answers that stay in memory."""
_SCOPE = "crypto_assets.remembered"
_WITH_304 = (b"etag", b"cache-control", b"vary")
_Key = tuple[str, tuple[tuple[str, str], ...], bool]


class _Answer(NamedTuple):
    etag: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    route: Any


class _Answers:
    """Answers of one state. The next state has others: an answer that is late is put where nothing is looked up."""

    def __init__(self, state: object) -> None:
        self.state = state
        self.known: dict[_Key, _Answer] = {}
        self._bytes = 0

    def put(self, key: _Key, answer: _Answer) -> None:
        """Remember an answer while there is room."""
        if self._bytes + len(answer.body) <= MOST_BYTES and key not in self.known:
            self.known[key] = answer
            self._bytes += len(answer.body)


class Remembered:
    """ASGI layer around the routes.

    Args:
        app: The routes.
        state: What answers are made from, with the present second: equal states give the same answers.
    """

    def __init__(self, app: ASGIApp, state: Callable[[], object]) -> None:
        self._app, self._state = app, state
        self._answers = _Answers(None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection. HEAD is what GET answers, without its body."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            asked = {**scope, "method": "GET"}

            async def headers_alone(message: Message) -> None:
                scope["route"] = asked.get("route")
                await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

            await self(asked, receive, headers_alone)
            return
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        if (state := self._state()) != self._answers.state:
            self._answers = _Answers(state)
        given = dict(scope["headers"])
        key = scope["path"], _query(scope["query_string"]), b"gzip" in given.get(b"accept-encoding", b"")
        if (known := self._answers.known.get(key)) is None:
            scope[_SCOPE] = self._answers, key
            await self._app(scope, receive, send)
            return
        scope["route"] = known.route
        status, headers, body = 200, known.headers, known.body
        if b"if-none-match" in given and names(given[b"if-none-match"].decode("latin-1"), known.etag):
            status, headers, body = 304, [h for h in known.headers if h[0] in _WITH_304], b""
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _query(text: bytes) -> tuple[tuple[str, str], ...]:
    """A query as the routes parse it, sorted by name: its spellings are equal. The values of one name stay in order.

    Defaults stay apart from what is left out: which route has them is known only after this layer.
    """
    return tuple(sorted(QueryParams(text).multi_items(), key=itemgetter(0))) if text else ()


def remember(request: Request, etag: str, response: Response) -> Response:
    """Give an answer (200) again to those who ask for the same while it is good."""
    if (found := request.scope.get(_SCOPE)) is not None and response.status_code == 200:
        answers, key = found
        answers.put(key, _Answer(etag, response.raw_headers, bytes(response.body), request.scope.get("route")))
    return response
