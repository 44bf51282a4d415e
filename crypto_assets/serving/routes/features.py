"""Online features: rows of the feature table as training saw them."""

from __future__ import annotations

import json
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from crypto_assets.contracts.tables import PRICE_FEATURES
from crypto_assets.serving.answers import JSON, Problem, iso, members
from crypto_assets.serving.as_of import Chosen
from crypto_assets.serving.held import NEVER, micros
from crypto_assets.serving.kept import FEATURES
from crypto_assets.serving.openapi import answer_of
from crypto_assets.serving.parameters import Utc
from crypto_assets.serving.service import Service, text_of

router = APIRouter(tags=["features"])
MOST_KEYS = 10_000


class Key(BaseModel):
    """Which row: of a coin, the newest, or the newest whose slot had ended at a time."""

    model_config = ConfigDict(extra="forbid")

    coin_id: str = Field(examples=["bitcoin"])
    at: Utc | None = Field(None, description="The newest row whose window_end is not later; null = the newest.")


class Lookup(BaseModel):
    """Keys of a feature set."""

    model_config = ConfigDict(extra="forbid")

    keys: list[Key] = Field(min_length=1, max_length=MOST_KEYS)
    set: Literal["price_features"] = Field("price_features", description="The feature set.")
    version: str | None = Field(None, description="Version of the set; null = the present one.")


@router.post(
    "/v1/features/lookup",
    responses=answer_of(
        {"data": [{"coin_id": "bitcoin", "row": {"r5": 0.001}, "null_reason": None}], "provenance": {}}
    ),
    summary="Feature rows of coins",
)
async def lookup(request: Request, wanted: Lookup) -> Response:
    """One entry per key, in order: the row as it is in the offline table, and why values, or the row, are null."""
    service: Service = request.app.state.service
    if wanted.version not in (None, PRICE_FEATURES.code_version):
        raise Problem(
            404, f"{wanted.set} has no version {wanted.version!r}; the present one is {PRICE_FEATURES.code_version!r}"
        )
    ends = [NEVER if key.at is None else micros(key.at) for key in wanted.keys]

    def cut(chosen: Chosen) -> tuple[Chosen, list[bytes]]:
        snapshot = chosen.snapshot
        found = []
        for key, end in zip(wanted.keys, ends, strict=True):
            rows = snapshot.newest([key.coin_id], end, 1)
            row = rows[-1].text if rows else b"null"
            why = json.loads(row)["null_reason"] if rows else f"no slot of {key.coin_id!r} had ended then"
            entry = {"coin_id": text_of(key.coin_id), "at": text_of(key.at and iso(key.at))}
            found.append(members({**entry, "row": row, "null_reason": text_of(why)}))
        return chosen, found

    chosen, entries = await service.cut(
        FEATURES, None, cut, lambda held: not all(held.reaches_back(end) for end in ends)
    )
    provenance = service.provenance(chosen).to_bytes()
    body = members({"data": b"[" + b",".join(entries) + b"]", "provenance": provenance})
    return Response(body, headers={"Cache-Control": "no-store"}, media_type=JSON)
