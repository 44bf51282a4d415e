"""The query catalogue: what can be asked, and the answer. No other SQL is reachable by HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from crypto_assets.serving.answers import Problem, answer, array, members, tag, unchanged
from crypto_assets.serving.openapi import answer_of
from crypto_assets.serving.queries import CATALOGUE
from crypto_assets.serving.service import Service, text_of

router = APIRouter(tags=["queries"])


@router.get(
    "/v1/queries",
    responses=answer_of({"data": [{"name": "alerts_open", "purpose": "...", "parameters": [], "columns": []}]}),
    summary="All queries of the catalogue",
)
async def queries(request: Request) -> Response:
    """Name, purpose, parameters and result columns of every query."""
    data = [
        {
            "name": query.name,
            "purpose": query.purpose,
            "parameters": [
                {"name": p.name, "type": p.type, "default": p.default, "description": p.description}
                for p in query.parameters
            ],
            "columns": [
                {"name": c.name, "type": c.type, "unit": c.unit, "description": c.description} for c in query.columns
            ],
        }
        for query in CATALOGUE.values()
    ]
    etag = tag("queries")
    return unchanged(request, etag) or answer(request, etag, text_of({"data": data}))


@router.get(
    "/v1/queries/{name}",
    responses=answer_of({"data": [{"coin_id": "bitcoin"}], "provenance": {"tables": {"gold.latest_prices": 12}}}),
    summary="Rows of a query of the catalogue",
)
async def query_of(request: Request, name: Annotated[str, Path(examples=["alerts_open"])]) -> Response:
    """At most 10,000 rows. The query's own parameters are those of the request; /v1/queries lists them."""
    service: Service = request.app.state.service
    query = service.catalogue.query(name)
    params = dict(request.query_params)
    if len(params) != len(request.query_params.multi_items()):
        raise Problem(422, "a parameter is given more than once")
    etag = _tag(service, name, service.catalogue.versions(query))
    if (same := unchanged(request, etag)) is not None:
        return same
    found = await run_in_threadpool(service.catalogue.answer, query, params, service.now())
    provenance = {
        "source": service.settings.source,
        "banner": service.settings.source_facts.banner,
        "query": name,
        "tables": dict(found.versions),
        "not_written": [table for table in query.tables if table not in found.versions],
        "truncated": found.truncated,
    }
    body = members({"data": array(found.rows), "provenance": text_of(provenance)})
    return answer(request, _tag(service, name, found.versions), body)


def _tag(service: Service, name: str, versions: Mapping[str, int]) -> str:
    """Tag of an answer; of this start of the server, since versions alone do not say which table they are of."""
    return tag("query", service.hub.start, name, *(f"{table}-{version}" for table, version in versions.items()))
