"""Types of query parameters that several routes share, with their descriptions for the documentation."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated, Literal

from fastapi import Path, Query
from pydantic import AfterValidator, AwareDatetime

Utc = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
"""A time with a zone; without one the request is refused (422)."""

AsOf = Annotated[
    Utc | None,
    Query(description="Answer as of this time: the table's version of then, or, where its files are gone, the present "
          "values of rows that were there then.", examples=["2026-11-29T12:00:00Z"]),
]  # fmt: skip
From = Annotated[Utc | None, Query(alias="from", description="First time; without it the newest rows are answered.")]
To = Annotated[Utc | None, Query(description="Last time (inclusive).")]
Coin = Annotated[str, Path(description="Coin id, as in /v1/prices/latest.", examples=["bitcoin"])]
Coins = Annotated[list[str] | None, Query(description="Only these coins; may be repeated.", examples=[["bitcoin"]])]
Interval = Literal["1m", "5m", "1h", "1d"]
Horizon = Annotated[Literal["5m", "1h"] | None, Query(description="Only forecasts this far ahead.")]
VolatilityHorizon = Annotated[Literal["1h", "24h"] | None, Query(description="Only forecasts this far ahead.")]
Mode = Annotated[
    Literal["live", "backfill"] | None,
    Query(description="live: written before the outcome; only these count as skill."),
]
Cursor = Annotated[Utc | None, Query(description="`next` of the page before.")]
