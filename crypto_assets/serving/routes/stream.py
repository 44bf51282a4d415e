"""The stream of changes: server-sent events."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from crypto_assets.serving.service import Service

router = APIRouter(tags=["stream"])
Kind = Literal["price", "bar", "anomaly", "prediction", "alert", "status", "table"]


@router.get(
    "/v1/stream",
    summary="Changes as they are committed",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Events."}},
)
async def stream(
    request: Request,
    kind: Annotated[list[Kind] | None, Query(description="Only these kinds; may be repeated.")] = None,
    coin: Annotated[str | None, Query(description="Only events of this coin, and those of none.")] = None,
    last_event_id: Annotated[str | None, Header(description="Sent by a client that reconnects.")] = None,
) -> StreamingResponse:
    """Events of kinds price, bar, anomaly, prediction, alert and status, and `table` for every commit.

    A client that comes back with Last-Event-ID gets what it has missed. `reset` says that this is not possible: load
    everything again.
    """
    service: Service = request.app.state.service
    chunks = service.hub.stream(last_event_id, kinds=frozenset(kind or ()), coin=coin)
    return StreamingResponse(
        chunks, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
