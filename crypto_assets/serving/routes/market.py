"""Prices, bars, leaderboard, and the board: the one request of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from crypto_assets.serving import board
from crypto_assets.serving.answers import answer, unchanged
from crypto_assets.serving.as_of import Chosen
from crypto_assets.serving.held import Row
from crypto_assets.serving.kept import BARS, LATEST, LEADERBOARD
from crypto_assets.serving.openapi import answer_of, rows_of
from crypto_assets.serving.pages import Cut, Page, page, reads_older_days
from crypto_assets.serving.parameters import AsOf, Coin, Coins, Cursor, From, Interval, To
from crypto_assets.serving.remembered import remember
from crypto_assets.serving.service import Service

router = APIRouter(tags=["market"])
MOST_BARS = 5_000


@router.get("/v1/prices/latest", responses=rows_of(LATEST), summary="Newest price of every coin")
async def latest_prices(request: Request, coin: Coins = None, as_of: AsOf = None) -> Response:
    """Newest quote of every coin, its changes, volume, market capitalisation and age."""
    service: Service = request.app.state.service

    def cut(chosen: Chosen) -> tuple[Chosen, Sequence[Row]]:
        groups = list(dict.fromkeys(coin or chosen.snapshot.groups()))
        for group in groups:
            service.require_coin(chosen.snapshot, group)
        return chosen, [row for group in groups for row in chosen.snapshot.all_rows(group)]

    chosen, rows = await service.cut(LATEST, as_of, cut)
    return service.respond(request, chosen, rows, as_of)


@router.get("/v1/bars/{coin}", responses=rows_of(BARS["5m"]), summary="Bars of a coin")
async def bars(
    request: Request,
    coin: Coin,
    interval: Interval = "5m",
    start: From = None,
    to: To = None,
    as_of: AsOf = None,
    limit: Annotated[int, Query(ge=1, le=MOST_BARS)] = 288,
    cursor: Cursor = None,
) -> Response:
    """OHLC of polled samples, in time order: the newest, or from a time on, page by page."""
    service: Service = request.app.state.service
    kept = BARS[interval]
    wanted = Page.of(start, to, limit, cursor)

    def cut(chosen: Chosen) -> tuple[Chosen, Cut]:
        service.require_coin(chosen.snapshot, coin)
        return chosen, page(chosen, [coin], wanted)

    chosen, found = await service.cut(kept, as_of, cut, lambda held: reads_older_days(held, [coin], wanted))
    return service.respond(request, chosen, found.rows, as_of, next=found.following, truncated=found.truncated)


@router.get("/v1/leaderboard", responses=rows_of(LEADERBOARD), summary="Coins by their change over 24 hours")
async def leaderboard(request: Request, as_of: AsOf = None) -> Response:
    """Coins ranked by their change over the last 24 hours of bars, best first."""
    service: Service = request.app.state.service
    chosen, rows = await service.cut(LEADERBOARD, as_of, lambda chosen: (chosen, chosen.snapshot.all_rows("")))
    return service.respond(request, chosen, rows, as_of)


@router.get("/v1/board", responses=answer_of(board.EXAMPLE), summary="All that the page shows first")
async def board_of(
    request: Request, coin: Annotated[str | None, Query(description="Coin whose chart is shown.")] = None
) -> Response:
    """Prices with sparklines, leaderboard, newest flags, alerts, metrics and state; a coin's bars and forecasts.

    A home without tables gives empty lists. `provenance` has one entry per table.
    """
    service: Service = request.app.state.service
    etag, make = board.prepare(service, coin)
    response = unchanged(request, etag) or answer(request, etag, make())
    # A browser that asks again would get 304, and show the age of its first visit.
    response.headers["Cache-Control"] = "no-store"
    return remember(request, etag, response)
