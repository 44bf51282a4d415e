"""Anomalies, predictions and their accuracy."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from crypto_assets.ml.baselines import ANOMALY
from crypto_assets.serving.as_of import Chosen
from crypto_assets.serving.held import Snapshot
from crypto_assets.serving.kept import ACCURACY, ANOMALIES, PREDICTIONS
from crypto_assets.serving.openapi import rows_of
from crypto_assets.serving.pages import Cut, Page, page, reads_older_days
from crypto_assets.serving.parameters import AsOf, Coin, Cursor, From, Horizon, Mode, To
from crypto_assets.serving.service import Service, has, require_group

router = APIRouter(tags=["models"])
MOST_ROWS = 10_000
Limit = Annotated[int, Query(ge=1, le=MOST_ROWS)]


@router.get("/v1/anomalies", responses=rows_of(ANOMALIES), summary="Anomaly scores")
async def anomalies(
    request: Request,
    coin: Annotated[str | None, Query(description="Only this coin.")] = None,
    flagged: Annotated[bool | None, Query(description="Only slots with, or without, a flag.")] = None,
    start: From = None,
    to: To = None,
    as_of: AsOf = None,
    limit: Limit = 288,
    cursor: Cursor = None,
) -> Response:
    """Score, threshold, explanation, scope and suspicion of every coin and 5-minute slot, in time order."""
    service: Service = request.app.state.service
    wanted = Page.of(start, to, limit, cursor)

    def cut(chosen: Chosen) -> tuple[Chosen, Cut]:
        if coin is not None:
            require_group(chosen.snapshot, coin)
        keep = has(is_anomaly=flagged) if flagged is not None else None
        return chosen, page(chosen, [coin] if coin else chosen.snapshot.groups(), wanted, keep)

    def cold(held: Snapshot) -> bool:
        return reads_older_days(held, [coin] if coin else held.groups(), wanted, filtered=flagged is not None)

    chosen, found = await service.cut(ANOMALIES, as_of, cut, cold)
    version = service.serving_version(ANOMALY)
    return service.respond(
        request, chosen, found.rows, as_of, next=found.following, truncated=found.truncated, model_version=version
    )


@router.get("/v1/predictions/{coin}", responses=rows_of(PREDICTIONS), summary="Forecasts of a coin")
async def predictions(
    request: Request,
    coin: Coin,
    horizon: Horizon = None,
    mode: Mode = None,
    start: From = None,
    to: To = None,
    as_of: AsOf = None,
    limit: Limit = 288,
    cursor: Cursor = None,
) -> Response:
    """Forecasts with their 90 % intervals, as they were written, in time order; live ones before the outcome."""
    service: Service = request.app.state.service
    wanted, filtered = Page.of(start, to, limit, cursor), bool(horizon or mode)

    def cut(chosen: Chosen) -> tuple[Chosen, Cut]:
        require_group(chosen.snapshot, coin)
        return chosen, page(chosen, [coin], wanted, has(horizon=horizon, mode=mode) if filtered else None)

    def cold(held: Snapshot) -> bool:
        return reads_older_days(held, [coin], wanted, filtered=filtered)

    chosen, found = await service.cut(PREDICTIONS, as_of, cut, cold)
    version = json.loads(found.rows[-1].text)["model_version"] if found.rows else None
    return service.respond(
        request, chosen, found.rows, as_of, next=found.following, truncated=found.truncated, model_version=version
    )


@router.get("/v1/accuracy", responses=rows_of(ACCURACY), summary="Forecasts against outcomes")
async def accuracy(
    request: Request,
    coin: Annotated[str | None, Query(description="Only this coin.")] = None,
    horizon: Horizon = None,
    mode: Mode = None,
    as_of: AsOf = None,
    limit: Limit = MOST_ROWS,
) -> Response:
    """Errors, skill and measured coverage per day, coin, horizon, version and mode; live apart from backfill."""
    service: Service = request.app.state.service

    def cut(chosen: Chosen) -> tuple[Chosen, Cut]:
        if coin is not None:
            require_group(chosen.snapshot, coin)
        groups = [coin] if coin else chosen.snapshot.groups()
        return chosen, page(chosen, groups, Page.of(None, None, limit), has(horizon=horizon, mode=mode))

    chosen, found = await service.cut(ACCURACY, as_of, cut)
    return service.respond(request, chosen, found.rows, as_of, truncated=found.truncated)
