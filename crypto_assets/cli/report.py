"""What a person wants to know of a home after something ran: rows, partitions, checks, models, scores, gaps."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.tables import TABLES

if TYPE_CHECKING:
    import dagster as dg

    from crypto_assets.engine.base import Engine
    from crypto_assets.settings import Settings


def engine(settings: Settings) -> Engine:
    """The home's engine, for reading."""
    from crypto_assets.engine.engines import make_engine

    return make_engine(settings)


def rows_and_partitions(engine: Engine, instance: dg.DagsterInstance) -> list[dict[str, Any]]:
    """Rows, materialized partitions and Delta version of every table that exists."""
    import dagster as dg

    rows = []
    for name, table in TABLES.items():
        if not engine.store.exists(name):
            continue
        partitions = len(instance.get_materialized_partitions(dg.AssetKey(table.asset_key))) if table.grain else None
        counted = engine.store.read_arrow(name, columns=[table.key[0]]).num_rows
        rows.append(
            {"table": name, "rows": counted, "partitions": partitions, "delta version": engine.store.version(name)}
        )
    return rows


def checks(instance: dg.DagsterInstance) -> tuple[int, list[dict[str, Any]]]:
    """Latest state of every check: number green, and the others with their text.

    A check of a partitioned asset counts once, by its newest aggregate.
    """
    from crypto_assets.orchestration.event_store import check_states

    states = check_states(instance)
    others = [
        {
            "asset": s.asset,
            "check": s.check,
            "verdict": s.severity.upper() if s.verdict == "red" else s.verdict,
            "found": s.summary[:110],
        }
        for s in states
        if not s.passed
    ]
    return len(states) - len(others), others


def highest_scores(engine: Engine, limit: int = 5) -> list[dict[str, Any]]:
    """The strangest slots of the lake."""
    if not engine.store.exists("gold.anomalies"):
        return []
    rows = engine.store.read_arrow("gold.anomalies", where="anomaly_score IS NOT NULL")
    highest = rows.sort_by([("anomaly_score", "descending")]).slice(0, limit)
    return [
        {
            "coin": r["coin_id"],
            "window_end (UTC)": f"{r['window_end']:%Y-%m-%d %H:%M}",
            "score": r["anomaly_score"],
            "threshold": r["threshold"],
            "flag": r["is_anomaly"],
            "scope": r["scope"],
            "model": f"{r['model_name']} {r['model_version']}",
        }
        for r in highest.to_pylist()
    ]


def model_lines(engine: Engine, instance: dg.DagsterInstance) -> list[str]:
    """How many slots were flagged, and what became of the models: sentences."""
    from crypto_assets.orchestration.event_store import check_state

    lines = []
    if engine.store.exists("gold.anomalies"):
        flags = engine.store.read_arrow("gold.anomalies", columns=["coin_id"], where="is_anomaly").num_rows
        lines.append(f"flags: {flags}")
    for name, title in (("anomaly_model", "IsolationForest"), ("price_model", "price model")):
        state = check_state(instance, f"ml/{name}", "enough_data")
        if state is None:
            lines.append(f"{title}: not run")
        elif state.verdict == "not evaluated":
            lines.append(f"{title}: {state.description}")
        elif state.verdict == "red":
            lines.append(f"{title}: skipped, {state.summary}")
        else:
            lines += [f"{title}: {line}" for line in _decisions(engine, name)]
    return lines


def _decisions(engine: Engine, asset: str) -> list[str]:
    prefix = {"anomaly_model": "anomaly", "price_model": "price"}[asset]
    rows = engine.store.read_arrow("ml.promotions").to_pylist()
    return [
        f"{r['model']} version {r['version']}: {r['decision']}, {r['why']}"
        for r in rows
        if r["model"].startswith(prefix) and r["version"] != "v0"
    ]


GAP = timedelta(minutes=15)


def gap_lines(engine: Engine) -> list[str]:
    """Times without a quote of a coin, longer than `GAP`, as Silver shows them: sentences."""
    rows = engine.store.read_arrow("silver.prices", columns=["coin_id", "last_updated_at"]).to_pylist()
    times: dict[str, list[datetime]] = {}
    for row in rows:
        times.setdefault(row["coin_id"], []).append(row["last_updated_at"])
    lines = []
    for coin, found in sorted(times.items()):
        found.sort()
        for before, after in pairwise(found):
            if after - before > GAP:
                hours = (after - before) / timedelta(hours=1)
                lines.append(
                    f"gap: no quote of {coin} from {before:%Y-%m-%d %H:%M} to {after:%Y-%m-%d %H:%M} ({hours:.1f} h)"
                )
    return lines
