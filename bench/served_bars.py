"""The same request, the newest 288 bars of a coin as JSON, answered in other ways: servers of one lake, for comparison.

`python -m bench.served_bars WAY LAKE PORT` serves until it is killed:

- `response_model`: FastAPI with a model of the row, from rows in memory: how its tutorial does it.
- `query`: FastAPI with one DuckDB query per request over the files of the table's newest version.
- `datap-rs`: the Delta server of that name, its table loaded with an index on the coin.

Belongs here: servers. Does not belong here: asking and measuring (`bench.serving`).
"""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from decimal import Decimal
from typing import Any

ROWS = 288
COLUMNS = (
    *("coin_id", "symbol", "window_start", "window_end", "open", "high", "low", "close", "price_avg"),
    *("volume_24h_usd", "sample_count", "expected_count", "is_complete", "last_event_at", "available_at"),
)
"""Columns that every server answers with."""
DATAP_RS = "0.8.6"


def response_model(table: str, port: int) -> None:
    """Rows in memory, validated and encoded by a model for every request."""
    import uvicorn
    from deltalake import DeltaTable
    from fastapi import FastAPI
    from pydantic import create_model

    rows = DeltaTable(table).to_pyarrow_table(columns=list(COLUMNS)).sort_by("window_start").to_pylist()
    by_coin: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_coin.setdefault(row["coin_id"], []).append(row)
    types = (
        dict.fromkeys(COLUMNS, Decimal)
        | dict.fromkeys(("coin_id", "symbol"), str)
        | {"is_complete": bool, "price_avg": float}
    )
    types |= dict.fromkeys(("sample_count", "expected_count"), int)
    types |= dict.fromkeys(("window_start", "window_end", "last_event_at", "available_at"), datetime)
    bar = create_model("Bar", **{name: (type_ | None, ...) for name, type_ in types.items()})  # type: ignore[call-overload]
    answer = create_model("Answer", data=(list[bar], ...))  # type: ignore[valid-type]
    api = FastAPI()

    @api.get("/bars/{coin}", response_model=answer)
    async def bars(coin: str) -> dict[str, Any]:
        return {"data": by_coin[coin][-ROWS:]}

    uvicorn.run(api, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def query(table: str, port: int) -> None:
    """One query per request on one connection, whose result is encoded by DuckDB."""
    import duckdb
    import uvicorn
    from deltalake import DeltaTable
    from fastapi import FastAPI, Response

    files = DeltaTable(table).file_uris()
    connection = duckdb.connect(config={"threads": 1})
    api = FastAPI()
    sql = (
        f"SELECT to_json(list(r)) FROM (SELECT {', '.join(COLUMNS)} FROM read_parquet({files!r}) "
        f"WHERE coin_id = ? ORDER BY window_start DESC LIMIT {ROWS}) r"
    )

    @api.get("/bars/{coin}")
    def bars(coin: str) -> Response:
        (text,) = connection.cursor().execute(sql, [coin]).fetchone() or ("[]",)
        return Response(f'{{"data":{text}}}', media_type="application/json")

    uvicorn.run(api, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def datap_rs(table: str, port: int) -> None:
    """The Delta server, with one worker like the others."""
    from datap_rs.datapress import DataPress, DataPressConfig, DatasetConfig  # type: ignore[import-not-found]

    bars = DatasetConfig(name="bars", source=table, format="delta", mode="list", index_columns=["coin_id"])
    config = DataPressConfig(backend="datafusion", listen="127.0.0.1", port=port, workers=1)

    async def serve() -> None:
        await DataPress(config, datasets=[bars]).run()

    asyncio.run(serve())


WAYS = {"response_model": response_model, "query": query, "datap-rs": datap_rs}

if __name__ == "__main__":
    WAYS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
