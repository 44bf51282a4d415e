"""The application: routes, problems, documentation, the page's files.

Belongs here: assembly. Does not belong here: routes (`routes`), listening (`server`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import RedirectResponse

from crypto_assets.serving.access import DOCS, PAGE, Access, Limits
from crypto_assets.serving.answers import Problem
from crypto_assets.serving.meters import Metered
from crypto_assets.serving.metrics import export
from crypto_assets.serving.openapi import DESCRIPTION, PROBLEMS
from crypto_assets.serving.page import files
from crypto_assets.serving.remembered import Remembered
from crypto_assets.serving.routes import features, market, models, ops, queries, stream
from crypto_assets.serving.service import Service

ROUTES = (market, models, features, queries, ops, stream)
_LOG = logging.getLogger(__name__)


def build_api(service: Service, limits: Limits) -> FastAPI:
    """The application of a home, without the layer that refuses (`access.Access`).

    Args:
        service: The home.
        limits: Its token, for the login.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start(asyncio.get_running_loop())
        try:
            yield
        finally:
            await asyncio.to_thread(service.stop)

    api = FastAPI(
        title="crypto_assets",
        version="1",
        description=DESCRIPTION,
        responses=PROBLEMS,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    api.state.service, api.state.limits = service, limits
    for module in ROUTES:
        known = [] if module is queries else [Depends(_known_parameters)]  # a query declares its own parameters
        api.include_router(module.router, dependencies=known)
    for error, handler in ((Problem, _problem), (RequestValidationError, _invalid), (StarletteHTTPException, _http)):
        api.add_exception_handler(error, handler)  # type: ignore[arg-type]
    api.add_exception_handler(Exception, _failed)
    api.add_route("/docs", _to_docs)
    api.mount("/docs", files(DOCS), name="docs")
    api.mount("/", files(PAGE), name="page")
    return api


def application(service: Service, limits: Limits) -> Access:
    """The application as it is served: guarded, counted, and with answers that are given again."""
    export(service)
    routes = Remembered(build_api(service, limits), service.answers_from)
    return Access(Metered(routes, service.meters), limits)


async def _known_parameters(request: Request) -> None:
    """Refuse parameters that the route does not have: an answer that ignores a misspelled filter is a wrong answer.

    Raises:
        Problem: 422; names each of them, and the parameters that there are.
    """
    if not request.url.query:
        return
    known = sorted(field.alias for field in request.scope["route"].dependant.query_params)
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in known]
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it has none"
        errors = [{"where": f"query.{name}", "problem": "no such parameter"} for name in unknown]
        raise Problem(422, f"the route has no parameter {', '.join(unknown)}; {has}", errors=errors)


async def _to_docs(_: Request) -> Response:
    return RedirectResponse("docs/")


async def _problem(request: Request, error: Problem) -> Response:
    return error.response(request.url.path)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    found = [{"where": ".".join(map(str, e["loc"])), "problem": e["msg"]} for e in error.errors()]
    listed = "; ".join(f"{f['where']}: {f['problem']}" for f in found)
    return Problem(422, listed, errors=found).response(request.url.path)


async def _http(request: Request, error: HTTPException) -> Response:
    status, headers = error.status_code, error.headers
    # Files are served at every path that no route has taken; they know nothing of a route that has other methods.
    if status in (404, 405) and (methods := _methods(request.url.path)):
        status, headers = 405, {"Allow": ", ".join(sorted(methods))}
    detail = {404: "there is no such route; see /docs", 405: "the route has no such method; see /docs"}
    return Problem(status, detail.get(status, str(error.detail)), headers).response(request.url.path)


def _methods(path: str) -> set[str]:
    """Methods of the routes at a path."""
    routes = [route for module in ROUTES for route in module.router.routes if isinstance(route, APIRoute)]
    found = {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}
    return found | {"HEAD"} if "GET" in found else found


async def _failed(request: Request, error: Exception) -> Response:
    _LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return Problem(500, "a fault of the server; its log has the traceback").response(request.url.path)
