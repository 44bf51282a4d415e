"""All that the page shows first, in one answer, from rows in memory.

Belongs here: what the page's one request holds. Does not belong here: the page (`dashboard`), single tables (`routes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from zlib import crc32

from crypto_assets.ml.baselines import VOLATILITY_HORIZONS
from crypto_assets.serving.answers import array, members, tag
from crypto_assets.serving.as_of import Chosen
from crypto_assets.serving.held import ALWAYS, NEVER, Having, Row, Snapshot
from crypto_assets.serving.kept import (
    ACCURACY,
    ALERTS,
    ANOMALIES,
    BARS,
    LATEST,
    LEADERBOARD,
    METRICS,
    POLLS,
    PREDICTIONS,
    PROMOTIONS,
    VOLATILITY,
)
from crypto_assets.serving.metrics import newest_poll
from crypto_assets.serving.service import Service, text_of
from crypto_assets.serving.state import PipelineState

SPARK_BARS = 288
"""5-minute closes of a sparkline: a day."""
FLAGS, ALERT_ROWS, METRIC_HOURS, ACCURACY_DAYS = 50, 50, 24, 14
EXAMPLE: dict[str, Any] = {
    "data": {
        "prices": [{"coin_id": "bitcoin", "price_usd": 116406.0}],
        "sparklines": {"bitcoin": [["2026-11-29T12:00:00Z", 116406.0]]},
        "leaderboard": [],
        "flags": [],
        "alerts": [],
        "metrics": [],
        "poll": None,
        "accuracy": [],
        "volatility": [],
        "promotions": [],
        "state": {"state": "ok"},
        "coin": None,
    },
    "provenance": {"source": "replay", "tables": {"gold.latest_prices": {"table_version": 12}}},
}
FLAGGED = Having(is_anomaly=True)
HORIZONS = tuple(Having(horizon=horizon) for horizon in VOLATILITY_HORIZONS)
_SHOWN = (
    *(LATEST, LEADERBOARD, BARS["5m"], ANOMALIES, PREDICTIONS, ACCURACY, VOLATILITY, PROMOTIONS, METRICS, ALERTS),
    POLLS,
)


def prepare(service: Service, coin: str | None) -> tuple[str, Callable[[], bytes]]:
    """Entity tag of the board, and what makes its JSON text.

    Args:
        service: The home.
        coin: Also its bars and forecasts of a day; None = no coin.

    Raises:
        Problem: 404 for a coin without a price.
    """
    found = {kept.name: service.follower.snapshot(kept) for kept in _SHOWN}
    prices = found[LATEST.name]
    if coin is not None and prices is not None:
        service.require_coin(prices, coin)
    state = service.state.state
    beside = {
        "ready": service.ready(),
        "ui": service.run_url(""),
        "state": state.unknown_because(service.now()) or (state.report or {}).get("verdict"),
    }
    tags = (snapshot.tag for snapshot in found.values() if snapshot is not None)
    etag = tag("board", coin or "", str(state.written_at), f"{crc32(text_of(beside)):08x}", *tags)
    return etag, partial(_body, service, found, coin, state, beside)


def _body(
    service: Service,
    found: Mapping[str, Snapshot | None],
    coin: str | None,
    state: PipelineState,
    beside: Mapping[str, str | None],
) -> bytes:
    parts = {
        "prices": array(row.text for row in _all(found[LATEST.name])),
        "sparklines": members({g: _line(rows) for g, rows in _per_group(found[BARS["5m"].name], SPARK_BARS).items()}),
        "leaderboard": array(row.text for row in _all(found[LEADERBOARD.name])),
        "flags": _newest(found[ANOMALIES.name], FLAGS, flagged=True),
        "alerts": _newest(found[ALERTS.name], ALERT_ROWS),
        "metrics": _each(_per_group(found[METRICS.name], METRIC_HOURS)),
        "poll": text_of(newest_poll(found[POLLS.name])),
        "accuracy": _each(_since(found[ACCURACY.name], timedelta(days=ACCURACY_DAYS))),
        "volatility": _of_each_horizon(found[VOLATILITY.name]),
        "promotions": array(row.text for row in _all(found[PROMOTIONS.name])),
        "state": text_of({"state": beside["state"], "written_at": state.written_at, "report": state.report}),
        "coin": _coin(found, coin) if coin is not None else b"null",
    }
    provenance = {
        "source": service.settings.source,
        "banner": service.settings.source_facts.banner,
        "ready": beside["ready"],
        "ui": beside["ui"],
        "anomaly_budget": service.settings.anomaly_budget,
    }
    tables = {n: service.provenance(Chosen(s, "current")).to_bytes() for n, s in found.items() if s is not None}
    about = {name: text_of(value) for name, value in provenance.items()} | {"tables": members(tables)}
    return members({"data": members(parts), "provenance": members(about)})


def _coin(found: Mapping[str, Snapshot | None], coin: str) -> bytes:
    """A coin's bars of the newest day, its scores and forecasts of the same time."""
    bars = _tail(found[BARS["5m"].name], coin, SPARK_BARS)
    start = bars[0].at if bars else ALWAYS
    return members(
        {
            "coin_id": text_of(coin),
            "interval": b'"5m"',
            "bars": array(row.text for row in bars),
            "anomalies": array(row.text for row in _between(found[ANOMALIES.name], coin, start) if FLAGGED(row)),
            "predictions": array(row.text for row in _between(found[PREDICTIONS.name], coin, start)[-2 * SPARK_BARS :]),
        }
    )


def _all(snapshot: Snapshot | None) -> list[Row]:
    return [row for group in snapshot.groups() for row in snapshot.all_rows(group)] if snapshot else []


def _tail(snapshot: Snapshot | None, group: str, limit: int) -> Sequence[Row]:
    return snapshot.all_rows(group)[-limit:] if snapshot else ()


def _between(snapshot: Snapshot | None, group: str, start: int) -> Sequence[Row]:
    return [row for row in snapshot.all_rows(group) if row.at >= start] if snapshot else ()


def _per_group(snapshot: Snapshot | None, limit: int) -> dict[str, Sequence[Row]]:
    return {group: _tail(snapshot, group, limit) for group in snapshot.groups()} if snapshot else {}


def _since(snapshot: Snapshot | None, span: timedelta) -> dict[str, Sequence[Row]]:
    """Rows of the newest days of each group."""
    found = _per_group(snapshot, NEVER)
    newest = max((rows[-1].at for rows in found.values() if rows), default=0)
    least = newest - span // timedelta(microseconds=1)
    return {group: [row for row in rows if row.at > least] for group, rows in found.items()}


def _each(groups: dict[str, Sequence[Row]]) -> bytes:
    return array(row.text for rows in groups.values() for row in rows)


def _newest(snapshot: Snapshot | None, limit: int, *, flagged: bool = False) -> bytes:
    """The newest rows of all groups, oldest first."""
    if snapshot is None:
        return b"[]"
    keep = FLAGGED if flagged else None
    rows: list[Row] = []
    for group in snapshot.groups():
        mine = snapshot.all_rows(group)
        rows += [row for row in mine if keep is None or keep(row)][-limit:]
    return array(row.text for row in sorted(rows, key=lambda row: row.at)[-limit:])


def _of_each_horizon(snapshot: Snapshot | None) -> bytes:
    """The newest volatility forecast of each coin and horizon."""
    if snapshot is None:
        return b"[]"
    rows = [snapshot.all_rows(group)[::-1] for group in snapshot.groups()]
    newest = [next(filter(wanted, mine), None) for mine in rows for wanted in HORIZONS]
    return array(row.text for row in newest if row is not None)


def _line(rows: Sequence[Row]) -> bytes:
    """Times and closes of bars."""
    return array(b"[%s,%s]" % (_value(row, b"window_start"), _value(row, b"close")) for row in rows)


def _value(row: Row, name: bytes) -> bytes:
    """Text of a member that holds a number or a time."""
    start = row.text.index(b'"' + name + b'":') + len(name) + 3
    return row.text[start : row.text.index(b",", start)]
