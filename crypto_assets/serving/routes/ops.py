"""Health, readiness, and the pipeline's state."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool

from crypto_assets.serving import access
from crypto_assets.serving.answers import JSON, Problem, answer, members, tag, unchanged
from crypto_assets.serving.kept import KEPT, POLLS
from crypto_assets.serving.metrics import newest_poll
from crypto_assets.serving.openapi import answer_of
from crypto_assets.serving.service import Service, text_of

router = APIRouter(tags=["operations"])


@router.get("/healthz", responses=answer_of({"status": "ok"}), summary="The process answers")
async def healthz() -> Response:
    """Always 200: for a supervisor that restarts what does not answer."""
    return Response(b'{"status":"ok"}', media_type=JSON)


@router.get("/readyz", responses=answer_of({"status": "ready", "tables": {}}), summary="Prices can be served")
async def readyz(request: Request) -> Response:
    """200 with the version of every table, or 503 with what is missing."""
    service: Service = request.app.state.service
    if (why := service.ready()) is not None:
        raise Problem(503, why, {"Retry-After": "2"})
    return Response(text_of({"status": "ready", "tables": _versions(service)}), media_type=JSON)


@router.get(
    "/v1/status",
    responses=answer_of({"data": {"state": "ok", "report": {}, "tables": {}}, "provenance": {}}),
    summary="State of the pipeline",
)
async def status(request: Request) -> Response:
    """The newest report of the alert sensor: verdict, lag, assets and checks; and what this server holds.

    A report older than 60 s says nothing about the present: `state` then is `state unknown since ...`.
    """
    service: Service = request.app.state.service
    found, now = service.state.state, service.now()
    unknown = found.unknown_because(now)
    disk = await run_in_threadpool(service.disk.use, now)
    data = {
        "state": unknown or (found.report or {}).get("verdict"),
        "written_at": found.written_at,
        "age_s": found.age_s(now),
        "report": found.report,
        "tables": _versions(service),
        "poll": newest_poll(service.follower.snapshot(POLLS)),
        "rows_in_memory": service.follower.encoded.held(),
        "troubles": service.follower.troubles(),
        "clients": service.hub.clients,
        "disk": asdict(disk),
    }
    facts = {"source": service.settings.source, "banner": service.settings.source_facts.banner, "at": now}
    etag = tag(
        "status",
        str(found.written_at),
        *(str(v) for v in _versions(service).values()),
        str(unknown),
        str(disk.measured_at),
    )
    body = members({"data": text_of(data), "provenance": text_of(facts)})
    return unchanged(request, etag) or answer(request, etag, body)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    responses={200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}},
)
async def metrics(request: Request) -> Response:
    """Figures of the pipeline and of this server; a value that is unknown is no sample."""
    service: Service = request.app.state.service
    return Response(await run_in_threadpool(service.meters.text), media_type=CONTENT_TYPE_LATEST)


@router.post("/login", include_in_schema=False)
async def login(request: Request) -> Response:
    """Exchange the token for the page's cookie."""
    limits: access.Limits = request.app.state.limits
    cookie = access.login(await request.body(), limits.token)
    if cookie is None:
        raise Problem(401, "this is not the token of the server (CRYPTO_ASSETS_API_TOKEN)")
    response = Response(None, 204)
    response.set_cookie(**cookie, secure=request.url.scheme == "https")
    return response


def _versions(service: Service) -> dict[str, int]:
    found = {name: service.follower.tables[name].snapshot for name in KEPT}
    return {name: snapshot.version for name, snapshot in found.items() if snapshot is not None}
