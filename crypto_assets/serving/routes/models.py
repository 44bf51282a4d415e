"""Anomalies, forecasts, their accuracy, and scoring on request."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from crypto_assets.ml.baselines import ANOMALY
from crypto_assets.serving import scoring
from crypto_assets.serving.answers import JSON
from crypto_assets.serving.as_of import Chosen
from crypto_assets.serving.held import Having, Snapshot
from crypto_assets.serving.kept import ACCURACY, ANOMALIES, PREDICTIONS, VOLATILITY, VOLATILITY_ACCURACY, Kept
from crypto_assets.serving.openapi import answer_of, rows_of
from crypto_assets.serving.pages import Cut, Page, page, reads_older_days
from crypto_assets.serving.parameters import AsOf, Coin, Cursor, From, Horizon, Mode, To, VolatilityHorizon
from crypto_assets.serving.service import Service, text_of

router = APIRouter(tags=["models"])
MOST_ROWS = 10_000
Suspicion = Literal["stale", "frozen", "single_sample", "incomplete"]
Limit = Annotated[int, Query(ge=1, le=MOST_ROWS)]


@router.get("/v1/anomalies", responses=rows_of(ANOMALIES), summary="Anomaly scores")
async def anomalies(
    request: Request,
    coin: Annotated[str | None, Query(description="Only this coin.")] = None,
    flagged: Annotated[bool | None, Query(description="Only slots with, or without, a flag.")] = None,
    suspicion: Annotated[Suspicion | None, Query(description="Only slots whose data are suspected of this.")] = None,
    start: From = None,
    to: To = None,
    as_of: AsOf = None,
    limit: Limit = 288,
    cursor: Cursor = None,
) -> Response:
    """Scores, thresholds, explanation, scope and suspicion of every coin and 5-minute slot, in time order."""
    service: Service = request.app.state.service
    wanted = Page.of(start, to, limit, cursor)
    having = Having(is_anomaly=flagged, suspicion=suspicion)

    def cut(chosen: Chosen) -> tuple[Chosen, Cut]:
        if coin is not None:
            service.require_coin(chosen.snapshot, coin)
        return chosen, page(chosen, [coin] if coin else chosen.snapshot.groups(), wanted, having)

    def cold(held: Snapshot) -> bool:
        return reads_older_days(held, [coin] if coin else held.groups(), wanted, having)

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
    wanted = Page.of(start, to, limit, cursor)
    return await _forecasts(request, PREDICTIONS, coin, wanted, Having(horizon=horizon, mode=mode), as_of)


@router.get("/v1/volatility/{coin}", responses=rows_of(VOLATILITY), summary="Volatility forecasts of a coin")
async def volatility(
    request: Request,
    coin: Coin,
    horizon: VolatilityHorizon = None,
    mode: Mode = None,
    start: From = None,
    to: To = None,
    as_of: AsOf = None,
    limit: Limit = 288,
    cursor: Cursor = None,
) -> Response:
    """Volatility of the next hour or day, beside what a plain average and the last value say, as it was written."""
    wanted = Page.of(start, to, limit, cursor)
    return await _forecasts(request, VOLATILITY, coin, wanted, Having(horizon=horizon, mode=mode), as_of)


async def _forecasts(
    request: Request, kept: Kept, coin: str, wanted: Page, having: Having, as_of: datetime | None
) -> Response:
    """A page of a ledger's rows of a coin; the version named is the newest row's."""
    service: Service = request.app.state.service

    def cut(chosen: Chosen) -> tuple[Chosen, Cut]:
        service.require_coin(chosen.snapshot, coin)
        return chosen, page(chosen, [coin], wanted, having)

    def cold(held: Snapshot) -> bool:
        return reads_older_days(held, [coin], wanted, having)

    chosen, found = await service.cut(kept, as_of, cut, cold)
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
    return await _scored(request, ACCURACY, coin, limit, Having(horizon=horizon, mode=mode), as_of)


@router.get(
    "/v1/volatility-accuracy", responses=rows_of(VOLATILITY_ACCURACY), summary="Volatility forecasts against outcomes"
)
async def volatility_accuracy(
    request: Request,
    coin: Annotated[str | None, Query(description="Only this coin.")] = None,
    horizon: VolatilityHorizon = None,
    mode: Mode = None,
    as_of: AsOf = None,
    limit: Limit = MOST_ROWS,
) -> Response:
    """Loss (QLIKE) of forecasts and baselines per day, coin, horizon, version and mode; live apart from backfill."""
    return await _scored(request, VOLATILITY_ACCURACY, coin, limit, Having(horizon=horizon, mode=mode), as_of)


async def _scored(
    request: Request, kept: Kept, coin: str | None, limit: int, having: Having, as_of: datetime | None
) -> Response:
    """The newest rows of a table that scores forecasts by day."""
    service: Service = request.app.state.service

    def cut(chosen: Chosen) -> tuple[Chosen, Cut]:
        if coin is not None:
            service.require_coin(chosen.snapshot, coin)
        groups = [coin] if coin else chosen.snapshot.groups()
        return chosen, page(chosen, groups, Page.of(None, None, limit), having)

    chosen, found = await service.cut(kept, as_of, cut)
    return service.respond(request, chosen, found.rows, as_of, truncated=found.truncated)


_INVOKED = answer_of({"predictions": [{"coin_id": "bitcoin", "anomaly_score": 1.2, "model_version": "v0"}]})
_BODY = {
    "required": True,
    "content": {
        JSON: {
            "schema": {
                "type": "object",
                "description": "Exactly one of the four, as MLflow sends them: rows of features.price_features.",
                "properties": {
                    "dataframe_split": {"type": "object"},
                    "dataframe_records": {"type": "array", "items": {"type": "object"}},
                    "instances": {},
                    "inputs": {},
                    "params": {"type": "object"},
                },
            },
            "example": {"dataframe_records": [{"coin_id": "bitcoin", "rz": 6.1}]},
        }
    },
}


@router.post("/invocations", responses=_INVOKED, openapi_extra={"requestBody": _BODY}, summary="Anomaly scores of rows")
async def invocations(request: Request) -> Response:
    """MLflow's protocol for the anomaly model in force; the outputs name the version."""
    return await _invoke(request, ANOMALY)


@router.post(
    "/v1/models/{model}/invocations",
    responses=_INVOKED,
    openapi_extra={"requestBody": _BODY},
    summary="Scores or forecasts of rows",
)
async def invocations_of(request: Request, model: Annotated[str, Path(examples=["price_1h"])]) -> Response:
    """MLflow's protocol for a model: anomaly, price_5m or price_1h."""
    return await _invoke(request, scoring.model_of(model))


async def _invoke(request: Request, model: str) -> Response:
    service: Service = request.app.state.service
    rows = scoring.parse(await request.body())

    def score() -> tuple[str, bytes]:
        now = service.now()
        version = scoring.version_in_force(service.promotions(), model, now, str(service.home.path))
        return version.name, text_of({"predictions": scoring.predictions(model, version, rows, now)})

    started = time.perf_counter()
    version, body = await run_in_threadpool(score)
    service.scored(model, len(rows), time.perf_counter() - started)
    headers = {"X-Model-Name": model, "X-Model-Version": version, "Cache-Control": "no-store"}
    return Response(body, headers=headers, media_type=JSON)


@router.get("/ping", responses=answer_of({}), summary="A model can score", include_in_schema=False)
async def ping() -> Response:
    """MLflow's health check of a scoring server."""
    return Response(b"\n", media_type=JSON)
